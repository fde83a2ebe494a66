//! Secrets: the only resources with key material in them.

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;

use crate::ir::{Secret, SecretId};
use crate::model::SecretBytes;
use crate::snapshot::Resource;

use super::{name, pb, wire};

/// One part of a Secret, for the gateways that use it.
///
/// # Rule
/// R59; the core API's reference, "Secrets": all key material goes out over SDS, so that a new certificate changes no
/// listener.
pub(super) fn emit_secret(id: &SecretId, secret: &Secret) -> Resource {
    use tls_pb::secret::Type;
    let name = name::secret(id);
    let content = match secret {
        Secret::KeyPair { chain, key, ocsp_staple } => Type::TlsCertificate(tls_pb::TlsCertificate {
            certificate_chain: Some(source(chain)),
            private_key: Some(source(key)),
            ocsp_staple: ocsp_staple.as_ref().map(source),
            ..Default::default()
        }),
        Secret::Trust { authorities, revoked } => Type::ValidationContext(tls_pb::CertificateValidationContext {
            trusted_ca: Some(source(authorities)),
            crl: revoked.as_ref().map(source),
            ..Default::default()
        }),
    };
    let message = tls_pb::Secret { name: name.to_string(), r#type: Some(content) };
    Resource::from_content(name, wire::encode(&message), pb::owners([&id.object]))
}

fn source(bytes: &SecretBytes) -> core_pb::DataSource {
    let specifier = Some(core_pb::data_source::Specifier::InlineBytes(bytes.expose().to_vec()));
    core_pb::DataSource { specifier, ..Default::default() }
}
