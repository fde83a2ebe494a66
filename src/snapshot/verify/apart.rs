//! The routes of a virtual host apart from the rest of it, so that one changed route does not cost a look at all of them.

use std::ops::Range;

use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Number of the field `name` of a virtual host.
const NAME: u32 = 1;
/// Number of the field `routes` of a virtual host.
const ROUTES: u32 = 3;

/// A virtual host, taken apart.
pub(super) struct Apart<'a> {
    /// It without its routes.
    pub(super) shell: Vec<u8>,
    /// Each without key and length.
    pub(super) routes: Vec<&'a [u8]>,
}

/// Takes a virtual host apart; nothing if the bytes are no message.
///
/// # Cost
/// A look at the lengths of its fields.
pub(super) fn apart(host: &[u8]) -> Option<Apart<'_>> {
    let (mut shell, mut routes) = (Vec::new(), Vec::new());
    let mut rest = host;
    while rest.has_remaining() {
        let field = rest;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if (number, wire_type) == (ROUTES, WireType::LengthDelimited) {
            routes.push(taken(&mut rest)?);
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
            shell.extend_from_slice(&field[..field.len() - rest.len()]);
        }
    }
    Some(Apart { shell, routes })
}

/// The name of a virtual host, if its bytes begin with it, as those do that are written in the order of fields.
pub(super) fn name_of(mut host: &[u8]) -> Option<&[u8]> {
    let is_name = decode_key(&mut host).ok()? == (NAME, WireType::LengthDelimited);
    if is_name { taken(&mut host) } else { None }
}

/// Takes as many bytes as the length before them says.
fn taken<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

/// Which of some routes are others than before: all between those at both ends that are the same.
pub(super) fn others(before: &[&[u8]], now: &[&[u8]]) -> Range<usize> {
    let same_at_front = before.iter().zip(now).take_while(|(before, now)| before == now).count();
    let (before, behind) = (&before[same_at_front..], &now[same_at_front..]);
    let same_at_end = before.iter().rev().zip(behind.iter().rev()).take_while(|(before, now)| before == now).count();
    same_at_front..now.len() - same_at_end
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3 as route_pb;
    use prost::Message;

    use super::*;

    fn host(routes: impl Iterator<Item = usize>) -> Vec<u8> {
        let route = |number: usize| route_pb::Route { name: format!("r{number}"), ..Default::default() };
        let host = route_pb::VirtualHost {
            name: "host".to_owned(),
            domains: vec!["*".to_owned()],
            routes: routes.map(route).collect(),
            include_request_attempt_count: true,
            ..Default::default()
        };
        host.encode_to_vec()
    }

    #[test]
    fn nothing_of_a_host_gets_lost() {
        for routes in [0, 1, 100] {
            let bytes = host(0..routes);
            assert_eq!(name_of(&bytes).unwrap(), b"host");
            let apart = apart(&bytes).unwrap();
            let shell = route_pb::VirtualHost::decode(&*apart.shell).unwrap();
            assert_eq!((&*shell.name, shell.routes.len(), shell.include_request_attempt_count), ("host", 0, true));
            let names: Vec<String> =
                apart.routes.iter().map(|route| route_pb::Route::decode(*route).unwrap().name).collect();
            assert_eq!(names, (0..routes).map(|number| format!("r{number}")).collect::<Vec<_>>());
        }
        assert_eq!(name_of(b""), None);
    }

    #[test]
    fn rows_of_edits() {
        for (before, now, expected) in [
            ("abcd", "abcd", ""),
            ("abcd", "abXd", "X"),
            ("abcd", "abd", ""),
            ("abcd", "abcXd", "X"),
            ("aa", "aaa", "a"),
            ("abcd", "bcda", "bcda"),
            ("", "ab", "ab"),
            ("ab", "", ""),
        ] {
            let letters = |text: &'static str| text.as_bytes().chunks(1).collect::<Vec<_>>();
            let (before, now) = (letters(before), letters(now));
            let others: Vec<u8> = now[others(&before, &now)].concat();
            assert_eq!(String::from_utf8(others).unwrap(), expected, "{before:?} to {now:?}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_host() {
        let whole = host(0..3);
        for length in 1..whole.len() {
            let cut = &whole[..length];
            assert_eq!(apart(cut).is_none(), route_pb::VirtualHost::decode(cut).is_err(), "{length}");
        }
    }
}
