//! The commands: arguments in, text or JSON out. Decides nothing about routing.

mod bootstrap;
mod check;
mod crds;
mod credentials;
mod explain;
mod json;
mod live;
mod render;
mod serve;
mod status;
mod table;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::compile::{Compiled, Reported, compile};
use crate::ir::frozen::Remembered;
use crate::model::{Findings, GatewayId, Kind, Name, ObjectRef};
use crate::resolve::gateway::known_gateways;
use crate::resolve::world::World;
use crate::resolve::{Consent, LoopbackEndpoints, Options, RequireAuth};
use crate::source::{self, Loaded, SourceError};
use crate::store::Store;

/// What every `--help` ends with.
const EXIT_CODES: &str = "Exit codes:\n  0  clean\n  1  errors\n  2  wrong usage";

/// The same for commands that may ask a server.
const SERVER_EXIT_CODES: &str = "Exit codes:\n  0  clean\n  1  errors\n  2  wrong usage\n  3  server not reachable";

/// A control plane for Envoy: workspaces, delegated route tables and label-selected policies, served over xDS.
#[derive(Debug, Parser)]
#[command(name = "chancery", version, after_help = SERVER_EXIT_CODES, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a directory of manifests, or what API servers hold, to Envoys
    Serve(serve::Serve),
    /// Report everything that `serve` would, offline
    Check(check::Check),
    /// Say what a gateway does with a request, or what became of an object, and why
    Explain(explain::Explain),
    /// Print the Envoy resources that a gateway would get
    Render(render::Render),
    /// Show what the gateways of a running control plane hold, and which objects have findings
    Status(status::Show),
    /// Print an Envoy bootstrap that points at this control plane
    Bootstrap(bootstrap::Bootstrap),
    /// Print the CustomResourceDefinitions, for `kubectl apply -f -`
    Crds(crds::Crds),
    /// Make the credentials by which the control plane and gateways know each other
    Credentials(credentials::Credentials),
    /// Print the version
    Version,
}

/// Settings that rules depend on; the same flags for every command that compiles.
#[derive(Clone, Debug, clap::Args)]
struct Rules {
    /// Namespace of the management cluster in which workspaces and clusters are read
    #[arg(
        long,
        env = "CHANCERY_ADMIN_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "gloo-mesh",
        help_heading = "Rules"
    )]
    admin_namespace: String,
    /// Name under which the management cluster's own objects are known
    #[arg(
        long,
        env = "CHANCERY_MANAGEMENT_CLUSTER",
        value_name = "NAME",
        default_value = "mgmt",
        help_heading = "Rules"
    )]
    management_cluster: String,
    /// Which sharing makes a delegation across workspaces valid
    #[arg(
        long,
        env = "CHANCERY_DELEGATION_CONSENT",
        value_name = "WHICH",
        default_value = "parent-exports",
        help_heading = "Rules"
    )]
    delegation_consent: ConsentFlag,
    /// Refuse requests to routes labelled gateway.gloo.solo.io/require_auth: "true" that no policy authenticates
    #[arg(long, env = "CHANCERY_REQUIRE_AUTH", value_parser = BoolishValueParser::new(), help_heading = "Rules")]
    require_auth: bool,
    /// Use endpoints on loopback and link-local addresses, for a mesh on one machine
    #[arg(
        long,
        env = "CHANCERY_ALLOW_LOOPBACK_ENDPOINTS",
        value_parser = BoolishValueParser::new(),
        help_heading = "Rules"
    )]
    allow_loopback_endpoints: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ConsentFlag {
    /// Every ancestor exports its table to the child's workspace, which imports it
    ParentExports,
    /// The same, or: the child exports its table and the direct parent imports it
    Either,
}

impl Rules {
    fn options(&self) -> Options {
        Options {
            admin_namespace: (&self.admin_namespace).into(),
            management_cluster: (&self.management_cluster).into(),
            consent: match self.delegation_consent {
                ConsentFlag::ParentExports => Consent::ParentExports,
                ConsentFlag::Either => Consent::Either,
            },
            require_auth: if self.require_auth { RequireAuth::On } else { RequireAuth::Off },
            loopback_endpoints: if self.allow_loopback_endpoints {
                LoopbackEndpoints::Allowed
            } else {
                LoopbackEndpoints::Refused
            },
            ..Options::default()
        }
    }
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TextOrJson {
    /// For people.
    Text,
    /// Stable, documented in the manual's page on operating.
    Json,
}

/// How a command ended, when it could run at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Clean,
    Errors,
}

/// Runs a command line and gives the program's exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let typed: Vec<OsString> = arguments.into_iter().collect();
    let (arguments, matches) = match parse(&typed) {
        Ok(parsed) => parsed,
        Err(error) => {
            let whole = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            // Help and version are no errors; clap prints them on stdout. A closed pipe changes nothing.
            let _ = if whole { error.print() } else { writeln!(std::io::stderr(), "{}", usage_line(&error, &typed)) };
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let mut out = std::io::stdout().lock();
    let result = match arguments.command {
        Command::Serve(command) => {
            drop(out);
            command.run(matches.subcommand_matches("serve").unwrap_or(&matches))
        }
        Command::Check(command) => command.run(&mut out),
        Command::Explain(command) => command.run(&mut out),
        Command::Render(command) => command.run(&mut out),
        Command::Status(command) => command.run(&mut out),
        Command::Bootstrap(command) => command.run(&mut out),
        Command::Crds(command) => command.run(&mut out),
        Command::Credentials(command) => command.run(&mut out),
        Command::Version => {
            writeln!(out, "chancery {}", env!("CARGO_PKG_VERSION")).map(|()| Outcome::Clean).map_err(Into::into)
        }
    };
    match result {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Errors) => ExitCode::from(1),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain once, where the error stops. A closed stderr changes nothing.
            let _ = writeln!(std::io::stderr(), "chancery: {error:#}");
            ExitCode::from(match () {
                () if error.is::<Usage>() => 2,
                () if error.is::<live::Unreachable>() => 3,
                () => 1,
            })
        }
    }
}

fn parse(typed: &[OsString]) -> Result<(Arguments, ArgMatches), clap::Error> {
    let matches = Arguments::command().try_get_matches_from(typed)?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut Arguments::command()))?;
    Ok((arguments, matches))
}

/// The parser's complaint in one line, with where to read on.
fn usage_line(error: &clap::Error, typed: &[OsString]) -> String {
    let text = error.to_string();
    let mut line = String::from("chancery: ");
    let complaint = text.lines().map(str::trim).take_while(|part| !part.starts_with("Usage:"));
    for part in complaint.filter(|part| !part.is_empty() && !part.starts_with("For more information")) {
        let joint = match part.as_bytes() {
            _ if line.ends_with([' ']) => "",
            [b'[', ..] => " ",
            _ if part.starts_with("tip:") => "; ",
            _ if line.ends_with(':') => " ",
            _ => ", ",
        };
        line.push_str(joint);
        line.push_str(part.strip_prefix("error: ").unwrap_or(part));
    }
    let command = Arguments::command();
    let named = typed.iter().skip(1).filter_map(|part| command.find_subcommand(part)).next();
    let named = named.map(|command| format!(" {}", command.get_name())).unwrap_or_default();
    format!("{line}; see `chancery{named} --help`")
}

/// A mistake in the arguments that the parser could not see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A path that leads nowhere is a mistake in the arguments.
fn wrong_path(error: SourceError) -> anyhow::Error {
    match error {
        SourceError::Missing { .. } | SourceError::NotADirectory { .. } => Usage(error.to_string()).into(),
        error => error.into(),
    }
}

/// A directory or files, compiled.
struct Offline {
    loaded: Loaded,
    compiled: Compiled,
}

/// Whether a gateway is one of those that virtual gateways select, or the class of several Services of which one is.
///
/// # Rule
/// R15.
fn is_known(compiled: &Compiled, gateway: &GatewayId) -> Result<(), Usage> {
    let known = known_gateways(&compiled.inputs);
    let alone = |service: &Name| GatewayId::new(&gateway.cluster, &gateway.namespace, vec![service.clone()]);
    let mut services = gateway.services.iter().map(alone);
    let exists = |name| ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name);
    let exist = gateway.services.iter().all(|name| compiled.inputs.service(&exists(name)).is_some());
    if exist && services.any(|service| known.contains(&service)) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(|id| format!("`{id}`")).collect();
    Err(Usage(match known.as_slice() {
        [] => format!("there is no gateway `{gateway}`, nor any other: no VirtualGateway selects a Service"),
        known => format!("there is no gateway `{gateway}`; there are {}", known.join(", ")),
    }))
}

/// Reads and compiles paths once.
fn offline(paths: &[PathBuf], rules: &Rules, gateway: Option<&GatewayId>) -> anyhow::Result<Offline> {
    let options = rules.options();
    let source_options =
        source::Options { management: Name::from(&rules.management_cluster), ..source::Options::default() };
    let loaded = source::read(paths, &source_options).map_err(wrong_path)?;
    let store = Store::from_objects(loaded.objects.iter().cloned());
    let wanted = gateway.into_iter().cloned().collect();
    let mut compiled = compile(&store, &loaded.findings, &options, &wanted, &Remembered::default());
    let ended = crate::app::identities::ended(compiled.inputs.trust(), jiff::Timestamp::now());
    if !ended.is_empty() {
        let given: Findings = loaded.findings.iter().cloned().chain(ended).collect();
        compiled = compile(&store, &given, &options, &wanted, &Remembered::default());
    }
    if let Some(gateway) = gateway {
        is_known(&compiled, gateway)?;
    }
    let mut findings = compiled.findings.to_vec();
    loaded.places.locate(&mut findings);
    compiled.findings = Reported::new(findings);
    Ok(Offline { loaded, compiled })
}
