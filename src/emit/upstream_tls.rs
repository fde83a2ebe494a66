//! TLS that a cluster starts.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;

use crate::ir::Upstream;
use crate::ir::client_tls::{Authorities, ClientTls, Offers, PeerName, Verification};
use crate::ir::listener::{CertificateSource, TlsVersion};
use crate::model::Name;

use super::tls::{SYSTEM_AUTHORITIES, file, identities_under, name_matchers, over_sds, version};
use super::{name, pb, wire};

/// The transport socket towards endpoints that are reached straight; none for plaintext.
///
/// # Rule
/// R195, R199, D32.
pub(super) fn emit_direct(upstream: &Upstream) -> Option<core_pb::TransportSocket> {
    upstream.tls.as_ref().map(emit)
}

/// The transport sockets towards external services behind a virtual destination.
pub(super) fn emit_externals(upstream: &Upstream) -> Vec<cluster_pb::cluster::TransportSocketMatch> {
    let one = |(key, tls): (&Name, &Option<ClientTls>)| cluster_pb::cluster::TransportSocketMatch {
        name: key.to_string(),
        r#match: Some(pb::leading_to(key)),
        transport_socket: Some(tls.as_ref().map_or_else(plaintext, emit)),
    };
    upstream.externals.iter().map(one).collect()
}

fn plaintext() -> core_pb::TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", wire::any(&raw_buffer_pb::RawBuffer::default()))
}

fn socket(name: &str, config: envoy_types::pb::google::protobuf::Any) -> core_pb::TransportSocket {
    core_pb::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core_pb::transport_socket::ConfigType::TypedConfig(config)),
    }
}

fn emit(tls: &ClientTls) -> core_pb::TransportSocket {
    let (secrets, certificates) = match &tls.certificate {
        None => (Vec::new(), Vec::new()),
        Some(CertificateSource::Secret(id)) => (vec![over_sds(&name::secret(id))], Vec::new()),
        Some(CertificateSource::Files { chain, key }) => {
            let certificate = tls_pb::TlsCertificate {
                certificate_chain: Some(file(chain)),
                private_key: Some(file(key)),
                ..Default::default()
            };
            (Vec::new(), vec![certificate])
        }
    };
    let offered: &[&str] = match tls.offers {
        Offers::Http1 => &["http/1.1"],
        Offers::Http2 => &["h2"],
        Offers::Nothing => &[],
    };
    let common = tls_pb::CommonTlsContext {
        // Envoy's clients stop at 1.2 unless told.
        tls_params: Some(tls_pb::TlsParameters {
            tls_minimum_protocol_version: version(TlsVersion::V1_2).into(),
            tls_maximum_protocol_version: version(TlsVersion::V1_3).into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: secrets,
        tls_certificates: certificates,
        alpn_protocols: offered.iter().map(|protocol| (*protocol).to_owned()).collect(),
        validation_context_type: tls.verification.as_ref().map(validation),
        ..Default::default()
    };
    let context = tls_pb::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: tls.server_name.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..Default::default()
    };
    socket("envoy.transport_sockets.tls", wire::any(&context))
}

fn validation(verification: &Verification) -> tls_pb::common_tls_context::ValidationContextType {
    use tls_pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let own = tls_pb::CertificateValidationContext {
        match_typed_subject_alt_names: verification.names.iter().flat_map(names).collect(),
        ..Default::default()
    };
    let from_file = |path: &str| {
        let trusted_ca = Some(file(path));
        ValidationContextType::ValidationContext(tls_pb::CertificateValidationContext { trusted_ca, ..own.clone() })
    };
    match &verification.authorities {
        Authorities::System => from_file(SYSTEM_AUTHORITIES),
        Authorities::File(path) => from_file(path),
        Authorities::Secret(id) => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(own),
                validation_context_sds_secret_config: Some(over_sds(&name::secret(id))),
                ..Default::default()
            })
        }
    }
}

/// Matchers of which one must fit.
fn names(name: &PeerName) -> Vec<tls_pb::SubjectAltNameMatcher> {
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    use tls_pb::subject_alt_name_matcher::SanType;
    let one = |kind: SanType, pattern| tls_pb::SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(pb::string_matcher(pattern, false)),
        ..Default::default()
    };
    match name {
        PeerName::Host(host) => {
            let kind = if host.parse::<IpAddr>().is_ok() { SanType::IpAddress } else { SanType::Dns };
            vec![one(kind, MatchPattern::Exact(host.to_string()))]
        }
        PeerName::Below(suffix) => vec![one(SanType::Dns, MatchPattern::Suffix(suffix.to_string()))],
        PeerName::Any(name) => name_matchers(name, false),
        PeerName::Identity => vec![identities_under("spiffe://")],
    }
}
