//! The certificates of gateways, from the plans that need them to the snapshots that carry them; and the root behind them,
//! where a policy leaves it to the control plane.
//!
//! The clock enters here and nowhere else. A new period or a new root changes secrets; nothing else of a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::compile::Compiled;
use crate::emit::emit_issued;
use crate::ir::trust::{Identity, Terms};
use crate::ir::{GatewayPlan, Secret, SecretId};
use crate::model::{Code, FieldPath, Finding, Findings, Name};
use crate::resolve::trust::{KeptRoot, RootOfTrust};
use crate::resolve::world::World;
use crate::snapshot::{Resource, ResourceType, Snapshot, Version};
use crate::trust::leaf::{self, Period};
use crate::trust::root::{self, Root, RootFile};
use crate::trust::{TrustError, validity};

use super::expiry::Expiry;

/// Longest wait for something to become due: a clock may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// When a root that could not be kept is tried again, in seconds.
const TRIED_AGAIN: i64 = 60;

/// How a kept root is treated while no policy says so: as by default.
const RENEW_WITH_LEFT: u32 = 100_000;

/// Issues certificates and remembers them while they are in use.
pub(super) struct Identities {
    clock: fn() -> Timestamp,
    /// Where the root is kept; none keeps none.
    file: Option<RootFile>,
    roots: Result<Vec<Root>, TrustError>,
    /// One that is made and could not be written yet.
    unwritten: Option<Root>,
    issued: BTreeMap<Version, Arc<Resource>>,
    /// What listeners show beside what is issued here.
    expiry: Expiry,
}

impl Identities {
    /// With the root that a state directory holds, if there is a directory and a root in it.
    pub(super) fn open(state: Option<&Path>, clock: fn() -> Timestamp) -> Self {
        let file = state.map(RootFile::of);
        let roots = file.as_ref().map_or(Ok(Vec::new()), RootFile::load);
        if let Err(error) = &roots {
            tracing::error!("the root of trust that was kept cannot be used, and no other is made: {error}");
        }
        Self { clock, file, roots, unwritten: None, issued: BTreeMap::new(), expiry: Expiry::default() }
    }

    fn now(&self) -> i64 {
        (self.clock)().as_second()
    }

    /// The root that is kept, as the next compile is told of it. One is made where a policy wants one (`wanted`) and
    /// there is none, or none that lasts.
    ///
    /// # Cost
    /// Making one takes a second or so, and waits for the disk; once in a root's life.
    pub(super) fn kept_root(&mut self, wanted: Option<&Terms>) -> KeptRoot {
        let now = self.now();
        let Some(file) = &self.file else { return KeptRoot::NoPlace };
        if self.roots.is_err() {
            // Somebody may have put it right.
            self.roots = file.load();
        }
        let roots = match &mut self.roots {
            Ok(roots) => roots,
            Err(error) => return KeptRoot::Failed(error.to_string().into()),
        };
        if let Some(terms) = wanted
            && root::needs_another(roots, terms, now)
        {
            match another(file, roots, &mut self.unwritten, terms, now) {
                Ok(()) => tracing::info!("a root of trust is made and kept"),
                Err(error) if roots.is_empty() => return KeptRoot::Failed(error.to_string().into()),
                Err(error) => tracing::error!("the root of trust cannot be followed by another: {error}"),
            }
        }
        let terms = wanted.cloned().unwrap_or_else(default_terms);
        match root::signing(roots, &terms, now) {
            Some(signer) => KeptRoot::Kept { signer, authorities: root::trusted(roots, now) },
            None => KeptRoot::Missing,
        }
    }

    /// What the clock says of the certificate that signs, and of those that listeners show.
    pub(super) fn findings(&mut self, compiled: &Compiled) -> Findings {
        self.expiry.look(compiled);
        let mut findings = ended(compiled.inputs.trust(), (self.clock)());
        findings.extend(self.expiry.findings(compiled, self.now()));
        findings
    }

    /// The earliest end of a certificate, by where it comes from, in seconds since 1970: the Secrets of listeners, as the last
    /// call of [`findings`](Self::findings) saw them, and the certificate that signs.
    pub(super) fn earliest_ends(&self, trust: &RootOfTrust) -> BTreeMap<&'static str, i64> {
        let root = bounds(trust).map(|(_, ends)| ("root", ends));
        self.expiry.earliest().map(|ends| ("secret", ends)).into_iter().chain(root).collect()
    }

    /// The version of the gateway's own certificate as it should be now; none for a gateway that needs none.
    pub(super) fn wanted(&self, plan: &GatewayPlan) -> Option<Version> {
        let (_, identity) = needed(plan)?;
        Some(leaf::version(identity, &Period::at(identity, self.now())))
    }

    /// The same snapshot with the gateway's own certificate in place of the stand-in.
    ///
    /// # Errors
    /// It cannot be issued: the snapshot must not be published.
    pub(super) fn fill(
        &mut self,
        plan: &GatewayPlan,
        trust: &RootOfTrust,
        snapshot: Snapshot,
    ) -> Result<Snapshot, String> {
        let Some((id, identity)) = needed(plan) else { return Ok(snapshot) };
        let period = Period::at(identity, self.now());
        let version = leaf::version(identity, &period);
        let resource = match self.issued.get(&version) {
            Some(issued) => issued.clone(),
            None => {
                let trust = trust.as_ref().map_err(Name::to_string)?;
                let signer = trust.signer.as_ref().ok_or("there is nothing to sign with")?;
                let issued = leaf::issue(signer, identity, &period).map_err(|error| error.to_string())?;
                let pair = Secret::KeyPair { chain: issued.chain, key: issued.key, ocsp_staple: None };
                let resource = Arc::new(emit_issued(id, &pair, version.clone()));
                self.issued.insert(version, resource.clone());
                resource
            }
        };
        let mut secrets = (*snapshot.resources(ResourceType::Secret)).clone();
        secrets.insert(resource.name.clone(), resource);
        Ok(snapshot.with_shared(ResourceType::Secret, Arc::new(secrets)))
    }

    /// Forgets certificates that no gateway has any more.
    pub(super) fn retain(&mut self, used: &BTreeSet<&Version>) {
        self.issued.retain(|version, _| used.contains(version));
    }

    /// How many certificates are remembered.
    #[cfg(test)]
    pub(super) fn issued(&self) -> usize {
        self.issued.len()
    }

    /// How long until something is to be renewed, or ends; none where nothing ever is.
    pub(super) fn due(&self, compiled: &Compiled) -> Option<Duration> {
        let now = self.now();
        let leaves = compiled.plans.values().filter_map(|plan| needed(plan));
        let mut times: Vec<i64> = leaves.map(|(_, identity)| Period::at(identity, now).renewed).collect();
        if let (Some(terms), Some(_)) = (compiled.inputs.generated_root(), &self.file) {
            match &self.roots {
                Ok(roots) if self.unwritten.is_none() => times.extend(root::next_change(roots, terms, now)),
                Ok(_) | Err(_) => times.push(now + TRIED_AGAIN),
            }
        }
        times.extend(bounds(compiled.inputs.trust()).into_iter().flat_map(|(begins, ends)| [begins, ends + 1]));
        times.extend(self.expiry.changes());
        let next = times.into_iter().filter(|time| *time > now).min()?;
        Some(Duration::from_secs(u64::try_from(next - now).unwrap_or_default()).min(LONGEST_WAIT))
    }
}

/// Makes a root and keeps it. What could not be written is tried again, not made again.
fn another(
    file: &RootFile,
    roots: &mut Vec<Root>,
    unwritten: &mut Option<Root>,
    terms: &Terms,
    now: i64,
) -> Result<(), TrustError> {
    let new = match unwritten.take() {
        Some(made) => made,
        None => Root::make(terms, now)?,
    };
    let mut all: Vec<Root> = roots.iter().filter(|root| root.lasts(now)).cloned().collect();
    all.push(new.clone());
    match file.save(&all) {
        Ok(()) => {
            *roots = all;
            Ok(())
        }
        Err(error) => {
            *unwritten = Some(new);
            Err(error)
        }
    }
}

fn default_terms() -> Terms {
    let key = crate::ir::trust::KeyType::Rsa4096;
    Terms { days: 365, key, organization: Name::default(), renew_with_left: RENEW_WITH_LEFT }
}

/// The gateway's own certificate, if some chain of it shows one.
fn needed(plan: &GatewayPlan) -> Option<(&SecretId, &Identity)> {
    plan.secrets.iter().find_map(|(id, secret)| match secret {
        Secret::Identity(identity) => Some((id, identity)),
        Secret::KeyPair { .. } | Secret::Trust { .. } => None,
    })
}

/// From when to when the certificate that signs holds.
fn bounds(trust: &RootOfTrust) -> Option<(i64, i64)> {
    let signer = trust.as_ref().ok()?.signer.as_ref()?;
    validity(&signer.certificate).ok()
}

/// What a moment says of the certificate that signs for gateways.
pub(crate) fn ended(trust: &RootOfTrust, now: Timestamp) -> Findings {
    let (Ok(policy), Some((begins, ends))) = (trust, bounds(trust)) else { return Findings::new() };
    let now = now.as_second();
    let date = |seconds: i64| Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default();
    let problem = if now > ends {
        format!("the certificate that signs ended at {}: replace it", date(ends))
    } else if now < begins {
        format!("the certificate that signs holds from {} only: look at the clock, or replace it", date(begins))
    } else {
        return Findings::new();
    };
    let message = format!("{problem}; TLS between gateways fails until then");
    let at = FieldPath::new("spec.config.mgmtServerCa");
    vec![Finding::error(&policy.policy, Code::Certificate, message).at(at)]
}
