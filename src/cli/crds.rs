//! `chancery crds`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::crd::definition::definition;
use crate::model::Kind;
use crate::render::to_yaml;

use super::{EXIT_CODES, Outcome};

/// Print the CustomResourceDefinitions of the kinds that Chancery reads. Nothing installs them by itself; where another
/// installation has some of them already, they can stay as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery crds | kubectl apply -f -\n  chancery crds --directory config/crds\n\n{EXIT_CODES}"))]
pub(super) struct Crds {
    /// Write a file for each kind into this directory instead, and print the paths
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Crds {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        for definition in Kind::ALL.iter().filter_map(|kind| definition(*kind)) {
            let text = to_yaml(&definition);
            let Some(directory) = &self.directory else {
                write!(out, "---\n{text}")?;
                continue;
            };
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            let path = directory.join(format!("{name}.yaml"));
            std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            writeln!(out, "{}", path.display())?;
        }
        Ok(Outcome::Clean)
    }
}
