//! Ring 2: who read what, so that a change finds those whom it concerns.
//!
//! A computation that is kept is a *reader*; whatever it asked is a *slot*. Asking for something absent, or for all that fits
//! a selector, is a slot like any other. When a slot changes, its readers are found without looking at anybody else.
//!
//! Knows neither what is computed nor what is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;
use std::sync::Arc;

/// Which readers read which slots.
///
/// # Cost
/// Memory in proportion to the reads that are held, four bytes for each on either side, beside one copy of every slot and
/// reader; a reader that is forgotten leaves nothing behind.
#[derive(Clone, Debug)]
pub struct Reads<S, R> {
    slots: Numbered<S>,
    readers: Numbered<R>,
}

impl<S, R> Default for Reads<S, R> {
    fn default() -> Self {
        Self { slots: Numbered::default(), readers: Numbered::default() }
    }
}

impl<S: Ord, R: Ord + Clone> Reads<S, R> {
    /// Records everything that a reader read, in place of what it read before.
    ///
    /// # Cost
    /// In proportion to what it reads; entries are touched only for what differs.
    pub fn record(&mut self, reader: &R, slots: BTreeSet<S>) {
        if slots.is_empty() {
            return self.forget(reader);
        }
        let reader = self.readers.number(reader.clone());
        let mut now: Vec<u32> = slots.into_iter().map(|slot| self.slots.number(slot)).collect();
        now.sort_unstable();
        let before = self.readers.replace(reader, now.clone());
        for slot in before.iter().filter(|slot| now.binary_search(slot).is_err()) {
            self.slots.leave(*slot, reader);
        }
        for slot in now.iter().filter(|slot| before.binary_search(slot).is_err()) {
            self.slots.join(*slot, reader);
        }
    }

    /// Forgets a reader.
    pub fn forget(&mut self, reader: &R) {
        let Some(reader) = self.readers.find(reader) else { return };
        for slot in self.readers.replace(reader, Vec::new()) {
            self.slots.leave(slot, reader);
        }
        self.readers.free(reader);
    }

    /// Those who read a slot.
    pub fn of<'a>(&'a self, slot: &S) -> impl Iterator<Item = &'a R> {
        self.slots.find(slot).into_iter().flat_map(|slot| self.readers_of(slot))
    }

    /// What a reader read.
    pub fn read_by<'a>(&'a self, reader: &R) -> impl Iterator<Item = &'a S> {
        let slots = self.readers.find(reader).map_or(&[][..], |reader| self.readers.others(reader));
        slots.iter().filter_map(|slot| self.slots.what(*slot))
    }

    /// Those who read every one of some slots.
    ///
    /// # Cost
    /// In proportion to the readers of the slot that has the fewest.
    pub fn of_all<'a>(&'a self, slots: &[S]) -> impl Iterator<Item = &'a R> {
        let numbers: Option<Vec<u32>> = slots.iter().map(|slot| self.slots.find(slot)).collect();
        let mut lists: Vec<&[u32]> = numbers.into_iter().flatten().map(|slot| self.slots.others(slot)).collect();
        lists.sort_by_key(|readers| readers.len());
        let fewest = lists.first().copied().unwrap_or_default();
        let common = fewest.iter().filter(move |reader| lists.iter().all(|list| list.binary_search(reader).is_ok()));
        common.filter_map(|reader| self.readers.what(*reader))
    }

    /// The slots that are read, within a range, with their readers.
    pub fn within(&self, range: impl RangeBounds<S>) -> impl Iterator<Item = (&S, impl Iterator<Item = &R>)> {
        self.slots.numbers.range(range).map(|(slot, number)| (&**slot, self.readers_of(*number)))
    }

    fn readers_of(&self, slot: u32) -> impl Iterator<Item = &R> {
        self.slots.others(slot).iter().filter_map(|reader| self.readers.what(*reader))
    }

    /// How many readers and slots there are.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.readers.numbers.len(), self.slots.numbers.len())
    }
}

/// Things with numbers, each with the numbers of others.
#[derive(Clone, Debug)]
struct Numbered<T> {
    numbers: BTreeMap<Arc<T>, u32>,
    entries: Vec<Entry<T>>,
    unused: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    /// Nothing where the number is unused.
    what: Option<Arc<T>>,
    /// In order.
    others: Vec<u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), entries: Vec::new(), unused: Vec::new() }
    }
}

impl<T: Ord> Numbered<T> {
    fn find(&self, what: &T) -> Option<u32> {
        self.numbers.get(what).copied()
    }

    /// The number of something, which gets one where it has none.
    fn number(&mut self, what: T) -> u32 {
        if let Some(known) = self.find(&what) {
            return known;
        }
        let what = Arc::new(what);
        let entry = Entry { what: Some(what.clone()), others: Vec::new() };
        let number = match self.unused.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                // More than four billion things do not fit into any memory.
                u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(what, number);
        number
    }

    fn what(&self, number: u32) -> Option<&T> {
        self.entries[number as usize].what.as_deref()
    }

    fn others(&self, number: u32) -> &[u32] {
        &self.entries[number as usize].others
    }

    fn replace(&mut self, number: u32, others: Vec<u32>) -> Vec<u32> {
        std::mem::replace(&mut self.entries[number as usize].others, others)
    }

    fn join(&mut self, number: u32, other: u32) {
        let others = &mut self.entries[number as usize].others;
        if let Err(place) = others.binary_search(&other) {
            others.insert(place, other);
        }
    }

    /// Whoever is left by all others is forgotten.
    fn leave(&mut self, number: u32, other: u32) {
        let others = &mut self.entries[number as usize].others;
        if let Ok(place) = others.binary_search(&other) {
            others.remove(place);
        }
        if others.is_empty() {
            self.free(number);
        }
    }

    fn free(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        entry.others = Vec::new();
        if let Some(what) = entry.what.take() {
            self.numbers.remove(&*what);
            self.unused.push(number);
        }
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
        assert_eq!(reads.of_all(&["a", "b"]).collect::<Vec<_>>(), [&1]);
        assert_eq!(reads.read_by(&1).collect::<Vec<_>>(), [&"a", &"b"]);
        assert_eq!(reads.of_all(&["b", "nobody"]).count(), 0);
        reads.record(&1, ["c"].into());
        assert_eq!(reads.of(&"b").collect::<Vec<_>>(), [&2]);
        assert_eq!(reads.of(&"a").count(), 0);
        reads.forget(&1);
        reads.forget(&2);
        assert_eq!(reads.len(), (0, 0));
    }
}
