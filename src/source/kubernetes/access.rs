//! How an API server is reached: kubeconfig files, the credential of the Pod that this runs in, and kubeconfigs that Secrets
//! of registered clusters hold.

use std::path::PathBuf;
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::model::SecretBytes;

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a server may be silent within a request. Watches hear a bookmark about every minute.
const SILENCE: Duration = Duration::from_secs(150);

/// Where the credential of the management cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file; none takes `KUBECONFIG`, the credential of the Pod, or the file in the home directory.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the file; none takes its current one.
    pub context: Option<String>,
}

/// Why no credential can be used. It quotes nothing of a file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AccessError(String);

/// A credential that was read, and where from, for people.
#[derive(Debug)]
pub struct Credential {
    config: Config,
    from: String,
}

impl Credential {
    /// Address of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        self.config.cluster_url.to_string()
    }

    /// Where it was found, for people.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.from
    }

    /// What requests are made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl Access {
    /// Reads the credential.
    ///
    /// # Errors
    /// In a sentence with the file: missing, unreadable, or without the context.
    pub async fn load(&self) -> Result<Credential, AccessError> {
        let of_environment = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty());
        let (from, read) = match (&self.kubeconfig, of_environment) {
            (Some(file), _) => (format!("--kubeconfig {}", file.display()), Kubeconfig::read_from(file)),
            (None, Some(paths)) => (format!("KUBECONFIG={}", paths.to_string_lossy()), Kubeconfig::read()),
            (None, None) => {
                if let Some(config) = Config::incluster().ok().filter(|_| self.context.is_none()) {
                    return Ok(Credential {
                        config: bounded(config),
                        from: "the ServiceAccount of this Pod".to_owned(),
                    });
                }
                ("~/.kube/config, because this is no Pod and KUBECONFIG is not set".to_owned(), Kubeconfig::read())
            }
        };
        let wrong = |reason: String| AccessError(format!("{from}: {reason}"));
        let read = read.map_err(|error| wrong(said(&error, &Kubeconfig::default())))?;
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(read.clone(), &options).await;
        let config = config.map_err(|error| wrong(said(&error, &read)))?;
        Ok(Credential { config: bounded(config), from })
    }
}

/// What is wrong with a kubeconfig, and what to do. A parser's own words would show the lines around, with what is secret there.
fn said(error: &KubeconfigError, read: &Kubeconfig) -> String {
    let contexts = || {
        let names: Vec<String> = read.contexts.iter().map(|context| format!("`{}`", context.name)).collect();
        if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) }
    };
    match error {
        KubeconfigError::ReadConfig(error, file) => format!(
            "the file {} cannot be read: {error}; name the kubeconfig of the management cluster with --kubeconfig",
            file.display()
        ),
        KubeconfigError::FindPath => "there is no home directory; name a kubeconfig with --kubeconfig".to_owned(),
        KubeconfigError::Parse(error) => {
            let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column()));
            format!(
                "{}it is no kubeconfig: YAML with `clusters`, `users` and `contexts` is wanted",
                place.unwrap_or_default()
            )
        }
        KubeconfigError::CurrentContextNotSet => {
            format!("it has no `current-context`: name a context with --context; {}", contexts())
        }
        KubeconfigError::LoadContext(name) => {
            format!("it has no context {name:?}: name another with --context; {}", contexts())
        }
        KubeconfigError::LoadClusterOfContext(name) => {
            format!(
                "its context names the cluster {name:?}, which is not under `clusters`: add it, or name another context \
                 with --context; {}",
                contexts()
            )
        }
        KubeconfigError::MissingClusterUrl => "the cluster of its context has no `server`: add its address".to_owned(),
        error => error.to_string(),
    }
}

/// The same with our patience.
fn bounded(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    config
}

/// The entries of a Secret in which a kubeconfig may stand; the second is Cluster API's.
const ENTRIES: [&str; 2] = ["kubeconfig", "value"];

/// The kubeconfig in a Secret; its bytes, so that a change shows.
pub(super) fn kubeconfig_of(secret: &crate::crd::core::Secret) -> Option<&SecretBytes> {
    ENTRIES.iter().find_map(|entry| secret.data.get(*entry))
}

/// Reads the kubeconfig of a registered cluster.
///
/// It comes from whoever may write Secrets of the admin namespace, so it names no files and no programs of this machine.
///
/// # Errors
/// The end of a sentence that begins with the Secret's name. It quotes nothing of it.
pub(super) async fn remote(text: &SecretBytes) -> Result<Config, String> {
    let unreadable =
        || "holds no kubeconfig that can be read; write one with `clusters`, `users`, `contexts`".to_owned();
    let text = std::str::from_utf8(text.expose()).map_err(|_| unreadable())?;
    let kubeconfig = Kubeconfig::from_yaml(text).map_err(|_| unreadable())?;
    for cluster in kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if cluster.certificate_authority.is_some() {
            return Err("names a file in `certificate-authority`; write `certificate-authority-data`".to_owned());
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            return Err("skips the verification of the server; write `certificate-authority-data`".to_owned());
        }
    }
    for user in kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err(
                "names a program in `exec` or `auth-provider`; write `token` or a client certificate".to_owned()
            );
        }
        if user.token_file.is_some() || user.client_certificate.is_some() || user.client_key.is_some() {
            return Err("names a file; write `token`, or `client-certificate-data` and `client-key-data`".to_owned());
        }
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    // Its own words may quote what stands in the file.
    let config = config.map_err(|_| "has no usable `current-context` with a cluster and a user".to_owned())?;
    Ok(bounded(config))
}
