//! TLS settings of a listener.

use crate::crd::gateway::{Listener, ListenerTls, ListenerTlsMode, TlsParameters, TlsProtocol};
use crate::ir::listener::TlsVersion;
use crate::model::{Code, FieldPath, Finding, Findings, Name, ObjectRef};
use crate::resolve::facts::{Fault, Termination, TlsMaterial, TlsMode};

use super::optional;

/// The ciphers of the API that Envoy's TLS library has, by OpenSSL's names. Envoy refuses a whole listener for one that it
/// lacks.
const CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
];

/// What a listener does with TLS.
///
/// # Errors
/// Why the listener cannot be programmed: nothing is served in its place, least of all plaintext.
///
/// # Rule
/// R58 to R60.
pub(super) fn tls(
    id: &ObjectRef,
    listener: &Listener,
    written: &ListenerTls,
    field: &FieldPath,
    findings: &mut Findings,
) -> Result<TlsMode, Fault> {
    let fault =
        |at: FieldPath, message: &str| Fault { code: Code::InvalidField, field: at, message: message.to_owned() };
    let mutual = match written.mode {
        ListenerTlsMode::Passthrough if listener.http.is_some() => {
            return Err(fault(
                field.field("mode"),
                "an HTTP listener cannot pass TLS through, which is what `mode` means when it is left out: write `mode: SIMPLE`, or `tcp` in place of `http`; the listener is not programmed",
            ));
        }
        ListenerTlsMode::Passthrough => return Ok(TlsMode::Passthrough),
        ListenerTlsMode::AutoPassthrough => {
            return Err(fault(
                field.field("mode"),
                "AUTO_PASSTHROUGH is not for virtual gateways, east-west gateways need no listener of their own here: write PASSTHROUGH, SIMPLE or MUTUAL; the listener is not programmed",
            ));
        }
        ListenerTlsMode::Simple => false,
        ListenerTlsMode::Mutual | ListenerTlsMode::IstioMutual => true,
    };
    let material = material(written, field)?;
    let parameters = written.parameters.clone().unwrap_or_default();
    let (minimum, maximum) = versions(&parameters, field)?;
    Ok(TlsMode::Terminate(Termination {
        material,
        mutual,
        names: written.verify_subject_alt_name.iter().filter_map(|name| optional(name)).collect(),
        minimum,
        maximum,
        ciphers: ciphers(id, &parameters, field, findings),
    }))
}

fn material(written: &ListenerTls, field: &FieldPath) -> Result<TlsMaterial, Fault> {
    let fault = |message: &str| Fault {
        code: Code::InvalidField,
        field: field.clone(),
        message: format!("{message}; the listener is not programmed"),
    };
    let secret = written.secret_name.as_deref().and_then(optional);
    let files = written.files.as_ref();
    if written.mode == ListenerTlsMode::IstioMutual {
        return if secret.is_some() || files.is_some() {
            Err(fault("ISTIO_MUTUAL uses the gateway's own identity: leave `secretName` and `files` out"))
        } else {
            Ok(TlsMaterial::Workload)
        };
    }
    let mutual = written.mode == ListenerTlsMode::Mutual;
    match (secret, files) {
        (Some(name), _) => Ok(TlsMaterial::Secret(name)),
        (None, Some(files)) => {
            let (chain, key) = (optional(&files.server_cert), optional(&files.private_key));
            let authorities = optional(&files.ca_certs).filter(|_| mutual);
            match (chain, key) {
                (Some(chain), Some(key)) if !mutual || authorities.is_some() => {
                    Ok(TlsMaterial::Files { chain, key, authorities: authorities.unwrap_or_default() })
                }
                _ if mutual => Err(fault("MUTUAL needs `serverCert`, `privateKey` and `caCerts` in `files`")),
                _ => Err(fault("SIMPLE needs `serverCert` and `privateKey` in `files`")),
            }
        }
        (None, None) => Err(fault("the listener has no certificate: write `secretName`, or `files`")),
    }
}

fn versions(parameters: &TlsParameters, field: &FieldPath) -> Result<(TlsVersion, TlsVersion), Fault> {
    let version = |protocol, automatic| match protocol {
        TlsProtocol::Auto => automatic,
        TlsProtocol::V1_0 => TlsVersion::V1_0,
        TlsProtocol::V1_1 => TlsVersion::V1_1,
        TlsProtocol::V1_2 => TlsVersion::V1_2,
        TlsProtocol::V1_3 => TlsVersion::V1_3,
    };
    let minimum = version(parameters.minimum_protocol_version, TlsVersion::V1_2);
    let maximum = version(parameters.maximum_protocol_version, TlsVersion::V1_3);
    let fault = |name: &str, message: &str| Fault {
        code: Code::InvalidField,
        field: field.field("parameters").field(name),
        message: format!("{message}; the listener is not programmed"),
    };
    if minimum > maximum {
        return Err(fault("minimumProtocolVersion", "the lowest version is above the highest"));
    }
    if minimum < TlsVersion::V1_2 && parameters.cipher_suites.is_empty() {
        return Err(fault("cipherSuites", "versions below TLS 1.2 need `cipherSuites`: Envoy's own do not fit them"));
    }
    Ok((minimum, maximum))
}

fn ciphers(id: &ObjectRef, parameters: &TlsParameters, field: &FieldPath, findings: &mut Findings) -> Vec<Name> {
    let mut ciphers: Vec<Name> = Vec::new();
    for (index, cipher) in parameters.cipher_suites.iter().enumerate() {
        if !CIPHERS.contains(&cipher.as_str()) {
            let at = field.field("parameters").field("cipherSuites").index(index);
            let message = format!("Envoy has no cipher `{}`; it is skipped", cipher.escape_debug());
            findings.push(Finding::warning(id, Code::Unsupported, message).at(at));
        } else if !ciphers.iter().any(|known| known.as_str() == cipher) {
            ciphers.push(cipher.into());
        }
    }
    ciphers
}
