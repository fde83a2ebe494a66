//! What a user sees of decoding files.

use std::time::{Duration as Time, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::crd::{Spec, policy, route_table};
use crate::model::Kind;

fn source() -> Source {
    Source { file: "shop.yaml".into(), cluster: "c1".into(), default_namespace: "shop".into() }
}

fn read(text: &str) -> Decoded {
    decode(text.as_bytes(), &source(), &Limits::default()).unwrap_or_else(|finding| panic!("{finding:?}\n{text}"))
}

fn refused(text: &str) -> Finding {
    decode(text.as_bytes(), &source(), &Limits::default()).expect_err("the file is refused")
}

/// `severity code field line:column message` of each finding.
fn lines(decoded: &Decoded) -> Vec<String> {
    let line = |f: &Finding| {
        let place = f.location.as_ref().expect("a place");
        format!("{} {} {} {}:{} {}", f.severity, f.code, f.field, place.line, place.column, f.message)
    };
    decoded.findings.iter().map(line).collect()
}

fn table(spec: &str) -> String {
    let head = "apiVersion: networking.gloo.solo.io/v2\nkind: RouteTable\nmetadata:\n  name: cart\nspec:\n";
    format!("{head}{spec}")
}

fn route_table(decoded: &Decoded) -> route_table::RouteTable {
    match decoded.objects[0].spec().into_owned() {
        Spec::RouteTable(table) => *table,
        spec => panic!("{spec:?}"),
    }
}

#[test]
fn an_object_carries_its_metadata() {
    let decoded = read(
        "# first\n---\napiVersion: networking.gloo.solo.io/v2\nkind: RouteTable\nmetadata:\n  name: cart\n  \
         namespace: edge\n  labels: {team: a, empty: }\n  annotations: {note: \"x y\"}\n  \
         creationTimestamp: \"2024-05-01T12:00:00Z\"\n  generation: 7\n  uid: ignored\nspec:\n  hosts: [a.example]\n\
         status: {}\n",
    );
    assert_eq!(lines(&decoded), Vec::<String>::new());
    let meta = &decoded.objects[0].meta;
    assert_eq!(meta.id.to_string(), "RouteTable/edge/cart@c1");
    assert_eq!(meta.labels.get("team").map(Name::as_str), Some("a"));
    assert_eq!(meta.labels.get("empty").map(Name::as_str), Some(""));
    assert_eq!(meta.annotations.get("note").map(Name::as_str), Some("x y"));
    assert_eq!(meta.created.map(|time| time.to_string()).as_deref(), Some("2024-05-01T12:00:00Z"));
    assert_eq!(meta.generation, 7);
    assert_eq!(meta.location.as_ref().map(ToString::to_string).as_deref(), Some("shop.yaml:3:1"));
    assert_eq!(route_table(&decoded).hosts, ["a.example"]);
}

#[test]
fn bad_metadata_is_a_defect_and_counts_as_absent() {
    let decoded = read(
        "apiVersion: networking.gloo.solo.io/v2\nkind: RouteTable\nmetadata:\n  name: cart\n  labels:\n    a.b/v: \
        1\n    \
         bad: \"no spaces\"\n    good: yes-it-is\n  creationTimestamp: yesterday\n  generation: x\n",
    );
    let object = &decoded.objects[0];
    let fields: Vec<&str> = object.defects.iter().map(|defect| defect.field.as_str()).collect();
    assert_eq!(
        fields,
        ["metadata.labels[\"a.b/v\"]", "metadata.labels.bad", "metadata.creationTimestamp", "metadata.generation"]
    );
    assert_eq!((object.meta.labels.len(), object.meta.created, object.meta.generation), (1, None, 0));
    assert!(lines(&decoded)[0].starts_with("error INVALID_FIELD metadata.labels[\"a.b/v\"] 6:5 expected a text"));
}

#[test]
fn every_problem_is_reported_with_its_place_and_the_rest_is_kept() {
    let decoded = read(&table(
        "  host: [a.example]\n  hosts: [a.example, 5, b.example]\n  weight: heavy\n  http:\n  - name: one\n    \
         forwardTo: {destinations: [{ref: {name: a}, kind: SERVCE, port: {number: -1}}]}\n    redirect: {}\n  - name: \
         two\n    nmae: x\n    directResponse: {status: \"200\", body: [x]}\n",
    ));
    assert_eq!(
        lines(&decoded),
        [
            "error INVALID_FIELD spec.hosts[1] 7:22 expected a text, found the number 5: put it in quotes",
            "error INVALID_FIELD spec.weight 8:3 expected a whole number from -2147483648 to 2147483647, found the \
            text \
             `heavy`: write such a number",
            "error INVALID_FIELD spec.http[0].forwardTo.destinations[0].kind 11:49 `SERVCE` is not one of `SERVICE`, \
             `VIRTUAL_DESTINATION`, `EXTERNAL_SERVICE`: did you mean `SERVICE`?",
            "error INVALID_FIELD spec.http[0].forwardTo.destinations[0].port.number 11:70 expected a whole number from \
             0 to 4294967295, found the number -1: write such a number",
            "error INVALID_FIELD spec.http[0].redirect 12:5 `forwardTo` and `redirect` exclude each other: keep one",
            "error INVALID_FIELD spec.http[1].directResponse.body 15:37 expected a text, found a list: correct the \
             value or leave it out",
            "warning UNKNOWN_FIELD spec.http[1].nmae 14:5 unknown field `nmae` is ignored: did you mean `name`?",
            "warning UNKNOWN_FIELD spec.host 6:3 unknown field `host` is ignored: did you mean `hosts`?",
        ]
    );
    let table = route_table(&decoded);
    assert_eq!(table.hosts, ["a.example", "", "b.example"]);
    assert_eq!(table.http[1].direct_response.as_ref().map(|response| response.status), Some(200));
    assert!(table.http[0].forward_to.is_some() && table.http[0].redirect.is_none());
    let object = &decoded.objects[0];
    assert!(object.defect_within(&FieldPath::new("spec.http[0]")).is_some());
    assert!(object.defect_within(&FieldPath::new("spec.http[1].name")).is_none());
}

#[test]
fn encoding_rules() {
    let decoded = read(&table(
        "  virtual_gateways: [{name: edge, namespace: null}]\n  failureMode: 1\n  weight: \"-5\"\n  \
         http:\n  - name: a\n    labels: null\n    forward_to: {path_rewrite: \"\", auto_host_rewrite: yes}\n    \
         matchers: [{port: 80.0}]\n  - delegate: {sort_method: ROUTE_SPECIFICITY, routeTables: [{}]}\n",
    ));
    assert_eq!(lines(&decoded), Vec::<String>::new());
    let table = route_table(&decoded);
    assert_eq!(table.virtual_gateways[0].name, "edge");
    assert_eq!(table.failure_mode, route_table::FailureMode::FreezeConfig);
    assert_eq!(table.weight, -5);
    let forward = table.http[0].forward_to.as_ref().unwrap();
    assert_eq!((forward.path_rewrite.as_deref(), forward.auto_host_rewrite), (Some(""), Some(true)));
    assert_eq!(table.http[0].matchers[0].port, 80);
    assert_eq!(
        table.http[1].delegate.as_ref().map(|delegate| delegate.sort_method),
        Some(route_table::SortMethod::RouteSpecificity)
    );
}

#[test]
fn two_spellings_of_one_field_are_a_defect() {
    let decoded = read(&table("  failureMode: FREEZE_CONFIG\n  failure_mode: FREEZE_CONFIG\n"));
    assert_eq!(decoded.objects[0].defects.len(), 1);
}

#[test]
fn durations_and_redirect_codes_that_are_wrong() {
    let decoded = read(
        "apiVersion: resilience.policy.gloo.solo.io/v2\nkind: RetryTimeoutPolicy\nmetadata: {name: p}\nspec:\n  \
         config:\n    requestTimeout: 5\n    retries: {perTryTimeout: 5 seconds, attempts: 0}\n",
    );
    let found = lines(&decoded);
    assert!(found[0].contains("spec.config.requestTimeout 6:5 expected a duration, found the number 5"), "{found:?}");
    assert!(found[1].contains("`5 seconds` is not a duration"), "{found:?}");
    let Spec::RetryTimeoutPolicy(policy) = &*decoded.objects[0].spec() else { panic!() };
    let config = policy.config.as_ref().unwrap();
    assert_eq!(config.retries.as_ref().and_then(|retries| retries.attempts), Some(0));
    let decoded = read(&table("  http: [{redirect: {responseCode: 307}}]\n"));
    assert!(lines(&decoded)[0].ends_with("write `TEMPORARY_REDIRECT`"));
}

#[test]
fn older_field_names() {
    let decoded = read(
        "apiVersion: networking.gloo.solo.io/v2\nkind: VirtualGateway\nmetadata: {name: \
        edge}\nspec:\n  workloads:\n  - \
         selector: {istio: ingressgateway}\n  listeners:\n  - http: {future: {x: 1}}\n    port: {number: 443, \
         protocol: \
         HTTPS}\n    tls: {tlsMode: SIMPLE, secretName: cert}\n",
    );
    let found = lines(&decoded);
    assert!(found[0].contains("labels to select by stand below `labels`"), "{found:?}");
    assert!(found[1].contains("write `appProtocol` beside `port`"), "{found:?}");
    assert!(found[2].contains("spec.listeners[0].tls.tlsMode 10:11 `tlsMode` is an older name of `mode`"), "{found:?}");
    assert_eq!(found.len(), 3);
    let Spec::VirtualGateway(gateway) = &*decoded.objects[0].spec() else { panic!() };
    let mode = gateway.listeners[0].tls.as_ref().map(|tls| tls.mode);
    assert_eq!(mode, Some(crate::crd::gateway::ListenerTlsMode::Simple));

    let decoded = read(
        "apiVersion: admin.gloo.solo.io/v2\nkind: WorkspaceSettings\nmetadata: {name: s}\nspec:\n  options:\n    \
         serviceIsolation: true\n    trimAllProxyConfig: true\n",
    );
    assert!(lines(&decoded)[0].ends_with("expected an object, found `true`: write `enabled` below it"));
    let Spec::WorkspaceSettings(settings) = &*decoded.objects[0].spec() else { panic!() };
    assert!(settings.options.as_ref().is_some_and(|options| options.trim_all_proxy_config));

    let decoded = read(
        "apiVersion: networking.gloo.solo.io/v2\nkind: VirtualDestination\nmetadata: {name: d}\nspec:\n  selectors: \
        []\n",
    );
    assert_eq!(decoded.objects[0].defects[0].field.as_str(), "spec.selectors");
}

#[test]
fn unsupported_policies_keep_their_selectors_and_their_text() {
    let decoded = read(
        "apiVersion: security.policy.gloo.solo.io/v2\nkind: WAFPolicy\nmetadata: {name: p}\nspec:\n  \
         applyToRoutes: [{route: {labels: {a: b}}}]\n  config: {deep: [1]}\n  other: 1\n",
    );
    assert_eq!(lines(&decoded), Vec::<String>::new());
    let Spec::Opaque(policy) = &*decoded.objects[0].spec() else { panic!() };
    assert_eq!(policy.apply_to_routes.len(), 1);
    assert_eq!(policy.config, Some(json!({"deep": [1]})));
}

#[test]
fn kinds_that_are_not_read() {
    let decoded = read(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\napiVersion: gateway.solo.io/v1\nkind: \
         RouteTable\nmetadata: {name: x}\n---\napiVersion: networking.gloo.solo.io/v1\nkind: RouteTable\nmetadata: \
         {name: x}\n---\napiVersion: networking.gloo.solo.io/v2\nkind: Nope\n---\napiVersion: \
         infrastructure.gloo.solo.io/v2\nkind: CloudProvider\n---\napiVersion: infrastructure.gloo.solo.io/v2\nkind: \
         CloudProvider\n---\napiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: x}\n",
    );
    let found = lines(&decoded);
    assert_eq!(decoded.objects, []);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].starts_with("warning UNKNOWN_KIND apiVersion 9:1"), "{found:?}");
    assert!(found[0].ends_with("write `apiVersion: networking.gloo.solo.io/v2`"));
    assert!(found[1].starts_with("warning UNKNOWN_KIND kind 14:1 kind `Nope`"), "{found:?}");
    assert!(found[2].starts_with("info UNKNOWN_KIND  16:1"), "{found:?}");
    assert!(found[3].ends_with("write `apiVersion: discovery.k8s.io/v1`"), "{found:?}");
}

#[test]
fn documents_that_are_no_objects_do_not_touch_the_others() {
    let text = format!(
        "just text\n---\n- list\n---\nkind: RouteTable\n---\n---\n# nothing\n---\n{}\n---\n{}\n---\n{}\n---\n{}\n",
        table("").replace("name: cart", "name: Cart_1"),
        table("").replace("name: cart", "label: x"),
        table("").replace("name: cart", "{name: ok, namespace: A}").replace("metadata:\n  ", "metadata: "),
        table("  hosts: [a]")
    );
    let decoded = read(&text);
    assert_eq!(decoded.objects.len(), 1);
    assert_eq!(decoded.findings.len(), 6, "{:?}", lines(&decoded));
    assert!(decoded.findings.iter().all(|finding| finding.severity == Severity::Error && finding.subject.is_none()));
    assert!(read("").objects.is_empty() && read("# only\n").findings.is_empty());
}

#[test]
fn lists_and_json() {
    let decoded = read(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a, namespace: \
         odd}\n- apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec: {ports: [{port: 80, targetPort: \
         http}]}\n",
    );
    let ids: Vec<String> = decoded.objects.iter().map(|object| object.meta.id.to_string()).collect();
    assert_eq!(ids, ["Namespace/a@c1", "Service/shop/b@c1"]);
    assert_eq!(decoded.objects[1].meta.location.as_ref().map(|place| place.line), Some(7));
    let text = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"m\"},\n\t\"data\": \
                {\"a\": \"\\ud83d\\ude00\\/\"}}";
    let decoded = read(text);
    let Spec::ConfigMap(map) = &*decoded.objects[0].spec() else { panic!() };
    assert_eq!(map.data["a"], "😀/");
    assert!(refused("{\"a\": 1, \"b\": 2, \"a\": 3}").message.contains("already on line 1"));
}

#[test]
fn secrets_are_decoded_and_never_shown() {
    let head = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\n";
    let decoded = read(&format!("{head}data: {{tls.crt: Q0FOQVJZ}}\nstringData: {{tls.key: CANARY}}\n"));
    let Spec::Secret(secret) = &*decoded.objects[0].spec() else { panic!() };
    assert_eq!((secret.data["tls.crt"].expose(), secret.data["tls.key"].expose()), (&b"CANARY"[..], &b"CANARY"[..]));
    assert!(!format!("{decoded:?}").contains("CANARY"));
    let decoded = read(&format!("{head}data: {{a: CANARY!, b: 31337}}\nstringData: {{c: 31337, d: [CANARY]}}\n"));
    assert_eq!(decoded.objects[0].defects.len(), 4);
    let shown = format!("{decoded:?}");
    assert!(!shown.contains("CANARY") && !shown.contains("31337"), "{shown}");
}

#[test]
fn kubernetes_kinds_keep_what_routing_needs() {
    let decoded = read(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\nports: [{name: \
         http, port: 8080}]\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, \
         name: p}, nodeName: node-1, zone: z, hints: {}}]\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: \
         {serviceAccountName: sa, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}\nstatus: {podIP: \
         10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: \"True\"}]}\n---\napiVersion: \
         v1\nkind: \
         Service\nmetadata: {name: s}\nspec: {clusterIP: None, externalIPs: [1.2.3.4], ports: [{port: 80, targetPort: \
         8080}]}\nstatus: {loadBalancer: {ingress: [{hostname: h}]}}\n",
    );
    assert_eq!(lines(&decoded), Vec::<String>::new());
    let Spec::EndpointSlice(slice) = &*decoded.objects[0].spec() else { panic!() };
    assert_eq!(slice.endpoints[0].addresses, ["10.0.0.1"]);
    assert_eq!((slice.ports[0].port, slice.endpoints[0].conditions.ready), (Some(8080), Some(true)));
    let Spec::Pod(pod) = &*decoded.objects[1].spec() else { panic!() };
    assert_eq!((pod.status.pod_ip.as_str(), pod.spec.containers[0].ports[0].container_port), ("10.0.0.1", 80));
    let Spec::Service(service) = &*decoded.objects[2].spec() else { panic!() };
    assert_eq!(service.spec.cluster_ip, "None");
    assert_eq!(service.spec.ports[0].target_port, Some(crate::crd::core::IntOrString::Int(8080)));
    assert_eq!(service.status.load_balancer.ingress[0].hostname, "h");
}

#[test]
fn scalars_mean_what_kubectl_takes_them_for() {
    for (text, expected) in [
        ("~", json!(null)),
        ("Null", json!(null)),
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!(true)),
        ("True", json!(true)),
        ("tRUE", json!("tRUE")),
        ("12", json!(12)),
        ("+12", json!(12)),
        ("-12", json!(-12)),
        ("0x1F", json!(31)),
        ("-0x1f", json!(-31)),
        ("0o17", json!(15)),
        ("017", json!(15)),
        ("08", json!(8.0)),
        ("0b101", json!(5)),
        ("1_000", json!(1000)),
        ("1.5", json!(1.5)),
        (".5", json!(0.5)),
        ("1.", json!(1.0)),
        ("1e3", json!(1000.0)),
        ("1e999", json!("1e999")),
        (".inf", json!(".inf")),
        (".nan", json!(".nan")),
        ("-", json!("-")),
        (".", json!(".")),
        ("--1", json!("--1")),
        ("+-1", json!("+-1")),
        ("0x", json!("0x")),
        ("1.2.3", json!("1.2.3")),
        ("1m", json!("1m")),
        ("2001-01-01", json!("2001-01-01")),
        ("12:30:45", json!("12:30:45")),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("text", json!("text")),
    ] {
        assert_eq!(scalar::plain(text), expected, "{text}");
    }
    let decoded = read(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a: \"yes\"\n  b: '12'\n  c: !!str 12\n  d: \
        |\n    \
         text\n  1: x\n  on: z\n",
    );
    let Spec::ConfigMap(map) = &*decoded.objects[0].spec() else { panic!() };
    let pairs: Vec<String> = map.data.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["1=x", "a=yes", "b=12", "c=12", "d=text\n", "true=z"]);
}

#[test]
fn anchors_and_merge_keys() {
    let decoded = read(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: m, labels: &l {a: x, b: y}}\nanchors:\n  one: &one {k: \
        1a, \
         z: q}\n  two: &two {k: 2a, w: r}\ndata:\n  <<: [*one, *two]\n  z: own\n  \"<<\": text\n",
    );
    let Spec::ConfigMap(map) = &*decoded.objects[0].spec() else { panic!() };
    let pairs: Vec<String> = map.data.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(pairs, ["<<=text", "k=1a", "w=r", "z=own"]);
    assert!(refused("a: &a [*a]\n").message.contains("contains it"));
    assert!(refused("a: {<<: 5}\n").message.contains("objects only"));
}

#[test]
fn files_that_cannot_be_used() {
    for (text, line, column, part) in [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "key `a` is already on line 1"),
        ("a: {b: 1,\n  b: 2}\n", 2, 3, "key `b` is already on line 1"),
        ("a: [1\nb: 2\n", 2, 2, "not YAML"),
        ("a:\n\t- x\n", 2, 2, "not YAML"),
        ("? [a]\n: b\n", 1, 3, "a key is a list"),
        ("a: !!int x\n", 1, 4, "tag `!!int`"),
    ] {
        let finding = refused(text);
        assert_eq!(finding.code, Code::SyntaxError, "{text:?}");
        assert!(finding.message.contains(part), "{text:?}: {}", finding.message);
        let place = finding.location.expect("a place");
        assert_eq!((place.line, place.column), (line, column), "{text:?}: {}", finding.message);
    }
    let finding = decode(b"a: b\nc: \xff\n", &source(), &Limits::default()).expect_err("no UTF-8");
    assert_eq!(finding.location.map(|place| (place.line, place.column)), Some((2, 4)));
}

#[test]
fn limits_are_named_and_kept_quickly() {
    let started = Instant::now();
    let limits = Limits { file_bytes: 1000, nodes: 50, depth: 8, documents: 3 };
    let deep = format!("{}{}", "[".repeat(9), "]".repeat(9));
    let wide = "- a\n".repeat(51);
    let many = "--- a\n".repeat(4);
    let long = "a".repeat(1001);
    let texts = format!("a: &a {}\nb: [*a, *a, *a]\n", "x".repeat(400));
    for (text, part) in [
        (deep.as_str(), "more than 8 lists"),
        (wide.as_str(), "more than 50 values"),
        (many.as_str(), "more than 3 documents"),
        (long.as_str(), "limit of 1000 bytes"),
        (texts.as_str(), "more than 1000 bytes of text"),
    ] {
        let finding = decode(text.as_bytes(), &source(), &limits).expect_err("beyond a limit");
        assert_eq!(finding.code, Code::LimitExceeded);
        assert!(finding.message.contains(part), "{}", finding.message);
    }
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", ")));
    }
    assert!(refused(&bomb).message.contains("more than 1000000 values"));
    let nested = "[".repeat(200_000);
    assert_eq!(decode(nested.as_bytes(), &source(), &Limits::default()).expect_err("deep").code, Code::LimitExceeded);
    let huge = vec![b'a'; 100 << 20];
    assert!(decode(&huge, &source(), &Limits::default()).expect_err("huge").message.contains("16777216 bytes"));
    assert!(started.elapsed() < Time::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn fields_are_found_in_a_file() {
    let text =
        format!("{}\n---\n{}", table("").replace("cart", "other"), table("  http:\n  - forward_to:\n      x: 1\n"));
    let cluster = Name::from("c1");
    let cart = ObjectRef::new(Kind::RouteTable, "c1", "shop", "cart");
    let place = |field: &str| locate(text.as_bytes(), &cart, &cluster, &FieldPath::new(field));
    assert_eq!(place(""), Some((8, 1)));
    assert_eq!(place("spec.http[0].forwardTo"), Some((14, 5)));
    assert_eq!(place("spec.http[0].forwardTo.destinations[3]"), Some((14, 5)));
    assert_eq!(place("spec.http[7]"), Some((13, 3)));
    assert_eq!(place("spec.hosts"), Some((12, 1)));
    let both = format!("{}---\n{}", table(""), table("").replace("name: cart", "name: cart\n  namespace: shop"));
    assert_eq!(locate(both.as_bytes(), &cart, &cluster, &FieldPath::root()), Some((7, 1)));
    let absent = ObjectRef::new(Kind::RouteTable, "c1", "shop", "nope");
    assert_eq!(locate(text.as_bytes(), &absent, &cluster, &FieldPath::root()), None);
    assert_eq!(locate(text.as_bytes(), &cart, &Name::from("c2"), &FieldPath::root()), None);
}

#[test]
fn a_flood_of_problems_is_bounded() {
    let started = Instant::now();
    let mut text = table("  hosts: [a]\n");
    for number in 0..20_000 {
        text.push_str(&format!("  k{number}: 1\n"));
    }
    let decoded = read(&text);
    assert_eq!(decoded.findings.len(), 101);
    assert!(decoded.findings[100].message.starts_with("19900 further unknown fields"));
    let mut text = table("  weight: 1\n  hosts:\n");
    text.push_str(&"  - 1\n".repeat(20_000));
    assert_eq!(read(&text).objects[0].defects.len(), 20_000);
    assert!(started.elapsed() < Time::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn values_decode_without_a_file() {
    let value = json!({
        "apiVersion": "trafficcontrol.policy.gloo.solo.io/v2", "kind": "TeapotPolicy",
        "metadata": {"name": "p"}, "spec": {"config": {"tea": "green", "cup": 1}},
    });
    let (object, findings) = decode_value(value, &"c1".into());
    let object = object.expect("an object");
    assert_eq!(object.meta.id.to_string(), "TeapotPolicy/default/p@c1");
    let config = policy::teapot::Teapot { tea: "green".to_owned() };
    let expected = policy::TeapotPolicy { apply_to_routes: vec![], config: Some(config) };
    assert_eq!(*object.spec(), Spec::TeapotPolicy(Box::new(expected)));
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].field.as_str(), &findings[0].location), ("spec.config.cup", &None));
    assert_eq!(decode_value(json!(5), &"c1".into()).1.len(), 1);
}

/// Manifests that between them use every construct.
fn valid() -> Vec<String> {
    crate::crd::schema::examples::all()
        .into_iter()
        .map(|(kind, spec)| {
            let head = json!({"apiVersion": kind.group().api_version(), "kind": kind.as_str(),
                "metadata": {"name": "x", "labels": {"a": "b"}}});
            let mut object = head;
            if kind.is_v2() {
                object["spec"] = spec;
            } else {
                for (key, value) in spec.as_object().into_iter().flatten() {
                    object[key] = value.clone();
                }
            }
            serde_json::to_string_pretty(&object).expect("JSON")
        })
        .chain([table("  hosts: &h [a, b]\n  http:\n  - name: \"x\"\n    matchers: [{uri: {prefix: /}}]\n  tls: []\n")])
        .collect()
}

/// Replaces the n-th value of a JSON tree.
fn replace(value: &mut Value, countdown: &mut usize, with: &Value) {
    if *countdown == 0 {
        *value = with.clone();
    }
    *countdown = countdown.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, countdown, with)),
        Value::Object(entries) => entries.values_mut().for_each(|item| replace(item, countdown, with)),
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([null, 1, "x", {}])),
        Just(json!({})),
        Just(json!({"name": 5, "": [[]], "number": "80", "labels": {"x": null}})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &source(), &Limits::default());
    }

    #[test]
    fn random_yaml_never_panics(text in "([-?:,\\[\\]{}#&*!|>'\"%@`a1 \n\t]|<<|---\n|\\.\\.\\.\n){0,60}") {
        let _ = decode(text.as_bytes(), &source(), &Limits::default());
    }

    #[test]
    fn broken_manifests_never_panic(
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6),
    ) {
        let manifests = valid();
        let mut bytes = manifests[which.index(manifests.len())].clone().into_bytes();
        for (place, edit, byte) in edits {
            let place = place.index(bytes.len());
            match edit {
                0 => bytes[place] ^= byte,
                1 => bytes.insert(place, byte),
                _ => drop(bytes.remove(place)),
            }
        }
        let _ = decode(&bytes, &source(), &Limits::default());
    }

    #[test]
    fn wrong_types_never_lose_the_object(
        which in any::<prop::sample::Index>(), place in 0..60_usize, with in any_value(),
    ) {
        let examples = crate::crd::schema::examples::all();
        let (kind, mut spec) = examples[which.index(examples.len())].clone();
        let mut countdown = place;
        replace(&mut spec, &mut countdown, &with);
        let mut object = json!({"apiVersion": kind.group().api_version(), "kind": kind.as_str(),
            "metadata": {"name": "x"}, "spec": &spec});
        if let (false, Value::Object(fields)) = (kind.is_v2(), spec) {
            for (key, value) in fields {
                object[&key] = value;
            }
        }
        let (decoded, _) = decode_value(object, &"c1".into());
        prop_assert!(decoded.is_some());
    }
}

#[test]
fn two_specs_are_equal_where_they_say_the_same() {
    let spec = |text: &str| read(&table(text)).objects[0].spec.clone();
    let written = "  hosts: [a.example]\n  http: [{name: r, labels: {x: '1', y: '2'}, matchers: [{port: 80}]}]\n";
    for same in [
        "  http: [{matchers: [{port: '80'}], labels: {y: '2', x: '1'}, name: r}]\n  hosts:\n  - a.example\n",
        "  hosts: [a.example]\n  weight: 0\n  http: [{name: r, labels: {x: '1', y: '2'}, matchers: [{port: 80}]}]\n",
    ] {
        assert_eq!(spec(written), spec(same), "{same}");
    }
    for other in [
        "  hosts: [b.example]\n  http: [{name: r, labels: {x: '1', y: '2'}, matchers: [{port: 80}]}]\n",
        "  hosts: [a.example]\n  weight: 1\n  http: [{name: r, labels: {x: '1', y: '2'}, matchers: [{port: 80}]}]\n",
    ] {
        assert_ne!(spec(written), spec(other), "{other}");
    }
}

#[test]
fn texts_and_numbers_are_kept_as_they_were_written() {
    let odd = "a \"quoted\" \\ back\u{7f}slash\n\u{1}\u{2028}é";
    for percentage in [0.1, 1e-7, 33.333_333_333_333_336, 100.0] {
        let manifest = json!({"apiVersion": "resilience.policy.gloo.solo.io/v2", "kind": "FaultInjectionPolicy",
            "metadata": {"name": "x"}, "spec": {
                "applyToRoutes": [{"route": {"labels": {odd: odd}}}],
                "config": {"abort": {"httpStatus": 503, "percentage": percentage}}}});
        let (object, findings) = decode_value(manifest, &"c1".into());
        assert_eq!(findings, []);
        let object = object.unwrap();
        let Spec::FaultInjectionPolicy(policy) = &*object.spec() else { panic!() };
        let abort = policy.config.as_ref().and_then(|config| config.abort.as_ref()).unwrap();
        assert_eq!(abort.percentage.map(f64::to_bits), Some(f64::to_bits(percentage)));
        let labels = &policy.apply_to_routes[0].route.as_ref().unwrap().labels;
        assert_eq!(labels.iter().next().unwrap(), (&odd.to_owned(), &odd.to_owned()));
    }
}
