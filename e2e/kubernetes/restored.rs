//! The store of an API server is restored from a copy: what was written since is gone, versions go back, and what is served is
//! what is there.

use super::*;

#[tokio::test]
async fn a_store_that_is_restored_from_a_copy_is_what_is_served_again() -> anyhow::Result<()> {
    let mut kube = Kube::start("restored").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    let before = served(&chancery, "mgmt").await?;
    kube.save().await?;
    kube.apply(&[table("/lost"), slice("10.1.0.44")])?;
    let lost = until_served(&chancery, "mgmt", "what will be lost", |now| {
        now.iter().all(|(name, version)| !name.0.ends_with("RouteConfiguration") || before[name] != *version)
            && now.iter().any(|(name, version)| name.0.ends_with("Assignment") && before[name] != *version)
    })
    .await?;
    kube.restore().await?;
    until_served(&chancery, "mgmt", "what was there before", |now| *now == before).await?;
    // And what is written from then on is followed.
    kube.apply(&[table("/lost"), slice("10.1.0.44")])?;
    until_served(&chancery, "mgmt", "the same edits once more", |now| *now == lost).await?;
    Ok(())
}
