//! A TLS chain with so many routes that they are cut: from files to a real gateway, and what operators are shown.

use super::*;

/// Hosts with a name of their own; with [`ROUTES`] each, the chain is cut.
const HOSTS: usize = 210;
const ROUTES: usize = 10;

const GATEWAY: &str = "cluster-1/edge/web";

/// A listener that shares the port of the others, its hosts, and a wildcard beside them.
fn many() -> String {
    let mut text = "
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: many, namespace: edge}
spec:
  workloads: [{selector: {labels: {app: web}}}]
  listeners:
    - {http: {}, port: {number: 443}, tls: {mode: SIMPLE, secretName: many}, allowedRouteTables: [{host: '*.many.example'}]}
"
    .to_owned();
    for number in 0..HOSTS {
        text.push_str(&table(&format!("site-{number}"), &format!("site-{number}.many.example"), ROUTES));
    }
    text.push_str(&table("wild", "'*.many.example'", 1));
    text
}

/// A table whose last route answers with its name, and the others with their path.
fn table(name: &str, host: &str, routes: usize) -> String {
    let mut text = format!(
        "
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {{name: {name}, namespace: apps}}
spec:
  hosts: [{host}]
  virtualGateways: [{{name: many, namespace: edge}}]
  http:
"
    );
    for route in 0..routes {
        let (path, body) = if route + 1 == routes {
            ("/".to_owned(), name.to_owned())
        } else {
            (format!("/path-{route}"), format!("{name} {route}"))
        };
        text.push_str(&format!("    - {{name: r{route}, matchers: [{{uri: {{prefix: {path}}}}}], directResponse: {{status: 200, body: '{body}'}}}}\n"));
    }
    text
}

/// What requests on connections for one name of the chain are answered, whatever host they name.
const ANSWERS: [(&str, &str, u16, &str); 10] = [
    ("site-7.many.example", "/", 200, "site-7"),
    ("site-7.many.example", "/path-3", 200, "site-7 3"),
    ("Site-8.Many.Example", "/", 200, "site-8"),
    ("SITE-209.many.example:8443", "/", 200, "site-209"),
    ("other.many.example", "/", 200, "wild"),
    ("Other.Many.Example:443", "/any", 200, "wild"),
    ("many.example", "/", 404, ""),
    ("nobody.example", "/", 404, ""),
    ("shop.example", "/", 421, "chancery: another connection serves this host"),
    ("Bank.Example:443", "/", 421, "chancery: another connection serves this host"),
];

#[tokio::test(flavor = "multi_thread")]
async fn r57_r67_r204_a_tls_chain_that_is_cut_answers_as_a_whole_one() -> anyhow::Result<()> {
    let authority = Authority::new("servers")?;
    let pair = authority.sign("*.many.example", "many-1")?;
    let secret = yaml_of(&pair.secret("edge", "many"));
    let mut running = Running::start_with(&format!("{}\n---\n{secret}", many()), "", &Speech::default()).await?;
    let address = running.address(443)?;
    let connect = |protocol| {
        anyhow::Ok(Client::with_tls(address, protocol, authority.dial("site-7.many.example", None, protocol)?))
    };
    until(PATIENCE, "the chain", async || match connect(Protocol::Http1) {
        Ok(mut client) => match client.send(&Request::get("site-7.many.example", "/")).await {
            Ok(response) if response.status == 200 => Ok(()),
            answer => Err(Not::Yet(format!("{answer:?}"))),
        },
        Err(error) => Err(Not::Ever(format!("{error:#}"))),
    })
    .await
    .map_err(|error| running.mesh.with_logs(error))?;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = connect(protocol)?;
        for (host, path, status, body) in ANSWERS {
            let response = client.send(&Request::get(host, path)).await?;
            ensure!(
                (response.status, response.text().as_str()) == (status, body),
                "{protocol:?} {host}{path}: {response:?}"
            );
        }
    }

    // One edit of one table: a part, and nobody's connection.
    let envoy = &running.mesh.gateways[0].envoy;
    let changes = "listener_manager.listener_(modified|added|in_place_updated)";
    let before = envoy.stats(changes).await?;
    let mut client = connect(Protocol::Http1)?;
    client.send(&Request::get("site-7.many.example", "/")).await?;
    running.mesh.edit("RouteTable/apps/site-7@cluster-1", |object| {
        object["spec"]["http"][ROUTES - 1]["directResponse"]["body"] = json!("edited");
    })?;
    let client = tokio::sync::Mutex::new(client);
    until(PATIENCE, "the edit", async || {
        match client.lock().await.send(&Request::get("site-7.many.example", "/")).await {
            Ok(response) if response.status == 200 && response.text() == "edited" => Ok(()),
            Ok(response) if response.status == 200 => Err(Not::Yet(response.text())),
            answer => Err(Not::Ever(format!("{answer:?}"))),
        }
    })
    .await?;
    ensure!(running.mesh.gateways[0].envoy.stats(changes).await? == before, "the edit changed the listener");

    // What operators are shown: the scopes, and of all parts the one that the host is in.
    let admin = running.mesh.chancery.admin();
    let status = chancery::status(admin)?;
    let scopes =
        list(&status, "/gateways/0/types").iter().find(|of| text(of, "/typeUrl").ends_with("ScopedRouteConfiguration"));
    ensure!(scopes.is_some_and(|scopes| text(scopes, "/state") == "acknowledged"), "{status:#}");
    let request = Request::get("Site-7.many.example", "/");
    let explained = chancery::explain_of_server(admin, GATEWAY, 443, "site-7.many.example", &request)?;
    let parts: Vec<(&str, &str)> = list(&explained, "/acknowledged")
        .iter()
        .filter(|held| text(held, "/resource").contains("many.example"))
        .map(|held| (text(held, "/typeUrl").rsplit('.').next().unwrap_or_default(), text(held, "/state")))
        .collect();
    assert_eq!(
        parts,
        [("ScopedRouteConfiguration", "acknowledged"), ("RouteConfiguration", "acknowledged")],
        "{explained:#}"
    );

    // Parts leave no statistics of their own; those of the whole ones, of listeners and requests stay.
    let envoy = &running.mesh.gateways[0].envoy;
    ensure!(envoy.stats(r"\.rds\..*/0?[0-9a-f]{3}\.").await?.is_empty(), "statistics of parts");
    for kept in [
        r"/shop\.example\.update_success$",
        r"\.scoped_rds\..*\.active_scopes$",
        r"\.downstream_rq_2xx$",
        r"^listener_manager\.",
        r"^cluster\.chancery\.",
    ] {
        ensure!(!envoy.stats(kept).await?.is_empty(), "no statistics {kept}");
    }
    Ok(())
}

fn yaml_of(object: &Value) -> String {
    // JSON is YAML.
    object.to_string()
}
