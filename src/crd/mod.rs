//! Ring 1: what users write, field for field. Serde only.

pub mod object;

pub use object::{Change, Defect, Meta, Object, Spec};
