//! What is served ahead of the compile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::compile::Led;
use crate::emit::emit_endpoints;
use crate::ir::{Upstream, UpstreamId};
use crate::model::{GatewayId, Name};
use crate::snapshot::Resource;
use crate::snapshot::verify::verify_endpoints;

/// Endpoints that are not compiled yet.
pub(super) struct Ahead {
    pub(super) compiled: Arc<Upstream>,
    pub(super) resource: Arc<Resource>,
}

impl Ahead {
    /// Encodes what an upstream leads to now; none if the checker has something against it, which is logged.
    pub(super) fn new(gateway: &GatewayId, led: Led) -> Option<Self> {
        let resource = Arc::new(emit_endpoints(&led.now));
        let violations = verify_endpoints(&resource);
        for violation in &violations {
            tracing::error!(%gateway, "not published, this is a fault of Chancery: {violation}");
        }
        violations.is_empty().then_some(Self { compiled: led.compiled, resource })
    }
}

/// Those of one gateway.
#[derive(Default)]
pub(super) struct Own {
    by_id: BTreeMap<UpstreamId, Ahead>,
    by_name: BTreeMap<Name, UpstreamId>,
}

impl Own {
    pub(super) fn get(&self, id: &UpstreamId) -> Option<&Ahead> {
        self.by_id.get(id)
    }

    /// The one whose resource has a name.
    pub(super) fn named(&self, name: &Name) -> Option<&Ahead> {
        self.get(self.by_name.get(name)?)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Ahead> {
        self.by_id.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn insert(&mut self, id: UpstreamId, ahead: Ahead) {
        // With other transports they had another name.
        self.remove(&id);
        self.by_name.insert(ahead.resource.name.clone(), id.clone());
        self.by_id.insert(id, ahead);
    }

    /// Takes one out; the name of its resource.
    pub(super) fn remove(&mut self, id: &UpstreamId) -> Option<Name> {
        let name = self.by_id.remove(id)?.resource.name.clone();
        self.by_name.remove(&name);
        Some(name)
    }
}

/// Which of them are others than before: by gateway, the names of their resources.
pub(super) enum Renewed {
    All,
    These(BTreeMap<GatewayId, BTreeSet<Name>>),
}
