//! Rate-limit services as clients: each gets what configurations allow it, and nothing else.
//!
//! A service is found by the id that it states, `ratelimit~<cluster>~<namespace>~<name>` of a Service that there is. Where clients
//! have credentials, its is that of an account of the Service's Pods, as with gateways.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::compile::Compiled;
use crate::emit::emit_limits;
use crate::ir::policy::rate_limit::LimitPlan;
use crate::model::{Code, Finding, Findings, ObjectRef};
use crate::publish::{Publisher, Watched};
use crate::resolve::world::World;
use crate::snapshot::{ResourceType, Snapshot, Version};
use crate::xds::node::NodeError;

/// What is published to rate-limit services.
#[derive(Debug, Default)]
pub(super) struct LimitServers {
    publisher: Arc<Publisher<ObjectRef>>,
    /// What was published last, and what it was made from.
    published: BTreeMap<ObjectRef, (Option<Arc<LimitPlan>>, Arc<Snapshot>)>,
}

impl LimitServers {
    /// Publishes to those who watch there.
    pub(super) fn new(publisher: Arc<Publisher<ObjectRef>>) -> Self {
        Self { publisher, published: BTreeMap::new() }
    }

    /// Brings every service that is connected up to date, and forgets those that have gone.
    ///
    /// # Cost
    /// In proportion to the services that were connected, and to the rules of those that have others now.
    pub(super) fn publish(&mut self, compiled: &Compiled) {
        for server in self.publisher.unwatched() {
            if self.publisher.retire(&server) {
                self.published.remove(&server);
            }
        }
        for server in self.publisher.keys() {
            let plan = compiled.limits.get(&server);
            let snapshot = match self.published.get(&server) {
                Some((before, snapshot)) if before.as_ref().map(Arc::as_ptr) == plan.map(Arc::as_ptr) => {
                    snapshot.clone()
                }
                _ => {
                    let nothing = LimitPlan { server: server.clone(), configurations: Vec::new() };
                    Arc::new(emit_limits(plan.map_or(&nothing, |plan| plan)))
                }
            };
            if self.publisher.publish(&server, snapshot.clone()) {
                let configurations = plan.map_or(0, |plan| plan.configurations.len());
                tracing::info!(%server, configurations, "published limits");
            }
            self.published.insert(server, (plan.cloned(), snapshot));
        }
    }
}

/// Limits that a service refused: it takes all of them or none, and keeps what it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedLimits {
    /// Their version.
    pub(super) version: Version,
    /// The configurations that they are of.
    pub(super) owners: Arc<[ObjectRef]>,
    /// Its words, not too many.
    pub(super) words: String,
}

impl LimitServers {
    /// A finding for each configuration whose rules a service has refused and is still told.
    ///
    /// # Rule
    /// R132: these make its approval FAILED.
    pub(super) fn findings(&self, refused: &BTreeMap<ObjectRef, RefusedLimits>) -> Findings {
        let mut findings = Findings::new();
        for (server, RefusedLimits { version, owners, words }) in refused {
            let published = self.published.get(server).map(|(_, snapshot)| snapshot.resources(ResourceType::RateLimit));
            if !published.is_some_and(|resources| resources.values().any(|resource| resource.version == *version)) {
                continue;
            }
            let message = format!(
                "rate-limit service `{server}` refused its limits, which these are a part of, and goes on with those that it had; it says: {words:?}"
            );
            findings.extend(owners.iter().map(|owner| Finding::error(owner, Code::RefusedByGateway, message.clone())));
        }
        findings
    }
}

/// What a rate-limit service watches.
///
/// # Errors
/// There is no such Service.
pub(super) fn subscribe(
    publisher: &Publisher<ObjectRef>,
    compiled: &Compiled,
    server: &ObjectRef,
) -> Result<watch::Receiver<Watched>, NodeError> {
    if compiled.inputs.service(server).is_none() {
        return Err(NodeError::Unknown(format!(
            "there is no Service {:?} in namespace {:?} of cluster {:?}: a rate-limit service states the id `ratelimit~<cluster>~<namespace>~<Service>`",
            &*server.name, &*server.namespace, &*server.cluster
        )));
    }
    Ok(publisher.subscribe(server))
}
