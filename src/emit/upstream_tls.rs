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
        r#match: Some(pb::leading_to(key, false)),
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

/// The transport socket that starts TLS.
pub(super) fn emit(tls: &ClientTls) -> core_pb::TransportSocket {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::emit::testing::{object, upstream};
    use crate::emit::{cluster, endpoint};
    use crate::ir::secret::{AltName, SecretId, SecretPart};
    use crate::ir::upstream::{Closed, Endpoint, Locality};
    use crate::model::Kind;
    use crate::render::to_json;
    use crate::snapshot::ResourceType;

    fn emitted(upstream: &Upstream) -> Value {
        to_json(ResourceType::Cluster, &cluster::emit_cluster(upstream, &"cluster-1".into())).expect("known")
    }

    fn verified(names: Vec<PeerName>, authorities: Authorities) -> ClientTls {
        ClientTls {
            server_name: Some("pay.example".into()),
            certificate: None,
            verification: Some(Verification { authorities, names }),
            offers: Offers::Http1,
        }
    }

    /// `CommonTlsContext` of a transport.
    fn common(transport: &Value) -> Value {
        transport["typed_config"]["common_tls_context"].clone()
    }

    #[test]
    fn d32_the_systems_authorities_are_trusted_for_one_name() {
        let mut pay = upstream("pay");
        pay.tls = Some(verified(vec![PeerName::Host("pay.example".into())], Authorities::System));
        let transport = emitted(&pay)["transport_socket"].clone();
        let expected = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "pay.example",
                "common_tls_context": {
                    "alpn_protocols": ["http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {
                        "match_typed_subject_alt_names": [{"matcher": {"exact": "pay.example"}, "san_type": "DNS"}],
                        "trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"},
                    },
                },
            },
        });
        assert_eq!(transport, expected);
        assert_eq!(emitted(&upstream("pay")).get("transport_socket"), None, "plaintext");
    }

    #[test]
    fn r199_credentials_come_over_sds_and_names_are_of_their_types() {
        let id = |part| SecretId { object: object(Kind::Secret, "pay"), part };
        let mut pay = upstream("pay");
        let names = vec![
            PeerName::Host("192.0.2.1".into()),
            PeerName::Below(".pay.example".into()),
            PeerName::Any(AltName("spiffe://pay".into())),
            PeerName::Identity,
        ];
        let mut tls = verified(names, Authorities::Secret(id(SecretPart::Trust)));
        tls.certificate = Some(CertificateSource::Secret(id(SecretPart::KeyPair)));
        tls.offers = Offers::Http2;
        pay.tls = Some(tls);
        let common = common(&emitted(&pay)["transport_socket"]);
        assert_eq!(common["alpn_protocols"], json!(["h2"]));
        assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "secret/cluster-1/shop/pay");
        let validation = &common["combined_validation_context"];
        assert_eq!(validation["validation_context_sds_secret_config"]["name"], "secret/cluster-1/shop/pay/ca");
        let names = json!([
            {"matcher": {"exact": "192.0.2.1"}, "san_type": "IP_ADDRESS"},
            {"matcher": {"suffix": ".pay.example"}, "san_type": "DNS"},
            {"matcher": {"exact": "spiffe://pay"}, "san_type": "DNS"},
            {"matcher": {"exact": "spiffe://pay"}, "san_type": "URI"},
            {"matcher": {"exact": "spiffe://pay"}, "san_type": "EMAIL"},
            {"matcher": {"prefix": "spiffe://"}, "san_type": "URI"},
        ]);
        assert_eq!(validation["default_validation_context"]["match_typed_subject_alt_names"], names);
    }

    #[test]
    fn r197_names_are_looked_up_by_the_cluster_itself_and_addresses_are_endpoints() {
        let mut pay = upstream("pay");
        let endpoint_at = |address: &str, port| Endpoint::direct(address.into(), port);
        pay.endpoints =
            [(Locality::default(), vec![endpoint_at("192.0.2.1", 80), endpoint_at("/run/pay.sock", 0)])].into();
        let shown = emitted(&pay);
        assert_eq!((&shown["type"], shown.get("load_assignment")), (&json!("EDS"), None));
        let endpoints = to_json(ResourceType::Endpoint, &endpoint::emit_endpoints(&pay)).expect("known");
        let addresses: Vec<Value> = endpoints["endpoints"][0]["lb_endpoints"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|endpoint| endpoint["endpoint"]["address"].clone())
            .collect();
        let socket = json!({"socket_address": {"address": "192.0.2.1", "port_value": 80}});
        assert_eq!(addresses, [json!({"pipe": {"path": "/run/pay.sock"}}), socket]);

        pay.endpoints =
            [(Locality::default(), vec![endpoint_at("192.0.2.1", 80), endpoint_at("pay.example", 443)])].into();
        let shown = emitted(&pay);
        assert_eq!(shown["type"], "STRICT_DNS");
        assert_eq!(shown.get("eds_cluster_config"), None);
        assert_eq!(shown["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().map(Vec::len), Some(2));
        // What is closed leads nowhere, by name or not.
        pay.closed = Some(Closed::BlackHole);
        assert_eq!((&emitted(&pay)["type"], emitted(&pay).get("load_assignment")), (&json!("EDS"), None));
    }

    #[test]
    fn r167_endpoints_of_external_services_choose_their_own_transport() {
        let mut pay = upstream("pay");
        let (secure, open): (Name, Name) = ("es/cluster-1/shop/secure".into(), "es/cluster-1/shop/open".into());
        let via =
            |key: &Name, address: &str| Endpoint { via: Some(key.clone()), ..Endpoint::direct(address.into(), 80) };
        pay.endpoints = [(Locality::default(), vec![via(&secure, "192.0.2.1"), via(&open, "192.0.2.2")])].into();
        pay.tls = Some(verified(vec![PeerName::Host("inside.example".into())], Authorities::System));
        pay.externals.insert(secure, Some(verified(vec![PeerName::Host("pay.example".into())], Authorities::System)));
        pay.externals.insert(open, None);
        let matches = emitted(&pay)["transport_socket_matches"].clone();
        let chosen =
            |index: usize| (matches[index]["match"].clone(), matches[index]["transport_socket"]["name"].clone());
        assert_eq!(
            chosen(0),
            (json!({"external": "es/cluster-1/shop/open"}), json!("envoy.transport_sockets.raw_buffer"))
        );
        assert_eq!(chosen(1), (json!({"external": "es/cluster-1/shop/secure"}), json!("envoy.transport_sockets.tls")));
        let endpoints = to_json(ResourceType::Endpoint, &endpoint::emit_endpoints(&pay)).expect("known");
        let asked = &endpoints["endpoints"][0]["lb_endpoints"][0]["metadata"]["filter_metadata"];
        assert_eq!(asked["envoy.transport_socket_match"], json!({"external": "es/cluster-1/shop/secure"}));
    }
}
