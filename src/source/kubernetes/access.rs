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

impl Access {
    /// Reads the credential.
    ///
    /// # Errors
    /// In a sentence with the file: missing, unreadable, or without the context.
    pub async fn load(&self) -> Result<Config, AccessError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let shown = file.display();
                let read =
                    Kubeconfig::read_from(file).map_err(|error| AccessError(format!("{shown}: {}", said(&error))))?;
                let config = Config::from_custom_kubeconfig(read, &options).await;
                config.map_err(|error| AccessError(format!("{shown}: {}", said(&error))))?
            }
            None if self.context.is_none() && std::env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty()) => {
                match Config::incluster() {
                    Ok(config) => config,
                    Err(outside) => Config::from_kubeconfig(&options).await.map_err(|error| {
                        AccessError(format!(
                            "neither in a Pod ({outside}) nor with a kubeconfig file ({})",
                            said(&error)
                        ))
                    })?,
                }
            }
            None => Config::from_kubeconfig(&options).await.map_err(|error| AccessError(said(&error)))?,
        };
        Ok(bounded(config))
    }
}

/// What is wrong with a kubeconfig. A parser's own words would show the lines around, with what is secret there.
fn said(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "it is not a kubeconfig: it cannot be read as YAML".to_owned(),
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
