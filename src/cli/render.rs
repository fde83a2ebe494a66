//! `chancery render`.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::emit::{EmitOptions, emit_gateway};
use crate::model::GatewayId;
use crate::render::{snapshot_json, to_yaml};
use crate::snapshot::verify::verify;

use super::{EXIT_CODES, Outcome, Rules, Usage, json, offline};

/// Print the Envoy resources that a gateway would get, by type.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery render config/demo --gateway cluster-1/gateway/ingress-gateway\n  chancery render config/demo --gateway cluster-1/gateway/ingress-gateway -o json\n\n{EXIT_CODES}"))]
pub(super) struct Render {
    /// Directory or file of manifests
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The gateway: cluster/namespace/service
    #[arg(short, long, value_name = "GATEWAY")]
    gateway: GatewayId,
    /// Address that listeners bind
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind: IpAddr,
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "yaml")]
    output: Form,
    #[command(flatten)]
    rules: Rules,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    Yaml,
    Json,
}

impl Render {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        let offline = offline(&self.paths, &self.rules, Some(&self.gateway))?;
        let plan = offline.compiled.plans.get(&self.gateway);
        let plan = plan.ok_or_else(|| Usage(format!("there is no gateway `{}`", self.gateway)))?;
        let snapshot = emit_gateway(plan, &EmitOptions { bind: self.bind, ..EmitOptions::default() });
        let value = snapshot_json(&snapshot);
        match self.output {
            Form::Yaml => write!(out, "{}", to_yaml(&value))?,
            Form::Json => json::print(out, &value)?,
        }
        let violations = verify(&snapshot);
        for violation in &violations {
            writeln!(std::io::stderr(), "this is a fault of Chancery and would not be published: {violation}")?;
        }
        Ok(if violations.is_empty() { Outcome::Clean } else { Outcome::Errors })
    }
}
