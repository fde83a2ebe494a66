//! From the plans of one key to snapshots that may be published: one edit emits and checks what it changed.
//!
//! The clock enters here: parts that stand by for connections of a time when their chain was cut
//! ([`Form::StandingBy`](crate::emit::Form)) go when such connections have ended; what policies shared for routes goes when
//! gateways have other routes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use crate::emit::{Beyond, EmitOptions, Emitter, Layout};
use crate::ir::{Extensions, GatewayPlan, Upstream, UpstreamId};
use crate::memory::refusals::{Bytes, Refusals};
use crate::model::EnvoyRelease;
use crate::publish::GatewayKey;
use crate::snapshot::verify::Verifier;
use crate::snapshot::{ResourceType, Snapshot};

/// How long after a chain was put together again its parts stand by. Envoy drains connections for ten minutes unless it
/// is started with another `--drain-time-s`; half of this loses requests, double keeps parts twice as long for nobody.
pub(super) const DRAINED: Duration = Duration::from_secs(15 * 60);

/// How long what policies share no more is held for gateways whose routes still name it: without it, they refuse the
/// requests of those routes. Ample for a gateway to take its routes over; double fetches the keys of issuers that are gone for
/// longer.
pub(super) const TAKEN_OVER: Duration = Duration::from_secs(15);

/// The settings for gateways of a release: [`EmitOptions::serving`], unless a test cuts earlier.
pub(super) type Serving = fn(IpAddr, EnvoyRelease) -> EmitOptions;

/// What is kept for one key from one emission to the next.
#[derive(Debug)]
pub(super) struct Emission {
    emitter: Emitter,
    verifier: Verifier,
    last: Option<Arc<Snapshot>>,
    /// When something began to stand by, the last time.
    standing_by: Option<Instant>,
    /// What policies share, as it was emitted last.
    shared: Shared,
    /// Whether a listener was refused while a chain of it was cut: some Envoys are built without what that takes.
    refuses_cuts: bool,
}

/// What policies share, as it was emitted last.
#[derive(Debug, Default)]
struct Shared {
    extensions: Arc<Extensions>,
    /// All upstreams of that time, for those that it names.
    upstreams: OrdMap<UpstreamId, Arc<Upstream>>,
    /// When something in it was wanted the last time, if anything in it is wanted no more.
    leaving: Option<Instant>,
    /// Routes were taken over that name nothing of what is wanted no more.
    is_left: bool,
}

impl Shared {
    fn due(&self) -> Option<Instant> {
        self.leaving.map(|since| since + TAKEN_OVER)
    }

    /// A plan together with what routes of a moment ago name. Names never mean something else, so the two do not clash; sets
    /// of settings stay in the slots that they have.
    fn with_leaving<'p>(&mut self, plan: &'p GatewayPlan, now: Instant) -> Cow<'p, GatewayPlan> {
        if std::mem::take(&mut self.is_left) || plan.extensions.covers(&self.extensions) {
            self.leaving = None;
            self.upstreams = plan.upstreams.clone();
            let extensions = plan.extensions.after(&self.extensions, false);
            if extensions == *plan.extensions {
                self.extensions = plan.extensions.clone();
                return Cow::Borrowed(plan);
            }
            if extensions != *self.extensions {
                self.extensions = Arc::new(extensions);
            }
            return Cow::Owned(GatewayPlan { extensions: self.extensions.clone(), ..plan.clone() });
        }
        let all = plan.extensions.after(&self.extensions, true);
        if self.leaving.is_none() || all != *self.extensions {
            self.leaving = Some(now);
        }
        let mut plan = plan.clone();
        for id in all.upstreams() {
            if let (None, Some(upstream)) = (plan.upstreams.get(id), self.upstreams.get(id)) {
                plan.upstreams.insert(id.clone(), upstream.clone());
            }
        }
        self.extensions = Arc::new(all);
        self.upstreams = plan.upstreams.clone();
        plan.extensions = self.extensions.clone();
        Cow::Owned(plan)
    }
}

impl Emission {
    /// Of gateways that may hold anything, from an earlier run or another replica.
    pub(super) fn new() -> Self {
        Self {
            emitter: Emitter::new(Layout::uncertain()),
            verifier: Verifier::new(),
            last: None,
            standing_by: None,
            shared: Shared::default(),
            refuses_cuts: false,
        }
    }

    /// The snapshot of a plan, completed by `fill`; the very same as before if nothing differs.
    ///
    /// # Errors
    /// What `fill` objects to: there is nothing to publish.
    pub(super) fn emit(
        &mut self,
        plan: &GatewayPlan,
        mut options: EmitOptions,
        now: Instant,
        fill: impl FnOnce(Snapshot) -> Result<Snapshot, String>,
    ) -> Result<Arc<Snapshot>, String> {
        if self.refuses_cuts {
            options.cut_from_routes = usize::MAX;
        }
        let before = self.emitter.layout().clone();
        let plan = self.shared.with_leaving(plan, now);
        let emitted = self.emitter.emit(&plan, &options);
        #[cfg(test)]
        {
            assert!(
                emitted == crate::emit::emit_gateway_after(&plan, &options, &before),
                "not what is made from scratch"
            );
            assert_eq!(self.beyond(), crate::emit::beyond(&plan, options.release));
        }
        if !self.emitter.layout().is_standing_by() {
            self.standing_by = None;
        } else if *self.emitter.layout() != before {
            self.standing_by = Some(now);
        }
        let filled = fill(emitted)?;
        match &self.last {
            Some(last) if **last == filled => Ok(last.clone()),
            last => {
                let filled = last.as_ref().map_or(filled.clone(), |last| filled.sharing(last));
                Ok(self.last.insert(Arc::new(filled)).clone())
            }
        }
    }

    /// The policies whose routes are closed, because the gateways' release cannot do them.
    pub(super) fn beyond(&self) -> BTreeSet<Beyond> {
        self.emitter.beyond()
    }

    /// Whether the checker has nothing against a snapshot; what it has is logged.
    pub(super) fn is_publishable(&mut self, key: &GatewayKey, snapshot: &Snapshot) -> bool {
        let violations = self.verifier.verify(snapshot);
        for violation in &violations {
            tracing::error!(gateway = %key, "not published, this is a fault of Chancery: {violation}");
        }
        violations.is_empty()
    }

    /// When what stands by, or is left over, may go.
    pub(super) fn due(&self) -> Option<Instant> {
        let drained = self.standing_by.map(|since| since + DRAINED);
        drained.into_iter().chain(self.shared.due()).min()
    }

    /// Lets go what policies shared and share no more, once no route names it; whether there is such.
    pub(super) fn let_go(&mut self, now: Instant) -> bool {
        let is_due = self.shared.due().is_some_and(|due| due <= now);
        if is_due {
            (self.shared.leaving, self.shared.is_left) = (None, true);
        }
        is_due
    }

    /// Lets go what has stood by long enough; whether there is such.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let is_due = self.standing_by.is_some_and(|since| since + DRAINED <= now);
        if is_due {
            self.standing_by = None;
            self.emitter.settle();
        }
        is_due
    }

    /// Stops cutting, if the gateways refused a listener with a chain that is cut; whether that is so since now.
    ///
    /// Whatever the reason was: the whole is what every Envoy understands.
    pub(super) fn give_up_cutting(&mut self, key: &GatewayKey, refusals: &Refusals) -> bool {
        if self.refuses_cuts || refusals.is_empty() || !self.emitter.layout().is_cut() {
            return false;
        }
        let listeners = self.last.as_ref().map(|last| last.resources(ResourceType::Listener)).unwrap_or_default();
        let refused = listeners.values().find(|listener| {
            let bytes = Bytes::new(key, ResourceType::Listener, &listener.name, &listener.version);
            refusals.get(&bytes).is_some()
        });
        if let Some(listener) = refused {
            tracing::warn!(gateway = %key, listener = %listener.name, "refused while routes are cut; they are sent whole");
            self.refuses_cuts = true;
        }
        refused.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Policy;
    use crate::ir::extension::Level;
    use crate::ir::policy::jwt::{ClearRouteCache, Jwt, Mode, Verification};
    use crate::ir::policy::{Phase, Place};
    use crate::model::{Kind, ObjectRef};

    fn verification(name: &str) -> Policy {
        Policy::Jwt(Arc::new(Verification {
            name: name.into(),
            policy: ObjectRef::new(Kind::JwtPolicy, "c1", "shop", "p"),
            jwt: Jwt {
                providers: [].into(),
                mode: Mode::RequireValid,
                place: Place { phase: Phase::PreAuthz, priority: 0 },
                clear_route_cache: ClearRouteCache::Auto,
                claims: [].into(),
                scopes: [].into(),
            },
        }))
    }

    fn plan(names: &[&str]) -> GatewayPlan {
        let mut extensions = Extensions::default();
        names.iter().for_each(|name| extensions.add(Level::Route, &verification(name)));
        GatewayPlan {
            gateway: "c1/edge/web".parse().unwrap(),
            listeners: [].into(),
            extensions: Arc::new(extensions),
            guard: None,
            upstreams: OrdMap::new(),
            secrets: [].into(),
        }
    }

    #[test]
    fn what_policies_share_no_more_is_held_until_routes_are_taken_over() {
        let (mut shared, start) = (Shared::default(), Instant::now());
        let second = Duration::from_secs(1);
        let mut names = |names: &[&str], at: Instant| -> (Vec<String>, Option<Instant>) {
            let plan = plan(names);
            let shown = shared.with_leaving(&plan, at);
            let shown = shown.extensions.tokens.values().flat_map(|own| own.keys().map(ToString::to_string)).collect();
            (shown, shared.due())
        };
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&["a"], start), (owned(&["a"]), None));
        assert_eq!(names(&["b"], start + second), (owned(&["a", "b"]), Some(start + second + TAKEN_OVER)));
        let later = start + 2 * second;
        assert_eq!(
            names(&["b"], later),
            (owned(&["a", "b"]), Some(start + second + TAKEN_OVER)),
            "nothing else leaves"
        );
        assert_eq!(names(&["c"], later), (owned(&["a", "b", "c"]), Some(later + TAKEN_OVER)), "b leaves too");
        assert_eq!(names(&["a", "b", "c"], later + second), (owned(&["a", "b", "c"]), None), "they are back");
        assert_eq!(names(&[], later + second), (owned(&["a", "b", "c"]), Some(later + second + TAKEN_OVER)));
    }
}
