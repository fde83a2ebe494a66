//! Who the clients inside a cluster are: a filter that writes it into a header, by the address that a request comes from.
//!
//! It comes over ECDS, so that Pods that come and go change no listener. What a client writes there himself is taken away
//! first, and no upstream sees the header; addresses in `X-Forwarded-For` are not believed (`use_remote_address`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::extensions::filters::http::ip_tagging::v3 as tagging_pb;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use crate::ir::Clients;
use crate::ir::client::CLIENT_HEADER;
use crate::snapshot::Resource;

use super::{filter, pb, wire};

/// The filter, which stands before all others on listeners for clients inside a cluster.
pub(super) const FILTER: &str = "chancery.client";

/// The filter after it, which notes the same in the request's state: in clusters, where destinations are protected, the header is gone.
const STATE_FILTER: &str = "chancery.client-state";

/// Under which key the state of a request has its client.
pub(super) const STATE: &str = "chancery.client";

/// The filters in a listener.
pub(super) fn emit_filters() -> [hcm_pb::HttpFilter; 2] {
    let known = filter::discovered_filter(FILTER, wire::any(&tagging_pb::IpTagging::default()).type_url);
    let noted = filter::principal::value_if_any(STATE.to_owned(), format!("%REQ({CLIENT_HEADER})%"));
    let noted = set_filter_state_pb::Config { on_request_headers: vec![noted], ..Default::default() };
    [known, filter::http_filter(STATE_FILTER, wire::any(&noted))]
}

/// What the filter has.
///
/// # Cost
/// In proportion to the clients.
pub(super) fn emit_clients(clients: &Clients) -> Resource {
    use tagging_pb::ip_tagging::ip_tag_header::HeaderAction;
    use tagging_pb::ip_tagging::{IpTag, IpTagHeader};
    let mut tags: BTreeMap<String, Vec<core_pb::CidrRange>> = BTreeMap::new();
    for (address, client) in &clients.0 {
        tags.entry(client.to_string()).or_default().push(range(*address));
    }
    // Envoy wants one.
    if tags.is_empty() {
        tags.insert("nobody".to_owned(), vec![range(IpAddr::V4(std::net::Ipv4Addr::BROADCAST))]);
    }
    let config = tagging_pb::IpTagging {
        ip_tags: tags.into_iter().map(|(ip_tag_name, ip_list)| IpTag { ip_tag_name, ip_list }).collect(),
        ip_tag_header: Some(IpTagHeader { header: CLIENT_HEADER.to_owned(), action: HeaderAction::Sanitize.into() }),
        ..Default::default()
    };
    let message = core_pb::TypedExtensionConfig { name: FILTER.to_owned(), typed_config: Some(wire::any(&config)) };
    Resource::from_content(FILTER.into(), wire::encode(&message), [].into())
}

fn range(address: IpAddr) -> core_pb::CidrRange {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    core_pb::CidrRange { address_prefix: address.to_string(), prefix_len: pb::uint32(bits) }
}
