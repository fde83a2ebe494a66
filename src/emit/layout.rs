//! How the routes of a chain are laid out: as one route configuration, or cut into parts by host.
//!
//! Envoy builds a route configuration anew for any change in it, 3 to 10 µs per route on its main thread. So a chain with
//! many routes is cut: each of its hosts belongs to one of many [`Parts`], and a change is sent and built by the part.
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
//! the same scope: no scope ever changes; parts of another number have other names. The part of a request says nothing about it, so what a client gains by
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
//! A chain is cut when it has [`EmitOptions::cut_from_routes`] routes and what stands in every part adds less than what is
//! cut. A chain that is cut stays so until a quarter of these routes is left, or until hosts with wildcards would make the parts
//! together four times as large as the whole: a size that moves around the threshold changes nothing.
//!
//! # Into how many
//! Two hosts in a part double what an edit of one of them costs; a host with a wildcard costs a copy in each part. So there
//! are many parts where their copies are fewer than the routes, and fewer parts elsewhere.
//!
//! # On the way
//! Cutting a chain, cutting it otherwise and putting it together changes its listener, and Envoy then replaces the chain: the
//! new one serves when it has its routes, connections of the old one are drained, for ten minutes unless Envoy is told
//! otherwise. No request fails on the way there, because
//!
//! * all cut chains of an Envoy, those that are drained included, follow one list of scopes, and where that is followed
//!   already, a chain that is cut now is in force at once. So the parts are there [before](Form::Preparing) a listener uses
//!   them, until whoever knows what gateways acknowledged [says](super::Emitter::ready) that they have them;
//! * on the way back, requests on connections that are being drained still look for their parts, so these
//!   [stand by](Form::StandingBy) until [whoever knows the time](super::Emitter::settle) says that it is over. The same goes
//!   for a chain that an earlier run, or another replica, may have cut.
//!
//! What is left: when a cut chain goes altogether, because its virtual gateway or listener does, its parts go with it, and
//! requests on connections that are being drained get 404 at once. Those of a whole chain are answered until they end.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3 as lua_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use crate::ir::client::CLIENT_HEADER;
use crate::ir::listener::HttpHosts;
use crate::ir::{Chain, VirtualHost};
use crate::model::{Host, Name};
use crate::snapshot::Resource;

use super::route::{HostPart, encode_misdirected};
use super::{EmitOptions, filter, name, pb, wire};

/// How many parts a chain is cut into at most; those that hold nothing do not exist. Changing the numbers changes listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parts {
    /// 1,024: of a thousand hosts of a hundred routes, a host finds 200 routes in its part, in the mean.
    Coarse,
    /// 4,096: 124 routes; of ten thousand hosts of ten routes 34.
    Fine,
}

impl Parts {
    /// Their number.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Coarse => 1 << 10,
            Self::Fine => 1 << 12,
        }
    }

    /// Hexadecimal digits of what a part is called. Parts of different numbers are never called alike.
    fn digits(self) -> usize {
        match self {
            Self::Coarse => 3,
            Self::Fine => 4,
        }
    }

    /// What the name of a part ends with.
    fn suffix(self, part: u16) -> String {
        format!("/{part:0digits$x}", digits = self.digits())
    }
}

/// The header that names a request's part between the script and the scopes.
pub(super) const PART_HEADER: &str = "x-chancery-part";

/// The filter that writes it.
const PART_FILTER: &str = "chancery.part";

/// How the routes of a chain are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As one route configuration.
    #[default]
    Whole,
    /// Cut into parts.
    Cut(Parts),
    /// As one route configuration, and the parts with their scopes are there too, for connections that a gateway took
    /// while the chain was cut. No gateway asks for them that has neither such connections nor another chain that is cut.
    StandingBy(Parts),
    /// As before: as one route configuration, or cut; and the parts are there too that it is to be cut into.
    Preparing {
        /// Into what it is cut, if it is.
        from: Option<Parts>,
        /// Into what it will be.
        to: Parts,
    },
    /// Cut into parts, and those of the other number are there too, for connections of a time when it was cut into these.
    CutAnew(Parts),
    /// As one route configuration, and the parts of both numbers are there too, as it was cut into both in that time.
    StandingByBoth,
}

impl Form {
    /// Into what its listener cuts it.
    pub(super) fn cut(self) -> Option<Parts> {
        match self {
            Self::Cut(parts) | Self::CutAnew(parts) => Some(parts),
            Self::Preparing { from, .. } => from,
            Self::Whole | Self::StandingBy(_) | Self::StandingByBoth => None,
        }
    }

    /// The parts that may exist.
    fn parts(self) -> &'static [Parts] {
        match self {
            Self::Whole => &[],
            Self::Preparing { from: Some(_), .. } | Self::CutAnew(_) | Self::StandingByBoth => {
                &[Parts::Coarse, Parts::Fine]
            }
            Self::Cut(parts) | Self::StandingBy(parts) | Self::Preparing { from: None, to: parts } => match parts {
                Parts::Coarse => &[Parts::Coarse],
                Parts::Fine => &[Parts::Fine],
            },
        }
    }

    /// The route configurations that may exist.
    pub(super) fn pieces(self) -> impl Iterator<Item = Piece> {
        let whole = self.cut().is_none().then_some(Piece::Whole);
        let parts = self.parts().iter().flat_map(|parts| (0..parts.number()).map(|part| Piece::Part(*parts, part)));
        whole.into_iter().chain(parts)
    }

    /// Those of them that have what stands in a place.
    pub(super) fn pieces_at(self, place: Place) -> impl Iterator<Item = Piece> {
        let one = match place {
            Place::Everywhere => None,
            Place::Part(part) => Some(part),
        };
        let whole = (one.is_some() && self.cut().is_none()).then_some(Piece::Whole);
        let parts = one
            .into_iter()
            .flat_map(move |part| self.parts().iter().map(move |parts| Piece::Part(*parts, part % parts.number())));
        let all = one.is_none().then(|| self.pieces());
        whole.into_iter().chain(parts).chain(all.into_iter().flatten())
    }
}

/// A route configuration of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    /// The one for all hosts.
    Whole,
    /// One of the parts.
    Part(Parts, u16),
}

impl Piece {
    /// Whether hosts of a place stand in it.
    pub(super) fn has(self, place: Place) -> bool {
        match (self, place) {
            (Self::Whole, _) | (Self::Part(..), Place::Everywhere) => true,
            (Self::Part(parts, own), Place::Part(part)) => part % parts.number() == own,
        }
    }

    /// The places whose hosts stand in it, if it is a part.
    pub(super) fn places(self) -> impl Iterator<Item = Place> {
        let step = match self {
            Self::Whole => None,
            Self::Part(parts, part) => Some((part, parts.number())),
        };
        let own = step.into_iter().flat_map(|(part, step)| (part..Parts::Fine.number()).step_by(usize::from(step)));
        own.map(Place::Part).chain(step.map(|_| Place::Everywhere))
    }

    /// Its name; and that of its scope, if it is a part.
    pub(super) fn name(self, bind_port: u16, chain: &Chain) -> Name {
        let whole = name::route_configuration(bind_port, &chain.name);
        match self {
            Self::Whole => whole,
            Self::Part(parts, part) => format!("{whole}{}", parts.suffix(part)).into(),
        }
    }
}

/// The headers that are to be taken away before a request leaves.
pub(super) fn headers_to_remove(piece: Piece, is_for_clients: bool) -> impl Iterator<Item = &'static str> {
    let part = (piece != Piece::Whole).then_some(PART_HEADER);
    part.into_iter().chain(is_for_clients.then_some(CLIENT_HEADER))
}

/// How the chains of a gateway are laid out.
///
/// It is an input of [`emit_gateway_after`](super::emit_gateway_after), because what is cut stays cut: a chain whose
/// size moves around the threshold must not change its listener each time. By default nothing was emitted before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By bound port and chain.
    forms: BTreeMap<u16, BTreeMap<Name, Form>>,
    /// Whether gateways may have chains cut that are not listed.
    is_uncertain: bool,
    /// Whether what stands by may go.
    is_settled: bool,
    /// Which of what is being prepared gateways have.
    ready: Ready,
}

impl Layout {
    /// Gateways may have been served by somebody else, so any chain may be cut there.
    #[must_use]
    pub fn uncertain() -> Self {
        Self { is_uncertain: true, ..Self::default() }
    }

    /// How a chain of a bound port is laid out; none if that is uncertain.
    #[must_use]
    pub fn form(&self, bind_port: u16, chain: &str) -> Option<Form> {
        let known = self.forms.get(&bind_port).and_then(|chains| chains.get(chain)).copied();
        known.or((!self.is_uncertain).then_some(Form::Whole))
    }

    /// Whether some chain is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.has(|form| form.cut().is_some())
    }

    /// Whether something stands by.
    #[must_use]
    pub fn is_standing_by(&self) -> bool {
        self.has(|form| matches!(form, Form::StandingBy(_) | Form::CutAnew(_) | Form::StandingByBoth))
    }

    /// The chains for which parts are prepared.
    #[must_use]
    pub fn preparing(&self) -> BTreeSet<Prepares> {
        let forms =
            self.forms.iter().flat_map(|(port, chains)| chains.iter().map(move |(name, form)| (*port, name, *form)));
        let prepares = |(port, name, form): (u16, &Name, Form)| match form {
            Form::Preparing { from, to } => Some(Prepares {
                whole: name::route_configuration(port, name),
                digits: to.digits(),
                replaces_parts: from.is_some(),
            }),
            _ => None,
        };
        forms.filter_map(prepares).collect()
    }

    fn has(&self, wanted: impl Fn(Form) -> bool) -> bool {
        self.forms.values().flat_map(BTreeMap::values).any(|form| wanted(*form))
    }

    /// What decides about forms, beside the chain itself.
    pub(super) fn turn(&self) -> Turn {
        Turn { is_settled: self.is_settled, ready: self.ready }
    }

    pub(super) fn set(&mut self, bind_port: u16, chain: &Name, form: Form) {
        self.forms.entry(bind_port).or_default().insert(chain.clone(), form);
    }

    /// What is known now is all that there is.
    pub(super) fn emitted(&mut self) {
        (self.is_uncertain, self.is_settled, self.ready) = (false, false, Ready::Nothing);
    }

    /// What stands by may go with the next emission.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// What is prepared may be used with the next emission.
    pub(super) fn ready(&mut self, ready: Ready) {
        self.ready = ready;
    }

    pub(super) fn retain(&mut self, keep: impl Fn(u16, &Name) -> bool) {
        self.forms.retain(|port, chains| {
            chains.retain(|chain, _| keep(*port, chain));
            !chains.is_empty()
        });
    }
}

/// Which parts that are prepared may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ready {
    /// None yet.
    #[default]
    Nothing,
    /// Those of chains that are whole.
    OfWhole,
    /// All.
    Everything,
}

/// A chain for which parts are prepared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prepares {
    /// What its route configuration is called while it is whole.
    whole: Name,
    digits: usize,
    /// Whether it is cut already.
    pub replaces_parts: bool,
}

impl Prepares {
    /// Whether a route configuration, or a scope, is one of these parts.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        name.rsplit_once('/').is_some_and(|(whole, part)| self.whole == whole && self.digits == part.len())
    }
}

/// What decides, beside the chain itself, how it is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    is_settled: bool,
    ready: Ready,
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

    /// How a chain is to be laid out, given how it was; none if that is uncertain.
    pub(super) fn form(
        self,
        misdirected: &BTreeSet<Host>,
        before: Option<Form>,
        turn: Turn,
        options: &EmitOptions,
    ) -> Form {
        let everywhere = self.everywhere + usize::from(misdirected.iter().any(Host::is_wildcard));
        let copies = |parts: Parts| everywhere.saturating_mul(usize::from(parts.number()));
        let threshold = options.cut_from_routes;
        let parts = if copies(Parts::Fine) <= self.routes { Parts::Fine } else { Parts::Coarse };
        let is_worth = self.routes >= threshold && copies(parts) <= self.routes;
        let size = self.routes.max(threshold.min(LARGEST_THRESHOLD));
        let stays = |used| self.routes >= threshold / 4 && copies(used) <= size * 4;
        // Parts that would take 16 times the memory of the whole are not kept for connections that end anyway.
        let put_together = |used| if copies(used) <= size * 16 { Form::StandingBy(used) } else { Form::Whole };
        let put_both_together =
            || if copies(Parts::Fine) <= size * 16 { Form::StandingByBoth } else { put_together(Parts::Coarse) };
        match before {
            None if is_worth => Form::Cut(parts),
            None if stays(parts) => Form::StandingBy(parts),
            Some(Form::Whole | Form::Preparing { from: None, .. }) | None if !is_worth => Form::Whole,
            Some(Form::Preparing { from: None, to }) if to == parts && turn.ready >= Ready::OfWhole => Form::Cut(parts),
            Some(Form::Whole | Form::Preparing { from: None, .. }) | None => Form::Preparing { from: None, to: parts },
            // What is there is used; whether another number is better is a matter of its own.
            Some(Form::StandingBy(used)) if is_worth => Form::Cut(used),
            Some(Form::StandingByBoth) if is_worth => Form::CutAnew(parts),
            Some(Form::StandingBy(_) | Form::StandingByBoth) if turn.is_settled => Form::Whole,
            Some(Form::StandingBy(used)) => put_together(used),
            Some(Form::StandingByBoth) => put_both_together(),
            Some(Form::CutAnew(used)) if !stays(used) => {
                if turn.is_settled {
                    put_together(used)
                } else {
                    put_both_together()
                }
            }
            Some(Form::Cut(used) | Form::Preparing { from: Some(used), .. }) if !stays(used) => put_together(used),
            // Gateways that follow scopes have both.
            Some(Form::CutAnew(used)) if !turn.is_settled && copies(Parts::Fine) <= size * 4 => Form::CutAnew(used),
            Some(Form::Preparing { from: Some(_), to }) if to == parts && turn.ready == Ready::Everything => {
                Form::CutAnew(parts)
            }
            Some(Form::Cut(used) | Form::CutAnew(used) | Form::Preparing { from: Some(used), .. }) => {
                if used == parts || !is_worth {
                    Form::Cut(used)
                } else {
                    Form::Preparing { from: Some(used), to: parts }
                }
            }
        }
    }
}

/// A threshold above this one says that nothing is to be cut, and nothing about sizes.
const LARGEST_THRESHOLD: usize = 10_000;

/// Where in a cut chain a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In every part.
    Everywhere,
    /// In one part, which is numbered as the [fine](Parts::Fine) ones are.
    Part(u16),
}

impl Place {
    pub(super) fn of(host: &Host) -> Self {
        if host.is_wildcard() { Self::Everywhere } else { Self::Part(part_of(host.as_str())) }
    }
}

/// The fine part of a host; what [`script`] computes, where it has that number.
fn part_of(host: &str) -> u16 {
    let bytes = host.bytes().take_while(|byte| *byte != b':').map(|byte| u32::from(byte.to_ascii_lowercase()));
    let hash = bytes.fold(0_u64, |hash, byte| (hash * 1_000_003 + u64::from(byte)) % 16_777_213);
    u16::try_from(hash % u64::from(Parts::Fine.number())).unwrap_or_default()
}

/// What the names of route configurations end with that may be the part for a host.
pub(crate) fn part_suffixes(host: &str) -> [String; 2] {
    let part = part_of(host);
    [Parts::Coarse, Parts::Fine].map(|parts| parts.suffix(part % parts.number()))
}

/// Writes the part of a request. Numbers stay below 2^45, which Lua's represent exactly.
fn script(bind_port: u16, chain: &str, parts: Parts) -> String {
    let (number, digits) = (parts.number(), parts.digits());
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
  headers:replace(\"{PART_HEADER}\", prefix .. format(\"%0{digits}x\", hash % {number}))
  handle:clearRouteCache()
end
"
    )
}

/// The first filter of a cut chain.
pub(super) fn emit_filter(bind_port: u16, chain: &Chain, parts: Parts) -> hcm_pb::HttpFilter {
    let code = core_pb::data_source::Specifier::InlineString(script(bind_port, &chain.name, parts));
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

/// The virtual hosts for hosts of other chains, where there are such.
pub(super) fn encode_all_misdirected(http: &HttpHosts, form: Form) -> BTreeMap<Piece, HostPart> {
    let hosts = &http.misdirected;
    if hosts.is_empty() {
        return BTreeMap::new();
    }
    let places: BTreeSet<Place> = hosts.iter().map(Place::of).collect();
    let is_needed = |piece: &Piece| *piece == Piece::Whole || places.iter().any(|place| piece.has(*place));
    let encode = |piece: Piece| encode_misdirected(hosts.iter().filter(|host| piece.has(Place::of(host))));
    form.pieces().filter(is_needed).map(|piece| (piece, encode(piece))).collect()
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
        // 10,000 hosts; thrown at random, the largest part would have 22 and 12.
        for (parts, most) in [(Parts::Coarse, 30), (Parts::Fine, 16)] {
            for pattern in ["site-{}.example", "{}.apps.shop.example", "a{}"] {
                let mut sizes = vec![0_usize; usize::from(parts.number())];
                for number in 0..10_000 {
                    sizes[usize::from(part_of(&pattern.replace("{}", &number.to_string())) % parts.number())] += 1;
                }
                let largest = sizes.iter().max().unwrap();
                assert!(*largest <= most, "{pattern}: {largest} hosts in one of {parts:?} parts");
            }
        }
    }

    #[test]
    fn a_place_knows_its_pieces_and_a_piece_its_places() {
        use Form::{Cut, CutAnew, StandingBy, Whole};
        let places = [Place::Everywhere, Place::Part(0), Place::Part(1023), Place::Part(1024), Place::Part(4095)];
        for form in [Whole, Cut(Parts::Coarse), Cut(Parts::Fine), StandingBy(Parts::Fine), CutAnew(Parts::Fine)] {
            for place in places {
                let all: Vec<Piece> = form.pieces().filter(|piece| piece.has(place)).collect();
                let mut found: Vec<Piece> = form.pieces_at(place).collect();
                found.sort_unstable();
                assert_eq!(found, all, "{form:?}, {place:?}");
                let knows = |piece: &Piece| *piece == Piece::Whole || piece.places().any(|own| own == place);
                assert!(found.iter().all(knows), "{form:?}, {place:?}");
            }
        }
        assert_eq!(Piece::Part(Parts::Coarse, 5).places().count(), 5);
    }

    #[test]
    fn releases_that_would_not_ask_for_scopes_get_the_whole() {
        let many = Weight { routes: 100_000, everywhere: 0 };
        for (minor, expected) in [(36, false), (37, false), (38, true), (39, true), (40, true)] {
            let release = crate::model::EnvoyRelease::serving(Some((1, minor)));
            let options = EmitOptions::serving(EmitOptions::default().bind, release);
            let form = |before| many.form(&BTreeSet::new(), before, Turn::default(), &options);
            assert_eq!(form(Some(Form::Whole)) != Form::Whole, expected, "1.{minor}");
            assert_eq!(form(None).cut().is_some(), expected, "1.{minor}");
        }
    }

    /// CVE-2026-41246 was text of a user in a script.
    #[test]
    fn no_name_breaks_out_of_the_script() {
        let rest = |script: &str| script.split_once('\n').map(|(first, rest)| (first.to_owned(), rest.to_owned()));
        let (_, harmless) = rest(&script(80, "a", Parts::Fine)).expect("lines");
        for name in
            ["\"] os.exit()", "]]", "a\nos.exit()", "a\r", "%s%d", "\\", "\\\"", "\u{0}", "\u{2028}", "'", "--", "${x}"]
        {
            let (first, rest) = rest(&script(80, name, Parts::Fine)).expect("lines");
            let text =
                first.strip_prefix("local prefix = \"").and_then(|text| text.strip_suffix("/\"")).expect("one literal");
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'\\'), "{name:?}: {first}");
            let mut escapes = text.split('\\').skip(1);
            let is_decimal = |escape: &str| escape.get(..3).is_some_and(|code| code.parse::<u8>().is_ok());
            assert!(escapes.all(is_decimal), "{name:?}: {first}");
            assert_eq!(rest, harmless, "{name:?}");
        }
    }

    #[test]
    fn what_is_cut_stays_cut_and_what_was_stands_by() {
        use Form::{Cut, CutAnew, StandingBy, StandingByBoth, Whole};
        use Parts::{Coarse, Fine};
        let prepares = |from, to| Form::Preparing { from, to };
        let options = EmitOptions { cut_from_routes: 2_000, ..EmitOptions::default() };
        let everywhere = |hosts: &[&str]| hosts.iter().map(|host| Host::parse(host).unwrap()).collect();
        // What it becomes at once, when gateways have what is prepared, and when what stands by may go.
        for (name, routes, wild, misdirected, before, expected, ready, settled) in [
            ("few routes", 1_999, 0, &[][..], Some(Whole), Whole, Whole, Whole),
            (
                "many routes",
                2_000,
                0,
                &[],
                Some(Whole),
                prepares(None, Fine),
                prepares(None, Fine),
                prepares(None, Fine),
            ),
            ("fewer routes are left", 500, 0, &[], Some(Cut(Fine)), Cut(Fine), Cut(Fine), Cut(Fine)),
            ("few are left", 499, 0, &[], Some(Cut(Fine)), StandingBy(Fine), StandingBy(Fine), StandingBy(Fine)),
            ("they become more", 1_999, 0, &[], Some(StandingBy(Fine)), StandingBy(Fine), StandingBy(Fine), Whole),
            ("they become many", 2_000, 0, &[], Some(StandingBy(Fine)), Cut(Fine), Cut(Fine), Cut(Fine)),
            ("others may have cut", 500, 0, &[], None, StandingBy(Fine), StandingBy(Fine), StandingBy(Fine)),
            ("nobody has cut it", 499, 0, &[], None, Whole, Whole, Whole),
            ("anybody cuts it", 2_000, 0, &[], None, Cut(Fine), Cut(Fine), Cut(Fine)),
            (
                "one catch-all",
                2_000,
                1,
                &[],
                Some(Whole),
                prepares(None, Coarse),
                prepares(None, Coarse),
                prepares(None, Coarse),
            ),
            (
                "one among many",
                4_096,
                1,
                &[],
                Some(Whole),
                prepares(None, Fine),
                prepares(None, Fine),
                prepares(None, Fine),
            ),
            ("anybody cuts it coarse", 2_000, 1, &[], None, Cut(Coarse), Cut(Coarse), Cut(Coarse)),
            (
                "a catch-all appears",
                4_095,
                1,
                &[],
                Some(Cut(Fine)),
                prepares(Some(Fine), Coarse),
                prepares(Some(Fine), Coarse),
                prepares(Some(Fine), Coarse),
            ),
            (
                "coarse parts are prepared",
                4_095,
                1,
                &[],
                Some(prepares(Some(Fine), Coarse)),
                prepares(Some(Fine), Coarse),
                CutAnew(Coarse),
                prepares(Some(Fine), Coarse),
            ),
            ("and not needed", 4_096, 1, &[], Some(prepares(Some(Fine), Coarse)), Cut(Fine), Cut(Fine), Cut(Fine)),
            (
                "it goes while fine parts stand by",
                4_095,
                0,
                &[],
                Some(CutAnew(Coarse)),
                CutAnew(Coarse),
                CutAnew(Coarse),
                prepares(Some(Coarse), Fine),
            ),
            ("fine parts go", 4_095, 1, &[], Some(CutAnew(Coarse)), CutAnew(Coarse), CutAnew(Coarse), Cut(Coarse)),
            (
                "few are left while two numbers are there",
                499,
                1,
                &[],
                Some(CutAnew(Coarse)),
                StandingByBoth,
                StandingByBoth,
                StandingBy(Coarse),
            ),
            ("both stand by", 499, 1, &[], Some(StandingByBoth), StandingByBoth, StandingByBoth, Whole),
            ("and are used", 2_000, 1, &[], Some(StandingByBoth), CutAnew(Coarse), CutAnew(Coarse), CutAnew(Coarse)),
            ("fine ones grow", 10_000, 11, &[], Some(CutAnew(Coarse)), Cut(Coarse), Cut(Coarse), Cut(Coarse)),
            ("another number is not worth it", 1_000, 1, &[], Some(Cut(Fine)), Cut(Fine), Cut(Fine), Cut(Fine)),
            (
                "parts of the other number stand by",
                2_000,
                1,
                &[],
                Some(StandingBy(Fine)),
                Cut(Fine),
                Cut(Fine),
                Cut(Fine),
            ),
            (
                "they have it",
                2_000,
                0,
                &[],
                Some(prepares(None, Fine)),
                prepares(None, Fine),
                Cut(Fine),
                prepares(None, Fine),
            ),
            ("few while it is prepared", 1_999, 0, &[], Some(prepares(None, Fine)), Whole, Whole, Whole),
            ("a large catch-all", 10_000, 10, &[], Some(Whole), Whole, Whole, Whole),
            ("it appears", 10_000, 39, &[], Some(Cut(Coarse)), Cut(Coarse), Cut(Coarse), Cut(Coarse)),
            (
                "it appears where parts are fine",
                10_000,
                39,
                &[],
                Some(Cut(Fine)),
                StandingBy(Fine),
                StandingBy(Fine),
                StandingBy(Fine),
            ),
            (
                "a very large one",
                10_000,
                40,
                &[],
                Some(Cut(Coarse)),
                StandingBy(Coarse),
                StandingBy(Coarse),
                StandingBy(Coarse),
            ),
            ("one that nobody has room for", 10_000, 160, &[], Some(Cut(Coarse)), Whole, Whole, Whole),
            (
                "exact hosts elsewhere",
                2_000,
                0,
                &["a.example"],
                Some(Whole),
                prepares(None, Fine),
                prepares(None, Fine),
                prepares(None, Fine),
            ),
            ("wildcards elsewhere", 1_023, 0, &["*.a.example"], Some(Whole), Whole, Whole, Whole),
        ] {
            let weight = Weight { routes, everywhere: wild };
            let misdirected = everywhere(misdirected);
            let form = |turn| weight.form(&misdirected, before, turn, &options);
            let turn = Turn::default();
            assert_eq!(form(turn), expected, "{name}");
            assert_eq!(form(Turn { ready: Ready::Everything, ..turn }), ready, "{name}, ready");
            assert_eq!(form(Turn { is_settled: true, ..turn }), settled, "{name}, settled");
        }
    }
}
