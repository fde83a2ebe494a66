//! What Chancery brings to a cluster: its definitions, before a real API server.

use crate::support::kube::Kube;

#[tokio::test]
async fn an_api_server_starts_and_takes_objects() -> anyhow::Result<()> {
    let kube = Kube::start("one").await?;
    assert!(kube.kubectl(&["get", "crd"]).is_ok());
    Ok(())
}
