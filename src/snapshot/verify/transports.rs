//! How clusters and chains of gateways among themselves are secured: what is meant for another cluster never goes in
//! plaintext, and nobody but who is named gets through.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Checker, Name, Place, ResourceType, by_key, cluster_pb, core_pb, endpoint_pb, hcm_pb, listener_pb, route_pb,
    secrets_of, tls_pb,
};

/// The key under which endpoints say how they are spoken to.
const MATCH: &str = "envoy.transport_socket_match";

/// What a cluster has to do with other resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The endpoints that it takes.
    pub(super) endpoints: Option<String>,
    /// The secrets that it waits for.
    pub(super) secrets: BTreeSet<String>,
    /// What endpoints may ask for, to be spoken to in a way of their own.
    pub(super) leads: BTreeSet<String>,
}

impl Checker<'_> {
    /// Secrets go to gateways that use them and to no others, and none is waited for in vain.
    pub(super) fn check_secrets(
        &mut self,
        listeners: &[(Name, listener_pb::Listener)],
        of_clusters: &BTreeSet<String>,
    ) {
        let mut wanted: BTreeMap<String, &Name> = BTreeMap::new();
        for (name, listener) in listeners {
            let place = Place { resource_type: ResourceType::Listener, resource: name };
            for chain in listener.filter_chains.iter().chain(&listener.default_filter_chain) {
                let config = chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref());
                let config = config.map(|core_pb::transport_socket::ConfigType::TypedConfig(config)| config);
                let Some(context) = self.unpack::<tls_pb::DownstreamTlsContext>(place, config) else { continue };
                let requires = context.require_client_certificate.as_ref().is_some_and(|required| required.value);
                let common = context.common_tls_context.unwrap_or_default();
                if common.tls_certificates.is_empty() && common.tls_certificate_sds_secret_configs.is_empty() {
                    self.report(place, "ends TLS without a certificate");
                }
                if requires && common.validation_context_type.is_none() {
                    self.report(place, "demands client certificates and trusts nobody");
                }
                wanted.extend(secrets_of(&common).map(|secret| (secret, name)));
            }
        }
        for (secret, listener) in &wanted {
            if !self.exists(ResourceType::Secret, secret) {
                let place = Place { resource_type: ResourceType::Listener, resource: listener };
                self.report(place, format!("waits for secret `{secret}`, which does not exist"));
            }
        }
        for secret in of_clusters {
            if !self.exists(ResourceType::Secret, secret) {
                let place = Place { resource_type: ResourceType::Secret, resource: &secret.as_str().into() };
                self.report(place, "a cluster waits for it, and it does not exist");
            }
        }
        for (name, _) in self.decode(ResourceType::Secret, |secret: &tls_pb::Secret| secret.name.as_str()) {
            if !wanted.contains_key(name.as_str()) && !of_clusters.contains(name.as_str()) {
                let place = Place { resource_type: ResourceType::Secret, resource: &name };
                self.report(place, "nothing uses it, so it must not be sent");
            }
        }
    }

    /// Checks how the endpoints of a cluster are spoken to.
    pub(super) fn check_transports(&mut self, place: Place<'_>, cluster: &cluster_pb::Cluster, wanted: &mut Wanted) {
        for own in &cluster.transport_socket_matches {
            let is_external = own.r#match.as_ref().is_some_and(|fields| fields.fields.contains_key("external"));
            let leads = own.r#match.as_ref().map(|fields| shown(fields.fields.iter())).unwrap_or_default();
            if leads.is_empty() || !wanted.leads.insert(leads) {
                self.report(place, format!("transport `{}` is for the endpoints of another, or for all", own.name));
            }
            let context = self.upstream_context(place, own.transport_socket.as_ref());
            // TLS with Pods of another cluster: what they show is for their owner to say, but TLS it must be.
            let is_passed = own.r#match.as_ref().is_some_and(|fields| fields.fields.contains_key("pods"));
            if is_passed && context.is_none() {
                self.report(place, format!("transport `{}` opens no TLS", own.name));
            }
            if is_external || is_passed {
                self.check_started(place, context.as_ref());
                wanted.secrets.extend(context.iter().flat_map(secrets_of));
                continue;
            }
            let Some(common) = context else {
                self.report(place, format!("transport `{}` opens no TLS", own.name));
                continue;
            };
            if common.tls_certificate_sds_secret_configs.is_empty() || !names_somebody(&common) {
                self.report(place, format!("transport `{}` shows nobody, or takes anybody", own.name));
            }
            wanted.secrets.extend(secrets_of(&common));
        }
        let common = self.upstream_context(place, cluster.transport_socket.as_ref());
        self.check_started(place, common.as_ref());
        wanted.secrets.extend(common.iter().flat_map(secrets_of));
    }

    /// Checks TLS towards endpoints that are reached straight: whoever trusts authorities asks for a name, and the other way
    /// round, which Envoy would refuse.
    fn check_started(&mut self, place: Place<'_>, context: Option<&tls_pb::CommonTlsContext>) {
        use tls_pb::common_tls_context::ValidationContextType;
        let (own, over_sds) = match context.and_then(|context| context.validation_context_type.as_ref()) {
            None => return,
            Some(ValidationContextType::ValidationContext(own)) => (Some(own), false),
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                (combined.default_validation_context.as_ref(), true)
            }
            Some(_) => (None, true),
        };
        let trusts = over_sds || own.is_some_and(|own| own.trusted_ca.is_some());
        let names = own.is_some_and(|own| !own.match_typed_subject_alt_names.is_empty());
        if trusts != names {
            self.report(place, "verifies servers without a name, or without authorities");
        }
    }

    fn upstream_context(
        &mut self,
        place: Place<'_>,
        socket: Option<&core_pb::TransportSocket>,
    ) -> Option<tls_pb::CommonTlsContext> {
        let core_pb::transport_socket::ConfigType::TypedConfig(config) = socket?.config_type.as_ref()?;
        self.unpack::<tls_pb::UpstreamTlsContext>(place, Some(config))?.common_tls_context
    }

    /// Checks that what endpoints ask for is there: Envoy would speak to them as to any other.
    pub(super) fn check_leads(
        &mut self,
        place: Place<'_>,
        endpoints: &endpoint_pb::ClusterLoadAssignment,
        takers: &[&Wanted],
    ) {
        let all = endpoints.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
        let asked = all.filter_map(|endpoint| endpoint.metadata.as_ref()?.filter_metadata.get(MATCH));
        let asked: BTreeSet<String> = asked.map(|fields| shown(fields.fields.iter())).collect();
        if asked.iter().any(|leads| takers.iter().any(|taker| !taker.leads.contains(leads))) {
            self.report(
                place,
                "an endpoint asks for a transport that its cluster lacks, so it would get the usual one",
            );
        }
    }

    /// Checks a chain that ends the TLS of gateways of other clusters, by its server name, which no host can be (R179).
    pub(super) fn check_crossing(
        &mut self,
        place: Place<'_>,
        chain: &listener_pb::FilterChain,
        server_names: &[String],
    ) {
        if server_names.iter().any(|name| ["outbound_.", "tcp_.", "tls_."].iter().any(|first| name.starts_with(first)))
        {
            self.check_admits(place, chain);
        }
    }

    /// Checks that a chain lets through only whom it names.
    fn check_admits(&mut self, place: Place<'_>, chain: &listener_pb::FilterChain) {
        let config = chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref());
        let config = config.map(|core_pb::transport_socket::ConfigType::TypedConfig(config)| config);
        let context = self.unpack::<tls_pb::DownstreamTlsContext>(place, config).unwrap_or_default();
        let requires = context.require_client_certificate.as_ref().is_some_and(|required| required.value);
        if !requires || !context.common_tls_context.as_ref().is_some_and(names_somebody) {
            self.report(place, format!("chain `{}` lets everybody through to a destination", chain.name));
        }
    }

    /// Checks a chain whose routes stand in it: it lets through only whom it names.
    pub(super) fn check_relay(
        &mut self,
        place: Place<'_>,
        chain: &listener_pb::FilterChain,
        manager: &hcm_pb::HttpConnectionManager,
    ) {
        use hcm_pb::http_connection_manager::RouteSpecifier;
        use route_pb::route_action::ClusterSpecifier;
        let Some(RouteSpecifier::RouteConfig(routes)) = &manager.route_specifier else { return };
        self.check_admits(place, chain);
        if by_key(&routes.typed_per_filter_config).next().is_some() {
            self.report(place, format!("chain `{}` configures filters that it lacks", chain.name));
        }
        for route in routes.virtual_hosts.iter().flat_map(|host| &host.routes) {
            match &route.action {
                Some(route_pb::route::Action::Route(route_pb::RouteAction {
                    cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
                    timeout: Some(_),
                    ..
                })) => {
                    if !self.exists(ResourceType::Cluster, cluster) {
                        self.report(place, format!("relays to cluster `{cluster}`, which does not exist"));
                    }
                }
                _ => self.report(place, format!("chain `{}` does not relay to one cluster", chain.name)),
            }
        }
    }
}

/// Whether a certificate must have one of some names.
fn names_somebody(context: &tls_pb::CommonTlsContext) -> bool {
    use tls_pb::common_tls_context::ValidationContextType;
    match &context.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => combined
            .default_validation_context
            .as_ref()
            .is_some_and(|validation| !validation.match_typed_subject_alt_names.is_empty()),
        _ => false,
    }
}

/// Fields as text, in the order of their names.
fn shown<'a, V: std::fmt::Debug + 'a>(fields: impl Iterator<Item = (&'a String, &'a V)>) -> String {
    let mut fields: Vec<String> = fields.map(|(key, value)| format!("{key}={value:?}")).collect();
    fields.sort();
    fields.join(",")
}
