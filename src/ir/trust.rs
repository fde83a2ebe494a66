//! The root of trust, and the identities of gateways under it.
//!
//! What signs is here as a value; who signs with it, and when, is not for a plan to know.

use std::fmt;

use crate::model::{Name, ObjectRef, SecretBytes};

/// The root of trust of all clusters, checked: the key signs for the certificate, which leads to one of the authorities.
///
/// # Rule
/// R191.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The policy that says so.
    pub policy: ObjectRef,
    /// What signs the certificates of gateways; absent where only a running server has it.
    pub signer: Option<Signer>,
    /// PEM: the root, and whatever else is trusted beside it.
    pub authorities: SecretBytes,
    /// How the certificates of gateways are made.
    pub terms: Terms,
}

/// A certificate that signs others, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signer {
    /// Hash of the certificate and the chain.
    pub id: Name,
    /// PEM, one certificate.
    pub certificate: SecretBytes,
    /// PEM.
    pub key: SecretBytes,
    /// PEM: what a peer needs to get from a certificate that this one signs to the root; empty where the root itself signs.
    pub chain: SecretBytes,
}

/// How certificates are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Days for which they hold, 1 to 36500.
    pub days: u32,
    /// The key.
    pub key: KeyType,
    /// Organization in the subject, 1 to 64 characters.
    pub organization: Name,
    /// They are renewed when this part of their life is left, in millionths; 1 to 999999.
    pub renew_with_left: u32,
}

/// A kind of private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// ECDSA on P-256.
    EcdsaP256,
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 3072 bits.
    Rsa3072,
    /// RSA of 4096 bits.
    Rsa4096,
}

/// Who a gateway is, and what its certificate is made of.
///
/// # Rule
/// R193, D31.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `spiffe://<cluster>/ns/<namespace>/sa/<service-account>`.
    pub uri: Name,
    /// [`Signer::id`]; empty where only a running server knows it.
    pub signer: Name,
    /// How its certificate is made.
    pub terms: Terms,
}

impl Identity {
    /// The URI of a service account.
    ///
    /// # Errors
    /// A part of a sentence: which name cannot stand in a URI.
    pub fn uri(cluster: &str, namespace: &str, account: &str) -> Result<Name, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        for (what, name) in [("cluster", cluster), ("namespace", namespace), ("service account", account)] {
            let is_fit = !name.is_empty() && name.len() <= 253 && name.chars().all(is_plain);
            if !is_fit || name.chars().all(|c| c == '.') {
                return Err(format!("the name of its {what} cannot be part of an identity: {name:?}"));
            }
        }
        Ok(format!("spiffe://{cluster}/ns/{namespace}/sa/{account}").into())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r193_names_that_would_say_something_else_make_no_identity() {
        assert_eq!(Identity::uri("cluster-1", "edge", "web").unwrap(), "spiffe://cluster-1/ns/edge/sa/web");
        for (cluster, namespace, account) in [
            ("", "edge", "web"),
            ("c", "edge/sa/other", "web"),
            ("c", "edge", "a b"),
            ("c", "..", "web"),
            ("c", "ü", "w"),
        ] {
            assert!(Identity::uri(cluster, namespace, account).is_err(), "{cluster} {namespace} {account}");
        }
    }
}
