//! Who of several replicas writes statuses: the holder of a Lease.
//!
//! A holder counts its time from before it asked to renew, by its own clock; others count from when they saw the Lease change
//! last, by theirs. So there are never two, however far clocks are apart.

use std::time::{Duration, Instant};

use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How long a Lease holds that is not renewed.
const HOLDS: Duration = Duration::from_secs(15);

/// How often the holder renews it, and others look at it.
pub const LOOK_EVERY: Duration = Duration::from_secs(4);

/// Its name.
const NAME: &str = "chancery-status";

/// A Lease that this replica holds, or wants.
pub struct Lease {
    api: Api<DynamicObject>,
    identity: String,
    watch: Watch,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("identity", &self.identity).field("watch", &self.watch).finish_non_exhaustive()
    }
}

/// What one replica knows of the Lease.
#[derive(Debug, Default)]
struct Watch {
    /// The version that was seen last, and since when.
    seen: Option<(String, Instant)>,
    /// Until when this replica holds it.
    held_until: Option<Instant>,
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Somebody else holds it.
    Leave,
    /// Nobody holds it, or nobody any more: take it.
    Take,
    /// It is ours: hold it longer.
    Renew,
}

impl Watch {
    /// What to do about a Lease of this version, holder and duration.
    fn step(&mut self, version: &str, holder: &str, holds: Duration, own: &str, now: Instant) -> Step {
        if holder == own {
            return Step::Renew;
        }
        self.held_until = None;
        if holder.is_empty() {
            return Step::Take;
        }
        match &self.seen {
            Some((seen, since)) if seen == version => {
                if now.saturating_duration_since(*since) >= holds {
                    Step::Take
                } else {
                    Step::Leave
                }
            }
            _ => {
                self.seen = Some((version.to_owned(), now));
                Step::Leave
            }
        }
    }
}

impl Lease {
    /// A Lease in a namespace, for a replica of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { api: Api::namespaced_with(client, namespace, &leases()), identity, watch: Watch::default() }
    }

    /// Whether this replica holds it at a time.
    #[must_use]
    pub fn is_held(&self, now: Instant) -> bool {
        self.watch.held_until.is_some_and(|until| now < until)
    }

    /// Until when this replica holds it; none where it does not.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        self.watch.held_until
    }

    /// Renews it, takes it, or leaves it. `asked` is the time before.
    ///
    /// # Errors
    /// Where the API server does not answer, or refuses.
    pub async fn turn(&mut self, asked: Instant) -> Result<(), kube::Error> {
        let known = self.api.get_opt(NAME).await?;
        let Some(known) = known else {
            let taken = self.api.create(&PostParams::default(), &self.written(None)).await;
            return self.took(taken, asked);
        };
        let spec = &known.data["spec"];
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let holds = spec["leaseDurationSeconds"].as_u64().map_or(HOLDS, Duration::from_secs);
        let version = known.metadata.resource_version.clone().unwrap_or_default();
        match self.watch.step(&version, holder, holds, &self.identity, asked) {
            Step::Leave => Ok(()),
            Step::Take | Step::Renew => {
                let taken = self.api.replace(NAME, &PostParams::default(), &self.written(Some(&known))).await;
                self.took(taken, asked)
            }
        }
    }

    /// Gives it up if this replica holds it, so that another one need not wait for its end.
    ///
    /// # Errors
    /// Where the API server does not answer, or refuses.
    pub async fn release(&mut self) -> Result<(), kube::Error> {
        if self.watch.held_until.take().is_none() {
            return Ok(());
        }
        let Some(mut known) = self.api.get_opt(NAME).await? else { return Ok(()) };
        if known.data["spec"]["holderIdentity"] != self.identity.as_str() {
            return Ok(());
        }
        known.data["spec"]["holderIdentity"] = "".into();
        match self.api.replace(NAME, &PostParams::default(), &known).await {
            // Somebody else has it already.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            released => released.map(drop),
        }
    }

    fn took(&mut self, taken: Result<DynamicObject, kube::Error>, asked: Instant) -> Result<(), kube::Error> {
        match taken {
            Ok(_) => {
                self.watch.held_until = Some(asked + HOLDS);
                Ok(())
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.watch.held_until = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The Lease as this replica's.
    fn written(&self, known: Option<&DynamicObject>) -> DynamicObject {
        let now = format!("{:.6}", jiff::Timestamp::now());
        let before = known.map(|known| &known.data["spec"]);
        let is_own = before.is_some_and(|spec| spec["holderIdentity"] == self.identity.as_str());
        let count = before.and_then(|spec| spec["leaseTransitions"].as_i64()).unwrap_or_default();
        let since = before.filter(|_| is_own).and_then(|spec| spec["acquireTime"].as_str()).unwrap_or(&now);
        let spec: Value = json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": HOLDS.as_secs(),
            "acquireTime": since,
            "renewTime": now,
            "leaseTransitions": count + i64::from(known.is_some() && !is_own),
        });
        let mut object = known.cloned().unwrap_or_else(|| DynamicObject::new(NAME, &leases()));
        object.data = json!({"spec": spec});
        object
    }
}

/// How Leases are addressed.
fn leases() -> ApiResource {
    ApiResource {
        group: "coordination.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        plural: "leases".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_nobody_renewed_it_for_its_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut watch = Watch::default();
        for (version, holder, second, expected) in [
            ("1", "other", 0, Step::Leave),
            ("1", "other", 14, Step::Leave),
            // Renewed: counted anew, whatever time the other's clock shows.
            ("2", "other", 15, Step::Leave),
            ("2", "other", 29, Step::Leave),
            ("2", "other", 30, Step::Take),
            ("3", "own", 34, Step::Renew),
            ("4", "", 40, Step::Take),
        ] {
            assert_eq!(watch.step(version, holder, HOLDS, "own", at(second)), expected, "{version} at {second}");
        }
        watch.held_until = Some(at(100));
        assert_eq!(watch.step("9", "other", HOLDS, "own", at(50)), Step::Leave);
        assert_eq!(watch.held_until, None, "who sees another holder has lost it");
    }
}
