//! The stable JSON forms.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::model::Finding;

/// The version of all JSON forms.
pub(super) const API_VERSION: &str = "chancery/v1";

/// Prints a value, indented.
pub(super) fn print(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// One finding.
pub(super) fn finding(finding: &Finding) -> Value {
    let location = finding
        .location
        .as_ref()
        .map(|location| json!({"file": &*location.file, "line": location.line, "column": location.column}));
    json!({
        "severity": finding.severity.to_string(),
        "code": finding.code.as_str(),
        "field": finding.field.as_str(),
        "message": finding.message,
        "related": finding.related.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "location": location,
    })
}
