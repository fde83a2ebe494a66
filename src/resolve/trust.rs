//! The root of trust: which policy applies, and whether what it names can sign.
//!
//! Nothing here asks whether a certificate has ended: that is the clock's to say, where certificates are issued.
//!
//! # Rule
//! R191.

use std::sync::Arc;

use crate::ir::trust::{Signer, Terms, Trust};
use crate::model::{Code, FieldPath, Finding, Findings, Kind, Name, ObjectRef, SecretBytes};

use super::certificate;
use super::facts::{Fault, RootSource, Secret, TrustPolicy};

/// What is known of the root that the control plane makes and keeps, where a policy asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptRoot {
    /// A running server has it, and nobody here: the commands that read a directory.
    Elsewhere,
    /// There is no place to keep one.
    NoPlace,
    /// One is to be made.
    Missing,
    /// It cannot be kept, or read.
    Failed(Name),
    /// It is there.
    Kept {
        /// What signs now.
        signer: Signer,
        /// PEM: it, and what came before and after it and is trusted too.
        authorities: SecretBytes,
    },
}

/// The root of trust, or why there is none: a part of a sentence.
pub type RootOfTrust = Result<Arc<Trust>, Name>;

/// What the policies come down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The root of trust.
    pub root: RootOfTrust,
    /// How a root is to be made, where the policy that applies asks for one that the control plane keeps.
    pub generated: Option<Terms>,
}

/// Decides what is trusted. `secret` finds a Secret.
///
/// # Findings
/// [`Code::BeatenByOlder`] on all policies but the oldest; [`Code::InvalidField`] and [`Code::Certificate`] on that.
///
/// # Cost
/// Some signatures are checked, a millisecond in all.
///
/// # Rule
/// R191; the oldest counts even where it cannot be used: another root would cut trust.
pub fn resolve_trust(
    policies: &[Arc<TrustPolicy>],
    secret: impl Fn(&ObjectRef) -> Option<Arc<Secret>>,
    kept: &KeptRoot,
    findings: &mut Findings,
) -> Resolved {
    let mut by_age: Vec<&Arc<TrustPolicy>> = policies.iter().collect();
    by_age.sort_by(|a, b| a.age.cmp(&b.age));
    let Some((policy, younger)) = by_age.split_first() else {
        let root = Err("there is no RootTrustPolicy in the admin namespace: create one".into());
        return Resolved { root, generated: None };
    };
    for beaten in younger {
        let message = format!("there is one root of trust, and the older `{}` sets it: delete one of them", policy.id);
        findings.push(Finding::error(&beaten.id, Code::BeatenByOlder, message).with(&policy.id));
    }
    let (root, generated) = match (&policy.root, &policy.gateways) {
        (Err(fault), _) | (_, Err(fault)) => (Err(fault.clone()), None),
        (Ok(RootSource::Generated(terms)), Ok(gateways)) => {
            (kept_root(policy, kept, gateways, &secret, findings), Some(terms.clone()))
        }
        (Ok(RootSource::Secret(name)), Ok(gateways)) => {
            (from_secret(policy, name, gateways, kept, &secret, findings), None)
        }
    };
    let root = root.map(Arc::new).map_err(|fault| {
        findings.push(Finding::error(&policy.id, fault.code, &*fault.message).at(fault.field));
        format!("`{}` cannot be used: {}", policy.id, fault.message).into()
    });
    Resolved { root, generated }
}

fn kept_root(
    policy: &TrustPolicy,
    kept: &KeptRoot,
    gateways: &Terms,
    secret: &impl Fn(&ObjectRef) -> Option<Arc<Secret>>,
    findings: &mut Findings,
) -> Result<Trust, Fault> {
    let fault =
        |message: String| Fault { code: Code::Certificate, field: FieldPath::new("spec.config.mgmtServerCa"), message };
    let (signer, authorities) = match kept {
        KeptRoot::Elsewhere => (None, SecretBytes::default()),
        KeptRoot::Kept { signer, authorities } => (Some(signer.clone()), authorities.clone()),
        KeptRoot::NoPlace => {
            return Err(fault(
                "a generated root needs a place where it is kept: start the server with `--state`, or name a Secret in `secretRef`".to_owned(),
            ));
        }
        KeptRoot::Missing => return Err(fault("its root is not made yet".to_owned())),
        KeptRoot::Failed(reason) => return Err(fault(format!("its root cannot be kept: {reason}"))),
    };
    let authorities = with_passive(policy, authorities, kept, secret, findings);
    Ok(Trust { policy: policy.id.clone(), signer, authorities, terms: gateways.clone() })
}

fn from_secret(
    policy: &TrustPolicy,
    name: &Name,
    gateways: &Terms,
    kept: &KeptRoot,
    secret: &impl Fn(&ObjectRef) -> Option<Arc<Secret>>,
    findings: &mut Findings,
) -> Result<Trust, Fault> {
    let field = FieldPath::new("spec.config.mgmtServerCa.secretRef");
    let fault = |message: String| Fault { code: Code::Certificate, field: field.clone(), message };
    let object = beside(policy, name);
    let found = secret(&object).ok_or_else(|| fault(format!("`{object}` does not exist")))?;
    let found = certificate::signer(&found).map_err(|problem| fault(format!("`{object}`: {problem}")))?;
    let authorities = with_passive(policy, found.root, kept, secret, findings);
    Ok(Trust { policy: policy.id.clone(), signer: Some(found.signer), authorities, terms: gateways.clone() })
}

/// A Secret beside the policy.
fn beside(policy: &TrustPolicy, name: &Name) -> ObjectRef {
    ObjectRef::new(Kind::Secret, &policy.id.cluster, &policy.id.namespace, name)
}

/// Adds what verifies and never signs. What cannot be used is left out, so that less is trusted.
fn with_passive(
    policy: &TrustPolicy,
    root: SecretBytes,
    kept: &KeptRoot,
    secret: &impl Fn(&ObjectRef) -> Option<Arc<Secret>>,
    findings: &mut Findings,
) -> SecretBytes {
    let mut all = vec![root];
    for (field, source) in &policy.passive {
        let found = match source {
            Err(fault) => Err((fault.code, fault.field.clone(), fault.message.clone())),
            Ok(RootSource::Generated(_)) => match kept {
                KeptRoot::Kept { authorities, .. } => Ok(authorities.clone()),
                KeptRoot::Elsewhere => Ok(SecretBytes::default()),
                KeptRoot::NoPlace | KeptRoot::Missing | KeptRoot::Failed(_) => {
                    let message = "no generated root is kept".to_owned();
                    Err((Code::Certificate, field.field("generated"), message))
                }
            },
            Ok(RootSource::Secret(name)) => {
                let object = beside(policy, name);
                let found = secret(&object).ok_or_else(|| format!("`{object}` does not exist")).and_then(|secret| {
                    certificate::passive(&secret).map_err(|problem| format!("`{object}`: {problem}"))
                });
                found.map_err(|message| (Code::Certificate, field.field("secretRef"), message))
            }
        };
        match found {
            Ok(authorities) if all.contains(&authorities) => {}
            Ok(authorities) => all.push(authorities),
            Err((code, field, message)) => {
                let message = format!("{message}; this authority is not trusted");
                findings.push(Finding::warning(&policy.id, code, message).at(field));
            }
        }
    }
    certificate::joined(&all)
}
