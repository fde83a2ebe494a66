//! `chancery credentials`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aws_lc_rs::rand;
use serde_json::{Value, json};

use crate::model::SecretBytes;
use crate::trust::authority::Authority;
use crate::trust::private;
use crate::xds::caller::{Caller, TokenDigest, account_of_path};

use super::{EXIT_CODES, Outcome, Usage};

/// Secret names, by which a bootstrap refers to the files of a gateway.
pub(super) const ROOTS: &str = "roots";
pub(super) const IDENTITY: &str = "identity";
pub(super) const TOKEN: &str = "token";

/// Bytes of a token: nobody guesses it.
const TOKEN_BYTES: usize = 32;

/// Make the credentials of the xDS port, or make them again: of the server, and of gateways.
///
/// DIR/root.pem is the authority, made with the first call: keep it private, no server needs it. DIR/server goes to
/// `chancery serve --xds-credentials`, DIR/gateways/CLUSTER/NAMESPACE/ACCOUNT to the gateways that run as that ServiceAccount, where
/// `chancery bootstrap --xds-credentials` refers to it. Calling it again makes new ones; servers and Envoys take them up while they run.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:\n  chancery credentials keys --server xds.example.com --gateway eu/edge/ingress\n  chancery credentials keys --gateway eu/edge/ingress --token\n\n{EXIT_CODES}"))]
pub(super) struct Credentials {
    /// Where they are written
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// A host name or address by which gateways reach the server; may be repeated. Without any the server's stay as they are
    #[arg(long = "server", value_name = "NAME")]
    servers: Vec<String>,
    /// ServiceAccount as which the Pods of a gateway run, and `default` for a gateway without Pods in the manifests; may be repeated
    #[arg(long = "gateway", value_name = "CLUSTER/NAMESPACE/ACCOUNT")]
    gateways: Vec<String>,
    /// Give gateways a token rather than a certificate. The token before stays good until the next call
    #[arg(long)]
    token: bool,
    /// Days for which certificates hold
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

impl Credentials {
    pub(super) fn run(self, out: &mut impl Write) -> anyhow::Result<Outcome> {
        if self.servers.is_empty() && self.gateways.is_empty() {
            return Err(Usage("there is nothing to make: give --server or --gateway".to_owned()).into());
        }
        let mut gateways = Vec::new();
        for path in &self.gateways {
            let wrong = || Usage(format!("{path:?} is no gateway's account: write CLUSTER/NAMESPACE/ACCOUNT"));
            gateways.push((path, Caller::Account(account_of_path(path).ok_or_else(wrong)?)));
        }
        let authority = Authority::open(&self.directory, jiff::Timestamp::now().as_second())?;
        let mut files = Files { out };
        let server = self.directory.join("server");
        if !self.servers.is_empty() {
            let issued =
                authority.server(&self.servers, self.days).map_err(|error| Usage(format!("--server: {error}")))?;
            files.write(&server.join("tls.key"), issued.key.expose())?;
            files.write(&server.join("tls.crt"), issued.chain.expose())?;
        }
        // A root that follows another is trusted wherever this is called for.
        files.write(&server.join("ca.crt"), authority.trusted().expose())?;
        for (path, gateway) in gateways {
            let folder = self.directory.join("gateways").join(path);
            files.secret(&folder, ROOTS, &json!({"validation_context": {"trusted_ca": text(&authority.trusted())}}))?;
            if self.token {
                let token = SecretBytes::new(new_token()?.as_bytes());
                let known = server.join("tokens");
                let before = if known.exists() { std::fs::read_to_string(&known)? } else { String::new() };
                files.write(&known, with_token(&before, path, &TokenDigest::of(token.expose())).as_bytes())?;
                let value = format!("Bearer {}", String::from_utf8_lossy(token.expose()));
                files.secret(&folder, TOKEN, &json!({"generic_secret": {"secret": {"inline_string": value}}}))?;
            } else {
                let issued = authority.gateway(&gateway.to_string(), self.days)?;
                let pair = json!({"certificate_chain": text(&issued.chain), "private_key": text(&issued.key)});
                files.secret(&folder, IDENTITY, &json!({"tls_certificate": pair}))?;
            }
        }
        Ok(Outcome::Clean)
    }
}

/// Files that are written, and told.
struct Files<'o, W> {
    out: &'o mut W,
}

impl<W: Write> Files<'_, W> {
    fn write(&mut self, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        private::write(path, &[bytes]).with_context(|| format!("write {}", path.display()))?;
        writeln!(self.out, "{}", path.display())?;
        Ok(())
    }

    /// A secret as Envoy reads it from a file: one for each.
    fn secret(&mut self, folder: &Path, name: &str, secret: &Value) -> anyhow::Result<()> {
        let mut resource = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": name,
        });
        if let (Some(resource), Some(secret)) = (resource.as_object_mut(), secret.as_object()) {
            resource.extend(secret.clone());
        }
        let document = json!({"resources": [resource]});
        self.write(&folder.join(format!("{name}.json")), format!("{document:#}\n").as_bytes())
    }
}

fn text(pem: &SecretBytes) -> Value {
    json!({"inline_string": String::from_utf8_lossy(pem.expose())})
}

fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The lines of tokens with one more, and of the same account only the one before.
fn with_token(before: &str, path: &str, digest: &TokenDigest) -> String {
    let is_of = |line: &&str| line.split_whitespace().next() == Some(path);
    let last = before.lines().rfind(is_of);
    let others = before.lines().filter(|line| !is_of(line));
    let new = format!("{path} {digest}");
    others.chain(last).chain([new.as_str()]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::caller::Tokens;

    #[test]
    fn of_an_account_the_newest_two_tokens_are_good() {
        let mut text = "# ours\nc1/edge/other 00\n".to_owned();
        let digests = ["one", "two", "three"].map(|token| TokenDigest::of(token.as_bytes()));
        for digest in &digests {
            text = with_token(&text, "c1/edge/web", digest);
        }
        let [_, two, three] = digests;
        assert_eq!(text, format!("# ours\nc1/edge/other 00\nc1/edge/web {two}\nc1/edge/web {three}\n"));
        let own = text.replace("c1/edge/other 00\n", "");
        assert_eq!(Tokens::read(&own).unwrap().count(), 2);
    }
}
