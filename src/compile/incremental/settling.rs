//! Policies with their references followed, each at the cost of what it refers to.

use std::sync::Arc;

use crate::model::{Findings, ObjectRef};
use crate::resolve::facts::PolicyObject;
use crate::resolve::lower::Lowered;
use crate::resolve::policy;
use crate::resolve::world::World;

use super::Made;
use super::outcome::Origin;
use super::slots::{Dirty, Reader, Recording, take, touch_object};

/// A policy that refers to other objects.
#[derive(Debug)]
pub(super) struct Referring {
    checked: Arc<PolicyObject>,
    /// What rules see of it.
    settled: Option<Arc<PolicyObject>>,
}

impl Made {
    /// Takes in that a policy refers to others.
    pub(super) fn refer(&mut self, id: &ObjectRef, now: &Arc<PolicyObject>, dirty: &mut Dirty) {
        let settled = self.referring.remove(id).and_then(|referring| referring.settled);
        self.referring.insert(id.clone(), Referring { checked: now.clone(), settled });
        dirty.insert(Reader::Policy(id.clone()));
    }

    /// Takes in that a policy refers to no others, or is gone. Before it is admitted: rules see one form of it at a time.
    pub(super) fn no_longer_refers(&mut self, id: &ObjectRef, dirty: &mut Dirty) {
        let Some(referring) = self.referring.remove(id) else { return };
        if let Some(settled) = referring.settled {
            self.show(id, Some(&settled), None, dirty);
        }
        self.reads.forget(&Reader::Policy(id.clone()));
        self.outcome.forget(&Origin::Policy(id.clone()));
    }

    /// Follows the references of policies.
    pub(super) fn settle_policies(&mut self, dirty: &mut Dirty) {
        for reader in take(dirty, |reader| matches!(reader, Reader::Policy(_))) {
            let Reader::Policy(id) = &reader else { continue };
            let Some(referring) = self.referring.get(id) else { continue };
            let (world, mut findings) = (Recording::new(&self.inputs), Findings::new());
            let now = policy::settle(&world, &referring.checked, &mut findings);
            let before = referring.settled.clone();
            self.reads.record(&reader, world.into_slots());
            self.outcome.set(Origin::Policy(id.clone()), findings);
            if before.as_deref() == Some(&now) {
                continue;
            }
            let now = Arc::new(now);
            self.show(id, before.as_ref(), Some(&now), dirty);
            if let Some(referring) = self.referring.get_mut(id) {
                referring.settled = Some(now);
            }
        }
    }

    /// Lets rules see another form of a policy.
    fn show(
        &mut self,
        id: &ObjectRef,
        before: Option<&Arc<PolicyObject>>,
        now: Option<&Arc<PolicyObject>>,
        dirty: &mut Dirty,
    ) {
        let owner = self.inputs.roster().owner_of(id).cloned();
        if let Some(before) = before {
            self.inputs.dismiss_policy(before);
        }
        if let Some(now) = now {
            self.inputs.admit_policy(now);
        }
        for policy in before.into_iter().chain(now) {
            touch_object(&self.reads, id, &Lowered::Policy(policy.clone()), owner.as_ref(), dirty);
        }
    }
}
