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
    /// Takes in that a policy refers to others, or no longer does.
    pub(super) fn refer(&mut self, id: &ObjectRef, now: Option<&Arc<PolicyObject>>, dirty: &mut Dirty) {
        let now = now.filter(|policy| policy::refers(policy));
        match (self.referring.get_mut(id), now) {
            (None, None) => return,
            (Some(referring), Some(now)) => referring.checked = now.clone(),
            (None, Some(now)) => {
                self.referring.insert(id.clone(), Referring { checked: now.clone(), settled: None });
            }
            (Some(_), None) => {
                if let Some(settled) = self.referring.remove(id).and_then(|referring| referring.settled) {
                    self.show(id, Some(&settled), None, dirty);
                }
                self.reads.forget(&Reader::Policy(id.clone()));
                self.outcome.forget(&Origin::Policy(id.clone()));
                return;
            }
        }
        dirty.insert(Reader::Policy(id.clone()));
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
