//! Ring 6: what is remembered beyond the inputs.
//!
//! Plain values that somebody else keeps, reads and feeds to the next compile; nothing here reaches out.

pub mod refusals;
