//! Checks of filters whose configuration comes over ECDS.
//!
//! A listener waits for the configuration of its filters, so none may be missing; Envoy refuses one of another type than
//! the listener allows.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::{Any, Chains, Checker, Place, ResourceType, core_pb, ext_authz_pb, hcm_pb, jwt_pb};

/// Filters that are discovered, by name, with the types that listeners allow.
pub(super) type Discovered = BTreeMap<String, BTreeSet<String>>;

/// Something that a filter has by name, as it stands among the filters of a chain.
fn in_filter(filter: &str, name: &str) -> String {
    format!("{filter}/{name}")
}

/// How a filter asks servers.
const BY_GRPC: &str = "gRPC";
const BY_HTTP: &str = "HTTP";

/// What a message is, if it is of a type.
pub(super) fn unpacked<M: prost::Message + Default + prost::Name>(type_url: &str, config: &[u8]) -> Option<M> {
    (type_url == M::type_url()).then(|| M::decode(config).ok()).flatten()
}

/// Whom the configuration of a filter on a route asks.
fn service(type_url: &str, config: &[u8]) -> Option<ext_authz_pb::check_settings::ServiceOverride> {
    use ext_authz_pb::ext_authz_per_route::Override;
    match unpacked::<ext_authz_pb::ExtAuthzPerRoute>(type_url, config)?.r#override? {
        Override::CheckSettings(settings) => settings.service_override,
        Override::Disabled(_) => None,
    }
}

/// The cluster that the configuration of a filter on a route asks.
pub(super) fn asked(type_url: &str, config: &[u8]) -> Option<String> {
    use core_pb::grpc_service::TargetSpecifier;
    use core_pb::http_uri::HttpUpstreamType;
    use ext_authz_pb::check_settings::ServiceOverride;
    match service(type_url, config)? {
        ServiceOverride::GrpcService(service) => match service.target_specifier? {
            TargetSpecifier::EnvoyGrpc(server) => Some(server.cluster_name),
            TargetSpecifier::GoogleGrpc(_) => None,
        },
        ServiceOverride::HttpService(service) => {
            let HttpUpstreamType::Cluster(cluster) = service.server_uri?.http_upstream_type?;
            Some(cluster)
        }
    }
}

/// The headers that the configuration of a filter on a route adds to what it asks a server. Envoy takes their values for
/// format strings, and ends at the first request over one that it cannot read.
pub(super) fn told(config: &Any) -> Vec<core_pb::HeaderValue> {
    use ext_authz_pb::check_settings::ServiceOverride;
    match service(&config.type_url, &config.value) {
        Some(ServiceOverride::HttpService(service)) => {
            service.authorization_request.map(|request| request.headers_to_add).unwrap_or_default()
        }
        Some(ServiceOverride::GrpcService(_)) | None => Vec::new(),
    }
}

/// What the configuration of a filter on a route names in it.
pub(super) fn named(filter: &str, config: &Any) -> Option<String> {
    use ext_authz_pb::check_settings::ServiceOverride;
    use jwt_pb::per_route_config::RequirementSpecifier;
    match service(&config.type_url, &config.value) {
        Some(ServiceOverride::GrpcService(_)) => return Some(in_filter(filter, BY_GRPC)),
        Some(ServiceOverride::HttpService(_)) => return Some(in_filter(filter, BY_HTTP)),
        None => {}
    }
    let wanted = <jwt_pb::PerRouteConfig as prost::Name>::type_url();
    let config = jwt_pb::PerRouteConfig::decode(config.value.as_slice()).ok().filter(|_| config.type_url == wanted)?;
    match config.requirement_specifier {
        Some(RequirementSpecifier::RequirementName(name)) => Some(in_filter(filter, &name)),
        _ => None,
    }
}

impl Checker<'_> {
    /// Finds the filters of a chain that are discovered, and checks that they exist.
    pub(super) fn check_discovered(
        &mut self,
        place: Place<'_>,
        filters: &[hcm_pb::HttpFilter],
        discovered: &mut Discovered,
    ) {
        for filter in filters {
            let Some(hcm_pb::http_filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type else { continue };
            if !self.exists(ResourceType::Extension, &filter.name) {
                self.report(place, format!("waits for filter `{}`, which does not exist", filter.name));
            }
            if source.type_urls.is_empty() {
                self.report(place, format!("allows no type for filter `{}`", filter.name));
            }
            let types = source.type_urls.iter().cloned();
            match discovered.get_mut(&filter.name) {
                // Every listener must allow it.
                Some(allowed) => allowed.retain(|allowed| source.type_urls.contains(allowed)),
                None => {
                    discovered.insert(filter.name.clone(), types.collect());
                }
            }
        }
    }

    /// Checks what is discovered: of a type that is allowed, and with everything that it names. What routes may name of it
    /// joins the filters of the chains.
    pub(super) fn check_extensions(&mut self, chains: &mut Chains) {
        let discovered = chains.discovered.clone();
        let extensions =
            self.decode(ResourceType::Extension, |extension: &core_pb::TypedExtensionConfig| extension.name.as_str());
        for (name, extension) in extensions {
            let place = Place { resource_type: ResourceType::Extension, resource: &name };
            let Some(config) = &extension.typed_config else {
                self.report(place, "has no configuration");
                continue;
            };
            if discovered.get(name.as_str()).is_some_and(|allowed| !allowed.contains(&config.type_url)) {
                self.report(place, format!("is a {}, which no listener takes", config.type_url));
            }
            if let Some(asking) = self.unpack::<ext_authz_pb::ExtAuthz>(place, Some(config)) {
                let how = match &asking.services {
                    Some(ext_authz_pb::ext_authz::Services::GrpcService(_)) => BY_GRPC,
                    Some(ext_authz_pb::ext_authz::Services::HttpService(_)) => BY_HTTP,
                    None => {
                        self.report(place, "asks by no protocol");
                        continue;
                    }
                };
                // In its neutral form it tells servers nothing, and stands for nobody's settings.
                if !asking.metadata_context_namespaces.is_empty() {
                    for user in chains.whole.values_mut().chain(chains.cut.values_mut()).flatten() {
                        user.1.extend(user.1.contains(name.as_str()).then(|| in_filter(&name, how)));
                    }
                }
                continue;
            }
            let Some(tokens) = self.unpack::<jwt_pb::JwtAuthentication>(place, Some(config)) else { continue };
            self.check_tokens(place, &tokens);
            for user in chains.whole.values_mut().chain(chains.cut.values_mut()).flatten() {
                if user.1.contains(name.as_str()) {
                    user.1.extend(tokens.requirement_map.keys().map(|requirement| in_filter(&name, requirement)));
                }
            }
        }
    }

    /// Checks verifications of tokens: Envoy refuses all of them for one that names what is not there, or has no keys.
    fn check_tokens(&mut self, place: Place<'_>, tokens: &jwt_pb::JwtAuthentication) {
        use jwt_pb::jwt_provider::JwksSourceSpecifier;
        for (name, provider) in tokens.providers.iter().collect::<BTreeMap<_, _>>() {
            match &provider.jwks_source_specifier {
                Some(JwksSourceSpecifier::RemoteJwks(remote)) => {
                    let server = remote.http_uri.as_ref().and_then(|uri| uri.http_upstream_type.clone());
                    let Some(core_pb::http_uri::HttpUpstreamType::Cluster(cluster)) = server else {
                        self.report(place, format!("provider `{name}` asks nobody for its keys"));
                        continue;
                    };
                    if !self.exists(ResourceType::Cluster, &cluster) {
                        self.report(place, format!("provider `{name}` asks cluster `{cluster}`, which does not exist"));
                    }
                }
                Some(JwksSourceSpecifier::LocalJwks(_)) => {}
                None => self.report(place, format!("provider `{name}` has no keys")),
            }
            if provider.payload_in_metadata != *name {
                self.report(place, format!("provider `{name}` notes payloads as `{}`", provider.payload_in_metadata));
            }
        }
        for (name, requirement) in tokens.requirement_map.iter().collect::<BTreeMap<_, _>>() {
            self.check_requirement(place, name, requirement, tokens);
        }
    }

    fn check_requirement(
        &mut self,
        place: Place<'_>,
        name: &str,
        requirement: &jwt_pb::JwtRequirement,
        tokens: &jwt_pb::JwtAuthentication,
    ) {
        use jwt_pb::jwt_requirement::RequiresType;
        match &requirement.requires_type {
            Some(RequiresType::ProviderName(provider)) if tokens.providers.contains_key(provider) => {}
            Some(RequiresType::ProviderName(provider)) => {
                self.report(place, format!("requirement `{name}` names provider `{provider}`, which does not exist"));
            }
            Some(RequiresType::RequiresAny(any)) => {
                let own =
                    |one: &jwt_pb::JwtRequirement| matches!(one.requires_type, Some(RequiresType::ProviderName(_)));
                if any.requirements.len() < 2 || !any.requirements.iter().any(own) {
                    self.report(place, format!("requirement `{name}` has no provider of its own beside another form"));
                }
                for one in any.requirements.iter().filter(|one| own(one)) {
                    self.check_requirement(place, name, one, tokens);
                }
            }
            Some(RequiresType::RequiresAll(all)) => {
                if all.requirements.len() < 2 {
                    self.report(place, format!("requirement `{name}` has fewer than two parts"));
                }
                for one in &all.requirements {
                    self.check_requirement(place, name, one, tokens);
                }
            }
            // Alone, the forms that allow more would verify against the providers of everybody.
            _ => self.report(place, format!("requirement `{name}` has no provider of its own")),
        }
    }
}
