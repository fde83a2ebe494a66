//! Settings of `serve`: first what was typed, then what it means.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What was typed, in flags or the environment.
#[derive(Clone, Debug, clap::Args)]
pub struct RawSettings {
    /// Directory of manifests: DIR/CLUSTER/**/*.yaml; files directly under DIR belong to the management cluster.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Where the xDS server listens. Loopback only, unless --xds-insecure is given; port 0 picks a free one.
    #[arg(long, env = "CHANCERY_XDS_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    pub xds_address: SocketAddr,
    /// Where health and readiness are served. Port 0 picks a free one.
    #[arg(long, env = "CHANCERY_ADMIN_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:18001")]
    pub admin_address: SocketAddr,
    /// Serve xDS in plaintext beyond loopback.
    #[arg(long, env = "CHANCERY_XDS_INSECURE")]
    pub xds_insecure: bool,
    /// Write the addresses in use as JSON to this file once everything is compiled and served.
    #[arg(long, env = "CHANCERY_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// What it means, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory of manifests.
    pub directory: PathBuf,
    /// Where xDS listens.
    pub xds_address: SocketAddr,
    /// Where health listens.
    pub admin_address: SocketAddr,
    /// Where to tell that everything is served.
    pub ready_file: Option<PathBuf>,
}

impl TryFrom<RawSettings> for Settings {
    type Error = String;

    /// # Errors
    /// An xDS address beyond loopback without `--xds-insecure`: configuration would travel in plaintext.
    fn try_from(raw: RawSettings) -> Result<Self, String> {
        if !raw.xds_address.ip().is_loopback() && !raw.xds_insecure {
            return Err(format!(
                "xDS on {} would be plaintext beyond loopback; listen on 127.0.0.1, or give --xds-insecure",
                raw.xds_address
            ));
        }
        Ok(Self {
            directory: raw.directory,
            xds_address: raw.xds_address,
            admin_address: raw.admin_address,
            ready_file: raw.ready_file,
        })
    }
}
