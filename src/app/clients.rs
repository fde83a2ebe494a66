//! Who gets what: nodes are matched to classes of gateways by what they state, and get what their credential allows.

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use crate::compile::Compiled;
use crate::model::{GatewayId, Kind, Labels, ObjectRef};
use crate::publish::{Publisher, limit_server};
use crate::resolve::gateway::{class_of, class_of_one, runs_as};
use crate::resolve::world::World;
use crate::xds::caller::Caller;
use crate::xds::node::{Node, NodeError};
use crate::xds::source::{SnapshotSource, Subscription};

use super::{Event, State, limits, refusals};

/// By what a stream was matched to a class of gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asker {
    /// The labels of its Pod.
    pub(super) labels: Labels,
    /// Whom its credential proves; none where nobody is asked.
    pub(super) account: Option<ObjectRef>,
    /// Of gateways that are connected to another replica, which matched them: their class.
    pub(super) served_elsewhere: Option<GatewayId>,
}

impl Asker {
    /// Whether it is still of a class, and may have what that has.
    pub(super) fn may_have<W: World>(&self, world: &W, class: &GatewayId) -> bool {
        if let Some(served) = &self.served_elsewhere {
            return served == class;
        }
        class_of(world, &class.cluster, &class.namespace, &self.labels).as_ref() == Some(class)
            && self.account.as_ref().is_none_or(|account| runs_as(world, class, account))
    }
}

/// Matches nodes to gateways and hands out their snapshots.
pub(super) struct Gateways {
    pub(super) state: State,
    pub(super) publisher: Arc<Publisher>,
    pub(super) limits: Arc<Publisher<ObjectRef>>,
    pub(super) events: std_mpsc::Sender<Event>,
    /// Whether what a node states about its Pod counts where there is no such Pod.
    pub(super) trusts_labels: bool,
}

impl SnapshotSource for Gateways {
    async fn subscribe(&self, node: &Node, caller: &Caller) -> Result<Subscription, NodeError> {
        let mut state = self.state.clone();
        let stopping = || NodeError::Unavailable("the control plane is stopping: connect again".to_owned());
        let compiled = state.wait_for(Option::is_some).await.map_err(|_| stopping())?.clone();
        let Some(compiled) = compiled else {
            return Err(NodeError::Unavailable("nothing is compiled yet: connect again".to_owned()));
        };
        if let Some(server) = limit_server(&node.id) {
            authorize(&compiled, &class_of_one(&server), caller)?;
            let snapshots = limits::subscribe(&self.limits, &compiled, &server)?;
            self.events.send(Event::LimitServer).map_err(|_| stopping())?;
            return Ok(Subscription { gateway: node.id.clone(), snapshots, held: None });
        }
        let (gateway, labels) = match_node(&compiled, node, caller, self.trusts_labels)?;
        let key = refusals::key(gateway.clone(), node);
        let asker = Arc::new(Asker { labels, account: caller.account().cloned(), served_elsewhere: None });
        let snapshots = self.publisher.subscribe(&key);
        self.events.send(Event::Gateway(key, asker.clone())).map_err(|_| stopping())?;
        Ok(Subscription { gateway: gateway.to_string().into(), snapshots, held: Some(asker) })
    }
}

/// The class of a node, and the Pod labels by which it was found.
///
/// # Errors
/// What the node leaves out, that there is no such Pod where it must have one, that no Service selects it, or that the caller
/// is not that gateway.
///
/// # Rule
/// R15, R193.
pub(super) fn match_node(
    compiled: &Compiled,
    node: &Node,
    caller: &Caller,
    trusts_labels: bool,
) -> Result<(GatewayId, Labels), NodeError> {
    let (Some(cluster), Some(namespace)) = (&node.cluster, &node.namespace) else {
        return Err(NodeError::Invalid(
            "the node's metadata must state `cluster` and `namespace`; `chancery bootstrap` writes a bootstrap that does".to_owned(),
        ));
    };
    // Before anything is looked up: who runs elsewhere hears nothing of what runs here.
    if let Some(own) = caller.account()
        && (&own.cluster, &own.namespace) != (cluster, namespace)
    {
        return Err(NodeError::Denied(format!(
            "the node states namespace {namespace:?} of cluster {cluster:?}, and the credential is that of {caller}"
        )));
    }
    if let Some(own) = caller.pod()
        && node.pod.as_ref() != Some(own)
    {
        return Err(NodeError::Denied(format!(
            "the node states the Pod {stated:?}, and the token was made out for the Pod `{own}` alone",
            stated = node.pod.as_deref().unwrap_or_default()
        )));
    }
    let pod =
        node.pod.as_ref().and_then(|pod| compiled.inputs.pod(&ObjectRef::new(Kind::Pod, cluster, namespace, pod)));
    if pod.is_none() && !trusts_labels {
        let stated = node.pod.as_deref().unwrap_or_default();
        return Err(NodeError::Unknown(format!(
            "the node states the Pod {stated:?}, and there is none of that name in namespace {namespace:?} of cluster {cluster:?}: \
            a gateway is a Pod, of which the API server knows"
        )));
    }
    let labels = pod.map_or_else(|| node.labels.clone(), |pod| pod.labels.clone());
    let class = class_of(&compiled.inputs, cluster, namespace, &labels);
    let class = class.ok_or_else(|| {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        NodeError::Unknown(format!(
            "no Service of namespace {namespace:?} in cluster {cluster:?} selects a Pod with labels {labels:?}: a gateway needs one"
        ))
    })?;
    authorize(compiled, &class, caller)?;
    Ok((class, labels))
}

/// Whether the caller may have what a class of gateways has.
fn authorize(compiled: &Compiled, class: &GatewayId, caller: &Caller) -> Result<(), NodeError> {
    match caller.account() {
        Some(own) if !runs_as(&compiled.inputs, class, own) => Err(NodeError::Denied(format!(
            "the node is matched to {class:?}, and no Pod of it runs as {caller}: a gateway is who its Pods run as, and the account \
            `default` without any Pod",
            class = class.to_string()
        ))),
        _ => Ok(()),
    }
}
