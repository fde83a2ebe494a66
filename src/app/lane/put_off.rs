//! Slices that are served already and wait to be compiled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::crd::Change;
use crate::model::ObjectRef;
use crate::source::{Batch, Extent};

/// How long no further slice must come before those that are served already are compiled, so that many are compiled at once.
/// Half of it costs more steps under churn, double lets verdicts on slices be late.
const TOGETHER: Duration = Duration::from_millis(20);

/// How long they wait at most while others keep coming: of slices that change again meanwhile, only the last is compiled.
/// Half of it costs twice as many compiles under churn, double lets verdicts on slices be late under it. Gateways
/// have the endpoints already.
const AT_MOST: Duration = Duration::from_secs(5);

/// Most slices of these that one step takes, a few milliseconds' worth: an edit of routes waits for no more.
const AT_ONCE: usize = 64;

/// How much longer they wait for as many to be due: a step costs something however few it takes. Half of it costs more steps
/// under churn, double changes nothing where thousands change a second.
const GATHER: Duration = Duration::from_millis(100);

/// The youngest change of each slice.
#[derive(Default)]
pub(in crate::app) struct PutOff {
    /// Each with the time since which it waits.
    order: VecDeque<(Instant, ObjectRef)>,
    changes: BTreeMap<ObjectRef, (u64, Change)>,
    /// When the last came.
    last: Option<Instant>,
}

impl PutOff {
    /// Puts a batch off.
    pub(in crate::app) fn add(&mut self, batch: u64, changes: Vec<Change>, now: Instant) {
        for change in changes {
            let id = change.id().clone();
            if self.changes.insert(id.clone(), (batch, change)).is_none() {
                self.order.push_back((now, id));
            }
            self.last = Some(now);
        }
    }

    /// Forgets what a younger batch replaces.
    pub(in crate::app) fn replaced_by(&mut self, batch: &Batch) {
        if batch.extent == Extent::Complete {
            *self = Self::default();
        } else if !self.order.is_empty() {
            let ids: BTreeSet<&ObjectRef> =
                batch.changes.iter().map(Change::id).filter(|id| self.changes.contains_key(*id)).collect();
            if !ids.is_empty() {
                self.order.retain(|(_, id)| !ids.contains(id));
                self.changes.retain(|id, _| !ids.contains(id));
            }
        }
    }

    /// When some are to be compiled.
    pub(in crate::app) fn due(&self) -> Option<Instant> {
        let (since, _) = self.order.front()?;
        let quiet = self.last? + TOGETHER;
        let full = self.order.get(AT_ONCE - 1).map(|(since, _)| *since + AT_MOST);
        let late = *since + AT_MOST + GATHER;
        Some(quiet.min(full.map_or(late, |full| full.min(late))))
    }

    /// Takes out those that are to be compiled now, each with its batch: none in a step that has other work, unless they
    /// have waited twice as long as they should.
    pub(in crate::app) fn take(&mut self, now: Instant, has_other_work: bool) -> Vec<(u64, Change)> {
        if !has_other_work && self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        let is_quiet = !has_other_work && self.last.is_some_and(|last| last + TOGETHER <= now);
        let patience = if has_other_work { 2 * AT_MOST } else { AT_MOST };
        let is_due = |since: &Instant| is_quiet || *since + patience <= now;
        let due = self.order.iter().take(AT_ONCE).take_while(|(since, _)| is_due(since)).count();
        let ids = self.order.drain(..due);
        ids.filter_map(|(_, id)| self.changes.remove(&id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    /// Slices that never stop coming are compiled some at a time, and none is left behind.
    #[test]
    fn under_churn_a_step_takes_many_and_nothing_waits_for_ever() {
        let begin = Instant::now();
        let (mut put_off, mut waits, mut steps) = (PutOff::default(), BTreeMap::new(), 0_u32);
        let (count, every) = (12_000, Duration::from_millis(1));
        for number in 0..count {
            let now = begin + number * every;
            let id = ObjectRef::new(Kind::EndpointSlice, "c", "n", number.to_string());
            waits.insert(id.clone(), now);
            put_off.add(u64::from(number), vec![Change::Delete(id)], now);
            let taken = put_off.take(now, false);
            assert!(taken.len() <= AT_ONCE, "an edit waits for no more");
            steps += u32::from(!taken.is_empty());
            for (_, change) in &taken {
                waits.remove(change.id());
            }
            if number % 50 > 0 {
                continue;
            }
            let oldest = waits.values().min().map_or(Duration::ZERO, |since| now - *since);
            assert!(oldest <= AT_MOST + GATHER, "{number}: {oldest:?}");
        }
        let taken = count - u32::try_from(waits.len()).unwrap();
        assert!(taken > 0 && steps <= taken / 32, "{taken} slices in {steps} steps");
    }
}
