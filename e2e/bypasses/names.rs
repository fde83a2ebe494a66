//! Servers that policies name by DNS: a gateway asks none that the policy's workspace may not use, and none of another's whose
//! owner says who may call what there.

use std::net::Ipv4Addr;

use anyhow::Context;
use serde_json::{Value, json};

use crate::support::authorizer::{Authorizer, Verdict};
use crate::support::delegated::{Delegated, request};
use crate::support::dns::Dns;
use crate::support::http::Request;
use crate::support::issuer::{Issuer, KeyServer};
use crate::support::manifests::{self, Manifest};
use crate::support::world::Speech;

/// `hidden` is a Service of `shop`, and `alias` one of `team` that stands for it.
const WORLD: &str = r"
- apiVersion: networking.gloo.solo.io/v2
  kind: RouteTable
  metadata: {name: child, namespace: team, @}
  spec:
    http:
      - {name: asked, labels: {case: asked}, matchers: [{uri: {prefix: /asked}}], forwardTo: &stock {destinations: [{ref: {name: stock}}]}}
      - {name: keys, labels: {case: keys}, matchers: [{uri: {prefix: /keys}}], forwardTo: *stock}
      - {name: open, matchers: [{uri: {prefix: /}}], forwardTo: *stock}
- {apiVersion: v1, kind: Service, metadata: {name: hidden, namespace: shop, @}, spec: {ports: [{name: any, port: 9000}]}}
- {apiVersion: v1, kind: Service, metadata: {name: alias, namespace: team, @}, spec: {type: ExternalName, externalName: hidden.shop.svc.cluster.local}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: ExtAuthPolicy, metadata: {name: asks, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: asked}}}], config: {glooAuth: {configs: [{passThroughAuth: {grpc: {address: 'alias.team.svc.cluster.local:$GRPC', connectionTimeout: 9s}}}]}}}}
- {apiVersion: security.policy.gloo.solo.io/v2, kind: JWTPolicy, metadata: {name: fetches, namespace: team, @}, spec: {applyToRoutes: [{route: {labels: {case: keys}}}], config: {providers: {a: {issuer: https://a, remote: {url: 'http://hidden.shop.svc.cluster.local:$KEYS/keys'}}}}}}
";

const ASKS: &str = "ExtAuthPolicy/team/asks@cluster-1";
const FETCHES: &str = "JWTPolicy/team/fetches@cluster-1";

struct World {
    team: Delegated,
    server: Authorizer,
    keys: KeyServer,
    /// One for each policy, which its server lets pass.
    requests: [Request; 2],
    _dns: Dns,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let issuer = Issuer::ec("https://a")?;
        let server = Authorizer::start((Ipv4Addr::LOCALHOST, 0).into(), |_| Verdict::pass()).await?;
        let keys = KeyServer::start(issuer.jwks()).await?;
        let dns = Dns::start(Ipv4Addr::LOCALHOST).await?;
        for name in ["hidden.shop", "alias.team"] {
            dns.set(&format!("{name}.svc.cluster.local"), &[Ipv4Addr::LOCALHOST]);
        }
        let world = WORLD.replace("$GRPC", &server.address.port().to_string());
        let world = world.replace("$KEYS", &keys.address.port().to_string());
        let team = Delegated::start_speaking(&world, &Speech { dns: Some(&dns), ..Speech::default() }).await?;
        let token = format!("Bearer {}", issuer.token(&json!({}))?);
        let requests = [request("GET", "/asked"), request("GET", "/keys").header("authorization", &token)];
        Ok(Self { team, server, keys, requests, _dns: dns })
    }

    /// How often the servers were asked.
    fn asked(&self) -> (usize, u64) {
        (self.server.count(), self.keys.requests())
    }

    /// Waits until the gateway refuses both requests, and sees that it asks nobody then and that both authors are told.
    async fn is_closed(&mut self, why: &str) -> anyhow::Result<()> {
        for request in self.requests.clone() {
            self.team.answers(&request, 500).await?;
        }
        let before = self.asked();
        for request in self.requests.clone() {
            assert_eq!(self.team.outcome(&request).await?, (500, 0), "{why}: {request:?}");
        }
        assert_eq!(self.asked(), before, "{why}: nobody is asked");
        for policy in [ASKS, FETCHES] {
            let (approval, message, _) = self.team.verdict(policy)?;
            assert_eq!(approval, "INVALID", "{policy}: {message}");
            assert!(message.contains(why), "{policy}: {message}");
        }
        assert_eq!(self.team.outcome(&request("GET", "/")).await?, (200, 1), "and nobody else's routes are closed");
        Ok(())
    }

    /// Waits until both requests pass, and sees that the servers are asked.
    async fn is_open(&mut self) -> anyhow::Result<()> {
        let before = self.asked();
        for request in self.requests.clone() {
            self.team.answers(&request, 200).await?;
        }
        let now = self.asked();
        assert!(now.0 > before.0 && now.1 > 0, "{before:?} {now:?}");
        Ok(())
    }
}

fn policy(kind: &str, config: &Value) -> Manifest {
    let object = json!({
        "apiVersion": "security.policy.gloo.solo.io/v2", "kind": kind,
        "metadata": {"name": "of-its-owner", "namespace": "shop"},
        "spec": {"applyToDestinations": [{"selector": {"name": "hidden"}}], "config": config},
    });
    Manifest { cluster: "cluster-1".to_owned(), object }
}

/// R37, R122: by a name of one's own that stands for it, and by its own; before it is shared, and while its owner says who may
/// call what there.
#[tokio::test]
async fn no_name_leads_a_policy_to_what_others_hide_or_protect() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    world.is_closed("that is not shared with workspace `team`").await?;
    assert_eq!(world.asked(), (0, 0));
    for (settings, list) in [("shop/shop", "exportTo"), ("team/team", "importFrom")] {
        world.team.mesh.edit(&format!("WorkspaceSettings/{settings}@cluster-1"), |settings| {
            settings["spec"][list][0]["resources"] = json!([{"kind": "ROUTE_TABLE"}, {"kind": "SERVICE"}]);
        })?;
    }
    world.is_open().await?;
    let keys =
        json!({"providers": {"b": {"issuer": "https://b", "local": {"inline": Issuer::ec("https://b")?.jwks()}}}});
    for guard in [
        policy("AccessPolicy", &json!({"authzList": [{"allowedMethods": ["GET", "POST"]}]})),
        policy("JWTPolicy", &keys),
    ] {
        let files = manifests::write(world.team.mesh.directory(), std::slice::from_ref(&guard))?;
        world
            .is_closed("`Service/shop/hidden@cluster-1`, whose owner does not let filters of this gateway ask it")
            .await?;
        files.iter().try_for_each(std::fs::remove_file).context("remove the policy")?;
        world.is_open().await?;
    }
    Ok(())
}
