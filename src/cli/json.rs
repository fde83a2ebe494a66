//! The stable JSON forms.

use std::io::{self, Write};

use serde_json::Value;

/// Prints a value, indented.
pub(super) fn print(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}
