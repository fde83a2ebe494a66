//! Ring 2: who read what, so that a change finds those whom it concerns.
//!
//! A computation that is kept is a *reader*; whatever it asked is a *slot*. Asking for something absent, or for all that fits
//! a selector, is a slot like any other. When a slot changes, its readers are found without looking at anybody else.
//!
//! Knows neither what is computed nor what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

/// Which readers read which slots.
///
/// # Cost
/// Memory in proportion to the reads that are held; a reader that is forgotten leaves nothing behind.
#[derive(Clone, Debug)]
pub struct Reads<S, R> {
    readers: BTreeMap<S, BTreeSet<R>>,
    slots: BTreeMap<R, BTreeSet<S>>,
}

impl<S, R> Default for Reads<S, R> {
    fn default() -> Self {
        Self { readers: BTreeMap::new(), slots: BTreeMap::new() }
    }
}

impl<S: Ord + Clone, R: Ord + Clone> Reads<S, R> {
    /// Records everything that a reader read, in place of what it read before.
    ///
    /// # Cost
    /// In proportion to what it reads; entries are touched only for what differs.
    pub fn record(&mut self, reader: &R, slots: BTreeSet<S>) {
        let before = self.slots.remove(reader).unwrap_or_default();
        for gone in before.difference(&slots) {
            self.leave(gone, reader);
        }
        for new in slots.difference(&before) {
            self.readers.entry(new.clone()).or_default().insert(reader.clone());
        }
        if !slots.is_empty() {
            self.slots.insert(reader.clone(), slots);
        }
    }

    /// Forgets a reader.
    pub fn forget(&mut self, reader: &R) {
        for slot in self.slots.remove(reader).unwrap_or_default() {
            self.leave(&slot, reader);
        }
    }

    fn leave(&mut self, slot: &S, reader: &R) {
        if let Some(readers) = self.readers.get_mut(slot) {
            readers.remove(reader);
            if readers.is_empty() {
                self.readers.remove(slot);
            }
        }
    }

    /// Those who read a slot.
    pub fn of<'a>(&'a self, slot: &S) -> impl Iterator<Item = &'a R> {
        self.readers.get(slot).into_iter().flatten()
    }

    /// The slots that are read, within a range, with their readers.
    pub fn within(&self, range: impl RangeBounds<S>) -> impl Iterator<Item = (&S, &BTreeSet<R>)> {
        self.readers.range(range)
    }

    /// How many readers and slots there are.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.slots.len(), self.readers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_leaves_nothing() {
        let mut reads: Reads<&str, u8> = Reads::default();
        reads.record(&1, ["a", "b"].into());
        reads.record(&2, ["b"].into());
        assert_eq!(reads.of(&"b").collect::<Vec<_>>(), [&1, &2]);
        reads.record(&1, ["c"].into());
        assert_eq!(reads.of(&"b").collect::<Vec<_>>(), [&2]);
        assert_eq!(reads.of(&"a").count(), 0);
        reads.forget(&1);
        reads.forget(&2);
        assert_eq!(reads.len(), (0, 0));
    }
}
