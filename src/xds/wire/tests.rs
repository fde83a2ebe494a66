//! What is written is read by the generated types, and the other way round.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::service::discovery::v3 as discovery_pb;
use envoy_types::pb::google::rpc;
use prost::Message as _;

use super::*;
use crate::snapshot::{ResourceType, Snapshot, Version};
use crate::xds::commons::Commons;
use crate::xds::observation::Gained;
use crate::xds::session::SessionSettings;

fn resource(name: &str, body: Bytes) -> Arc<Resource> {
    Arc::new(Resource { name: name.into(), version: Version::new("v1"), body, owners: Arc::from([]) })
}

fn response(resource_type: ResourceType, resources: Vec<Arc<Resource>>) -> Response {
    let (nonce, version) = ("17".into(), Version::new("all"));
    Response { resource_type, nonce, version, resources, removed: vec!["gone".into(), "missing".into()] }
}

/// The pieces of a message, and the message without its header.
fn written(variant: Variant, response: Response) -> (Vec<Bytes>, Vec<u8>) {
    let pieces: Vec<Bytes> = Message::of(variant, response).unwrap().collect();
    let whole = pieces.concat();
    assert_eq!(whole[0], 0, "not compressed");
    let length = u32::from_be_bytes(whole[1..HEADER_BYTES].try_into().unwrap());
    assert_eq!(length as usize, whole.len() - HEADER_BYTES);
    (pieces, whole[HEADER_BYTES..].to_vec())
}

/// Resources of all sizes around those at which something is done otherwise.
fn many() -> Vec<Arc<Resource>> {
    let sizes = [0, 1, 127, 128, SHARED_BYTES - 1, SHARED_BYTES, SHARED_BYTES + 1, CHUNK_BYTES, 300_000, 5, 16 << 10];
    let all = sizes.iter().chain(std::iter::repeat_n(&1000, 100));
    all.enumerate().map(|(number, size)| resource(&format!("r{number}"), vec![number as u8; *size].into())).collect()
}

#[test]
fn delta_responses_are_what_they_say() {
    for resources in [Vec::new(), many()] {
        let (pieces, whole) = written(Variant::Delta, response(ResourceType::Cluster, resources.clone()));
        let read = discovery_pb::DeltaDiscoveryResponse::decode(whole.as_slice()).unwrap();
        let url = ResourceType::Cluster.type_url();
        assert_eq!((read.type_url.as_str(), read.nonce.as_str()), (url, "17"));
        assert_eq!(read.removed_resources, ["gone", "missing"]);
        assert_eq!(read.resources.len(), resources.len());
        for (read, resource) in read.resources.iter().zip(&resources) {
            assert_eq!((read.name.as_str(), read.version.as_str()), (resource.name.as_str(), "v1"));
            let any = read.resource.as_ref().unwrap();
            assert_eq!((any.type_url.as_str(), &any.value[..]), (url, &resource.body[..]));
        }
        let small =
            pieces.iter().filter(|piece| !resources.iter().any(|resource| resource.body.as_ptr() == piece.as_ptr()));
        assert!(small.into_iter().all(|piece| piece.len() <= CHUNK_BYTES + SHARED_BYTES + 200), "a large copy");
    }
}

#[test]
fn responses_of_the_state_of_the_world_are_what_they_say() {
    let resources = many();
    let (_, whole) = written(Variant::StateOfTheWorld, response(ResourceType::Listener, resources.clone()));
    let read = discovery_pb::DiscoveryResponse::decode(whole.as_slice()).unwrap();
    assert_eq!((read.version_info.as_str(), read.nonce.as_str()), ("all", "17"));
    let bodies: Vec<&[u8]> = read.resources.iter().map(|any| any.value.as_slice()).collect();
    assert_eq!(bodies, resources.iter().map(|resource| &resource.body[..]).collect::<Vec<_>>());
}

#[test]
fn large_resources_are_not_copied_for_each_stream() {
    let large = resource("large", vec![7; 410_000].into());
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let (pieces, _) = written(variant, response(ResourceType::Route, vec![large.clone()]));
        assert!(pieces.iter().any(|piece| piece.as_ptr() == large.body.as_ptr() && piece.len() == large.body.len()));
        let copied: usize = pieces.iter().map(Bytes::len).sum::<usize>() - large.body.len();
        assert!(copied < 300, "{copied} bytes beside the resource");
    }
}

#[test]
fn one_change_costs_its_resource_and_little_more() {
    let resource = resource("demo-shop~http-80", vec![1; 900].into());
    let itself = field_length(item(Variant::Delta, ResourceType::Route.type_url(), &resource).1);
    let one = Response { removed: Vec::new(), nonce: "123456".into(), ..response(ResourceType::Route, vec![resource]) };
    let all: usize = written(Variant::Delta, one).0.iter().map(Bytes::len).sum();
    assert!(all - itself <= 80, "{} bytes around the resource", all - itself);
}

#[test]
fn case_38_nothing_has_a_time_to_live_so_nothing_is_wrapped() {
    for resource_type in ResourceType::ALL {
        let resources = vec![resource("a", "a 1".into())];
        let (_, delta) = written(Variant::Delta, response(resource_type, resources.clone()));
        let delta = discovery_pb::DeltaDiscoveryResponse::decode(delta.as_slice()).unwrap();
        assert!(delta.resources[0].ttl.is_none() && delta.resources[0].cache_control.is_none());
        // The message itself, not a `Resource` around it.
        let (_, state) = written(Variant::StateOfTheWorld, response(resource_type, resources));
        let state = discovery_pb::DiscoveryResponse::decode(state.as_slice()).unwrap();
        assert_eq!(state.resources[0].type_url, resource_type.type_url());
        assert_eq!(state.resources[0].value, b"a 1");
    }
}

#[test]
fn of_a_node_only_what_is_needed_is_read() {
    let build = core_pb::BuildVersion {
        version: Some(envoy_types::pb::envoy::r#type::v3::SemanticVersion {
            major_number: 1,
            minor_number: 40,
            patch: 2,
        }),
        metadata: None,
    };
    let extension = core_pb::Extension { name: "x".repeat(100), ..core_pb::Extension::default() };
    let node = core_pb::Node {
        id: "n".to_owned(),
        extensions: vec![extension; 500],
        user_agent_version_type: Some(core_pb::node::UserAgentVersionType::UserAgentBuildVersion(build)),
        ..core_pb::Node::default()
    };
    let delta = discovery_pb::DeltaDiscoveryRequest { node: Some(node.clone()), ..Default::default() };
    let state = discovery_pb::DiscoveryRequest { node: Some(node), ..Default::default() };
    let delta = Delta::read(&delta.encode_to_vec().into()).unwrap().node.unwrap();
    let state = StateOfTheWorld::read(&state.encode_to_vec().into()).unwrap().node.unwrap();
    assert_eq!(delta, state);
    assert_eq!(delta.id, "n");
    assert!(delta.encoded_len() < 100, "the extensions were kept");
    assert!(Delta::read(&Bytes::new()).unwrap().node.is_none());
}

fn tell(session: &mut Session, message: &Bytes) -> Result<Vec<Output>, Fault> {
    Delta::tell(session, Duration::ZERO, Delta::read(message)?)
}

#[test]
fn requests_that_are_none_are_refused() {
    for bytes in [&[0xff; 40][..], &[0x12, 5, b'a'], &[0x12, 1, 0xff], &[0x2a, 2, 0x0a, 9]] {
        let mut session = Session::new(SessionSettings::default(), Variant::Delta);
        let result = tell(&mut session, &Bytes::copy_from_slice(bytes));
        assert!(matches!(result, Err(Fault::Malformed)), "{bytes:?}: {result:?}");
    }
}

const COUNT: usize = 40;

fn snapshot(version: &str) -> Arc<Snapshot> {
    let routes = (0..COUNT).map(|number| Resource {
        name: format!("route-{number}").into(),
        version: Version::new(version),
        body: "".into(),
        owners: Arc::from([]),
    });
    Arc::new(Snapshot::new().with(ResourceType::Route, routes))
}

/// A request of a client that connects again.
fn again(version: &str, error: Option<&str>) -> Bytes {
    let names = || (0..COUNT).rev().map(|number| format!("route-{number}"));
    let request = discovery_pb::DeltaDiscoveryRequest {
        type_url: ResourceType::Route.type_url().to_owned(),
        resource_names_subscribe: names().collect(),
        initial_resource_versions: names().map(|name| (name, version.to_owned())).collect(),
        error_detail: error.map(|message| rpc::Status { message: message.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    request.encode_to_vec().into()
}

#[test]
fn case_24_who_holds_everything_is_recognised_and_sent_nothing() {
    let commons = Commons::default();
    let snapshot = snapshot("v1");
    let mut sets = Vec::new();
    for _ in 0..2 {
        let mut session = Session::new(SessionSettings::default(), Variant::Delta).sharing(commons.clone());
        assert!(session.snapshot(Duration::ZERO, snapshot.clone()).is_empty());
        let outputs = tell(&mut session, &again("v1", None)).unwrap();
        let [Output::Acknowledged(acknowledged)] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(acknowledged.resources, Gained::All(snapshot.resources(ResourceType::Route)));
        assert_eq!((acknowledged.resources.iter().count(), acknowledged.outstanding), (COUNT, 0));
        sets.push(recognise(&session, &Delta::read(&again("v1", None)).unwrap()).names.unwrap());
    }
    assert!(Arc::ptr_eq(&sets[0], &sets[1]), "each stream has its own names");
}

#[test]
fn who_holds_something_else_is_sent_all_that_is_new() {
    let mut session = Session::new(SessionSettings::default(), Variant::Delta);
    assert!(session.snapshot(Duration::ZERO, snapshot("v2")).is_empty());
    let outputs = tell(&mut session, &again("v1", None)).unwrap();
    let sent = outputs.iter().find_map(|output| match output {
        Output::Respond(response) => Some(response.resources[0].name.to_string()),
        _ => None,
    });
    assert_eq!(sent.as_deref(), Some("route-0"));
    // An error without a nonce has no effect, and is heard.
    let outputs = tell(&mut session, &again("v1", Some("why"))).unwrap();
    assert!(matches!(outputs[0], Output::Ignored(_)), "{outputs:?}");
}
