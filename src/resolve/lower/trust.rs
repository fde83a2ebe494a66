//! The root of trust as its policy writes it.

use crate::crd::Object;
use crate::crd::common::{CommonCertOptions, ObjectRef as WrittenRef};
use crate::crd::workspace::{CertificateAuthority, RootTrustPolicy};
use crate::ir::trust::{KeyType, Terms};
use crate::model::{Code, FieldPath, Findings, Name};
use crate::resolve::facts::{Age, Fault, RootSource, TrustPolicy};

use super::{not_applicable, optional};

/// Longest life of a certificate: a hundred years, below which no date overflows.
const MOST_DAYS: u32 = 36_500;

/// Longest organization that a certificate can hold, in characters.
const LONGEST_ORGANIZATION: usize = 64;

/// R191.
pub(super) fn trust_policy(object: &Object, spec: &RootTrustPolicy, findings: &mut Findings) -> TrustPolicy {
    if !spec.apply_to_meshes.is_empty() {
        not_applicable(object, "applyToMeshes", "all gateways are under one root", findings);
    }
    let config = spec.config.clone().unwrap_or_default();
    if config.auto_restart_pods {
        let why = "gateways take new certificates without a restart";
        not_applicable(object, "config.autoRestartPods", why, findings);
    }
    let id = &object.meta.id;
    let at = FieldPath::new("spec.config");
    let root = if object.defects.is_empty() {
        root(&config.mgmt_server_ca, config.agent_ca.is_some(), &id.namespace, &at)
    } else {
        // What cannot be read may be the very Secret that is meant.
        Err(Fault {
            code: Code::InvalidField,
            field: object.defects[0].field.clone(),
            message: "what is written here cannot be read, so nothing is trusted".to_owned(),
        })
    };
    let gateways = config.intermediate_cert_options.unwrap_or_default();
    let gateways = terms(&gateways, KeyType::EcdsaP256, &at.field("intermediateCertOptions"));
    let mut passive = Vec::with_capacity(config.passive_certificate_authorities.len());
    for (index, written) in config.passive_certificate_authorities.iter().enumerate() {
        let field = at.field("passiveCertificateAuthorities").index(index);
        passive.push((field.clone(), authority(written, &id.namespace, &field)));
    }
    TrustPolicy { id: id.clone(), age: Age::new(object.meta.created, id), root, gateways, passive }
}

fn root(
    written: &Option<CertificateAuthority>,
    has_agent: bool,
    namespace: &Name,
    field: &FieldPath,
) -> Result<RootSource, Fault> {
    if has_agent {
        return Err(Fault {
            code: Code::InvalidField,
            field: field.field("agentCa"),
            message: "authorities outside the control plane are not supported: write `mgmtServerCa`".to_owned(),
        });
    }
    authority(&written.clone().unwrap_or_default(), namespace, &field.field("mgmtServerCa"))
}

fn authority(written: &CertificateAuthority, namespace: &Name, field: &FieldPath) -> Result<RootSource, Fault> {
    match (&written.secret_ref, &written.generated) {
        (Some(_), Some(_)) => Err(Fault {
            code: Code::InvalidField,
            field: field.clone(),
            message: "`generated` and `secretRef` exclude each other: leave one out".to_owned(),
        }),
        (Some(reference), None) => secret(reference, namespace, &field.field("secretRef")),
        (None, generated) => {
            let options = generated.clone().unwrap_or_default();
            Ok(RootSource::Generated(terms(&options, KeyType::Rsa4096, &field.field("generated"))?))
        }
    }
}

fn secret(reference: &WrittenRef, namespace: &Name, field: &FieldPath) -> Result<RootSource, Fault> {
    let fault = |message: String| Err(Fault { code: Code::InvalidField, field: field.clone(), message });
    let Some(name) = optional(&reference.name) else {
        return fault("the Secret has no `name`".to_owned());
    };
    if !reference.namespace.is_empty() && reference.namespace != namespace.as_str() {
        return fault(format!("a root of trust is taken from the policy's own namespace `{namespace}` only"));
    }
    Ok(RootSource::Secret(name))
}

/// How certificates are made; 0 and empty take the defaults.
fn terms(written: &CommonCertOptions, key: KeyType, field: &FieldPath) -> Result<Terms, Fault> {
    let fault = |name: &str, message: String| Fault { code: Code::InvalidField, field: field.field(name), message };
    let days = if written.ttl_days == 0 { 365 } else { written.ttl_days };
    if days > MOST_DAYS {
        return Err(fault("ttlDays", format!("{days} days are more than {MOST_DAYS}")));
    }
    let key = match written.rsa_key_size_bytes {
        0 => key,
        2048 => KeyType::Rsa2048,
        3072 => KeyType::Rsa3072,
        4096 => KeyType::Rsa4096,
        other => {
            return Err(fault(
                "rsaKeySizeBytes",
                format!("{other} is no size of a key: write 2048, 3072 or 4096 bits"),
            ));
        }
    };
    let organization = if written.org_name.is_empty() { "gloo-mesh" } else { &written.org_name };
    if organization.chars().count() > LONGEST_ORGANIZATION || organization.chars().any(char::is_control) {
        return Err(fault("orgName", format!("write up to {LONGEST_ORGANIZATION} characters that can be printed")));
    }
    let ratio = written.secret_rotation_grace_period_ratio;
    let ratio = if ratio == 0.0 { 0.1 } else { ratio };
    if !(0.000_001..=0.999_999).contains(&ratio) {
        return Err(fault("secretRotationGracePeriodRatio", "write a number between 0 and 1".to_owned()));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 999999")]
    let renew_with_left = (ratio * 1e6).round() as u32;
    Ok(Terms { days, key, organization: organization.into(), renew_with_left })
}
