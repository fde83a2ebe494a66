//! Authorization servers that fail, are slow or come back; more settings than a gateway holds; and policies that come and go
//! while requests are sent.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{CUSTOM, CUSTOM_POLICY, World, nobody, pass};
use crate::support::chancery::status;
use crate::support::http::{Client, Request};
use crate::support::load::{Load, Pace};
use crate::support::manifests::{self, Manifest, list, text};
use crate::support::wait::{Not, PATIENCE, until};

/// One ExtAuthServer each, whose settings differ from all others.
fn settings(name: &str, service: &str, rest: &str) -> String {
    format!(
        "
- apiVersion: admin.gloo.solo.io/v2
  kind: ExtAuthServer
  metadata: {{name: {name}, namespace: shop, @}}
  spec: {{destinationServer: {{ref: {{name: {service}, namespace: team}}, port: {{number: 9000}}}}, {rest}}}
"
    )
}

/// A policy for the routes with a label; the larger `month`, the younger.
fn policy(name: &str, server: &str, month: usize) -> String {
    format!(
        "
- apiVersion: security.policy.gloo.solo.io/v2
  kind: ExtAuthPolicy
  metadata: {{name: {name}, namespace: shop, creationTimestamp: '2024-{month:02}-01T00:00:00Z', @}}
  spec: {{applyToRoutes: [{{route: {{labels: {{case: {name}}}}}}}], config: {{customAuth: {{}}, server: {{name: {server}}}}}}}
"
    )
}

#[tokio::test]
async fn a_server_that_fails_closes_unless_its_author_says_otherwise() -> anyhow::Result<()> {
    let objects = [
        settings("down", "nobody", "statusOnError: 503"),
        settings("allow", "nobody", "failureModeAllow: true"),
        settings("late", "authz", "requestTimeout: 300ms"),
        policy("down", "down", 1),
        policy("allow", "allow", 2),
        policy("more", "late", 3),
        CUSTOM.to_owned(),
    ]
    .concat();
    let mut world = World::asking(&objects, &["/custom"]).await?;
    world
        .judges(&[
            ("nobody answers, as the author says", pass("/down"), (503, 0, 0)),
            ("nobody answers, and that is to be open", nobody("/allow"), (200, 1, 0)),
            ("without a policy", nobody("/plain"), (200, 1, 0)),
        ])
        .await?;
    // A slow answer is none, even one that would let the request pass.
    world.grpc.hold();
    let (status, reached) = world.team.outcome(&pass("/more")).await?;
    world.grpc.release();
    assert_eq!((status, reached), (403, 0));
    world.team.answers(&pass("/more"), 200).await?;
    world.judges(&[("asked again", nobody("/more"), (401, 0, 1))]).await?;
    // Gone and back, at the same address.
    world.grpc.stop();
    world.team.answers(&pass("/custom"), 403).await?;
    world.judges(&[("gone", nobody("/custom"), (403, 0, 0)), ("gone", pass("/custom"), (403, 0, 0))]).await?;
    world.grpc.start_again().await?;
    world.team.answers(&pass("/custom"), 200).await?;
    world.judges(&[("back", nobody("/custom"), (401, 0, 1))]).await
}

/// A gateway holds four sets of settings for routes; the youngest policy with a fifth is closed, and moves up when there is
/// room.
#[tokio::test]
async fn a_fifth_set_of_settings_closes_the_youngest() -> anyhow::Result<()> {
    // By the label of a route: the status that its server is to fail with.
    let sets = [("custom", 421), ("http", 422), ("down", 423), ("allow", 424), ("more", 426)];
    let mut objects = String::new();
    for (number, (name, status)) in sets.iter().enumerate() {
        objects += &settings(name, "nobody", &format!("statusOnError: {status}"));
        write!(objects, "{}", policy(name, name, number + 1))?;
    }
    let mut world = World::start(&objects).await?;
    world.team.answers(&pass("/allow"), 424).await?;
    for (name, status) in &sets[..4] {
        world.judges(&[(name, pass(&format!("/{name}")), (*status, 0, 0))]).await?;
    }
    world.judges(&[("the fifth", pass("/more"), (500, 0, 0))]).await?;
    let (approval, message, _) = world.team.verdict("ExtAuthPolicy/shop/more@cluster-1")?;
    assert_eq!(approval, "FAILED", "{message}");
    assert!(message.contains("UNSUPPORTED"), "{message}");
    // Two policies that ask alike share a set, and then there is room.
    let load = Load::start(
        world.team.mesh.entrance("shop/www")?.1,
        2,
        Pace::PerSecond(60),
        ["/http", "/down", "/allow"].map(pass).to_vec(),
        |_, response| {
            anyhow::ensure!([422, 423, 424].contains(&response.status), "{}", response.status);
            Ok(())
        },
    );
    world.team.mesh.edit("ExtAuthPolicy/shop/custom@cluster-1", |policy| {
        policy["spec"]["config"]["server"]["name"] = json!("http");
    })?;
    world.team.answers(&pass("/custom"), 422).await?;
    world.team.answers(&pass("/more"), 426).await?;
    load.goes_on(6).await?;
    load.end().await.map_err(|error| world.team.mesh.with_logs(error))?;
    assert_eq!(world.asked(), 0);
    Ok(())
}

/// Four sets are in use, and a policy comes that is older than all, with a fifth: the youngest's is closed, and as long as
/// the gateway has routes of it, its server is asked with the headers and the body that its policy says. The oldest waits
/// until then.
#[tokio::test]
async fn a_policy_that_loses_its_room_is_closed_and_never_asked_about_in_another_way() -> anyhow::Result<()> {
    const NAMES: [&str; 5] = ["more", "custom", "http", "down", "allow"];
    let mut objects = String::new();
    for name in NAMES {
        let http = format!(
            "requestBody: {{maxRequestBytes: 64}}, httpService: {{pathPrefix: /{name}, request: {{allowedHeaders: [x-pass, x-{name}]}}}}"
        );
        objects += &settings(name, "authz-http", &http);
    }
    for (number, name) in NAMES.iter().enumerate().skip(1) {
        objects += &policy(name, name, number + 1);
    }
    let mut world = World::start(&objects).await?;
    let asked =
        |path: &str, own: &str| Request { method: "POST".to_owned(), ..pass(path).header(own, "1") }.with_body("hello");
    let (youngest, oldest) = (asked("/allow", "x-allow"), asked("/more", "x-more"));
    world.team.answers(&youngest, 200).await?;
    world.judges(&[("nobody", nobody("/allow"), (401, 0, 1)), ("no policy yet", nobody("/more"), (200, 1, 0))]).await?;
    let load = Load::start(
        world.team.mesh.entrance("shop/www")?.1,
        4,
        Pace::PerSecond(200),
        vec![youngest.clone(), asked("/custom", "x-custom")],
        |_, response| {
            anyhow::ensure!([200, 500].contains(&response.status), "{}: {}", response.status, response.text());
            Ok(())
        },
    );
    let policy = crate::support::yaml::documents(
        &policy("more", "more", 1).replace('@', "annotations: {cluster.solo.io/cluster: cluster-1}"),
    )?;
    let objects = policy.iter().flat_map(|objects| list(objects, "")).cloned();
    let objects: Vec<Manifest> = objects.map(|object| Manifest { cluster: "cluster-1".to_owned(), object }).collect();
    manifests::write(world.team.mesh.directory(), &objects)?;
    world.team.answers(&youngest, 500).await?;
    assert_eq!(world.send(&oldest).await?.status, 500, "its room is still the other's");
    told_that_it_waits(&world, true).await?;
    world.team.answers(&oldest, 200).await?;
    told_that_it_waits(&world, false).await?;
    load.goes_on(4).await?;
    load.end().await.map_err(|error| world.team.mesh.with_logs(error))?;
    world.judges(&[("judged", nobody("/more"), (401, 0, 1)), ("closed", youngest, (500, 0, 0))]).await?;
    let checks = world.http.checks();
    let of =
        |name: &str| checks.iter().filter(|check| check.path.starts_with(&format!("/{name}/"))).collect::<Vec<_>>();
    for (name, header) in [("allow", "x-allow"), ("custom", "x-custom"), ("more", "x-more")] {
        let of_load: Vec<_> = of(name).into_iter().filter(|check| check.method == "POST").collect();
        assert!(!of_load.is_empty(), "{name}");
        for check in of_load {
            assert_eq!((check.header(header), &check.body[..]), ("1", &b"hello"[..]), "{check:?}");
        }
    }
    let (approval, message, _) = world.team.verdict("ExtAuthPolicy/shop/allow@cluster-1")?;
    assert_eq!(approval, "FAILED", "{message}");
    for holder in ["more", "custom", "http", "down"] {
        assert!(message.contains(&format!("`ExtAuthPolicy/shop/{holder}@cluster-1`")), "{message}");
    }
    Ok(())
}

/// Waits until the author of the oldest policy is told that it waits for the youngest's room, or is so no more.
async fn told_that_it_waits(world: &World, waits: bool) -> anyhow::Result<()> {
    let chancery = &world.team.mesh.chancery;
    until(PATIENCE, &format!("told that it waits: {waits}"), async || {
        let shown = status(chancery.admin()).map_err(|error| format!("{error:#}"))?;
        let items = list(&shown, "/items").iter();
        let mut told = items.filter(|entry| text(entry, "/object") == "ExtAuthPolicy/shop/more@cluster-1");
        let told = told.next().map(Value::to_string).unwrap_or_default();
        let is_said = told.contains("on gateway `cluster-1/shop/ingress` the policy waits for the room of settings")
            && told.contains("(`ExtAuthPolicy/shop/allow@cluster-1`)");
        if is_said == waits { Ok(()) } else { Err(Not::Yet(told)) }
    })
    .await
}

/// Policies come, change and go, and so do the settings of their server: nobody who may pass is refused, and no listener
/// changes.
#[tokio::test]
async fn attaching_and_editing_costs_no_request_and_no_listener() -> anyhow::Result<()> {
    const SERVER: &str = "ExtAuthServer/shop/grpc@cluster-1";
    let mut world = World::asking(CUSTOM, &["/custom"]).await?;
    let address = world.team.mesh.entrance("shop/www")?.1;
    let listeners = "listener_manager.listener_(modified|added|in_place_updated)";
    let before = world.team.mesh.gateways[0].envoy.stats(listeners).await?;
    let requests = ["/custom", "/plain", "/http"].map(pass);
    let load = Load::start(address, 4, Pace::PerSecond(200), requests.to_vec(), |_, response| {
        anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(())
    });
    for step in 0..12_usize {
        // In turn: other routes, no routes at all, and other settings of the server where it is in use.
        let label = ["custom", "http", "none"][step % 3];
        if label == "custom" {
            world.team.mesh.edit(SERVER, |server| server["spec"]["statusOnError"] = json!(500 + step / 3))?;
        }
        world.team.mesh.edit(CUSTOM_POLICY, |policy| {
            policy["spec"]["applyToRoutes"] = json!([{"route": {"labels": {"case": label}}}]);
        })?;
        for path in ["/custom", "/http"] {
            let expected = if path == format!("/{label}") { 401 } else { 200 };
            let asked: Request = nobody(path);
            until(PATIENCE, "the edit", async || match Client::new(address).send(&asked).await {
                Ok(response) if response.status == expected => Ok(()),
                other => Err(Not::Yet(format!("{other:?}"))),
            })
            .await
            .map_err(|error| world.team.mesh.with_logs(error))?;
        }
        load.goes_on(requests.len()).await?;
    }
    load.end().await.map_err(|error| world.team.mesh.with_logs(error))?;
    assert_eq!(world.team.mesh.gateways[0].envoy.stats(listeners).await?, before, "listeners are as they were");
    Ok(())
}
