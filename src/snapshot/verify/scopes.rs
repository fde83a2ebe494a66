//! Chains that are cut: whether each request finds in its part what it would find in the whole.
//!
//! Envoy takes any scopes. A host in the wrong part, or a wildcard that is missing in one, shows as 404 for some
//! requests and for nobody else, so both are checked here, with a reckoning of our own.

use std::collections::{BTreeMap, BTreeSet};

use super::hcm_pb::scoped_routes::scope_key_builder;
use super::{Chains, Checker, Name, Place, ResourceType, Routes, core_pb, hcm_pb, lua_pb, route_pb};

/// By part: its domains with wildcards.
pub(super) type Wildcards = BTreeMap<Name, BTreeSet<String>>;

/// How many parts a chain has that has something for every host, by the digits that a part is called by.
fn number_of(digits: usize) -> Option<u64> {
    match digits {
        3 => Some(1024),
        4 => Some(4096),
        _ => None,
    }
}

/// By key of a scope: the scope.
pub(super) type Keys = BTreeMap<String, Name>;

impl Checker<'_> {
    /// A chain that is cut chooses the part by a header that its first filter writes.
    pub(super) fn check_scoped_routes(
        &mut self,
        place: Place<'_>,
        manager: &hcm_pb::HttpConnectionManager,
        scoped: &hcm_pb::ScopedRoutes,
        chains: &mut Chains,
    ) {
        use hcm_pb::http_filter::ConfigType;
        use scope_key_builder::fragment_builder::Type;
        let fragments = scoped.scope_key_builder.as_ref().map(|builder| builder.fragments.as_slice());
        let header = match fragments.unwrap_or_default() {
            [one] => one.r#type.as_ref().map(|Type::HeaderValueExtractor(header)| header.name.clone()),
            _ => None,
        };
        let config = manager.http_filters.first().and_then(|filter| match &filter.config_type {
            Some(ConfigType::TypedConfig(config)) => Some(config.clone()),
            _ => None,
        });
        let code = self.unpack::<lua_pb::Lua>(place, config.as_ref()).and_then(|lua| lua.default_source_code);
        let code = match code.and_then(|code| code.specifier) {
            Some(core_pb::data_source::Specifier::InlineString(code)) => code,
            _ => String::new(),
        };
        let is_written = |header: &String| code.contains(&format!("headers:replace(\"{header}\""));
        let header_is_written = header.as_ref().is_some_and(is_written);
        match header {
            None => self.report(place, "does not choose routes by one header"),
            Some(header) if !header_is_written => {
                self.report(
                    place,
                    format!("chooses routes by header `{header}`, which its first filter does not write"),
                );
            }
            Some(_) => {}
        }
        // As the script writes it: `"%03x", hash % 1024`.
        let written = code.split_once("\"%0").and_then(|(_, rest)| rest.split_once("x\", hash % "));
        let digits = written.and_then(|(digits, _)| digits.parse().ok());
        let number = written.and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        if header_is_written && (number.is_none() || digits.and_then(number_of) != number) {
            self.report(place, "its first filter names no part that there can be");
        }
        chains.digits.insert(scoped.name.clone(), digits);
        let filters = manager.http_filters.iter().map(|filter| filter.name.clone()).collect();
        chains.cut.entry(scoped.name.clone()).or_default().push((place.resource.clone(), filters));
    }

    /// Checks all scopes.
    pub(super) fn check_scopes(&mut self, chains: &Chains) {
        let mut keys = Keys::new();
        for (name, resource) in self.resources(ResourceType::ScopedRoute).iter() {
            let place = Place { resource_type: ResourceType::ScopedRoute, resource: name };
            let decoded: Option<route_pb::ScopedRouteConfiguration> =
                self.decode_one(place, resource, |scope: &route_pb::ScopedRouteConfiguration| &scope.name);
            if let Some(scope) = decoded {
                self.check_scope(place, &scope, chains, &mut keys);
            }
        }
    }

    fn check_scope(
        &mut self,
        place: Place<'_>,
        scope: &route_pb::ScopedRouteConfiguration,
        chains: &Chains,
        keys: &mut Keys,
    ) {
        use route_pb::scoped_route_configuration::key::fragment::Type;
        let routes = &scope.route_configuration_name;
        if !self.exists(ResourceType::Route, routes) {
            self.report(place, format!("waits for routes `{routes}`, which do not exist"));
        }
        if !chains.is_part(routes) {
            self.report(place, format!("leads to routes `{routes}`, which no listener asks for"));
        }
        let fragments = scope.key.as_ref().map(|key| key.fragments.as_slice()).unwrap_or_default();
        let key = match fragments {
            [one] => one.r#type.as_ref().map(|Type::StringKey(key)| key),
            _ => None,
        };
        // Requests of one part in the routes of another find nothing there.
        match key {
            Some(key) if key == routes => {}
            _ => self.report(place, format!("its key is not `{routes}`")),
        }
        if let Some(other) = key.and_then(|key| keys.insert(key.clone(), place.resource.clone())) {
            self.report(place, format!("has the key of `{other}`"));
        }
    }

    /// What stands in one part because of a wildcard stands in all; a part exists for each, then.
    ///
    /// Those that stand in for refused ones are counted and not compared: of another time, they have the wildcards of then.
    pub(super) fn check_wildcards(&mut self, chains: &Chains, wildcards: &Wildcards, stand_ins: &BTreeSet<Name>) {
        // Parts of different numbers are there together while some of them stand by.
        let mut by_prefix: BTreeMap<_, Vec<(&Name, &BTreeSet<String>)>> = BTreeMap::new();
        for (name, domains) in wildcards.iter().filter(|(name, _)| chains.is_part(name)) {
            if let Some((prefix, part)) = name.rsplit_once('/') {
                by_prefix.entry((prefix, part.len())).or_default().push((name, domains));
            }
        }
        for ((prefix, digits), parts) in by_prefix {
            let number = number_of(digits).unwrap_or_default();
            let is_own = |(name, _): &&(&Name, &BTreeSet<String>)| !stand_ins.contains(*name);
            let all: BTreeSet<&String> = parts.iter().filter(is_own).flat_map(|(_, domains)| *domains).collect();
            for part in &parts {
                let (name, domains) = part;
                let place = Place { resource_type: ResourceType::Route, resource: name };
                for missing in all.iter().filter(|domain| is_own(&part) && !domains.contains(**domain)) {
                    self.report(place, format!("lacks `{missing}`, which other parts have"));
                }
                if !self.exists(ResourceType::ScopedRoute, name) {
                    self.report(place, "no scope leads to it");
                }
            }
            if !all.is_empty() && parts.len() as u64 != number {
                let name = Name::from(prefix);
                let place = Place { resource_type: ResourceType::Route, resource: &name };
                self.report(place, format!("has hosts with wildcards and {} parts of {number}", parts.len()));
            }
        }
        // Its parts are there, or nobody has routes.
        let there: BTreeSet<(&str, usize)> =
            wildcards.keys().filter_map(|name| name.rsplit_once('/')).map(|(of, part)| (of, part.len())).collect();
        for prefix in chains.cut.keys() {
            let has = |digits| there.contains(&(prefix.as_str(), digits));
            let Some(digits) = chains.digits.get(prefix).copied().flatten() else { continue };
            if has(digits) {
                continue;
            }
            let name = Name::from(prefix.as_str());
            let place = Place { resource_type: ResourceType::Route, resource: &name };
            if has(3) || has(4) {
                self.report(place, "has none of the parts that its listener asks for");
            } else if self.exists(ResourceType::Route, prefix) {
                self.report(place, "is whole, and its listener asks for parts");
            }
        }
    }
}

impl Routes<'_, '_, '_> {
    /// Whether a domain of a part is where its requests look for it.
    pub(super) fn is_misplaced(&self, domain: &str) -> bool {
        let part = self.place.resource.rsplit_once('/').map(|(_, part)| part);
        let is_right = |part: &str| {
            number_of(part.len()).is_some_and(|number| u64::from_str_radix(part, 16) == Ok(hash(domain) % number))
        };
        !domain.contains('*') && !part.is_some_and(is_right)
    }
}

/// What a host's part is the remainder of, as the script has it.
fn hash(host: &str) -> u64 {
    let mut hash: u64 = 0;
    for character in host.split(':').next().unwrap_or_default().to_ascii_lowercase().bytes() {
        hash = (hash * 1_000_003 + u64::from(character)) % 16_777_213;
    }
    hash
}
