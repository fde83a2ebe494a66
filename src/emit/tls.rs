//! How a chain ends TLS, and how a cluster begins it.

use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_pb;

use crate::ir::listener::{CertificateSource, ClientCertificate, Tls, TlsVersion, TrustSource};
use crate::ir::secret::AltName;
use crate::ir::upstream::{Remote, UpstreamProtocol};
use crate::model::Name;

use super::{name, pb, wire};

/// Where gateways have the authorities that their system trusts. By path: Envoy refuses to match names under its
/// `system_root_certs` (seen on 1.40).
pub(super) const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The transport socket of a chain that ends TLS.
///
/// # Rule
/// R58 to R60.
pub(super) fn emit_downstream(tls: &Tls, protocols: &[&str]) -> core_pb::TransportSocket {
    let (secrets, certificates) = match &tls.certificate {
        CertificateSource::Secret(id) => (vec![over_sds(&name::secret(id))], Vec::new()),
        CertificateSource::Files { chain, key } => {
            let certificate = tls_pb::TlsCertificate {
                certificate_chain: Some(file(chain)),
                private_key: Some(file(key)),
                ..Default::default()
            };
            (Vec::new(), vec![certificate])
        }
    };
    let common = tls_pb::CommonTlsContext {
        tls_params: Some(tls_pb::TlsParameters {
            tls_minimum_protocol_version: version(tls.minimum).into(),
            tls_maximum_protocol_version: version(tls.maximum).into(),
            cipher_suites: tls.ciphers.iter().map(Name::to_string).collect(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: secrets,
        tls_certificates: certificates,
        alpn_protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
        validation_context_type: tls.client.as_ref().map(validation),
        ..Default::default()
    };
    let context = tls_pb::DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: tls.client.is_some().then_some(true).and_then(pb::boolean),
        ..Default::default()
    };
    core_pb::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core_pb::transport_socket::ConfigType::TypedConfig(wire::any(&context))),
    }
}

/// The transport socket towards a host outside the mesh: the system's authorities vouch for that very host.
pub(super) fn emit_dialled(host: &str, http2: bool) -> core_pb::TransportSocket {
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    use tls_pb::common_tls_context::ValidationContextType;
    use tls_pb::subject_alt_name_matcher::SanType;
    let is_literal = host.parse::<IpAddr>().is_ok();
    let name = host.trim_end_matches('.');
    let exact = MatchPattern::Exact(name.to_owned());
    let san_type = if is_literal { SanType::IpAddress } else { SanType::Dns };
    let names = tls_pb::SubjectAltNameMatcher {
        san_type: san_type.into(),
        matcher: Some(pb::string_matcher(exact, false)),
        ..Default::default()
    };
    let validation = tls_pb::CertificateValidationContext {
        trusted_ca: Some(file(SYSTEM_AUTHORITIES)),
        match_typed_subject_alt_names: vec![names],
        ..Default::default()
    };
    let common = tls_pb::CommonTlsContext {
        tls_params: Some(tls_pb::TlsParameters {
            tls_minimum_protocol_version: version(TlsVersion::V1_2).into(),
            ..Default::default()
        }),
        alpn_protocols: vec![if http2 { "h2" } else { "http/1.1" }.to_owned()],
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..Default::default()
    };
    let context = tls_pb::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: if is_literal { String::new() } else { name.to_owned() },
        ..Default::default()
    };
    core_pb::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core_pb::transport_socket::ConfigType::TypedConfig(wire::any(&context))),
    }
}

/// The transport socket towards east-west gateways of another cluster: both show who they are in the mesh.
///
/// # Rule
/// R178, R179, R194.
pub(super) fn emit_crossing(cluster: &str, remote: &Remote, protocol: UpstreamProtocol) -> core_pb::TransportSocket {
    use tls_pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    // By namespace and not by account: while that of the gateway's Pods changes, old and new ones are good.
    let identities = remote.namespaces.iter().map(|own| identities_under(&format!("spiffe://{cluster}/ns/{own}/sa/")));
    let own = tls_pb::CertificateValidationContext {
        match_typed_subject_alt_names: identities.collect(),
        ..Default::default()
    };
    let protocols: &[&str] = match protocol {
        UpstreamProtocol::Http1 => &["http/1.1"],
        UpstreamProtocol::Http2 => &["h2"],
        UpstreamProtocol::AsClient => &[],
    };
    let common = tls_pb::CommonTlsContext {
        // Envoy's clients stop at 1.2 unless told.
        tls_params: Some(tls_pb::TlsParameters {
            tls_minimum_protocol_version: version(TlsVersion::V1_2).into(),
            tls_maximum_protocol_version: version(TlsVersion::V1_3).into(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![over_sds(name::IDENTITY)],
        alpn_protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(own),
                validation_context_sds_secret_config: Some(over_sds(name::ROOTS)),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    let context = tls_pb::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: remote.server_name.to_string(),
        ..Default::default()
    };
    core_pb::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core_pb::transport_socket::ConfigType::TypedConfig(wire::any(&context))),
    }
}

fn validation(client: &ClientCertificate) -> tls_pb::common_tls_context::ValidationContextType {
    use tls_pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let are_identities = matches!(client.trust, TrustSource::Roots(_));
    let mut names: Vec<tls_pb::SubjectAltNameMatcher> =
        client.names.iter().flat_map(|name| name_matchers(name, are_identities)).collect();
    if names.is_empty() && are_identities {
        // A root may have signed much else.
        names.push(identities_under("spiffe://"));
    }
    let own = tls_pb::CertificateValidationContext { match_typed_subject_alt_names: names, ..Default::default() };
    match &client.trust {
        TrustSource::File(path) => ValidationContextType::ValidationContext(tls_pb::CertificateValidationContext {
            trusted_ca: Some(file(path)),
            ..own
        }),
        TrustSource::Secret(id) | TrustSource::Roots(id) => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(own),
                validation_context_sds_secret_config: Some(over_sds(&name::secret(id))),
                ..Default::default()
            })
        }
    }
}

/// Takes every identity that begins so.
pub(super) fn identities_under(prefix: &str) -> tls_pb::SubjectAltNameMatcher {
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    tls_pb::SubjectAltNameMatcher {
        san_type: tls_pb::subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(pb::string_matcher(MatchPattern::Prefix(prefix.to_owned()), false)),
        ..Default::default()
    }
}

/// One exact matcher for each type that the name can be of; any of them may be in the certificate. Identities are URIs.
pub(super) fn name_matchers(name: &AltName, is_identity: bool) -> Vec<tls_pb::SubjectAltNameMatcher> {
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    use tls_pb::subject_alt_name_matcher::SanType;
    let text = &name.0;
    let mut types = if is_identity { vec![SanType::Uri] } else { vec![SanType::Dns, SanType::Uri, SanType::Email] };
    if !is_identity && text.parse::<IpAddr>().is_ok() {
        types.push(SanType::IpAddress);
    }
    let matcher = |kind: SanType| tls_pb::SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(pb::string_matcher(MatchPattern::Exact(text.to_string()), false)),
        ..Default::default()
    };
    types.into_iter().map(matcher).collect()
}

/// How long a listener waits for its secrets before it opens without them; then the chain of a missing one refuses its
/// connections, and the others serve. Half would open listeners of slow starts too early; double keeps every chain of a port
/// closed for longer, where a gateway refuses one secret.
const SECRET_WAIT: Duration = Duration::from_secs(5);

/// A secret that comes on the stream. `verify` keeps a snapshot from naming one that it lacks.
pub(super) fn over_sds(name: &str) -> tls_pb::SdsSecretConfig {
    let mut config_source = pb::over_ads();
    config_source.initial_fetch_timeout = Some(pb::duration(SECRET_WAIT));
    tls_pb::SdsSecretConfig { name: name.to_owned(), sds_config: Some(config_source) }
}

pub(super) fn file(path: &str) -> core_pb::DataSource {
    let specifier = Some(core_pb::data_source::Specifier::Filename(path.to_string()));
    core_pb::DataSource { specifier, ..Default::default() }
}

pub(super) fn version(version: TlsVersion) -> tls_pb::tls_parameters::TlsProtocol {
    use tls_pb::tls_parameters::TlsProtocol;
    match version {
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    }
}
