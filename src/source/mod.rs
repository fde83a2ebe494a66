//! Ring 1, at the edge: where objects come from.
//!
//! Every source keeps one contract. It first gives everything it has, in one [`Batch`] of extent
//! [`Extent::Complete`]; then it gives differences, [`Extent::Changes`], relative to what it gave before; and when it
//! can no longer tell the difference it gives everything again, and whoever reads it drops what is not in it.
//! A batch is never half of an edit, it never repeats an object that did not change, and it always carries the
//! complete current list of what is wrong with the source itself.
//!
//! What objects mean is not known here: no references are followed, and the only object that is looked at is the
//! `KubernetesCluster` that a folder needs, or an API server with its credential (R3).
//!
//! There are two: a [`directory`], and the API servers of [`kubernetes`]. The same objects from either are the same.

pub mod directory;
pub mod kubernetes;
mod places;

use std::future::Future;
use std::sync::Arc;

pub use directory::{Directory, Listed, Loaded, Options, SourceError, Watching, read};
pub use places::Places;

use crate::crd::{Change, Object};
use crate::model::Findings;

/// How a batch relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything that the source has; what is not in it is gone.
    Complete,
    /// The difference to what was given before.
    Changes,
}

/// What a source gives at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Whether the changes are everything or a difference.
    pub extent: Extent,
    /// New, different and deleted objects, sorted by object, each object at most once. One that only moved, within
    /// its file or to another, is not given again; [`Places`] knows where it stands now.
    pub changes: Vec<Change>,
    /// All that is wrong with the source now, in reporting order. Replaces what was given before.
    pub findings: Findings,
}

/// Something that objects come from.
pub trait Source {
    /// Waits for the next difference.
    ///
    /// May be dropped while it waits: nothing is lost, the next call gives it.
    fn next(&mut self) -> impl Future<Output = Batch> + Send;
}

/// Whether two objects say the same, wherever they stand.
fn same_content(a: &Arc<Object>, b: &Arc<Object>) -> bool {
    Arc::ptr_eq(a, b) || {
        let (x, y) = (&a.meta, &b.meta);
        (&x.id, &x.labels, &x.annotations, &x.created, x.generation)
            == (&y.id, &y.labels, &y.annotations, &y.created, y.generation)
            && a.spec == b.spec
            && a.defects == b.defects
    }
}
