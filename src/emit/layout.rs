//! How the routes of a chain are laid out: as one route configuration, or cut into parts by host.
//!
//! Envoy builds a route configuration anew for any change in it, 3 to 10 µs per route on its main thread. So a chain with
//! many routes is cut: each of its hosts belongs to one of [`PARTS`] parts, and a change is sent and built by the part.
//!
//! # How a request finds its part
//! Scoped routes choose a route configuration by a header, compared as it is: there are no wildcards, no ignoring of
//! case, and a host that no scope has gets 404. So the host itself cannot be the key. The first filter of a cut chain,
//! a few lines of Lua ([`script`]), computes a hash of the host, in lower case and without the port, writes the name of
//! the part into a header of our own, whatever a client wrote there, and has the route chosen again. Within its part a
//! request is matched by Envoy as ever. That is safe because
//!
//! * a host without wildcard stands in the part that every spelling of it leads to;
//! * a host with a wildcard, `*` included, stands in every part;
//! * a part that nobody's host is in does not exist, and its requests get the 404 that they would get anyway (R67).
//!
//! A host's part depends on its name alone, so a new host moves no other, and a part, once there, is always led to by
//! the same scope: no scope ever changes. The part of a request says nothing about it, so what a client gains by
//! forging the header is nothing, even if it could. Upstreams do not see the header.
//!
//! Seen on Envoy 1.38, 1.39 and 1.40 (`e2e/cut.rs`): mixed case, ports, wildcards, hosts that nobody serves, a forged header,
//! HTTP/2, an absent and an empty Host answer as they do uncut. The script costs Envoy 3 µs of CPU per request.
//!
//! Envoy 1.36 and 1.37 answer the same once they have the scopes, but a listener of theirs that changes to scoped routes
//! while it serves never asks for them; they get the whole ([`EmitOptions::serving`]).
//!
//! What was tried instead: the way without a script, `early_header_mutation_extensions` with CEL, costs 8 µs per request
//! (CEL compiles its expressions each time), cannot make lower case, so that hosts with capitals need a scope with the
//! whole table, which every edit has to send and build again; and it knows no wildcards.
//!
//! # When
//! Cutting a chain changes its listener, and Envoy then replaces the chain: connections are drained, no request fails,
//! because the new chain serves only when it has its scopes and their routes. A chain is cut when it has
//! [`EmitOptions::cut_from_routes`] routes and what stands in every part adds less than what is cut. A chain that is cut
//! stays cut, also when its routes become few, until hosts with wildcards would make the parts together four times as
//! large as the whole. On the way back, requests on connections that are being drained get 404: Envoy takes the old
//! chain's scopes away with the removal.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3 as lua_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use crate::ir::listener::HttpHosts;
use crate::ir::{Chain, VirtualHost};
use crate::model::{Host, Name};
use crate::snapshot::Resource;

use super::route::{HostPart, encode_misdirected};
use super::{EmitOptions, filter, name, pb, wire};

/// How many parts a chain is cut into at most; those that hold nothing do not exist.
///
/// A thousand hosts of a hundred routes have 150 routes per part, ten thousand of ten routes 100: where a part costs no
/// more memory than its share of the whole, and a change about 1 ms. Half of it doubles the time of a change, double
/// costs a chain with wildcards twice the copies. Changing it changes listeners.
pub(super) const PARTS: u16 = 1024;

/// The header that names a request's part between the script and the scopes.
pub(super) const PART_HEADER: &str = "x-chancery-part";

/// The filter that writes it.
const PART_FILTER: &str = "chancery.part";

/// The chains of a gateway that are cut.
///
/// It is an input of [`emit_gateway_after`](super::emit_gateway_after), because what is cut stays cut: a chain whose
/// size moves around the threshold must not change its listener each time. Empty where nothing was emitted before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    cut: BTreeSet<(u16, Name)>,
}

impl Layout {
    /// Whether a chain of a bound port is cut.
    #[must_use]
    pub fn is_cut(&self, bind_port: u16, chain: &str) -> bool {
        self.cut.iter().any(|(port, name)| *port == bind_port && name == chain)
    }

    pub(super) fn set(&mut self, bind_port: u16, chain: &Name, is_cut: bool) {
        if is_cut {
            self.cut.insert((bind_port, chain.clone()));
        }
    }
}

/// What decides whether a chain is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Routes of all hosts.
    pub(super) routes: usize,
    /// Routes that have to stand in every part, hosts without routes counting as one.
    pub(super) everywhere: usize,
}

impl Weight {
    pub(super) fn add(&mut self, host: &VirtualHost) {
        let own = Self::of(host);
        self.routes += own.routes;
        self.everywhere += own.everywhere;
    }

    pub(super) fn remove(&mut self, host: &VirtualHost) {
        let own = Self::of(host);
        self.routes -= own.routes;
        self.everywhere -= own.everywhere;
    }

    fn of(host: &VirtualHost) -> Self {
        let routes = host.routes.len();
        Self { routes, everywhere: if host.domain.is_wildcard() { routes.max(1) } else { 0 } }
    }

    /// Whether a chain is to be cut, given whether it was.
    pub(super) fn is_cut(self, misdirected: &BTreeSet<Host>, was_cut: bool, options: &EmitOptions) -> bool {
        let everywhere = self.everywhere + usize::from(misdirected.iter().any(Host::is_wildcard));
        let copies = everywhere.saturating_mul(usize::from(PARTS));
        let threshold = options.cut_from_routes;
        if was_cut {
            copies <= self.routes.max(threshold).saturating_mul(4)
        } else {
            self.routes >= threshold && copies <= self.routes
        }
    }
}

/// Where in a cut chain a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In every part.
    Everywhere,
    /// In one part.
    Part(u16),
}

impl Place {
    pub(super) fn of(host: &Host) -> Self {
        if host.is_wildcard() { Self::Everywhere } else { Self::Part(part_of(host.as_str())) }
    }

    pub(super) fn is_in(self, part: u16) -> bool {
        self == Self::Everywhere || self == Self::Part(part)
    }
}

/// The part of a host: what [`script`] computes.
fn part_of(host: &str) -> u16 {
    let bytes = host.bytes().take_while(|byte| *byte != b':').map(|byte| u32::from(byte.to_ascii_lowercase()));
    let hash = bytes.fold(0_u64, |hash, byte| (hash * 1_000_003 + u64::from(byte)) % 16_777_213);
    u16::try_from(hash % u64::from(PARTS)).unwrap_or_default()
}

/// Writes the part of a request. Numbers stay below 2^45, which Lua's represent exactly.
fn script(bind_port: u16, chain: &str) -> String {
    let prefix: String = name::route_configuration(bind_port, chain)
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("\\{byte:03}") })
        .collect();
    format!(
        "local prefix = \"{prefix}/\"
local byte, format, lower = string.byte, string.format, string.lower
function envoy_on_request(handle)
  local headers = handle:headers()
  local host = lower(headers:get(\":authority\") or \"\")
  local hash = 0
  for i = 1, #host do
    local c = byte(host, i)
    if c == 58 then break end
    hash = (hash * 1000003 + c) % 16777213
  end
  headers:replace(\"{PART_HEADER}\", prefix .. format(\"%03x\", hash % {PARTS}))
  handle:clearRouteCache()
end
"
    )
}

/// The first filter of a cut chain.
pub(super) fn emit_filter(bind_port: u16, chain: &Chain) -> hcm_pb::HttpFilter {
    let code = core_pb::data_source::Specifier::InlineString(script(bind_port, &chain.name));
    let lua = lua_pb::Lua {
        default_source_code: Some(core_pb::DataSource { specifier: Some(code), ..Default::default() }),
        ..Default::default()
    };
    filter::http_filter(PART_FILTER, wire::any(&lua))
}

/// How a cut chain comes to its routes.
pub(super) fn emit_scoped_routes(bind_port: u16, chain: &Chain, source: core_pb::ConfigSource) -> hcm_pb::ScopedRoutes {
    use hcm_pb::scoped_routes::scope_key_builder::fragment_builder::{HeaderValueExtractor, Type};
    use hcm_pb::scoped_routes::scope_key_builder::{FragmentBuilder, fragment_builder::header_value_extractor};
    use hcm_pb::scoped_routes::{ConfigSpecifier, ScopeKeyBuilder};
    let header = HeaderValueExtractor {
        name: PART_HEADER.to_owned(),
        // Without a separator the value is one element.
        extract_type: Some(header_value_extractor::ExtractType::Index(0)),
        ..Default::default()
    };
    hcm_pb::ScopedRoutes {
        name: name::route_configuration(bind_port, &chain.name).to_string(),
        scope_key_builder: Some(ScopeKeyBuilder {
            fragments: vec![FragmentBuilder { r#type: Some(Type::HeaderValueExtractor(header)) }],
        }),
        rds_config_source: Some(source.clone()),
        config_specifier: Some(ConfigSpecifier::ScopedRds(hcm_pb::ScopedRds {
            scoped_rds_config_source: Some(source),
            ..Default::default()
        })),
    }
}

/// The scope that leads to a part: name, key and route configuration are called alike.
///
/// All cut chains of all listeners share one list of scopes, so a key names its chain.
pub(super) fn emit_scope(part: &Name, chain: &Chain) -> Resource {
    use route_pb::scoped_route_configuration::{Key, key};
    let fragment = key::Fragment { r#type: Some(key::fragment::Type::StringKey(part.to_string())) };
    let message = route_pb::ScopedRouteConfiguration {
        name: part.to_string(),
        route_configuration_name: part.to_string(),
        key: Some(Key { fragments: vec![fragment] }),
        ..Default::default()
    };
    Resource::from_content(part.clone(), wire::encode(&message), pb::owners(&chain.gateways))
}

/// The virtual hosts for hosts of other chains: by part where the chain is cut, else under [`WHOLE`].
pub(super) fn encode_all_misdirected(http: &HttpHosts, is_cut: bool) -> BTreeMap<u16, HostPart> {
    let hosts = &http.misdirected;
    if hosts.is_empty() {
        return BTreeMap::new();
    }
    if !is_cut {
        return [(WHOLE, encode_misdirected(hosts.iter()))].into();
    }
    let in_part = |part| hosts.iter().filter(move |host| Place::of(host).is_in(part));
    let parts: BTreeSet<u16> = if hosts.iter().any(Host::is_wildcard) {
        (0..PARTS).collect()
    } else {
        hosts.iter().map(|host| part_of(host.as_str())).collect()
    };
    parts.into_iter().map(|part| (part, encode_misdirected(in_part(part)))).collect()
}

/// The one part of a chain that is not cut.
pub(super) const WHOLE: u16 = 0;

/// The name of a part.
pub(super) fn part_name(bind_port: u16, chain: &Chain, is_cut: bool, part: u16) -> Name {
    let whole = name::route_configuration(bind_port, &chain.name);
    if is_cut { format!("{whole}/{part:03x}").into() } else { whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_leads_to_its_part() {
        for (host, others) in [
            ("shop.example", &["Shop.Example", "SHOP.EXAMPLE:8080", "shop.example:"][..]),
            ("", &[":80"]),
            ("xn--bcher-kva.example", &["XN--BCHER-kva.example:443"]),
        ] {
            for other in others {
                assert_eq!(part_of(other), part_of(host), "{other}");
            }
        }
    }

    #[test]
    fn hosts_that_are_numbered_spread_evenly() {
        for pattern in ["site-{}.example", "{}.apps.shop.example", "a{}"] {
            let mut sizes = vec![0_usize; usize::from(PARTS)];
            for number in 0..10_000 {
                sizes[usize::from(part_of(&pattern.replace("{}", &number.to_string())))] += 1;
            }
            // Ten in the mean; thrown at random, the largest would have 22.
            let largest = sizes.iter().max().unwrap();
            assert!(*largest <= 30, "{pattern}: {largest} hosts in one part");
        }
    }

    #[test]
    fn releases_that_would_not_ask_for_scopes_get_the_whole() {
        let many = Weight { routes: 100_000, everywhere: 0 };
        for (minor, expected) in [(36, false), (37, false), (38, true), (39, true), (40, true)] {
            let release = crate::model::EnvoyRelease::serving(Some((1, minor)));
            let options = EmitOptions::serving(EmitOptions::default().bind, release);
            assert_eq!(many.is_cut(&BTreeSet::new(), false, &options), expected, "1.{minor}");
        }
    }

    #[test]
    fn what_is_cut_stays_cut() {
        let options = EmitOptions { cut_from_routes: 2_000, ..EmitOptions::default() };
        let everywhere = |hosts: &[&str]| hosts.iter().map(|host| Host::parse(host).unwrap()).collect();
        for (name, routes, wild, misdirected, was_cut, expected) in [
            ("few routes", 1_999, 0, &[][..], false, false),
            ("many routes", 2_000, 0, &[], false, true),
            ("few routes are left", 10, 0, &[], true, true),
            ("one catch-all", 2_000, 1, &[], false, true),
            ("a large catch-all", 10_000, 10, &[], false, false),
            ("a large catch-all appears", 10_000, 39, &[], true, true),
            ("a very large catch-all appears", 10_000, 40, &[], true, false),
            ("exact hosts elsewhere", 2_000, 0, &["a.example"], false, true),
            ("wildcards elsewhere", 1_023, 0, &["*.a.example"], false, false),
        ] {
            let weight = Weight { routes, everywhere: wild };
            assert_eq!(weight.is_cut(&everywhere(misdirected), was_cut, &options), expected, "{name}");
        }
    }
}
