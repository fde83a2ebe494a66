//! The routes of a virtual host in runs, so that one changed route does not cost a look at all of them.
//!
//! A run ends behind a route whose hash says so, one in [`MEAN`]. So where runs begin and end depends on the bytes alone, and
//! an edit moves the ends of its own run at most.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::snapshot::Version;

/// Number of the field `routes` of a virtual host.
const ROUTES: u32 = 3;

/// Routes of a run in the mean. Half of it remembers twice as much, double looks at twice as many.
const MEAN: u128 = 8;

/// A virtual host, taken apart.
pub(super) struct Apart {
    /// It without its routes.
    pub(super) shell: Bytes,
    pub(super) runs: Vec<Run>,
}

/// Some routes that follow each other.
pub(super) struct Run {
    /// Of the hashes of its routes.
    pub(super) hash: u128,
    /// Each without key and length.
    pub(super) routes: Vec<Bytes>,
}

/// Takes a virtual host apart; nothing if the bytes are no message.
///
/// # Cost
/// A hash over the bytes.
pub(super) fn apart(host: &Bytes) -> Option<Apart> {
    let (mut shell, mut runs) = (Vec::new(), Vec::new());
    let (mut routes, mut hashes): (Vec<Bytes>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut end = |routes: &mut Vec<Bytes>, hashes: &mut Vec<u8>| {
        runs.push(Run { hash: Version::hash(hashes), routes: std::mem::take(routes) });
        hashes.clear();
    };
    let mut rest = host.clone();
    while rest.has_remaining() {
        let field = rest.clone();
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if (number, wire_type) == (ROUTES, WireType::LengthDelimited) {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            if length > rest.len() {
                return None;
            }
            let route = rest.split_to(length);
            let hash = Version::hash(&route);
            hashes.extend_from_slice(&hash.to_le_bytes());
            routes.push(route);
            if hash.is_multiple_of(MEAN) {
                end(&mut routes, &mut hashes);
            }
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
            shell.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    if !routes.is_empty() {
        end(&mut routes, &mut hashes);
    }
    Some(Apart { shell: shell.into(), runs })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3 as route_pb;
    use prost::Message;

    use super::*;

    fn host(routes: impl Iterator<Item = usize>) -> Bytes {
        let route = |number: usize| route_pb::Route { name: format!("r{number}"), ..Default::default() };
        let host = route_pb::VirtualHost {
            name: "host".to_owned(),
            domains: vec!["*".to_owned()],
            routes: routes.map(route).collect(),
            include_request_attempt_count: true,
            ..Default::default()
        };
        host.encode_to_vec().into()
    }

    #[test]
    fn nothing_of_a_host_gets_lost() {
        for routes in [0, 1, 100] {
            let Apart { shell, runs } = apart(&host(0..routes)).unwrap();
            let shell = route_pb::VirtualHost::decode(shell).unwrap();
            assert_eq!((&*shell.name, shell.routes.len(), shell.include_request_attempt_count), ("host", 0, true));
            let names = runs.iter().flat_map(|run| &run.routes);
            let names: Vec<String> = names.map(|route| route_pb::Route::decode(route.clone()).unwrap().name).collect();
            assert_eq!(names, (0..routes).map(|number| format!("r{number}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_edit_makes_few_runs_new() {
        let before: Vec<u128> = apart(&host(0..1_000)).unwrap().runs.iter().map(|run| run.hash).collect();
        let edited = (0..1_000).map(|number| if number == 500 { 5_000 } else { number });
        let after = apart(&host(edited)).unwrap().runs;
        let new = after.iter().filter(|run| !before.contains(&run.hash)).count();
        assert!((1..=2).contains(&new) && after.len() > 50, "{new} of {}", after.len());
    }

    #[test]
    fn the_order_of_routes_matters() {
        let runs = |host: &Bytes| apart(host).unwrap().runs.iter().map(|run| run.hash).collect::<Vec<_>>();
        assert_ne!(runs(&host(0..100)), runs(&host((0..100).rev())));
    }

    #[test]
    fn what_is_cut_short_is_no_host() {
        let whole = host(0..3);
        for length in 1..whole.len() {
            let cut = whole.slice(..length);
            assert_eq!(apart(&cut).is_none(), route_pb::VirtualHost::decode(cut).is_err(), "{length}");
        }
    }
}
