//! Who the clients inside a cluster are: a filter that writes it into a header, by the address that a request comes from.
//!
//! It comes over ECDS, so that Pods that come and go change no listener, and in parts, each with some of the addresses, so that
//! one Pod sends one part anew and not all that is known of a cluster. What a client writes there himself is taken away first,
//! by the first part, and no upstream sees the header; addresses in `X-Forwarded-For` are not believed (`use_remote_address`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::filters::http::ip_tagging::v3 as tagging_pb;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use crate::ir::Clients;
use crate::ir::client::CLIENT_HEADER;
use crate::model::Name;
use crate::snapshot::Resource;

use super::{filter, pb, wire};

/// How many parts there are: each is looked through for every request, and sent again for every Pod in it. Half sends twice as
/// much, double is a filter more for each of them on the way of a request.
const PARTS: usize = 16;

/// The filters that know clients, which stand before all others on listeners for clients inside a cluster.
fn names() -> impl Iterator<Item = Name> {
    (0..PARTS).map(|part| format!("chancery.client.{part}").into())
}

/// The part that has an address: always the same, so that an address never stands in two.
fn part_of(address: IpAddr) -> usize {
    let hash = match address {
        IpAddr::V4(own) => xxhash_rust::xxh3::xxh3_64(&own.octets()),
        IpAddr::V6(own) => xxhash_rust::xxh3::xxh3_64(&own.octets()),
    };
    (hash % PARTS as u64) as usize
}

/// The filter after it, which notes the same in the request's state: in clusters, where destinations are protected, the header is gone.
const STATE_FILTER: &str = "chancery.client-state";

/// Under which key the state of a request has its client.
pub(super) const STATE: &str = "chancery.client";

/// The filters in a listener.
pub(super) fn emit_filters() -> impl Iterator<Item = hcm_pb::HttpFilter> {
    let kind = wire::any(&tagging_pb::IpTagging::default()).type_url;
    let known = names().map(move |name| filter::discovered_filter(&name, kind.clone()));
    let noted = filter::principal::value_if_any(STATE.to_owned(), format!("%REQ({CLIENT_HEADER})%"));
    let noted = set_filter_state_pb::Config { on_request_headers: vec![noted], ..Default::default() };
    known.chain([filter::http_filter(STATE_FILTER, wire::any(&noted))])
}

/// What the filters have, in order; none where a gateway knows no clients.
///
/// # Cost
/// In proportion to the clients.
pub(super) fn emit_clients(clients: Option<&Clients>) -> impl Iterator<Item = (Name, Option<Resource>)> {
    let mut parts: Vec<Tags> = vec![Tags::new(); PARTS];
    for (address, client) in clients.iter().flat_map(|clients| &clients.0) {
        parts[part_of(*address)].entry(client.to_string()).or_default().push(range(*address));
    }
    let is_there = clients.is_some();
    let each = names().zip(parts).enumerate();
    each.map(move |(index, (name, tags))| {
        let resource = is_there.then(|| emit_part(&name, index == 0, tags));
        (name, resource)
    })
}

/// Addresses by what is written of them.
type Tags = BTreeMap<String, Vec<core_pb::CidrRange>>;

/// The first takes away what a client wrote; the others only write.
fn emit_part(name: &Name, is_first: bool, mut tags: Tags) -> Resource {
    use tagging_pb::ip_tagging::ip_tag_header::HeaderAction;
    use tagging_pb::ip_tagging::{IpTag, IpTagHeader};
    // Envoy wants one.
    if tags.is_empty() {
        tags.insert("nobody".to_owned(), vec![range(IpAddr::V4(std::net::Ipv4Addr::BROADCAST))]);
    }
    let action = if is_first { HeaderAction::Sanitize } else { HeaderAction::AppendIfExistsOrAdd };
    let config = tagging_pb::IpTagging {
        ip_tags: tags.into_iter().map(|(ip_tag_name, ip_list)| IpTag { ip_tag_name, ip_list }).collect(),
        ip_tag_header: Some(IpTagHeader { header: CLIENT_HEADER.to_owned(), action: action.into() }),
        ..Default::default()
    };
    let message = core_pb::TypedExtensionConfig { name: name.to_string(), typed_config: Some(wire::any(&config)) };
    Resource::from_content(name.clone(), wire::encode(&message), [].into())
}

fn range(address: IpAddr) -> core_pb::CidrRange {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    core_pb::CidrRange { address_prefix: address.to_string(), prefix_len: pb::uint32(bits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::client::Client;
    use crate::model::WorkspaceId;
    use crate::render::to_json;
    use crate::snapshot::ResourceType;

    fn clients(addresses: impl Iterator<Item = u8>) -> Clients {
        let client = |account: &str| Client {
            workspace: WorkspaceId("team".into()),
            namespace: "apps".into(),
            account: account.into(),
        };
        let of = |last: u8| (IpAddr::from([10, 1, 0, last]), client(if last % 2 == 0 { "even" } else { "odd" }));
        Clients(addresses.map(of).collect())
    }

    fn parts(clients: &Clients) -> Vec<Resource> {
        emit_clients(Some(clients)).filter_map(|(_, resource)| resource).collect()
    }

    #[test]
    fn r187_one_pod_sends_one_part_of_what_is_known() {
        let before = parts(&clients(1..=200));
        let after = parts(&clients(1..=201));
        let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert_eq!((before.len(), changed.len()), (PARTS, 1));
        assert!(changed[0].1.body.len() < 2 * after.iter().map(|part| part.body.len()).sum::<usize>() / PARTS);
    }

    #[test]
    fn r187_every_address_stands_in_one_part_and_the_first_takes_forged_tags_away() {
        let known = clients(1..=200);
        let mut seen = BTreeMap::new();
        for (index, part) in parts(&known).iter().enumerate() {
            let shown = to_json(ResourceType::Extension, part).expect("known");
            let config = &shown["typed_config"];
            let action = config["ip_tag_header"].get("action").and_then(|action| action.as_str());
            assert_eq!(action, (index > 0).then_some("APPEND_IF_EXISTS_OR_ADD"), "{config}");
            for tag in config["ip_tags"].as_array().expect("a list") {
                for range in tag["ip_list"].as_array().expect("a list") {
                    let address = range["address_prefix"].as_str().expect("text").to_owned();
                    assert_eq!(range["prefix_len"], 32);
                    assert_eq!(seen.insert(address, tag["ip_tag_name"].clone()), None, "an address stands twice");
                }
            }
        }
        for (address, client) in &known.0 {
            assert_eq!(seen[&address.to_string()], client.to_string());
        }
        // Where nobody is known, nobody's forged tag counts either.
        assert_eq!(parts(&Clients::default()).len(), PARTS);
        assert!(emit_clients(None).all(|(_, part)| part.is_none()));
    }
}
