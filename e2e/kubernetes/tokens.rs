//! Projected tokens of ServiceAccounts: an API server says whom one proves.

use tonic::Code;

use super::*;
use crate::support::chancery::credentials;
use crate::xds_credentials::{Wallet, Way};

/// A token of an account of namespace `shop`, as the kubelet projects it.
fn token(kube: &Kube, account: &str, audience: &str) -> anyhow::Result<String> {
    let audience = format!("--audience={audience}");
    Ok(format!("Bearer {}", kube.kubectl(&["create", "token", account, "-n", "shop", &audience])?.trim()))
}

#[tokio::test]
async fn r193_a_projected_token_lets_a_gateway_in_and_nobody_else() -> anyhow::Result<()> {
    let kube = Kube::start("tokens").await?;
    install_loose(&kube)?;
    let mut all = objects("mgmt");
    let pods = all.iter_mut().filter(|object| object["kind"] == "Pod");
    // What a controller would fill in.
    pods.for_each(|pod| pod["spec"]["serviceAccountName"] = json!("default"));
    kube.apply(&all)?;
    // What a controller would make; the Pod of the gateway runs as `default`.
    for account in ["default", "other"] {
        let metadata = json!({"name": account, "namespace": "shop"});
        kube.apply(&[json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})])?;
    }
    let keys = tempfile::tempdir()?;
    credentials(keys.path(), true, &[], false)?;
    let settings = Settings { xds_credentials: Some(keys.path().join("server")), ..Settings::default() };
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &settings).await?;
    let authority = std::fs::read_to_string(keys.path().join("server/ca.crt"))?;
    let service =
        ("envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", "config.listener.v3.Listener");
    let asks = async |token: &str| {
        let wallet = Wallet::new(&authority, None, Some(token))?;
        let answer = wallet.ask(chancery.xds(), service, Way::Delta, &gateway("mgmt"), "listener/8080").await?;
        anyhow::Ok(answer.map(|(resources, _)| resources).map_err(|status| status.code()))
    };
    let own = token(&kube, "default", "chancery")?;
    let is_let_in = async || match asks(&own).await {
        Ok(Ok(1)) => Ok(()),
        other => Err(Not::Yet(format!("{other:?}"))),
    };
    until(PATIENCE, "the gateway to be let in", is_let_in).await.with_context(|| chancery.log_tail())?;
    // The kubelet has tokens made out for a Pod: then it is that Pod, and no other of the same account.
    let mut second = all.iter().find(|object| object["kind"] == "Pod").context("a Pod")?.clone();
    second["metadata"]["name"] = json!("web-2");
    kube.apply(&[second])?;
    let bound = |pod: &str| -> anyhow::Result<String> {
        let pod = format!("--bound-object-name={pod}");
        let arguments =
            ["create", "token", "default", "-n", "shop", "--audience=chancery", "--bound-object-kind=Pod", &pod];
        Ok(format!("Bearer {}", kube.kubectl(&arguments)?.trim()))
    };
    let answer = asks(&bound("web-1")?).await?;
    ensure!(answer == Ok(1), "a token of its own Pod: {answer:?}");
    let rows = [
        ("of another Pod", bound("web-2")?, Code::PermissionDenied),
        ("for another audience", token(&kube, "default", "https://kubernetes.default.svc")?, Code::Unauthenticated),
        ("of another account", token(&kube, "other", "chancery")?, Code::PermissionDenied),
        ("made up", "Bearer abc.def.ghi".to_owned(), Code::Unauthenticated),
    ];
    for (what, token, code) in rows {
        let answer = asks(&token).await?;
        ensure!(answer == Err(code), "a token {what}: {answer:?}");
    }
    let log = chancery.log()?;
    ensure!(!log.contains(own.trim_start_matches("Bearer ")), "the log quotes a token");
    Ok(())
}
