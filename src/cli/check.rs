//! `chancery check`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::api::document::{API_VERSION, FindingPart};
use crate::model::{Finding, ObjectRef, Severity};

use super::{EXIT_CODES, Offline, Outcome, Rules, TextOrJson, json, offline};

/// Report everything that `serve` would, offline: files, directories, or `-` for standard input.
///
/// One line per finding: place, severity, code, object, field, message.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery check config/demo --allow-loopback-endpoints --fail-on warning\n  chancery check config/demo -o json\n\n{EXIT_CODES}"))]
pub(super) struct Check {
    /// Directories (DIR/CLUSTER/**/*.yaml), files, or - for standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: TextOrJson,
    /// The mildest finding that makes the exit code 1
    #[arg(long, value_name = "SEVERITY", default_value = "error")]
    fail_on: FailOn,
    /// Leave out what is only worth knowing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    rules: Rules,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FailOn {
    Error,
    Warning,
}

impl Check {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let offline = offline(&self.paths, &self.rules, None)?;
        match self.output {
            TextOrJson::Text => self.text(&offline, out)?,
            TextOrJson::Json => json::print(out, &report(&offline))?,
        }
        let threshold = match self.fail_on {
            FailOn::Error => Severity::Error,
            FailOn::Warning => Severity::Warning,
        };
        let failed = offline.compiled.findings.iter().any(|finding| finding.severity >= threshold);
        Ok(if failed { Outcome::Errors } else { Outcome::Clean })
    }

    fn text(&self, offline: &Offline, out: &mut impl Write) -> anyhow::Result<()> {
        let mut findings: Vec<&Finding> = offline.compiled.findings.iter().collect();
        findings.sort_by(|a, b| (&a.location, &a.subject).cmp(&(&b.location, &b.subject)));
        for finding in &findings {
            if self.quiet && finding.severity == Severity::Info {
                continue;
            }
            let place = finding.location.as_ref().map(|location| format!("{location}: ")).unwrap_or_default();
            let object = finding.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
            let field = if finding.field.as_str().is_empty() { String::new() } else { format!(" {}", finding.field) };
            writeln!(out, "{place}{} {}{object}{field}: {}", finding.severity, finding.code, finding.message)?;
        }
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (objects, files) = (offline.loaded.objects.len(), offline.loaded.files.len());
        let read = format!("{} in {}", plural(objects, "object"), plural(files, "file"));
        let sums = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "note")];
        let sums: Vec<String> = sums
            .into_iter()
            .filter(|(severity, _)| count(*severity) > 0 && !(self.quiet && *severity == Severity::Info))
            .map(|(severity, what)| plural(count(severity), what))
            .collect();
        let verdict = match sums.as_slice() {
            [] if files == 0 => "nothing to check; manifests are files that end in .yaml, .yml or .json".to_owned(),
            [] => "clean".to_owned(),
            sums => sums.join(", "),
        };
        writeln!(std::io::stderr(), "{read}: {verdict}")?;
        Ok(())
    }
}

fn plural(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The JSON form: every object of the v2 API with its verdict, every other object with findings, and findings on files.
fn report(offline: &Offline) -> Value {
    let mut by_object: BTreeMap<&ObjectRef, Vec<FindingPart>> = BTreeMap::new();
    let mut rest = Vec::new();
    for finding in offline.compiled.findings.iter() {
        match &finding.subject {
            Some(subject) => by_object.entry(subject).or_default().push(FindingPart::from(finding)),
            None => rest.push(FindingPart::from(finding)),
        }
    }
    let mut items = Vec::new();
    for (id, verdict) in &offline.compiled.verdicts {
        items.push(json!({
            "object": id.to_string(),
            "approval": verdict.approval.as_str(),
            "message": verdict.message,
            "counts": verdict.counts,
            "findings": by_object.remove(id).unwrap_or_default(),
        }));
    }
    for (id, findings) in by_object {
        items.push(json!({"object": id.to_string(), "findings": findings}));
    }
    json!({"apiVersion": API_VERSION, "kind": "CheckReport", "items": items, "findings": rest})
}
