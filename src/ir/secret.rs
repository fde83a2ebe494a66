//! Key material that a gateway is entitled to.

use std::fmt;

use crate::model::{Name, ObjectRef, SecretBytes};

use super::trust::Identity;

/// Names one part of a Secret, or of the root of trust.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretId {
    /// The Secret; or the policy that sets the root of trust.
    pub object: ObjectRef,
    /// Which of its uses.
    pub part: SecretPart,
}

/// What a Secret is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretPart {
    /// Certificate and key.
    KeyPair,
    /// Authorities that sign others' certificates.
    Trust,
    /// The gateway's own certificate under the root of trust; one for each gateway.
    Identity,
    /// The authorities of the root of trust.
    Roots,
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            SecretPart::KeyPair => write!(f, "{}", self.object),
            SecretPart::Identity => write!(f, "identity under {}", self.object),
            SecretPart::Roots => write!(f, "roots of {}", self.object),
            SecretPart::Trust => write!(f, "{} (authorities)", self.object),
        }
    }
}

/// A part of a Secret, checked: what Envoy would refuse is not in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// Certificate and key, which belong together.
    KeyPair {
        /// PEM, the own certificate first.
        chain: SecretBytes,
        /// PEM.
        key: SecretBytes,
        /// DER, if the Secret has one.
        ocsp_staple: Option<SecretBytes>,
    },
    /// Authorities.
    Trust {
        /// PEM, one or more.
        authorities: SecretBytes,
        /// PEM, if the Secret has one.
        revoked: Option<SecretBytes>,
    },
    /// A certificate and key that the control plane makes itself, with the clock: a plan only says whose.
    Identity(Identity),
}

/// A name in a client's certificate, without a type: it may be of any that the text can be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AltName(pub Name);
