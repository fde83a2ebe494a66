//! The fragments of trees, kept from one step to the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compile::inputs::Inputs;
use crate::memo::Reads;
use crate::model::ObjectRef;
use crate::resolve::delegation::fragments::{Budget, Fragment, Fragments, Make, Place};

use super::slots::{Reader, Recording, Slot};

/// How far ahead a fragment is looked for that does not stand where it stood.
const AHEAD: usize = 64;

/// A fragment with those inside it.
#[derive(Debug)]
pub(super) struct Kept {
    place: Place,
    number: u64,
    fragment: Arc<Fragment>,
    inside: Vec<Kept>,
}

/// How many fragments there are, with those inside.
pub(super) fn count(kept: &[Kept]) -> usize {
    kept.iter().map(|kept| 1 + count(&kept.inside)).sum()
}

/// Leaves nothing of fragments behind.
pub(super) fn forget(root: &ObjectRef, kept: Vec<Kept>, reads: &mut Reads<Slot, Reader>) {
    for kept in kept {
        reads.forget(&Reader::Fragment(root.clone(), kept.number));
        forget(root, kept.inside, reads);
    }
}

/// Hands out fragments that are as they were, and makes the others.
pub(super) struct Keeper<'a> {
    inputs: &'a Inputs,
    root: &'a ObjectRef,
    reads: &'a mut Reads<Slot, Reader>,
    numbers: &'a mut u64,
    /// Those that read something that is different now, and those around them.
    stale: BTreeSet<u64>,
    /// The fragments that are being made, each inside the one before; first the tree.
    frames: Vec<Frame>,
    /// How many were made.
    pub(super) made: usize,
}

/// What is inside a fragment: before, up to where it has been looked at, and now.
#[derive(Default)]
struct Frame {
    before: Vec<Option<Kept>>,
    cursor: usize,
    now: Vec<Kept>,
}

impl Frame {
    fn new(before: Vec<Kept>) -> Self {
        Self { before: before.into_iter().map(Some).collect(), cursor: 0, now: Vec::new() }
    }

    /// What was there in the same place. Walks come by in the same order nearly always.
    fn take(&mut self, place: &Place) -> Option<Kept> {
        let is_it = |kept: &&mut Option<Kept>| kept.as_ref().is_some_and(|kept| kept.place.is_about(place));
        let mut ahead = self.before.iter_mut().enumerate().skip(self.cursor).take(AHEAD);
        let (position, found) = ahead.find(|(_, kept)| is_it(kept))?;
        self.cursor = position + 1;
        found.take()
    }
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        inputs: &'a Inputs,
        root: &'a ObjectRef,
        kept: Vec<Kept>,
        mut stale: BTreeSet<u64>,
        reads: &'a mut Reads<Slot, Reader>,
        numbers: &'a mut u64,
    ) -> Self {
        if !stale.is_empty() {
            spread(&kept, &mut stale);
        }
        Self { inputs, root, reads, numbers, stale, frames: vec![Frame::new(kept)], made: 0 }
    }

    /// What is kept for the next time.
    pub(super) fn finish(mut self) -> Vec<Kept> {
        self.leave()
    }

    /// Ends the last frame.
    fn leave(&mut self) -> Vec<Kept> {
        let frame = self.frames.pop().unwrap_or_default();
        forget(self.root, frame.before.into_iter().flatten().collect(), self.reads);
        frame.now
    }
}

/// Adds the fragments around stale ones.
fn spread(kept: &[Kept], stale: &mut BTreeSet<u64>) -> bool {
    let mut any = false;
    for kept in kept {
        let inside = spread(&kept.inside, stale);
        if inside {
            stale.insert(kept.number);
        }
        any |= inside || stale.contains(&kept.number);
    }
    any
}

impl Fragments for Keeper<'_> {
    fn fragment(&mut self, place: &Place, budget: &Budget, make: Make<'_>) -> Arc<Fragment> {
        let known = self.frames.last_mut().and_then(|frame| frame.take(place));
        let (number, before) = match known {
            Some(kept)
                if kept.place.is_same(place) && kept.fragment.fits(budget) && !self.stale.contains(&kept.number) =>
            {
                let fragment = kept.fragment.clone();
                if let Some(frame) = self.frames.last_mut() {
                    frame.now.push(kept);
                }
                return fragment;
            }
            Some(kept) => (kept.number, Some(kept)),
            None => {
                *self.numbers += 1;
                (*self.numbers, None)
            }
        };
        self.made += 1;
        let (before, inside) = before.map(|kept| (kept.fragment, kept.inside)).unzip();
        self.frames.push(Frame::new(inside.unwrap_or_default()));
        let world = Recording::new(self.inputs);
        let mut fragment = make(&world, self);
        if let Some(before) = &before {
            fragment.share_with(before);
        }
        let inside = self.leave();
        self.reads.record(&Reader::Fragment(self.root.clone(), number), world.into_slots());
        let fragment = Arc::new(fragment);
        if let Some(frame) = self.frames.last_mut() {
            frame.now.push(Kept { place: place.clone(), number, fragment: fragment.clone(), inside });
        }
        fragment
    }
}
