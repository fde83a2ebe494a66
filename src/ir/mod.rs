//! Ring 3: the plan. Resolved meaning, Envoy-shaped but not Envoy.
//!
//! One [`GatewayPlan`] per class of gateway Envoys, made by `resolve`, read by `emit`, `explain` and `status`. All values
//! are `Eq + Hash`, so that an equal plan can be recognised as no change. Every route carries its provenance: who put which
//! label on it, which policies are attached and through whom, which destination was meant.
//!
//! Knows nothing of manifests or Envoy types, nor where an object came from beyond its
//! [`ObjectRef`](crate::model::ObjectRef).

pub mod client;
pub mod client_tls;
pub mod entries;
pub mod extension;
pub mod frozen;
pub mod listener;
pub mod policy;
pub mod route;
pub mod secret;
pub mod trust;
pub mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::model::GatewayId;

pub use client::Clients;
pub use client_tls::ClientTls;
pub use extension::Extensions;
pub use listener::{Chain, Listener, Serves, VirtualHost};
pub use policy::Policy;
pub use policy::access::Guard;
pub use route::{Action, Matcher, Route, RouteBody, Routes};
pub use secret::{Secret, SecretId};
pub use trust::{Identity, Trust};
pub use upstream::{Upstream, UpstreamId};

/// Everything that one class of gateway Envoys serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayPlan {
    /// Whose plan it is.
    pub gateway: GatewayId,
    /// Listeners by bound port; those that an edit leaves as they are stay the same in memory.
    pub listeners: BTreeMap<u16, Arc<Listener>>,
    /// What policies share for all routes.
    pub extensions: Arc<Extensions>,
    /// Who may call what on the gateway itself, over HTTP. Chains of whole connections have it in theirs.
    pub guard: Option<Arc<Guard>>,
    /// Who the clients inside the cluster are; absent without a listener for them.
    pub clients: Option<Arc<Clients>>,
    /// Every upstream that some route of some listener names, or what policies share, each once.
    pub upstreams: OrdMap<UpstreamId, Arc<Upstream>>,
    /// Every secret that some chain or upstream needs, each once, and no other.
    pub secrets: BTreeMap<SecretId, Secret>,
}

impl GatewayPlan {
    /// Whether some listener is for clients inside the cluster.
    #[must_use]
    pub fn has_mesh(&self) -> bool {
        self.listeners.values().any(|listener| listener.purpose == listener::Purpose::Mesh)
    }
}
