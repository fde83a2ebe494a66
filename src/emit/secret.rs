//! Secrets: the only resources with key material in them.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;

use crate::ir::{Secret, SecretId};
use crate::model::SecretBytes;
use crate::snapshot::{Resource, Version};

use super::{name, pb, wire};

/// One part of a Secret, for the gateways that use it.
///
/// # Rule
/// R59; the core API's reference, "Secrets": all key material goes out over SDS, so that a new certificate changes no
/// listener.
pub(super) fn emit_secret(id: &SecretId, secret: &Secret) -> Resource {
    Resource::from_content(name::secret(id), encode(id, secret), pb::owners([&id.object]))
}

/// A part of a Secret whose bytes do not say what it is: two replicas issue different certificates for one need.
pub fn emit_issued(id: &SecretId, secret: &Secret, version: Version) -> Resource {
    Resource { name: name::secret(id), version, body: encode(id, secret), owners: pb::owners([&id.object]) }
}

fn encode(id: &SecretId, secret: &Secret) -> Bytes {
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
        // A stand-in that Envoy refuses: what is issued takes its place before anything is published.
        Secret::Identity(_) => Type::TlsCertificate(tls_pb::TlsCertificate {
            certificate_chain: Some(source(&SecretBytes::default())),
            private_key: Some(source(&SecretBytes::default())),
            ..Default::default()
        }),
    };
    let message = tls_pb::Secret { name: name.to_string(), r#type: Some(content) };
    wire::encode(&message)
}

fn source(bytes: &SecretBytes) -> core_pb::DataSource {
    let specifier = Some(core_pb::data_source::Specifier::InlineBytes(bytes.expose().to_vec()));
    core_pb::DataSource { specifier, ..Default::default() }
}
