//! The document of last accepted routes.

use std::sync::Arc;

use crate::ir::frozen::{Accepted, Remembered};

use super::document::Documents;

/// Name of the document.
pub const FROZEN: &str = "frozen";

/// What an earlier run kept; nothing where it kept nothing that can be read.
#[must_use]
pub fn load(documents: &mut Documents) -> Remembered {
    let accepted: Option<Vec<Arc<Accepted>>> = documents.load(FROZEN);
    Remembered::of_earlier_run(accepted.unwrap_or_default())
}

/// What is kept.
#[must_use]
pub fn document(remembered: &Remembered) -> Vec<Arc<Accepted>> {
    remembered.accepted.values().cloned().collect()
}
