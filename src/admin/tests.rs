//! The admin port over real connections, and as peers of other hosts see it.

use axum::body::Body;
use axum::http::Method;
use tonic::Code;
use tonic::codegen::Service as _;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::api::document::of_request;
use crate::api::pb;
use crate::api::pb::explain_request::Subject;
use crate::api::pb::live_client::LiveClient;
use crate::api::tests::{GATEWAY, Mesh};
use crate::snapshot::ResourceType;

/// Logging that nobody else uses; the layer keeps the handle alive.
fn logging() -> (Logging, impl Sized) {
    Logging::new("info").unwrap()
}

/// Asks a router as if over a connection from a peer.
async fn ask(
    router: &Router,
    peer: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    let peer: SocketAddr = peer.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    let response = router.clone().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

const LOCAL: &str = "127.0.0.1:5000";

/// What a request that changes something must have.
const OWN: [(&str, &str); 1] = [("x-chancery", "1")];

#[tokio::test]
async fn beyond_loopback_only_health_readiness_and_metrics_are_served() {
    let mesh = Mesh::new();
    let (logging, _layer) = logging();
    let services = Routes::new(api::service::server(mesh.sources.clone()));
    let router = router(mesh.sources.clone(), logging.clone(), services);
    let live = "/chancery.v1.Live/Status";
    for peer in ["10.0.0.1:5000", "[2001:db8::1]:5000", "[::ffff:10.0.0.1]:5000"] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(ask(&router, peer, Method::GET, path, &[]).await.0, 200, "{path} for {peer}");
        }
        for (method, path) in [
            (Method::GET, "/logging"),
            (Method::POST, "/logging?filter=trace"),
            (Method::GET, "/anything"),
            (Method::GET, "//metrics"),
            (Method::GET, "/metrics/"),
            (Method::POST, live),
        ] {
            let (status, _, body) = ask(&router, peer, method, path, &[]).await;
            assert!(status == 403 && body.contains("beyond loopback"), "{path} for {peer}: {status} {body}");
        }
        let (status, headers, _) =
            ask(&router, peer, Method::POST, live, &[("content-type", "application/grpc")]).await;
        assert_eq!((status, &headers["grpc-status"]), (200, &"7".parse().unwrap()), "PERMISSION_DENIED for {peer}");
    }
    assert_eq!(logging.in_force().unwrap(), "kube_runtime=off,kube_client=off,info");
    for peer in [LOCAL, "127.9.9.9:1", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
        assert_eq!(ask(&router, peer, Method::GET, "/logging", &[]).await.0, 200, "{peer}");
    }
}

#[tokio::test]
async fn the_log_filter_is_shown_and_changed_and_a_bad_one_is_refused_with_the_reason() {
    let mesh = Mesh::new();
    let (logging, _layer) = logging();
    let router = router(mesh.sources.clone(), logging, Routes::default());
    let shown = ask(&router, LOCAL, Method::GET, "/logging?filter=trace", &[]).await;
    assert_eq!((shown.0, shown.2.as_str()), (200, "kube_runtime=off,kube_client=off,info\n"), "a GET changes nothing");
    let changed = ask(&router, LOCAL, Method::POST, "/logging?filter=warn,chancery::xds%3Ddebug", &OWN).await;
    assert_eq!((changed.0, changed.2.as_str()), (200, "chancery::xds=debug,kube_runtime=off,kube_client=off,warn\n"));
    let long = format!("/logging?filter={}", "a".repeat(FILTER_BYTES + 1));
    for (path, says) in [
        ("/logging?filter=a%3Db%3Dc", "`a=b=c` says nothing about what to log"),
        ("/logging?filter=", "say what to log"),
        ("/logging", "say what to log"),
        (long.as_str(), "at most 1024 bytes"),
    ] {
        let (status, _, body) = ask(&router, LOCAL, Method::POST, path, &OWN).await;
        assert!(status == 400 && body.contains(says) && body.len() < 500, "{path:.40}: {status} {body}");
    }
    let shown = ask(&router, LOCAL, Method::GET, "/logging", &[]).await;
    assert_eq!(shown.2, "chancery::xds=debug,kube_runtime=off,kube_client=off,warn\n");
}

/// `reliability.md` section 4, CVE-2020-15127: a page in a browser on this host changes and reads nothing.
#[tokio::test]
async fn what_a_web_page_can_send_changes_and_reads_nothing() {
    let mesh = Mesh::new();
    let (logging, _layer) = logging();
    let services = Routes::new(api::service::server(mesh.sources.clone()));
    let router = router(mesh.sources.clone(), logging.clone(), services);
    let (live, change) = ("/chancery.v1.Live/Status", "/logging?filter=trace");
    let own = OWN[0];
    for (why, method, path, headers) in [
        ("a form needs no permission", Method::POST, change, vec![("content-type", "text/plain")]),
        ("another value", Method::POST, change, vec![("x-chancery", "yes")]),
        ("a page that was allowed the header", Method::POST, change, vec![own, ("origin", "https://evil.example")]),
        ("a sandboxed page", Method::POST, change, vec![own, ("origin", "null")]),
        ("a name that means this host by now", Method::POST, change, vec![own, ("host", "evil.example:18001")]),
        ("reading under such a name", Method::GET, "/logging", vec![("host", "evil.example:18001")]),
        ("a name that begins well", Method::GET, "/logging", vec![("host", "127.0.0.1.evil.example")]),
        ("one that begins as ours", Method::GET, "/logging", vec![("host", "localhost.evil.example")]),
        ("no name at all", Method::GET, "/logging", vec![("host", "a b")]),
        ("the API", Method::POST, live, vec![("host", "evil.example")]),
        ("the API from a page", Method::POST, live, vec![("origin", "https://evil.example")]),
        ("under a name in the first line", Method::GET, "http://evil.example/logging", vec![("host", "localhost")]),
    ] {
        let (status, _, body) = ask(&router, LOCAL, method, path, &headers).await;
        assert!(status == 403 && !body.contains("kube_client"), "{why}: {status} {body}");
    }
    let grpc = [("content-type", "application/grpc"), ("host", "evil.example")];
    let (_, headers, _) = ask(&router, LOCAL, Method::POST, live, &grpc).await;
    assert_eq!(headers["grpc-status"], "7", "PERMISSION_DENIED");
    assert_eq!(logging.in_force().unwrap(), "kube_runtime=off,kube_client=off,info");
    for host in ["localhost", "LOCALHOST:18001", "127.0.0.1:18001", "[::1]:18001", "10.0.0.7"] {
        assert_eq!(ask(&router, LOCAL, Method::GET, "/logging", &[("host", host)]).await.0, 200, "{host}");
    }
    for path in OPEN {
        assert_eq!(ask(&router, LOCAL, Method::GET, path, &[("host", "node-7.internal")]).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_plain_text() {
    let mesh = Mesh::new();
    let (logging, _layer) = logging();
    let router = router(mesh.sources.clone(), logging, Routes::default());
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/metricsz", 404),
        (Method::POST, "/metrics", 405),
        (Method::DELETE, "/logging", 405),
    ] {
        let (found, headers, body) = ask(&router, LOCAL, method, path, &[]).await;
        assert_eq!(found, status, "{path}: {body}");
        assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain") && !body.is_empty(), "{path}");
    }
    let (status, headers, _) =
        ask(&router, LOCAL, Method::POST, "/a.B/C", &[("content-type", "application/grpc")]).await;
    assert_eq!((status, &headers["grpc-status"]), (200, &"12".parse().unwrap()), "UNIMPLEMENTED");
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let mesh = Mesh::new();
    let compiled = mesh.state.send_replace(None);
    let (logging, _layer) = logging();
    let router = router(mesh.sources.clone(), logging, Routes::default());
    let waiting = ask(&router, LOCAL, Method::GET, "/readyz", &[]).await;
    assert_eq!((waiting.0, waiting.2.as_str()), (503, "not ready: the first compile is not done\n"));
    assert_eq!(ask(&router, LOCAL, Method::GET, "/healthz", &[]).await.0, 200);
    assert_eq!(ask(&router, LOCAL, Method::GET, "/metrics", &[]).await.0, 200);
    mesh.state.send_replace(compiled);
    assert_eq!(ask(&router, LOCAL, Method::GET, "/readyz", &[]).await.0, 200);
}

#[tokio::test]
async fn metrics_come_in_the_form_that_is_accepted() {
    let mesh = Mesh::new();
    let (logging, _layer) = logging();
    let router = router(mesh.sources.clone(), logging, Routes::default());
    let (_, headers, text) = ask(&router, LOCAL, Method::GET, "/metrics", &[]).await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert!(text.contains("# TYPE chancery_build_info gauge\n"), "{text}");
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let (_, headers, text) = ask(&router, LOCAL, Method::GET, "/metrics", &accept).await;
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

/// Serves a mesh on a port of its own until the sender is used.
async fn served(
    mesh: &Mesh,
) -> (Channel, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (sources, (logging, layer)) = (mesh.sources.clone(), logging());
    let server = tokio::spawn(async move {
        let served = serve(listener, sources, logging, Routes::default(), async {
            let _ = stopped.await;
        });
        let served = served.await;
        drop(layer);
        served
    });
    (Channel::from_shared(url).unwrap().connect().await.unwrap(), stop, server)
}

fn question(gateway: &str, host: &str, port: u32) -> pb::ExplainRequest {
    let request = pb::HttpRequest {
        server_name: None,
        gateway: gateway.to_owned(),
        port,
        host: host.to_owned(),
        path: "/".to_owned(),
        method: "GET".to_owned(),
        headers: Vec::new(),
        client: None,
    };
    pb::ExplainRequest { subject: Some(Subject::Request(request)) }
}

fn object(id: &str) -> pb::ExplainRequest {
    pb::ExplainRequest { subject: Some(Subject::Object(id.to_owned())) }
}

#[tokio::test]
async fn the_api_answers_over_a_real_connection_and_the_server_ends() {
    const HOST: &str = "web.istioinaction.io";
    let mesh = Mesh::new();
    let peer = mesh.connect(1, "envoy-1");
    for resource_type in [ResourceType::Listener, ResourceType::Route] {
        mesh.send(&peer, resource_type);
        mesh.acknowledge(&peer, resource_type, 0);
    }
    let (channel, stop, server) = served(&mesh).await;
    let mut live = LiveClient::new(channel.clone());
    let status = live.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.gateways.len(), status.gateways[0].node.as_str()), (1, "envoy-1"));

    for gateway in ["", GATEWAY] {
        let answer = live.explain(question(gateway, HOST, 0)).await.unwrap().into_inner();
        let request = crate::compile::explain::Request {
            host: HOST.to_owned(),
            path: "/".to_owned(),
            method: "GET".to_owned(),
            ..crate::compile::explain::Request::default()
        };
        let compiled = mesh.sources.compiled().unwrap();
        let offline = of_request(&compiled, &GATEWAY.parse().unwrap(), &request).unwrap();
        assert_eq!(answer.document, serde_json::to_string(&offline).unwrap(), "the same as offline");
        let holdings: Vec<_> =
            answer.holdings.iter().map(|h| (h.node.as_str(), h.resource.as_str(), h.state())).collect();
        let all = pb::State::Acknowledged;
        assert_eq!(holdings, [("envoy-1", "listener/18080", all), ("envoy-1", "route/18080", all)]);
    }

    for (wrong, code, says) in [
        (pb::ExplainRequest { subject: None }, Code::InvalidArgument, "neither a request nor an object"),
        (question("a/b", HOST, 0), Code::InvalidArgument, "`a/b` is not a gateway"),
        (question("a/b/c", HOST, 0), Code::NotFound, "no gateway `a/b/c`"),
        (question("", HOST, 70_000), Code::InvalidArgument, "70000 is no port"),
        (object("RouteTable"), Code::InvalidArgument, "`RouteTable` is not an object"),
        (object("RouteTable/a/b@c"), Code::NotFound, "no object `RouteTable/a/b@c`"),
        (question("", &"h".repeat(1 << 20), 0), Code::OutOfRange, "message length too large"),
    ] {
        let refused = live.explain(wrong).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(says), "{says}: {refused}");
    }

    let mut health = HealthClient::new(channel);
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "chancery.v1.Live"] {
        let answer = health.check(check(service)).await.unwrap().into_inner();
        assert_eq!(answer.status, tonic_health::pb::health_check_response::ServingStatus::Serving as i32, "{service}");
    }
    assert_eq!(health.check(check("else")).await.unwrap_err().code(), Code::NotFound);
    drop((live, health));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn before_the_first_compile_the_api_is_unavailable_and_not_healthy() {
    let mesh = Mesh::new();
    let compiled = mesh.state.send_replace(None);
    let (channel, _stop, server) = served(&mesh).await;
    let mut live = LiveClient::new(channel.clone());
    let waiting = live.status(pb::StatusRequest {}).await.unwrap_err();
    assert_eq!((waiting.code(), waiting.message()), (Code::Unavailable, "the first compile is not done"));
    let check = HealthCheckRequest { service: "chancery.v1.Live".to_owned() };
    let mut watched = HealthClient::new(channel).watch(check).await.unwrap().into_inner();
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving as i32;
    assert_ne!(watched.message().await.unwrap().unwrap().status, serving);
    mesh.state.send_replace(compiled);
    assert_eq!(watched.message().await.unwrap().unwrap().status, serving);
    live.status(pb::StatusRequest {}).await.unwrap();
    server.abort();
}
