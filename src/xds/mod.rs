//! Ring 6: where snapshots go.

mod lane;
pub mod node;
pub mod observation;
pub mod ordering;
pub mod session;
pub mod subscription;
