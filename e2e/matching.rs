//! What a request must look like to be taken: every row of the tables of R73, R93 and R97, and of R68, on a real Envoy.
//!
//! Each row is a host of its own in one world, so that rows cannot disturb each other. The answer tells which route
//! took a request: every route adds its name to responses, the row's routes forward to Service `one`, what is left over
//! to Service `two`.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::agreement::{ask, compiled, judge};
use crate::scenarios::misconfigured;
use crate::support::chancery::Settings;
use crate::support::http::{Client, Request};
use crate::support::manifests::{Manifest, list, text};
use crate::support::random::{ROUTE_HEADER, frame, route_marker};
use crate::support::world::Mesh;

/// The gateway of all rows.
const GATEWAY: &str = "cluster-1/red/front";

/// One row: matchers, and requests with the route that must take each.
struct Row {
    /// First label of the host, and name of the table.
    name: &'static str,
    /// Matchers of the delegating route; none for a row without delegation.
    parent: Option<Value>,
    /// The row's routes in order.
    routes: Vec<(&'static str, Value)>,
    /// Requests (`[METHOD] PATH [name:value]… [@PORT]`), each with the name of a route of the row, `rest` for what the row
    /// leaves over, a status, or a status and a code of misconfiguration.
    asked: Vec<(&'static str, &'static str)>,
}

fn row(name: &'static str, matchers: Value, asked: &[(&'static str, &'static str)]) -> Row {
    Row { name, parent: None, routes: vec![("row", matchers)], asked: asked.to_vec() }
}

fn below(
    name: &'static str,
    parent: Value,
    routes: &[(&'static str, Value)],
    asked: &[(&'static str, &'static str)],
) -> Row {
    Row { name, parent: Some(parent), routes: routes.to_vec(), asked: asked.to_vec() }
}

fn prefix(path: &str) -> Value {
    json!([{"uri": {"prefix": path}}])
}

fn exact(path: &str) -> Value {
    json!([{"uri": {"exact": path}}])
}

fn regex(expression: &str) -> Value {
    json!([{"uri": {"regex": expression}}])
}

/// The host of a row.
fn host(row: &str) -> String {
    format!("{row}.rows.test")
}

/// A root table on the first gateway.
fn root(name: &str, hosts: &[&str], routes: &Value) -> Value {
    json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
        "metadata": {"name": name, "namespace": "red"},
        "spec": {"hosts": hosts, "virtualGateways": [{"name": "front"}], "http": routes}})
}

/// A route to a Service.
fn route(name: &str, matchers: &Value, service: &str) -> Value {
    json!({"name": name, "matchers": matchers,
        "forwardTo": {"destinations": [{"ref": {"name": service}, "port": {"number": 8080}}]}})
}

/// The tables of a row.
fn tables(row: &Row) -> Vec<Value> {
    let mut routes: Vec<Value> = row.routes.iter().map(|(name, matchers)| route(name, matchers, "one")).collect();
    let mut tables = Vec::new();
    if let Some(parent) = &row.parent {
        tables.push(json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
            "metadata": {"name": format!("{}-child", row.name), "namespace": "red", "labels": {"row": row.name}},
            "spec": {"http": routes}}));
        routes = vec![json!({"name": "parent", "matchers": parent,
            "delegate": {"routeTables": [{"labels": {"row": row.name}}]}})];
    }
    routes.push(route("rest", &json!([]), "two"));
    tables.push(root(row.name, &[&host(row.name)], &json!(routes)));
    tables
}

/// Starts the frame with tables in it.
async fn start(tables: Vec<Value>) -> anyhow::Result<Mesh> {
    let mut manifests = frame();
    let objects = tables.into_iter().chain([route_marker("red")]);
    manifests.extend(objects.map(|object| Manifest { cluster: "cluster-1".to_owned(), object }));
    Mesh::start(manifests, Settings::default()).await
}

/// Reads a request line, and the port that it goes to.
fn request(host: &str, line: &str) -> anyhow::Result<(Request, u16)> {
    let mut request = Request::get(host, "/");
    let mut port = 80;
    for (index, word) in line.split(' ').enumerate() {
        if let Some(number) = word.strip_prefix('@') {
            port = number.parse()?;
        } else if word.starts_with('/') {
            word.clone_into(&mut request.path);
        } else if let Some((name, value)) = word.split_once(':') {
            request = request.header(name, value);
        } else if index == 0 {
            word.clone_into(&mut request.method);
        } else {
            bail!("`{word}` in `{line}` means nothing");
        }
    }
    Ok((request, port))
}

/// Asks a running world, and `explain`, and compares both with what is expected; returns what is wrong.
///
/// Expected is the end of a route's name, with the Service that answers then, or a status and what else the answer says:
/// the code of a misconfiguration, or a location.
async fn check(mesh: &Mesh, asked: &[(String, &str, String)]) -> anyhow::Result<Vec<String>> {
    let running = mesh.gateways.iter().find(|running| running.gateway.id() == GATEWAY).context("no gateway")?;
    let compiled = compiled(mesh.directory())?;
    let mut clients: BTreeMap<u16, Client> = BTreeMap::new();
    let mut faults = Vec::new();
    for (host, line, expected) in asked {
        let (request, port) = request(host, line)?;
        let address = running.address(port)?;
        let client = clients.entry(port).or_insert_with(|| Client::new(address));
        let response = client.send(&request).await.map_err(|error| mesh.with_logs(error))?;
        let route = response.header(ROUTE_HEADER).unwrap_or_default();
        // A route with several matchers has several entries: `name[1]`, `name#2`.
        let end = route.find(['[', '#']).unwrap_or(route.len());
        let found = match (response.status, response.header("location")) {
            (200, _) => {
                let service = response.json().map(|body| text(&body, "/service").to_owned()).unwrap_or_default();
                format!("{} by {service}", &route[..end])
            }
            (500, _) => format!("500 {}", response.text()),
            (status, Some(location)) => format!("{status} to {location}"),
            (status, None) => status.to_string(),
        };
        if found != *expected {
            faults.push(format!("http://{host} `{line}`: expected {expected}, got {found}"));
        }
        let said = ask(&compiled, GATEWAY, port, &request)?;
        let differences = judge(&BTreeMap::new(), &request, &said, &response);
        faults.extend(differences.into_iter().map(|difference| format!("http://{host} `{line}`: {difference}")));
    }
    Ok(faults)
}

async fn check_rows(rows: &[Row]) -> anyhow::Result<()> {
    let mesh = start(rows.iter().flat_map(tables).collect()).await?;
    let mut asked = Vec::new();
    for row in rows {
        ensure!(row.asked.iter().any(|(_, expected)| *expected == "rest") || row.routes.len() > 1, "{}", row.name);
        for (line, expected) in &row.asked {
            let expected = match *expected {
                "rest" => format!("red/{}:rest by two", row.name),
                code if code.starts_with(|c: char| c.is_ascii_uppercase()) => format!("500 {}", misconfigured(code)),
                name if row.parent.is_some() => format!("red/{}-child:{name} by one", row.name),
                name => format!("red/{}:{name} by one", row.name),
            };
            asked.push((host(row.name), *line, expected));
        }
    }
    let faults = check(&mesh, &asked).await?;
    ensure!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

#[tokio::test]
async fn r73_every_condition_takes_what_it_says() -> anyhow::Result<()> {
    let headers = |headers: Value| json!([{ "headers": headers }]);
    let query = |parameters: Value| json!([{ "queryParameters": parameters }]);
    check_rows(&[
        row("none", json!([]), &[("/", "row"), ("POST /any?x=1 x-one:1", "row"), ("/never", "row")]).with_rest(),
        row("exact", exact("/foo"), &[("/foo", "row"), ("/foo?q=1", "row"), ("/foo/", "rest"), ("/foobar", "rest"), ("/Foo", "rest")]),
        row("prefix", prefix("/foo"), &[("/foo", "row"), ("/foo/x", "row"), ("/foobar", "row"), ("/fo", "rest"), ("/x/foo", "rest"), ("/FOO", "rest")]),
        row("regex", regex("/foo/[0-9]+"), &[("/foo/12", "row"), ("/foo/12?x", "row"), ("/foo/12/", "rest"), ("/x/foo/12", "rest"), ("/foo/", "rest")]),
        row("alternation", regex("/foo|/bar"), &[("/foo", "row"), ("/bar", "row"), ("/foox", "rest"), ("/foo/bar", "rest")]),
        row("suffix", json!([{"uri": {"suffix": "/end"}}]), &[("/a/end", "UNSUPPORTED"), ("/end", "UNSUPPORTED"), ("/a/end/x", "rest")]),
        row("case-exact", json!([{"uri": {"exact": "/Foo", "ignoreCase": true}}]), &[("/foo", "row"), ("/FOO", "row"), ("/foo/", "rest")]),
        row("case-prefix", json!([{"uri": {"prefix": "/Foo", "ignoreCase": true}}]), &[("/fOOx", "row"), ("/FOO/y", "row"), ("/fo", "rest")]),
        row("case-regex", json!([{"uri": {"regex": "/Foo", "ignoreCase": true}}]), &[("/Foo", "row"), ("/foo", "rest")]),
        row("header-present", headers(json!([{"name": "X-One"}])), &[("/ x-one:1", "row"), ("/ X-ONE:", "row"), ("/", "rest"), ("/ x-two:1", "rest")]),
        row("header-value", headers(json!([{"name": "x-one", "value": "1"}])), &[("/ x-one:1", "row"), ("/ x-one:11", "rest"), ("/", "rest"), ("/ x-one:1 x-one:1", "row"), ("/ x-one:1 x-one:2", "row"), ("/ x-one:2 x-one:1", "row"), ("/ x-one:2 x-one:3", "rest"), ("/ x-one:1,2", "rest")]),
        row("header-regex", headers(json!([{"name": "x-one", "value": "[0-9]+", "regex": true}])), &[("/ x-one:12", "row"), ("/ x-one:12a", "rest"), ("/ x-one:", "rest"), ("/", "rest")]),
        row("header-joined", headers(json!([{"name": "x-one", "value": "1,2"}])), &[("/ x-one:1 x-one:2", "rest"), ("/ x-one:1,2", "row")]),
        row("invert-value", headers(json!([{"name": "x-one", "value": "1", "invertMatch": true}])), &[("/", "row"), ("/ x-one:2", "row"), ("/ x-one:", "row"), ("/ x-one:1", "rest"), ("/ x-one:1 x-one:2", "rest"), ("/ x-one:2 x-one:1", "rest"), ("/ x-one:2 x-one:3", "row")]),
        row("invert-regex", headers(json!([{"name": "x-one", "value": ".*", "regex": true, "invertMatch": true}])), &[("/", "row"), ("/ x-one:", "rest"), ("/ x-one:1", "rest")]),
        row("invert-regex-one", headers(json!([{"name": "x-one", "value": "[12]", "regex": true, "invertMatch": true}])), &[("/", "row"), ("/ x-one:3", "row"), ("/ x-one:1", "rest"), ("/ x-one:1 x-one:3", "rest"), ("/ x-one:3 x-one:1", "rest")]),
        row("invert-presence", headers(json!([{"name": "x-one", "invertMatch": true}])), &[("/", "row"), ("/ x-one:1", "rest"), ("/ x-one:", "rest")]),
        row("headers-all", headers(json!([{"name": "x-one", "value": "1"}, {"name": "x-two"}])), &[("/ x-one:1 x-two:9", "row"), ("/ x-one:1", "rest"), ("/ x-two:9", "rest"), ("/ x-one:2 x-two:9", "rest")]),
        row("query-present", query(json!([{"name": "q"}])), &[("/?q", "row"), ("/?a=1&q=2", "row"), ("/?Q", "rest"), ("/?qq=1", "rest"), ("/", "rest")]),
        row("query-exact", query(json!([{"name": "q", "value": "1"}])), &[("/?q=1", "row"), ("/x?z&q=1", "row"), ("/?q=11", "rest"), ("/?q", "rest"), ("/?q=2&q=1", "rest"), ("/?q=%31", "rest")]),
        row("query-regex", query(json!([{"name": "q", "value": "[0-9]+", "regex": true}])), &[("/?q=12", "row"), ("/?q=1a", "rest"), ("/?q=", "rest")]),
        row("query-all", query(json!([{"name": "q"}, {"name": "r", "value": "1"}])), &[("/?r=1&q", "row"), ("/?q", "rest"), ("/?r=1", "rest")]),
        row("method", json!([{"method": "POST"}]), &[("POST /", "row"), ("GET /", "rest"), ("OPTIONS /", "rest"), ("PUT /", "rest")]),
        row("port", json!([{"port": 81}]), &[("/ @81", "row"), ("/ @80", "rest")]),
        row("together", json!([{"uri": {"prefix": "/a"}, "method": "GET", "headers": [{"name": "x-one"}], "queryParameters": [{"name": "q"}], "port": 80}]), &[("/a?q x-one:1", "row"), ("/a?q x-one:1 @81", "rest"), ("/b?q x-one:1", "rest"), ("POST /a?q x-one:1", "rest"), ("/a x-one:1", "rest"), ("/a?q", "rest")]),
        row("alternatives", json!([{"uri": {"prefix": "/a"}, "method": "POST"}, {"uri": {"exact": "/b"}}, {"headers": [{"name": "x-one", "value": "1"}]}]), &[("POST /a/x", "row"), ("/b", "row"), ("/c x-one:1", "row"), ("/a/x", "rest"), ("/b/", "rest")]),
    ])
    .await
}

impl Row {
    /// For a row that leaves nothing over.
    fn with_rest(mut self) -> Self {
        self.routes.push(("never", exact("/never")));
        self
    }
}

#[tokio::test]
async fn r93_every_pair_combines_as_the_table_says() -> anyhow::Result<()> {
    let with_header = |value: &str| json!([{"uri": {"prefix": "/p"}, "headers": [{"name": "x-one", "value": value}]}]);
    let header =
        |path: &str, value: &str| json!([{"uri": {"prefix": path}, "headers": [{"name": "x-one", "value": value}]}]);
    let conflict = "MATCHER_CONFLICT";
    check_rows(&[
        below("none-any", json!([]), &[("c", exact("/a"))], &[("/a", "c"), ("/a/b", "rest")]),
        below("any-none", prefix("/a"), &[("c", json!([]))], &[("/a", "c"), ("/ab", "c"), ("/b", "rest")]),
        below("none-none", json!([]), &[("c", json!([])), ("never", exact("/x"))], &[("/", "c"), ("/x", "c")]),
        below(
            "prefix-prefix",
            prefix("/p"),
            &[("c", prefix("/foo"))],
            &[("/p/foo", "c"), ("/p/foobar", "c"), ("/p", "rest"), ("/foo", "rest"), ("/p/x/foo", "rest")],
        ),
        below(
            "prefix-exact",
            prefix("/p"),
            &[("c", exact("/foo"))],
            &[("/p/foo", "c"), ("/p/foo/", "rest"), ("/foo", "rest")],
        ),
        below(
            "prefix-regex",
            prefix("/p.1"),
            &[("c", regex("/[0-9]+"))],
            &[("/p.1/12", "c"), ("/px1/12", "rest"), ("/p.1/x", "rest"), ("/12", "rest")],
        ),
        below(
            "regex-alternation",
            prefix("/p"),
            &[("c", regex("/a|/b"))],
            &[("/p/a", "c"), ("/p/b", "c"), ("/b", "rest"), ("/p/a/b", "rest")],
        ),
        below("regex-no-slash", prefix("/p"), &[("c", regex("a+"))], &[("/p/aa", "c"), ("/paa", "rest")]),
        below(
            "trailing-slash",
            prefix("/p/"),
            &[("c", prefix("/foo"))],
            &[("/p/foo", "c"), ("/p//foo", "c"), ("/pfoo", "rest"), ("/p/", "rest")],
        ),
        below(
            "child-slash",
            prefix("/p"),
            &[("c", prefix("/"))],
            &[("/p", "c"), ("/p/x", "c"), ("/px", "c"), ("/", "rest")],
        ),
        below("exact-child-slash", prefix("/p"), &[("c", exact("/"))], &[("/p", "c"), ("/p/", "rest"), ("/", "rest")]),
        below("missing-slash", prefix("/p"), &[("c", prefix("foo"))], &[("/p/foo", "c"), ("/pfoo", "rest")]),
        below("parent-slash", prefix("/"), &[("c", prefix("/foo"))], &[("/foo", "c"), ("/x", "rest")]),
        below("doubled", prefix("/api"), &[("c", prefix("/api/v1"))], &[("/api/api/v1/x", "c"), ("/api/v1", "rest")]),
        below("exact-same", exact("/a"), &[("c", exact("/a"))], &[("/a", "c"), ("/a/a", "rest"), ("/a/", "rest")]),
        below("exact-none", exact("/a"), &[("c", json!([]))], &[("/a", "c"), ("/a/", "rest")]),
        below("exact-exact", exact("/a"), &[("c", exact("/b"))], &[("/a", conflict), ("/b", "rest"), ("/a/b", "rest")]),
        below("exact-prefix", exact("/a"), &[("c", prefix("/a"))], &[("/a", conflict), ("/a/a", "rest")]),
        below("exact-regex", exact("/a"), &[("c", regex("/a"))], &[("/a", conflict), ("/b", "rest")]),
        below("regex-none", regex("/a+"), &[("c", json!([]))], &[("/aa", "c"), ("/ab", "rest")]),
        below(
            "regex-prefix",
            regex("/a+"),
            &[("c", prefix("/b"))],
            &[("/aa", conflict), ("/aa/b", "rest"), ("/b", "rest")],
        ),
        below("regex-exact", regex("/a+"), &[("c", exact("/aa"))], &[("/aa", conflict), ("/b", "rest")]),
        below("regex-regex", regex("/a+"), &[("c", regex("/a+"))], &[("/aa", conflict), ("/b", "rest")]),
        below(
            "products",
            json!([{"uri": {"prefix": "/product-1"}}, {"uri": {"prefix": "/product-2"}}]),
            &[("foo", prefix("/foo")), ("bar", prefix("/bar"))],
            &[
                ("/product-1/foo", "foo"),
                ("/product-2/foo", "foo"),
                ("/product-1/bar", "bar"),
                ("/product-2/bar", "bar"),
                ("/product-3/bar", "rest"),
                ("/foo", "rest"),
            ],
        ),
        below(
            "headers-add",
            with_header("1"),
            &[("c", json!([{"uri": {"prefix": "/c"}, "headers": [{"name": "x-two"}]}]))],
            &[("/p/c x-one:1 x-two:2", "c"), ("/p/c x-one:1", "rest"), ("/p/c x-two:2", "rest")],
        ),
        below(
            "headers-same",
            with_header("1"),
            &[("c", header("/c", "1"))],
            &[("/p/c x-one:1", "c"), ("/p/c x-one:2", "rest")],
        ),
        below(
            "headers-conflict",
            with_header("1"),
            &[("ok", header("/ok", "1")), ("c", header("/c", "2"))],
            &[
                ("/p/ok x-one:1", "ok"),
                ("/p/c x-one:1", conflict),
                ("/p/c x-one:2", "rest"),
                ("/p/c", "rest"),
                ("/ok", "rest"),
            ],
        ),
        below(
            "queries-add",
            json!([{"queryParameters": [{"name": "q", "value": "1"}]}]),
            &[("c", json!([{"queryParameters": [{"name": "r"}]}]))],
            &[("/?q=1&r", "c"), ("/?q=1", "rest"), ("/?r", "rest")],
        ),
        below(
            "queries-conflict",
            json!([{"queryParameters": [{"name": "q", "value": "1"}]}]),
            &[("ok", exact("/ok")), ("c", json!([{"queryParameters": [{"name": "q", "value": "2"}]}]))],
            &[("/ok?q=1", "ok"), ("/?q=1", conflict), ("/?q=2", "rest")],
        ),
        below(
            "methods-conflict",
            json!([{"method": "GET"}]),
            &[("ok", exact("/ok")), ("c", json!([{"method": "POST"}]))],
            &[("/ok", "ok"), ("/x", conflict), ("POST /x", "rest")],
        ),
        below(
            "methods-same",
            json!([{"method": "POST"}]),
            &[("c", json!([{"method": "POST"}]))],
            &[("POST /", "c"), ("/", "rest")],
        ),
        below(
            "ports-conflict",
            json!([{"port": 80}]),
            &[("ok", exact("/ok")), ("c", json!([{"port": 81}]))],
            &[("/ok", "ok"), ("/x", conflict), ("/x @81", "rest")],
        ),
        below("ports-same", json!([{"port": 81}]), &[("c", exact("/c"))], &[("/c @81", "c"), ("/c", "rest")]),
        below(
            "case-conflict",
            prefix("/p"),
            &[("ok", prefix("/ok")), ("c", json!([{"uri": {"prefix": "/c", "ignoreCase": true}}]))],
            &[("/p/ok", "ok"), ("/p/c", conflict), ("/c", "rest")],
        ),
        below(
            "case-same",
            json!([{"uri": {"prefix": "/p", "ignoreCase": true}}]),
            &[("c", json!([{"uri": {"exact": "/c", "ignoreCase": true}}]))],
            &[("/P/C", "c"), ("/p/c", "c"), ("/p/c/", "rest")],
        ),
        below(
            "case-inherited",
            json!([{"uri": {"prefix": "/p", "ignoreCase": true}}]),
            &[("c", json!([{"method": "POST"}]))],
            &[("POST /P", "c"), ("/P", "rest")],
        ),
    ])
    .await
}

#[tokio::test]
async fn r68_hosts_and_odd_paths_find_their_tables() -> anyhow::Result<()> {
    let all = |name: &str| json!([route(name, &json!([]), "one")]);
    let tables = vec![
        root("exact", &["a.w.test"], &all("r")),
        root("wild", &["*.w.test"], &all("r")),
        root("dash", &["*-x.w.test"], &all("r")),
        root("deep", &["*.deep.w.test"], &all("r")),
        root(
            "paths",
            &["paths.test"],
            &json!([
                route("ab", &exact("/a/b"), "one"),
                route("b", &prefix("/b"), "one"),
                route("root", &exact("/"), "one")
            ]),
        ),
        root(
            "moved",
            &["moved.test"],
            &json!([
                {"name": "host", "matchers": exact("/host"), "redirect": {"hostRedirect": "to.test"}},
                {"name": "path", "matchers": exact("/path"), "redirect": {"pathRedirect": "/new", "responseCode": "FOUND"}},
                {"name": "query", "matchers": exact("/query"), "redirect": {"pathRedirect": "/new?z=1", "responseCode": "SEE_OTHER"}},
                {"name": "self", "redirect": {"responseCode": "PERMANENT_REDIRECT"}},
            ]),
        ),
    ];
    let mesh = start(tables).await?;
    let asked: Vec<(String, &str, String)> = [
        ("a.w.test", "/", "red/exact:r by one"),
        ("A.W.Test", "/", "red/exact:r by one"),
        ("a.w.test:8443", "/", "red/exact:r by one"),
        ("A.W.TEST:80", "/", "red/exact:r by one"),
        ("b.w.test", "/", "red/wild:r by one"),
        ("x.y.w.test", "/", "red/wild:r by one"),
        ("b-x.w.test", "/", "red/dash:r by one"),
        ("c.deep.w.test", "/", "red/deep:r by one"),
        ("deep.w.test", "/", "red/wild:r by one"),
        ("w.test", "/", "404"),
        ("other.test", "/", "404"),
        ("a.w.test.", "/", "404"),
        ("paths.test", "/a/b", "red/paths:ab by one"),
        ("paths.test", "//a//b", "red/paths:ab by one"),
        ("paths.test", "/c/../a/./b", "red/paths:ab by one"),
        ("paths.test", "/c//../a/b", "404"),
        ("paths.test", "/a/%62", "red/paths:ab by one"),
        ("paths.test", "/a/../b", "red/paths:b by one"),
        ("paths.test", "/a/%2e%2E/b", "red/paths:b by one"),
        ("paths.test", "/../../b", "red/paths:b by one"),
        ("paths.test", "/x/..", "red/paths:root by one"),
        ("paths.test", "/a%2Fb", "307 to /a/b"),
        ("paths.test", "/a%5cb?x=%2F", "307 to /a/b?x=%2F"),
        ("paths.test", "/x%2F..%2fa/b", "307 to /a/b"),
        ("other.test", "/a%2fb", "307 to /a/b"),
        ("paths.test", "/a/b?x=//..%2F", "red/paths:ab by one"),
        ("Moved.Test:81", "/host?x=1", "301 to http://to.test/host?x=1"),
        ("Moved.Test:81", "/path?x=1", "302 to http://Moved.Test:81/new?x=1"),
        ("moved.test:80", "/query?x=1", "303 to http://moved.test:80/new?z=1"),
        ("moved.test", "/a/../b?y", "308 to http://moved.test/b?y"),
    ]
    .map(|(host, line, expected)| (host.to_owned(), line, expected.to_owned()))
    .to_vec();
    let faults = check(&mesh, &asked).await?;
    ensure!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

/// The paths of two tables, as `kind path`, and the order in which R97 wants them.
const TABLE_A: [&str; 7] = [
    "prefix /foo",
    "prefix /foo/more/specific",
    "prefix /foo/even/more/specific",
    "exact /foo/exact",
    "exact /foo/another/exact",
    "regex /foo/*",
    "regex /fooo/*",
];
const TABLE_B: [&str; 5] =
    ["prefix /bar", "prefix /bar/more/specific", "prefix /bar/even/more/specific", "exact /bar/exact", "regex /bar/*"];
const SORTED: [&str; 12] = [
    "exact /foo/another/exact",
    "exact /bar/exact",
    "exact /foo/exact",
    "regex /bar/*",
    "regex /foo/*",
    "regex /fooo/*",
    "prefix /bar/even/more/specific",
    "prefix /foo/even/more/specific",
    "prefix /bar/more/specific",
    "prefix /foo/more/specific",
    "prefix /bar",
    "prefix /foo",
];

/// What Envoy itself says that it has: the routes of a host in order, as `kind path`.
fn dumped(dump: &Value, host: &str) -> Vec<String> {
    let configurations = list(dump, "/configs").iter();
    let hosts = configurations.flat_map(|config| list(config, "/route_config/virtual_hosts"));
    let own = hosts.filter(|virtual_host| list(virtual_host, "/domains").contains(&json!(host)));
    let shown = |route: &Value| {
        [("exact", "/match/path"), ("prefix", "/match/prefix"), ("regex", "/match/safe_regex/regex")]
            .iter()
            .find_map(|(kind, pointer)| Some(format!("{kind} {}", route.pointer(pointer)?.as_str()?)))
            .unwrap_or_else(|| route.to_string())
    };
    own.flat_map(|virtual_host| list(virtual_host, "/routes")).map(shown).collect()
}

#[tokio::test]
async fn r97_the_test_vector_stands_in_envoy_in_its_order() -> anyhow::Result<()> {
    let vector = |name: &str, weight: u32, paths: &[&str]| {
        let one = |(index, path): (usize, &&str)| {
            let (kind, path) = path.split_once(' ').unwrap_or_default();
            route(&format!("r{index}"), &json!([{"uri": {(kind): path}}]), "one")
        };
        json!({"apiVersion": "networking.gloo.solo.io/v2", "kind": "RouteTable",
            "metadata": {"name": name, "namespace": "red", "labels": {"vector": "yes"}},
            "spec": {"weight": weight, "http": paths.iter().enumerate().map(one).collect::<Vec<_>>()}})
    };
    let delegate = json!([{"name": "parent", "delegate":
        {"routeTables": [{"labels": {"vector": "yes"}}], "sortMethod": "ROUTE_SPECIFICITY"}}]);
    let tables = vec![vector("a", 1, &TABLE_A), vector("b", 2, &TABLE_B), root("vector", &["vector.test"], &delegate)];
    let mesh = start(tables).await?;
    let running = mesh.gateways.iter().find(|running| running.gateway.id() == GATEWAY).context("no gateway")?;
    let dump = running.envoy.admin("/config_dump?resource=dynamic_route_configs").await?;
    let routes = dumped(&serde_json::from_str(&dump)?, "vector.test");
    // The gateway has two ports, each with all routes.
    ensure!(routes.len() == 2 * SORTED.len(), "not once per port: {routes:#?}");
    for per_port in routes.chunks(SORTED.len()) {
        ensure!(per_port == SORTED, "expected {SORTED:#?}, Envoy has {per_port:#?}");
    }
    let asked: Vec<(String, &str, String)> = [
        ("/foo/exact", "a:r3"),
        ("/foo/another/exact", "a:r4"),
        ("/bar/exact", "b:r3"),
        ("/foo/exact/", "a:r0"),
        ("/foo/", "a:r5"),
        ("/foo", "a:r5"),
        ("/fooo", "a:r6"),
        ("/bar", "b:r4"),
        ("/barrel", "b:r0"),
        ("/bar/even/more/specific/x", "b:r2"),
        ("/bar/more/specifically", "b:r1"),
        ("/foo/more/specific", "a:r1"),
        ("/foo/even/more/specific", "a:r2"),
        ("/foo/even/more", "a:r0"),
    ]
    .map(|(line, route)| ("vector.test".to_owned(), line, format!("red/{route} by one")))
    .to_vec();
    let faults = check(&mesh, &asked).await?;
    ensure!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}
