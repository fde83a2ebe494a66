//! Which Secrets may be read, under the roles of `config/kubernetes`: those of a namespace by name, and those that a policy
//! selects by labels only where all of a cluster may be.

use super::kept::with_secrets;
use super::*;
use crate::support::project;
use crate::support::tls::Authority;

/// Whether `chancery status` tells something with these words.
fn tells(chancery: &Chancery, words: &str) -> Result<bool, Not> {
    let status = crate::support::chancery::status(chancery.admin()).map_err(|error| format!("{error:#}"))?;
    Ok(status.to_string().contains(words))
}

#[tokio::test]
async fn labelled_keys_want_all_secrets_of_a_cluster_and_named_ones_those_of_their_namespace() -> anyhow::Result<()> {
    let kube = Kube::start_defined("secrets").await?;
    for file in ["cluster.yaml", "management.yaml"] {
        kube.apply_path(&project().join("config/kubernetes").join(file))?;
    }
    let pair = Authority::new("shop")?.sign("shop.example.com", "shop")?;
    kube.apply(&with_secrets(&pair.certificate, &pair.key, "CANARY-KEY"))?;
    let account = "--serviceaccount=gloo-mesh:chancery";
    kube.kubectl(&["create", "rolebinding", "secrets", "-n", "shop", "--clusterrole=chancery-secrets", account])?;
    let chancery = Chancery::serve_kubernetes(&kube.account("gloo-mesh", "chancery")?, &Settings::default()).await?;
    let refused = "refuses to let Chancery read the Secrets that a policy selects by labels";
    until(PATIENCE, "the refusal to be told", async || match tells(&chancery, refused) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Not::Yet("nothing is told".to_owned())),
        Err(error) => Err(error),
    })
    .await
    .with_context(|| chancery.log_tail())?;
    // The certificate that is named is read, and the listener served.
    let before = served(&chancery, "mgmt").await?;
    let listeners = before.keys().filter(|(kind, _)| kind.ends_with(".Listener")).count();
    ensure!(listeners == 2, "{before:?}");
    kube.kubectl(&["create", "clusterrolebinding", "chancery-secrets", "--clusterrole=chancery-secrets", account])?;
    until_served(&chancery, "mgmt", "the routes with the keys that may be read now", |served| *served != before)
        .await?;
    until(PATIENCE, "the refusal to be gone", async || match tells(&chancery, refused) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Not::Yet("it is told".to_owned())),
        Err(error) => Err(error),
    })
    .await
    .with_context(|| chancery.log_tail())?;
    ensure!(!chancery.log()?.contains("CANARY"), "the log quotes a key");
    Ok(())
}
