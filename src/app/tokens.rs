//! Projected tokens of ServiceAccounts: whom one proves is asked of the API servers.

use std::future::Future;
use std::pin::Pin;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::model::{Name, ObjectRef, SecretBytes};
use crate::source::kubernetes::Clients;
use crate::xds::caller::account_of_path;
use crate::xds::review::{Review, Reviewer};

/// For whom a token must have been made out. So it is of no use to anybody else who sees it, another API server included.
const AUDIENCE: &str = "chancery";

/// Where an answer names the Pod for which a token was made out, as the kubelet has them made.
const POD: &str = "authentication.kubernetes.io/pod-name";

/// How the names of ServiceAccounts begin that an API server gives.
const ACCOUNT: &str = "system:serviceaccount:";

/// Asks API servers, the management cluster's first.
#[derive(Debug)]
pub(super) struct TokenReviews {
    pub(super) clients: Clients,
    pub(super) management: Name,
}

impl Reviewer for TokenReviews {
    fn review(&self, token: SecretBytes) -> Pin<Box<dyn Future<Output = Review> + Send>> {
        let mut clients = self.clients.all();
        // Others in the order of their names.
        clients.sort_by_key(|(name, _)| *name != self.management);
        Box::pin(async move {
            let mut is_unavailable = clients.is_empty();
            for (cluster, client) in clients {
                match ask(client, &token).await {
                    Ok(status) => match account(&cluster, &status) {
                        Some((account, pod)) => return Review::Account(account, pod),
                        None => continue,
                    },
                    Err(error) => {
                        tracing::warn!(%cluster, "a token could not be reviewed: {error}");
                        is_unavailable = true;
                    }
                }
            }
            if is_unavailable { Review::Unavailable } else { Review::Nobody }
        })
    }
}

async fn ask(client: kube::Client, token: &SecretBytes) -> Result<Value, kube::Error> {
    let resource = ApiResource {
        group: "authentication.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "authentication.k8s.io/v1".to_owned(),
        kind: "TokenReview".to_owned(),
        plural: "tokenreviews".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut review = DynamicObject::new("", &resource);
    review.metadata.name = None;
    review.data = json!({"spec": {"token": String::from_utf8_lossy(token.expose()), "audiences": [AUDIENCE]}});
    let mut answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.data.as_object_mut().and_then(|data| data.remove("status")).unwrap_or_default())
}

/// The account that an answer names, and the Pod if the token is bound to one, if the token is made out for us.
fn account(cluster: &Name, status: &Value) -> Option<(ObjectRef, Option<Name>)> {
    let audiences = status["audiences"].as_array()?;
    if status["authenticated"] != true || !audiences.iter().any(|audience| audience == AUDIENCE) {
        return None;
    }
    let (namespace, name) = status["user"]["username"].as_str()?.strip_prefix(ACCOUNT)?.split_once(':')?;
    // The API server says so only while the Pod is there.
    let pod = status["user"]["extra"][POD][0].as_str().map(Name::from);
    Some((account_of_path(&format!("{cluster}/{namespace}/{name}"))?, pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r193_a_token_proves_an_account_only_if_it_is_made_out_for_us() {
        let shown = |status: Value| {
            account(&"mgmt".into(), &status).map(|(account, pod)| match pod {
                Some(pod) => format!("{account} {pod}"),
                None => account.to_string(),
            })
        };
        let status = json!({
            "authenticated": true, "audiences": ["chancery"], "user": {"username": "system:serviceaccount:edge:web"},
        });
        assert_eq!(shown(status.clone()).as_deref(), Some("ServiceAccount/edge/web@mgmt"));
        let mut bound = status.clone();
        bound["user"]["extra"] = json!({POD: ["web-1"], "authentication.kubernetes.io/pod-uid": ["1-2"]});
        assert_eq!(shown(bound).as_deref(), Some("ServiceAccount/edge/web@mgmt web-1"));
        for (path, value) in [
            ("/authenticated", json!(false)),
            ("/audiences", json!(["https://kubernetes.default.svc"])),
            ("/audiences", Value::Null),
            ("/user/username", json!("system:node:web")),
            ("/user/username", json!("system:serviceaccount:edge")),
            ("/user/username", json!("system:serviceaccount:edge:we/b")),
        ] {
            let mut other = status.clone();
            *other.pointer_mut(path).unwrap() = value;
            assert_eq!(shown(other.clone()), None, "{other}");
        }
    }
}
