//! Ring 5: the pipeline. Objects in, plans, snapshots and verdicts out; a function.
//!
//! [`full`] is the plain reading of the rules, from scratch, without memory. [`explain`] answers for one request.

pub mod explain;
pub mod full;
mod inputs;
pub mod report;

pub use full::{Compiled, compile};
pub use inputs::Inputs;
