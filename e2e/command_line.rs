//! The commands as people type them: right, wrong, and into a closed pipe.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::edits::alias_bomb;
use crate::support::chancery::binary;
use crate::support::manifests::{self, list, text};
use crate::support::process::Process;
use crate::support::wait::{Not, PATIENCE, until};
use crate::support::{envoy, project, yaml};

/// The demo's gateway.
const GATEWAY: &str = "cluster-1/gateway/ingress-gateway";

/// Commands with a help text.
const COMMANDS: [&str; 6] = ["serve", "check", "explain", "render", "bootstrap", "credentials"];

/// How a command ended.
struct Ran {
    shown: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// Fails unless the command ended as wanted.
    fn expect(self, code: i32) -> anyhow::Result<Self> {
        ensure!(self.code == Some(code), "{} ended with {:?}\n{}{}", self.shown, self.code, self.out, self.err);
        Ok(self)
    }

    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{}: {}", self.shown, self.out))
    }
}

/// A command in the root of the checkout, without the settings of whoever runs the tests.
fn command(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments).current_dir(project()).stdin(Stdio::null());
    let ours = std::env::vars_os().map(|(name, _)| name);
    for name in ours.filter(|name| name.to_string_lossy().starts_with("CHANCERY_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    Ok(command)
}

fn finish(command: &mut Command, input: &[u8]) -> anyhow::Result<Ran> {
    let arguments: Vec<_> = command.get_args().map(|part| part.to_string_lossy().into_owned()).collect();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let input = input.to_vec();
    // A command may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    writer.join().ok().context("the writer of stdin panicked")?;
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran {
        shown: format!("chancery {}", arguments.join(" ")),
        code: output.status.code(),
        out: lossy(&output.stdout),
        err: lossy(&output.stderr),
    })
}

fn run(arguments: &[&str]) -> anyhow::Result<Ran> {
    finish(&mut command(arguments)?, b"")
}

/// A command that fails with a code, one line on stderr that says these things, and nothing on stdout.
fn fails(arguments: &[&str], code: i32, says: &[&str]) -> anyhow::Result<()> {
    let ran = run(arguments)?.expect(code)?;
    ensure!(ran.err.lines().count() == 1 && ran.out.is_empty(), "{}: not one line:\n{}{}", ran.shown, ran.err, ran.out);
    ensure!(ran.err.starts_with("chancery: "), "{}: {}", ran.shown, ran.err);
    for part in says {
        ensure!(ran.err.contains(part), "{}: `{part}` is not in: {}", ran.shown, ran.err);
    }
    Ok(())
}

#[test]
fn wrong_usage_is_one_clear_line_and_exit_code_2() -> anyhow::Result<()> {
    const DEMO: &str = "config/demo";
    const FILE: &str = "config/demo/mgmt/platform/clusters.yaml";
    for (arguments, says) in [
        (&["check"][..], &["required", "<PATH>", "`chancery check --help`"][..]),
        (&["explain"], &["required", "<PATH>"]),
        (&["explain", DEMO], &["required", "<OBJECT>", "`chancery explain --help`"]),
        (&["render", DEMO], &["required", "--gateway"]),
        (&["bootstrap"], &["required", "--cluster", "--namespace"]),
        (&["serve"], &["required", "<DIR>"]),
        (&["sevre"], &["unrecognized subcommand 'sevre'", "serve", "`chancery --help`"]),
        (&["check", "--fail", DEMO], &["unexpected argument '--fail'", "--fail-on"]),
        (&["check", "-o", "yaml", DEMO], &["invalid value 'yaml'", "text, json"]),
        (&["check", "nowhere"], &["`nowhere` does not exist"]),
        (&["explain", "nowhere", "--host", "a"], &["`nowhere` does not exist"]),
        (&["render", "nowhere", "--gateway", GATEWAY], &["`nowhere` does not exist"]),
        (&["serve", "nowhere"], &["`nowhere` does not exist"]),
        (&["serve", FILE], &["clusters.yaml` is not a directory"]),
        (&["serve", DEMO, "--xds-address", "0.0.0.0:0"], &["plaintext beyond loopback", "--xds-credentials"]),
        (&["serve", DEMO, "--xds-credentials", "keys", "--xds-insecure"], &["contradict each other"]),
        (&["credentials", "keys"], &["nothing to make", "--server", "--gateway"]),
        (&["credentials", "keys", "--gateway", "a/b"], &["\"a/b\"", "CLUSTER/NAMESPACE/ACCOUNT"]),
        (&["credentials", "keys", "--gateway", "../b/c"], &["\"../b/c\""]),
        (
            &["bootstrap", "--cluster", "a", "--namespace", "b", "--xds-address", "10.0.0.1"],
            &["HOST:PORT", "and a port"],
        ),
        (&["bootstrap", "--cluster", "a", "--namespace", "b", "--xds-token"], &["--xds-credentials"]),
        (&["bootstrap", "--cluster", "a", "--namespace", "b", "--admin-address", "unix://x"], &["unix:///"]),
        (
            &["bootstrap", "--cluster", "a", "--namespace", "b", "--admin-address", "x"],
            &["unix:///", "127.0.0.1:19000"],
        ),
        (&["serve", DEMO, "--xds-address", "here"], &["invalid value 'here'", "--xds-address"]),
        (&["serve", DEMO, "--log", "a=b=c"], &["`a=b=c`", "what to log"]),
        (&["render", DEMO, "--gateway", "a/b/c"], &["no gateway `a/b/c`", GATEWAY]),
        (&["render", DEMO, "--gateway", "a/b"], &["`a/b` is not a gateway", "cluster/namespace/service"]),
        (&["explain", DEMO, "--gateway", "a/b/c", "--host", "a"], &["no gateway `a/b/c`", GATEWAY]),
        (&["explain", DEMO, "--gateway", GATEWAY], &["required", "--host"]),
        (&["explain", DEMO, "--host", "a", "-H", "bad"], &["`bad` is no header", "name: value"]),
        (&["explain", DEMO, "RouteTable"], &["`RouteTable` is not an object", "Kind/namespace/name@cluster"]),
        (&["explain", DEMO, "Nonsense/a/b@c"], &["Nonsense"]),
        (&["explain", DEMO, "RouteTable/a/b@c"], &["no object `RouteTable/a/b@c`"]),
        (&["bootstrap", "--cluster", "a", "--namespace", "b", "--label", "x"], &["`x` is no label", "key=value"]),
        (&["bootstrap", "--cluster", "a", "--namespace", "b", "--bind", "x"], &["invalid value 'x'", "--bind"]),
    ] {
        fails(arguments, 2, says)?;
    }
    let all = run(&[])?.expect(2)?;
    ensure!(COMMANDS.iter().all(|command| all.err.contains(command)), "{}", all.err);
    Ok(())
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?.local_addr().map(|address| address.to_string())?;
    let held = TcpListener::bind(&taken)?;
    for (flag, other) in [("--xds-address", "--admin-address"), ("--admin-address", "--xds-address")] {
        let arguments = ["serve", "config/demo", "--log", "error", flag, &taken, other, "127.0.0.1:0"];
        fails(&arguments, 1, &["cannot listen on", &taken, "in use", flag])?;
    }
    drop(held);
    Ok(())
}

#[test]
fn more_than_one_gateway_has_to_be_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    manifests::copy(&project().join("config/demo"), folder.path())?;
    let ingress = folder.path().join("cluster-1/gateway/ingress.yaml");
    let second = std::fs::read_to_string(&ingress)?.replace("ingress", "second");
    std::fs::write(folder.path().join("cluster-1/gateway/second.yaml"), second)?;
    let directory = folder.path().to_string_lossy();
    let says = ["--gateway", "`cluster-1/gateway/ingress-gateway`", "`cluster-1/gateway/second-gateway`"];
    fails(&["explain", &directory, "--host", "a"], 2, &says)?;
    std::fs::remove_file(ingress)?;
    std::fs::remove_file(folder.path().join("cluster-1/gateway/second.yaml"))?;
    fails(&["explain", &directory, "--host", "a"], 2, &["no VirtualGateway selects a Service"])
}

#[test]
fn check_says_clean_or_where_and_what_and_ends_accordingly() -> anyhow::Result<()> {
    let clean = run(&["check", "config/demo", "--allow-loopback-endpoints"])?.expect(0)?;
    ensure!(clean.out.is_empty() && clean.err == "27 objects in 19 files: clean\n", "{}{}", clean.out, clean.err);

    let warned = run(&["check", "config/demo"])?.expect(0)?;
    ensure!(warned.out.lines().count() == 3 && warned.err.ends_with("19 files: 3 warnings\n"), "{}", warned.err);
    run(&["check", "config/demo", "--fail-on", "warning"])?.expect(1)?;

    let folder = tempfile::tempdir()?;
    let empty = run(&["check", &folder.path().to_string_lossy()])?.expect(0)?;
    ensure!(empty.err.contains("nothing to check") && empty.err.contains(".yaml"), "{}", empty.err);

    for (bytes, says) in [
        (&b"\xff\xfe"[..], "-:1:1: error SYNTAX_ERROR: this is not UTF-8 text: save the file as UTF-8"),
        (b"just text", "-:1:1: error INVALID_FIELD: expected an object with `kind` and `metadata`, found a text"),
        (b"[1, 2]\n", "-:1:1: error INVALID_FIELD: expected an object"),
        (b"a: 1\na: 2\n", "-:2:1: error SYNTAX_ERROR: key `a` is already on line 1"),
        (b"a: [", "-:1:5: error SYNTAX_ERROR: this is not YAML"),
        (b"kind: [Service]\nmetadata: {name: a}\n", "-:1:"),
    ] {
        let ran = finish(&mut command(&["check", "-"])?, bytes)?.expect(1)?;
        ensure!(ran.out.starts_with(says) && ran.out.lines().count() == 1, "not `{says}` but {}", ran.out);
    }
    let ran = finish(&mut command(&["check", "-"])?, b"")?.expect(0)?;
    ensure!(ran.out.is_empty(), "{}", ran.out);
    Ok(())
}

#[test]
fn beyond_a_limit_is_refused_at_once_and_the_limit_named() -> anyhow::Result<()> {
    /// A minute of parsing, or gigabytes of memory, would be hours here.
    const SOON: std::time::Duration = std::time::Duration::from_secs(5);
    let huge = b"- some text\n".repeat(100 << 20 >> 3);
    let folder = tempfile::tempdir()?;
    let (file, bomb) = (folder.path().join("huge.yaml"), folder.path().join("bomb.yaml"));
    std::fs::write(&file, &huge)?;
    std::fs::write(&bomb, alias_bomb())?;
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let start = std::time::Instant::now();
    for (arguments, input, says) in [
        (["check", &shown(&file)], &b""[..], "bytes, more than the limit of 16777216 bytes per file"),
        (["check", "-"], &huge, "more than the limit of 16777216 bytes per file"),
        (["check", &shown(&bomb)], b"", "more than 1000000 values in one file, with aliases expanded"),
    ] {
        let ran = finish(&mut command(&arguments)?, input)?.expect(1)?;
        ensure!(ran.out.contains("LIMIT_EXCEEDED") && ran.out.contains(says), "{}: {}", ran.shown, ran.out);
        ensure!(ran.out.lines().count() == 1, "{}", ran.out);
    }
    ensure!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    Ok(())
}

/// Keys of an object, in order.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn json_forms_have_their_documented_keys() -> anyhow::Result<()> {
    let report = run(&["check", "config/demo", "-o", "json"])?.expect(0)?.json()?;
    assert_eq!(keys(&report), ["apiVersion", "kind", "items", "findings"]);
    assert_eq!((text(&report, "/apiVersion"), text(&report, "/kind")), ("chancery/v1", "CheckReport"));
    let verdict =
        list(&report, "/items").iter().find(|item| text(item, "/object") == "RouteTable/gateway/web@cluster-1");
    assert_eq!(keys(verdict.context("no web table")?), ["object", "approval", "message", "counts", "findings"]);
    let slice = list(&report, "/items").iter().find(|item| text(item, "/object").starts_with("EndpointSlice/"));
    let finding = slice.and_then(|item| item.pointer("/findings/0")).context("no finding on a slice")?;
    assert_eq!(keys(finding), ["severity", "code", "field", "message", "related", "location"]);
    assert_eq!(keys(&finding["location"]), ["file", "line", "column"]);

    let request = ["explain", "config/demo", "--host", "web.istioinaction.io", "-o", "json"];
    let explained = run(&request)?.expect(0)?.json()?;
    let expected = [
        "apiVersion",
        "kind",
        "request",
        "gateway",
        "outcome",
        "listener",
        "virtualHost",
        "route",
        "policies",
        "notAttached",
        "destinations",
    ];
    assert_eq!(keys(&explained), expected);
    assert_eq!((text(&explained, "/kind"), text(&explained, "/gateway")), ("Explanation", GATEWAY));
    let route = ["name", "matches", "chain", "tables", "chainWorkspaces", "hops", "labels", "fault", "frozen"];
    assert_eq!(keys(&explained["route"]), route);

    let object = ["explain", "config/demo", "HeaderManipulationPolicy/web-api/foreign-headers@cluster-1", "-o", "json"];
    let explained = run(&object)?.expect(0)?.json()?;
    let expected = [
        "apiVersion",
        "kind",
        "object",
        "workspace",
        "approval",
        "message",
        "counts",
        "findings",
        "report",
        "related",
        "routes",
        "notAttachedTo",
    ];
    assert_eq!(keys(&explained), expected);
    let off = list(&explained, "/notAttachedTo");
    assert!(!off.is_empty() && off.iter().all(|off| text(off, "/code") == "OWNER_NOT_ON_CHAIN"), "{off:#?}");
    Ok(())
}

#[test]
fn text_forms_are_for_people() -> anyhow::Result<()> {
    let request = ["explain", "config/demo", "--host", "test.recommendation.istioinaction.io", "--path", "/batch"];
    let shown = run(&request)?.expect(0)?.out;
    for part in [
        "Gateway:   cluster-1/gateway/ingress-gateway\n",
        "Route:     recommendation/recs:batch (prefix /batch)\n",
        "tier=batch             route recommendation/recs:batch\n",
        "HeaderManipulationPolicy/gateway/edge-headers@cluster-1     LABEL_MISMATCH",
        "none ready: 503",
    ] {
        ensure!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
    let nobody = run(&["explain", "config/demo", "--host", "nobody.example"])?.expect(0)?.out;
    ensure!(nobody.contains("Answer:    404: no route table serves this host"), "{nobody}");
    let table = run(&["explain", "config/demo", "RouteTable/recommendation/recs@cluster-1"])?.expect(0)?.out;
    for part in ["Approval:   ACCEPTED\n", "HeaderManipulationPolicy on its routes: 5\n", "parent route tables: 1\n"] {
        ensure!(table.contains(part), "`{part}` is not in:\n{table}");
    }
    let policy = run(&["explain", "config/demo", "HeaderManipulationPolicy/web-api/foreign-headers@cluster-1"])?;
    let policy = policy.expect(0)?.out;
    ensure!(policy.contains("NOT ATTACHED TO") && policy.contains("owns no table on the way"), "{policy}");
    let service = run(&["explain", "config/demo", "Service/web-api/web-api@cluster-1"])?.expect(0)?.out;
    ensure!(service.contains("gateway/web:web-ab"), "{service}");
    Ok(())
}

#[test]
fn envoy_accepts_the_bootstrap_in_both_forms() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut values = Vec::new();
    for form in ["json", "yaml"] {
        let flags =
            ["--cluster", "eu", "--namespace", "edge", "--label", "app=web", "--label", "tier=it's \"odd\": #1"];
        let ran = run(&[&["bootstrap", "-o", form], &flags[..]].concat())?.expect(0)?;
        let file = folder.path().join(format!("bootstrap.{form}"));
        std::fs::write(&file, &ran.out)?;
        let envoy = Command::new(envoy::find()?).args(["--mode", "validate", "-c"]).arg(&file).output()?;
        ensure!(envoy.status.success(), "{form}: {}", String::from_utf8_lossy(&envoy.stderr));
        values.extend(yaml::documents(&ran.out)?);
    }
    assert_eq!(values[0], values[1]);
    Ok(())
}

/// By name or by address, with a certificate or a token, on the oldest release too.
#[test]
fn envoys_accept_the_bootstrap_with_credentials() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys").to_string_lossy().into_owned();
    for more in [&[][..], &["--token"]] {
        let made = ["credentials", &keys, "--server", "xds.example", "--gateway", "eu/edge/default"];
        let made = run(&[&made[..], more].concat())?.expect(0)?.out;
        ensure!(made.lines().all(|path| Path::new(path).is_file()), "{made}");
    }
    let own = format!("{keys}/gateways/eu/edge/default");
    for address in ["xds.example:18000", "127.0.0.1:18000", "[::1]:18000"] {
        for how in [&[][..], &["--xds-token"], &["--xds-server-name", "xds.example"]] {
            let flags = ["bootstrap", "--cluster", "eu", "--namespace", "edge", "--xds-address", address];
            let ran = run(&[&flags[..], &["--xds-credentials", &own], how].concat())?.expect(0)?;
            let file = folder.path().join("bootstrap.json");
            std::fs::write(&file, &ran.out)?;
            for release in [envoy::OLDEST, "1.40.0"] {
                let mut envoy = Command::new(envoy::find_release(release)?);
                let envoy = envoy.args(["--mode", "validate", "-c"]).arg(&file).output()?;
                ensure!(envoy.status.success(), "{address} {how:?}: {}", String::from_utf8_lossy(&envoy.stderr));
            }
            let tls = "/static_resources/clusters/0/transport_socket/typed_config";
            let ran = ran.json()?;
            let tls = ran.pointer(tls).context("no TLS")?;
            let is_name = address.starts_with("xds") || how.contains(&"xds.example");
            assert_eq!(text(tls, "/sni"), if is_name { "xds.example" } else { "" }, "{address} {how:?}");
        }
    }
    Ok(())
}

/// Envoy by itself refuses programs above a size of 100, and with them the whole route table.
#[test]
fn an_envoy_with_the_bootstrap_takes_the_expression_of_a_uuid() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bootstrap = run(&["bootstrap", "--cluster", "eu", "--namespace", "edge"])?.expect(0)?.json()?;
    bootstrap["static_resources"]["listeners"] = serde_json::json!([{
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "x",
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{
                "match": {"safe_regex": {"regex": "/v4/advisory/[0-9a-z-]{36}/clone"}},
                "direct_response": {"status": 200},
            }]}]},
            "http_filters": [{"name": "router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            }}],
        }}]}],
    }]);
    let validate = |bootstrap: &Value| -> anyhow::Result<(bool, String)> {
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string())?;
        let envoy = Command::new(envoy::find()?).args(["--mode", "validate", "-c"]).arg(&file).output()?;
        Ok((envoy.status.success(), String::from_utf8_lossy(&envoy.stderr).into_owned()))
    };
    let (is_accepted, errors) = validate(&bootstrap)?;
    ensure!(is_accepted, "{errors}");
    bootstrap["layered_runtime"] = Value::Null;
    let (is_accepted, errors) = validate(&bootstrap)?;
    ensure!(!is_accepted && errors.contains("max program size of 100"), "the layer is not needed any more: {errors}");
    Ok(())
}

/// A gateway sends to wherever a DNS name of an external service leads, loopback too: Envoy's own interface is on no port.
#[tokio::test]
async fn an_envoy_with_the_bootstrap_has_its_admin_interface_in_a_file_of_its_user() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("admin.sock");
    let flags = ["bootstrap", "--cluster", "eu", "--namespace", "edge", "--pod", "web-0"];
    let own = run(&flags)?.expect(0)?.json()?;
    let pipe = |path: &str| serde_json::json!({"address": {"pipe": {"path": path, "mode": 0o600}}});
    assert_eq!(own["admin"], pipe("/dev/shm/envoy-admin-eu-edge-web-0.sock"));
    let long = run(&[&flags[..6], &["x".repeat(100).as_str()]].concat())?.expect(0)?.json()?;
    ensure!(text(&long, "/admin/address/pipe/path").len() <= 107, "{}", long["admin"]);

    let at = format!("unix://{}", socket.display());
    let bootstrap = run(&[&flags[..], &["--admin-address", &at]].concat())?.expect(0)?;
    assert_eq!(bootstrap.json()?["admin"], pipe(&socket.to_string_lossy()));
    let file = folder.path().join("bootstrap.json");
    std::fs::write(&file, &bootstrap.out)?;
    let mut command = Command::new(envoy::find()?);
    command.arg("-c").arg(&file).args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
    let mut process = Process::start("envoy", &mut command, folder.path().join("log"))?;
    let answer = until(PATIENCE, "Envoy's admin interface", async || {
        if let Some(status) = process.ended() {
            return Err(Not::Ever(format!("Envoy ended with {status}: {}", process.log_tail())));
        }
        let ask = async {
            let mut stream = tokio::net::UnixStream::connect(&socket).await?;
            stream.write_all(b"GET /server_info HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        ask.await.map_err(|error| Not::Yet(error.to_string()))
    })
    .await?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.contains("eu/edge/web-0"), "{answer}");
    let mode = std::fs::metadata(&socket)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(listens_on_tcp(process.pid())?, Vec::<String>::new());
    Ok(())
}

/// The addresses of TCP sockets on which a process listens, as Linux writes them.
fn listens_on_tcp(pid: u32) -> anyhow::Result<Vec<String>> {
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let mut listens = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        listens.extend(table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let socket = format!("socket:[{}]", fields.get(9)?);
            (*fields.get(3)? == "0A" && own.contains(&socket)).then(|| fields[1].to_owned())
        }));
    }
    Ok(listens)
}

#[test]
fn render_says_the_same_in_both_forms() -> anyhow::Result<()> {
    let arguments = ["render", "config/demo", "--gateway", GATEWAY, "--allow-loopback-endpoints", "-o"];
    let json = run(&[&arguments[..], &["json"]].concat())?.expect(0)?.json()?;
    let shown = run(&[&arguments[..], &["yaml"]].concat())?.expect(0)?.out;
    assert_eq!(yaml::documents(&shown)?[0], json);
    assert!(keys(&json).iter().any(|key| key.ends_with("Listener")), "{:?}", keys(&json));
    Ok(())
}

#[test]
fn a_closed_pipe_is_no_error() -> anyhow::Result<()> {
    for arguments in [
        &["render", "config/demo", "--gateway", GATEWAY][..],
        &["explain", "config/demo", "--host", "web.istioinaction.io"],
        &["check", "config/demo"],
        &["check", "config/demo", "-o", "json"],
        &["bootstrap", "--cluster", "a", "--namespace", "b"],
        &["serve", "config/demo", "--print-config"],
        &["explain", "--help"],
        &["version"],
    ] {
        let mut child = command(arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().context("stderr")?.read_to_string(&mut err)?;
        let status = child.wait()?;
        ensure!(status.success(), "{arguments:?} ended with {status}: {err}");
        ensure!(!err.contains("pipe") && !err.contains("panicked"), "{arguments:?}: {err}");
    }
    Ok(())
}

#[test]
fn every_help_has_exit_codes_and_two_examples_that_work() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().to_string_lossy().into_owned();
    for name in COMMANDS {
        let help = run(&[name, "--help"])?.expect(0)?.out;
        for part in ["Exit codes:", "  0  clean", "  1  errors", "  2  wrong usage"] {
            ensure!(help.contains(part), "`{part}` is not in the help of {name}");
        }
        let (_, examples) = help.split_once("Examples:\n").with_context(|| format!("{name} has no examples"))?;
        let examples: Vec<&str> = examples.lines().take_while(|line| !line.is_empty()).collect();
        ensure!(examples.len() >= 2, "{name}: {examples:?}");
        for example in examples {
            let typed =
                example.trim().strip_prefix("chancery ").with_context(|| format!("a wrapped line: {example}"))?;
            let typed = typed.split(" > ").next().unwrap_or_default();
            let mut arguments: Vec<&str> = typed.split(' ').collect();
            if name == "serve" && !arguments.contains(&"--print-config") {
                arguments.push("--print-config");
            }
            if name == "credentials" {
                // Not into the checkout.
                arguments.iter_mut().filter(|argument| **argument == "keys").for_each(|argument| *argument = &keys);
            }
            let ran = run(&arguments)?.expect(0)?;
            ensure!(name == "check" || !ran.out.is_empty(), "{}: says nothing", ran.shown);
        }
    }
    let help = run(&["--help"])?.expect(0)?.out;
    ensure!(help.contains("Exit codes:"), "{help}");
    Ok(())
}

/// The row of a setting: value and origin.
fn setting<'t>(table: &'t str, name: &str) -> anyhow::Result<Vec<&'t str>> {
    let row = table.lines().find(|line| line.split("  ").next() == Some(name));
    Ok(row.with_context(|| format!("no {name} in:\n{table}"))?.split_whitespace().skip(1).collect())
}

#[test]
fn settings_come_from_flags_then_the_environment_then_defaults() -> anyhow::Result<()> {
    let twins = [
        ("--xds-address", "127.0.0.1:18000", "127.0.0.1:1"),
        ("--admin-address", "127.0.0.1:18001", "127.0.0.1:2"),
        ("--read-only", "false", "true"),
        ("--xds-credentials", "-", "keys"),
        ("--xds-insecure", "false", "true"),
        ("--ready-file", "-", "ready.json"),
        ("--state", "-", "kept"),
        ("--audit-minutes", "10", "0"),
        ("--log-format", "auto", "json"),
        ("--log", "info", "warn"),
        ("--admin-namespace", "gloo-mesh", "platform"),
        ("--management-cluster", "mgmt", "hub"),
        ("--delegation-consent", "parent-exports", "either"),
        ("--require-auth", "false", "true"),
        ("--allow-loopback-endpoints", "false", "true"),
    ];
    let print = ["serve", "config/demo", "--print-config"];
    let defaults = run(&print)?.expect(0)?.out;
    ensure!(defaults.starts_with("SETTING "), "{defaults}");
    assert_eq!(setting(&defaults, "DIR")?, ["config/demo", "argument"]);
    // In place of a directory, and where a Pod finds itself.
    let others = [
        ("--kubernetes", "CHANCERY_KUBERNETES", "false", "true"),
        ("--kubeconfig", "CHANCERY_KUBECONFIG", "-", "admin.conf"),
        ("--context", "CHANCERY_CONTEXT", "-", "blue"),
        ("--lease-namespace", "POD_NAMESPACE", "-", "chancery"),
    ];
    for (flag, variable, default, other) in others {
        assert_eq!(setting(&defaults, flag)?, [default, "default"], "{flag}");
        let mut from_api = command(&["serve", "--kubernetes", "--print-config"])?;
        if flag == "--kubernetes" {
            from_api = command(&["serve", "--print-config"])?;
        }
        let given = finish(from_api.env(variable, other), b"")?.expect(0)?.out;
        assert_eq!(setting(&given, flag)?, [other, variable], "{flag}");
    }
    assert_eq!(defaults.lines().count(), twins.len() + others.len() + 2, "a setting is not tested here:\n{defaults}");
    for (flag, default, other) in twins {
        assert_eq!(setting(&defaults, flag)?, [default, "default"], "{flag}");
        let variable = format!("CHANCERY_{}", flag[2..].replace('-', "_").to_uppercase());
        let given = finish(command(&print)?.env(&variable, other), b"")?.expect(0)?.out;
        assert_eq!(setting(&given, flag)?, [other, &variable], "{flag}");
        let value: &[&str] = if default == "false" { &[flag] } else { &[flag, other] };
        let mut both = command(&[&print[..], value].concat())?;
        let given = finish(both.env(&variable, if default == "false" { "off" } else { default }), b"");
        // An absent file has no text form.
        if default != "-" {
            assert_eq!(setting(&given?.expect(0)?.out, flag)?, [other, "flag"], "{flag}");
        }
    }
    for yes in ["1", "yes", "on"] {
        let given = finish(command(&print)?.env("CHANCERY_REQUIRE_AUTH", yes), b"")?.expect(0)?.out;
        assert_eq!(setting(&given, "--require-auth")?, ["true", "CHANCERY_REQUIRE_AUTH"], "{yes}");
    }
    let given = finish(command(&print)?.env("RUST_LOG", "debug"), b"")?.expect(0)?.out;
    assert_eq!(setting(&given, "--log")?, ["debug", "RUST_LOG"]);
    // What `serve` would refuse is refused here too.
    fails(&["serve", "config/demo", "--print-config", "--kubernetes"], 2, &["--kubernetes"])?;
    fails(&["serve", "config/demo", "--print-config", "--xds-address", "0.0.0.0:1"], 2, &["--xds-insecure"])
}
