//! Settings of `serve`: first what was typed, then what it means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;

/// What was typed, in flags or the environment.
#[derive(Clone, Debug, clap::Args)]
pub struct RawSettings {
    /// Directory of manifests: DIR/CLUSTER/**/*.yaml; files directly under DIR belong to the management cluster.
    #[arg(value_name = "DIR", required_unless_present_any = ["kubernetes", "kubeconfig"])]
    pub directory: Option<PathBuf>,
    /// Serve what API servers hold instead of a directory: the management cluster's, and those of clusters that are registered
    /// there. Its credential is that of --kubeconfig, of KUBECONFIG, or of the Pod that this runs in.
    #[arg(long, env = "CHANCERY_KUBERNETES", value_parser = BoolishValueParser::new(), conflicts_with = "directory")]
    pub kubernetes: bool,
    /// The kubeconfig of the management cluster; with it, --kubernetes need not be given.
    #[arg(long, env = "CHANCERY_KUBECONFIG", value_name = "FILE", conflicts_with = "directory")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig, in place of its current one.
    #[arg(long, env = "CHANCERY_CONTEXT", value_name = "NAME", conflicts_with = "directory")]
    pub context: Option<String>,
    /// Write nothing to API servers: no statuses, no events, no Lease. For running beside another control plane.
    #[arg(long, env = "CHANCERY_READ_ONLY", value_parser = BoolishValueParser::new())]
    pub read_only: bool,
    /// The namespace of the management cluster in which the Lease is by which one of several replicas writes statuses; the admin
    /// namespace when left out. POD_NAMESPACE of the downward API says the same.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Where the xDS server listens. Loopback only, unless --xds-credentials is given; port 0 picks a free one.
    #[arg(long, env = "CHANCERY_XDS_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    pub xds_address: SocketAddr,
    /// Where health, metrics and the API of `status` and `explain --server` are served. Beyond loopback, health and metrics
    /// alone; port 0 picks a free one.
    #[arg(long, env = "CHANCERY_ADMIN_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:18001")]
    pub admin_address: SocketAddr,
    /// Serve xDS over TLS, to clients with a credential only. DIR holds tls.crt and tls.key of the server, and ca.crt under
    /// which clients show certificates, or tokens, or both; it is read again when it changes. `chancery credentials` makes it.
    #[arg(long, env = "CHANCERY_XDS_CREDENTIALS", value_name = "DIR")]
    pub xds_credentials: Option<PathBuf>,
    /// Serve xDS beyond loopback in plaintext and to anybody, private keys included. For tests.
    #[arg(long, env = "CHANCERY_XDS_INSECURE", value_parser = BoolishValueParser::new())]
    pub xds_insecure: bool,
    /// Write the addresses in use as JSON to this file once everything is compiled and served.
    #[arg(long, env = "CHANCERY_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Keep over a restart what cannot be made again from the manifests, in files of this directory.
    #[arg(long, env = "CHANCERY_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Compare what is served with compiling from scratch, at most this often, after a change; 0 never does. A difference
    /// counts in the metric chancery_audit_differences_total. Takes the time and memory of a start.
    #[arg(long, env = "CHANCERY_AUDIT_MINUTES", value_name = "MINUTES", default_value_t = 10)]
    pub audit_minutes: u32,
}

/// What it means, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where objects come from.
    pub origin: Origin,
    /// Whether nothing is written to API servers.
    pub read_only: bool,
    /// Where the Lease of who writes statuses is; none is the admin namespace.
    pub namespace: Option<String>,
    /// Where xDS listens.
    pub xds_address: SocketAddr,
    /// Where the credentials of xDS are; none lets in whoever reaches the port.
    pub xds_credentials: Option<PathBuf>,
    /// Where the admin port listens.
    pub admin_address: SocketAddr,
    /// Where to tell that everything is served.
    pub ready_file: Option<PathBuf>,
    /// Where to keep what is remembered; `None` forgets it at the end.
    pub state: Option<PathBuf>,
    /// The shortest time between two audits; `None` for none.
    pub audit: Option<Duration>,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A directory of manifests.
    Directory(PathBuf),
    /// API servers.
    Kubernetes {
        /// A kubeconfig file; none looks in the usual places.
        kubeconfig: Option<PathBuf>,
        /// A context of it; none takes its current one.
        context: Option<String>,
    },
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The flag, or the argument in capitals.
    pub name: String,
    /// Its value; none where it is not given and has no default.
    pub value: Option<String>,
    /// `flag`, `argument`, `default`, or the environment variable.
    pub from: String,
}

/// All settings of a command with their values and where each came from, as they stand in its help.
///
/// Arguments whose names are in `actions` say what to do, not how, and are left out.
///
/// # Rule
/// Flag over environment over default.
#[must_use]
pub fn in_force(command: &clap::Command, matches: &clap::ArgMatches, actions: &[&str]) -> Vec<InForce> {
    let settings = command.get_arguments().filter(|argument| !actions.contains(&argument.get_id().as_str()));
    settings
        .map(|argument| {
            let id = argument.get_id().as_str();
            let from = match matches.value_source(id) {
                Some(ValueSource::CommandLine) if argument.is_positional() => "argument".to_owned(),
                Some(ValueSource::CommandLine) => "flag".to_owned(),
                Some(ValueSource::EnvVariable) => {
                    argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
                }
                _ => "default".to_owned(),
            };
            let value = if argument.get_action().takes_values() {
                let typed = matches.get_raw(id).into_iter().flatten();
                let typed: Vec<_> = typed.map(|value| value.to_string_lossy()).collect();
                (!typed.is_empty()).then(|| typed.join(","))
            } else {
                Some(matches.get_flag(id).to_string())
            };
            let name = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_value_names().map(|names| names.join(" ")).unwrap_or_default(),
            };
            InForce { name, value, from }
        })
        .collect()
}

impl TryFrom<RawSettings> for Settings {
    type Error = String;

    /// # Errors
    /// An xDS address beyond loopback without credentials, unless `--xds-insecure` says so: private keys would travel in
    /// plaintext, to anybody. Both at once.
    fn try_from(raw: RawSettings) -> Result<Self, String> {
        let is_open = raw.xds_credentials.is_none();
        if !raw.xds_address.ip().is_loopback() && is_open && !raw.xds_insecure {
            return Err(format!(
                "xDS on {} would be plaintext beyond loopback, for anybody; give --xds-credentials (`chancery credentials` makes \
                them), listen on 127.0.0.1, or give --xds-insecure",
                raw.xds_address
            ));
        }
        if !is_open && raw.xds_insecure {
            return Err("--xds-credentials and --xds-insecure contradict each other: give one of them".to_owned());
        }
        let origin = match raw.directory {
            Some(directory) => Origin::Directory(directory),
            None => Origin::Kubernetes { kubeconfig: raw.kubeconfig, context: raw.context },
        };
        Ok(Self {
            origin,
            read_only: raw.read_only,
            namespace: raw.lease_namespace.filter(|namespace| !namespace.is_empty()),
            xds_address: raw.xds_address,
            xds_credentials: raw.xds_credentials,
            admin_address: raw.admin_address,
            ready_file: raw.ready_file,
            state: raw.state,
            audit: (raw.audit_minutes > 0).then(|| Duration::from_secs(60 * u64::from(raw.audit_minutes))),
        })
    }
}
