//! From the plans of one key to snapshots that may be published: one edit emits and checks what it changed.
//!
//! The clock enters here: parts that are [prepared] are used when gateways have them; parts that stand by for connections of a
//! time when their chain was cut otherwise ([`Form::StandingBy`](crate::emit::Form)) go when such connections have ended; what
//! policies shared for routes goes when gateways have other routes ([`shared`]); a chain is cut again when the Envoys that
//! refused that have gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::emit::{Beyond, EmitOptions, Emitter, Layout, Ready};
use crate::ir::{Extensions, GatewayPlan};
use crate::memory::refusals::references::{Known, chooses_scopes};
use crate::memory::refusals::{Bytes, GRACE, Overlay, Refusals};
use crate::model::{EnvoyRelease, GatewayId, Name, ObjectRef};
use crate::publish::GatewayKey;
use crate::snapshot::verify::Verifier;
use crate::snapshot::{Resource, ResourceType, Snapshot};
use crate::status::View;

use super::refusals::{NAMED, behind, is_some_connected};
use barred::Barred;
use prepared::Prepared;
#[cfg(test)]
pub(super) use prepared::{LOOK, PATIENCE};
use shared::{Shared, Waiting};

mod barred;
mod prepared;
mod shared;

/// What Envoy says of a listener whose address it cannot have, which says nothing about its chains.
const CANNOT_BIND: &[&str] = &["cannot bind", "Address already in use", "Permission denied"];

/// By type and name: what stands in for what was refused, with what that refers to.
pub(super) type StandIns = BTreeMap<(ResourceType, Name), Arc<Resource>>;

/// How long after a chain was put together again, or cut anew, its parts of before stand by. Envoy drains connections for ten
/// minutes unless it is started with another `--drain-time-s`; half of this loses requests, double keeps parts twice as long for
/// nobody.
pub(super) const DRAINED: Duration = Duration::from_secs(15 * 60);

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
    /// Whether that has to wait: what stands in for a refused listener may be cut, and need the parts.
    is_held: bool,
    /// What gateways are to have before a listener uses it.
    prepared: Option<Prepared>,
    shared: Shared,
    barred: Barred,
    /// Whether what was emitted last could be filled.
    is_filled: bool,
    /// Set while chains are not cut because a listener was refused with a chain that was: some Envoys are built without what
    /// that takes.
    uncut: Option<Uncut>,
    /// What refers to what, of what stands in for something.
    known: Known,
}

/// A listener of which some Envoys refused a chain that is cut.
#[derive(Debug)]
struct Uncut {
    nodes: BTreeMap<GatewayId, BTreeSet<Name>>,
    /// Whether none of them was connected at the last look.
    have_left: bool,
    look_at: Instant,
}

impl Emission {
    /// Of gateways that may hold anything, from an earlier run or another replica; what policies shared there, as far as
    /// it is known.
    pub(super) fn new(shared: Extensions) -> Self {
        Self {
            emitter: Emitter::new(Layout::uncertain()),
            verifier: Verifier::new(),
            last: None,
            standing_by: None,
            is_held: false,
            prepared: None,
            shared: Shared::of_earlier_run(shared),
            barred: Barred::default(),
            is_filled: false,
            uncut: None,
            known: Known::default(),
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
        if self.uncut.is_some() {
            options.cut_from_routes = usize::MAX;
        }
        self.is_filled = false;
        let before = self.emitter.layout().clone();
        let plan = self.barred.close(self.shared.with_leaving(plan, now));
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
        Prepared::follow(&mut self.prepared, self.emitter.layout().preparing(), now);
        let filled = fill(emitted)?;
        self.is_filled = true;
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

    /// The policies whose verification gateways refused, with Envoy's words: their routes are closed.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&ObjectRef, &Arc<str>)> {
        self.barred.names().filter_map(|(name, words)| {
            let mut wanted = self.shared.wanted().verifications();
            wanted.find(|verification| verification.name == *name).map(|verification| (&verification.policy, words))
        })
    }

    /// The policies whose routes are closed until others' settings leave their filters, each with a sentence about whom it waits
    /// for.
    ///
    /// # Cost
    /// In proportion to the sets of settings; `connected` is asked where a policy waits.
    pub(super) fn waiting<'v>(&self, key: &GatewayKey, connected: impl Fn() -> &'v View) -> Vec<(ObjectRef, String)> {
        let mut told = Vec::new();
        for Waiting { policies, before } in self.shared.waiting() {
            let until = match self.shared.names_no_settings() {
                None => {
                    "routes that the gateway refused are right, as those that stand in for them name them".to_owned()
                }
                Some(is_new) => {
                    let behind = behind(connected(), key, is_new);
                    let shown: Vec<String> = behind.iter().take(NAMED).map(|node| format!("{node:?}")).collect();
                    let more = if behind.len() > NAMED { " and others" } else { "" };
                    match shown[..] {
                        [] => "its Envoys have taken routes that do not name them".to_owned(),
                        _ => format!("{}{more} have taken routes that do not name them", shown.join(", ")),
                    }
                }
            };
            let before: Vec<String> = before.iter().take(NAMED).map(|policy| format!("`{policy}`")).collect();
            let message = format!(
                "on gateway `{}` the policy waits for the room of settings that are in use no more ({}), and its routes answer 500 until {until}",
                key.gateway,
                before.join(", ")
            );
            told.extend(policies.iter().map(|policy| (policy.clone(), message.clone())));
        }
        told
    }

    /// What routes of these gateways may name, to be known after a restart.
    pub(super) fn shared(&self) -> &Arc<Extensions> {
        self.shared.all()
    }

    /// Whether the checker has nothing against a snapshot, in which some resources stand in for others; what it has is logged.
    pub(super) fn is_publishable(&mut self, key: &GatewayKey, snapshot: &Snapshot, stand_ins: &StandIns) -> bool {
        let routes = stand_ins.keys().filter(|(of, _)| *of == ResourceType::Route).map(|(_, name)| name.clone());
        let violations = self.verifier.verify_with(snapshot, routes.collect());
        for violation in &violations {
            tracing::error!(gateway = %key, "not published, this is a fault of Chancery: {violation}");
        }
        violations.is_empty()
    }

    /// A compiled snapshot with what was accepted in place of what was refused.
    pub(super) fn overlay(&mut self, key: &GatewayKey, compiled: &Arc<Snapshot>, refusals: &Refusals) -> Overlay {
        refusals.overlay_with(key, compiled, &mut self.known)
    }

    /// Notes that a compiled snapshot is published, as far as nothing stands in for what it has.
    ///
    /// # Cost
    /// None, unless policies shared something that they share no more, then a look at the bytes of routes that stand in; or parts
    /// are prepared, then the version of all routes.
    pub(super) fn published(&mut self, compiled: &Arc<Snapshot>, published: &Snapshot, stand_ins: &StandIns) {
        // What is not what was emitted last may name anything.
        if self.is_filled && self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, compiled)) {
            if let Some(prepared) = &mut self.prepared {
                prepared.published(published);
            }
            let routes = stand_ins.iter().filter(|((of, _), _)| *of == ResourceType::Route).map(|(_, routes)| routes);
            self.shared.published(|| published.type_version(ResourceType::Route), &routes.collect::<Vec<_>>());
        }
    }

    /// When something is to be looked at again, or what stands by may go.
    pub(super) fn due(&self) -> Option<Instant> {
        let drained = self.standing_by.filter(|_| !self.is_held).map(|since| since + DRAINED);
        let uncut = self.uncut.as_ref().map(|uncut| uncut.look_at);
        let prepared = self.prepared.as_ref().map(Prepared::due);
        drained.into_iter().chain(uncut).chain(prepared).chain(self.shared.due()).min()
    }

    /// Does what time allows, and what gateways said asks for; whether something is to be emitted otherwise now.
    ///
    /// `is_kept` says whether something stands in for a refused listener.
    ///
    /// # Cost
    /// A lookup per refused resource and filter; `connected` is asked when something is due.
    pub(super) fn follow<'v>(
        &mut self,
        key: &GatewayKey,
        (now, is_kept): (Instant, bool),
        refusals: &Refusals,
        connected: impl Fn() -> &'v View,
    ) -> bool {
        let has_let_go = self.shared.let_go(now, |is_new| behind(connected(), key, is_new).is_empty());
        let is_settled = self.settle(now, is_kept);
        let ready = self.prepared.as_mut().map_or(Ready::Nothing, |prepared| prepared.look(key, now, &connected));
        self.emitter.ready(ready);
        let is_ready = ready != Ready::Nothing;
        let is_whole = self.give_up_cutting(key, now, refusals) || self.cut_again(key, now, connected);
        let is_barred = self.last.as_ref().is_some_and(|last| self.barred.look(key, last, refusals));
        has_let_go || is_settled || is_ready || is_whole || is_barred
    }

    /// Whether what gateways acknowledge makes a difference.
    pub(super) fn awaits_filters(&self) -> bool {
        self.barred.is_open()
    }

    /// Lets go what has stood by long enough; whether there is such.
    fn settle(&mut self, now: Instant, is_kept: bool) -> bool {
        self.is_held = is_kept;
        let is_due = !is_kept && self.standing_by.is_some_and(|since| since + DRAINED <= now);
        if is_due {
            self.standing_by = None;
            self.emitter.settle();
        }
        is_due
    }

    /// Stops cutting, if the gateways refused a listener for a chain that is cut, as far as they say; whether that is so since
    /// now. The whole is what every Envoy understands.
    fn give_up_cutting(&mut self, key: &GatewayKey, now: Instant, refusals: &Refusals) -> bool {
        if self.uncut.is_some() || refusals.is_empty() || !self.emitter.layout().is_cut() {
            return false;
        }
        let listeners = self.last.as_ref().map(|last| last.resources(ResourceType::Listener)).unwrap_or_default();
        let refused = listeners.values().find_map(|listener| {
            let bytes = Bytes::new(key, ResourceType::Listener, &listener.name, &listener.version);
            let refused = refusals.get(&bytes).filter(|_| chooses_scopes(&listener.body))?;
            let is_for_its_address = CANNOT_BIND.iter().any(|words| refused.message.contains(words));
            (!is_for_its_address).then_some((listener, refused))
        });
        let Some((listener, refused)) = refused else { return false };
        tracing::warn!(gateway = %key, listener = %listener.name, "refused while routes are cut; they are sent whole");
        self.uncut = Some(Uncut { nodes: refused.nodes.clone(), have_left: false, look_at: now + GRACE });
        true
    }

    /// Cuts again, if none of those that refused it was connected at two looks; whether that is so since now.
    fn cut_again<'v>(&mut self, key: &GatewayKey, now: Instant, connected: impl Fn() -> &'v View) -> bool {
        let Some(uncut) = self.uncut.as_mut().filter(|uncut| uncut.look_at <= now) else { return false };
        uncut.look_at = now + GRACE;
        let view = connected();
        let are_here = uncut.nodes.iter().any(|(class, nodes)| is_some_connected(view, key.envoy, class, nodes));
        let is_over = !are_here && uncut.have_left;
        uncut.have_left = !are_here;
        if is_over {
            tracing::info!(gateway = %key, "who refused cut routes has gone; they are cut again");
            self.uncut = None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use imbl::OrdMap;

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

    /// One that shares verifications of some names and has nothing else.
    pub(super) fn plan(names: &[&str]) -> GatewayPlan {
        let mut extensions = Extensions::default();
        names.iter().for_each(|name| extensions.add(Level::Route, &verification(name)));
        GatewayPlan {
            gateway: "c1/edge/web".parse().unwrap(),
            listeners: [].into(),
            extensions: Arc::new(extensions),
            guard: None,
            clients: None,
            upstreams: OrdMap::new(),
            secrets: [].into(),
        }
    }
}
