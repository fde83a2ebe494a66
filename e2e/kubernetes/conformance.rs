//! The same objects in a directory and behind an API server are served as the same bytes, and edits are followed.

use super::*;

#[tokio::test]
async fn r2_an_api_server_and_a_directory_of_the_same_objects_serve_the_same_bytes() -> anyhow::Result<()> {
    let kube = Kube::start("conformance").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let settings = Settings::default();
    let of_kube = Chancery::serve_kubernetes(&kube.kubeconfig(), &settings).await.context(kube.log_tail())?;
    let folder = tempfile::tempdir()?;
    export(&kube, folder.path())?;
    let of_directory = Chancery::serve(folder.path(), &settings).await?;
    let expected = served(&of_directory, "mgmt").await.context(of_directory.log_tail())?;
    let found = served(&of_kube, "mgmt").await.context(of_kube.log_tail())?;
    ensure!(expected.len() >= 4, "{expected:?}");
    ensure!(found == expected, "{found:#?}\nbut a directory:\n{expected:#?}");

    // Edits by kubectl: of endpoints alone, and of a table.
    kube.apply(&[slice("10.1.0.12")])?;
    let moved = until_served(&of_kube, "mgmt", "the other address", |served| *served != found).await?;
    let differ = |one: &Served, other: &Served| -> Vec<String> {
        let of = |served: &Served| served.clone().into_iter().collect::<std::collections::BTreeSet<_>>();
        of(one)
            .difference(&of(other))
            .map(|((kind, _), _)| kind.rsplit('.').next().unwrap_or_default().to_owned())
            .collect()
    };
    ensure!(differ(&moved, &found) == ["ClusterLoadAssignment"], "{:?}", differ(&moved, &found));
    kube.apply(&[table("/cart")])?;
    let routed = until_served(&of_kube, "mgmt", "the other route", |served| *served != moved).await?;
    ensure!(differ(&routed, &moved) == ["RouteConfiguration"], "{:?}", differ(&routed, &moved));
    Ok(())
}

/// R15: an Envoy is the Pod that the API server knows, and nobody else.
#[tokio::test]
async fn r15_labels_that_a_stream_states_are_not_believed() -> anyhow::Result<()> {
    let kube = Kube::start("claims").await?;
    install_loose(&kube)?;
    kube.apply(&objects("mgmt"))?;
    let chancery = Chancery::serve_kubernetes(&kube.kubeconfig(), &Settings::default()).await?;
    served(&chancery, "mgmt").await?;
    kube.kubectl(&["delete", "pod", "web-1", "-n", "shop", "--force", "--grace-period=0"])?;
    until(PATIENCE, "the claim of a Pod that is gone to be refused", async || match served(&chancery, "mgmt").await {
        Err(error) if format!("{error:#}").contains("there is none of that name") => Ok(()),
        Err(error) => Err(Not::Yet(format!("{error:#}"))),
        Ok(_) => Err(Not::Yet("it is served".to_owned())),
    })
    .await
}
