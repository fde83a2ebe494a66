//! Ring 5: the pipeline. Objects in, plans, snapshots and verdicts out; a function.
//!
//! [`full`] is the plain reading of the rules, from scratch, without memory. [`explain`] answers for one request.

pub mod explain;
pub mod full;
pub mod incremental;
mod inputs;
pub mod report;
mod reported;

pub use full::{Compiled, compile};
pub use incremental::{Compiler, Endpoints, Led, Moved, SecretRead};
pub use inputs::Inputs;
pub use reported::Reported;
