//! CSDS, Envoy's client status discovery: how each resource stands at each gateway, in the protocol's own words.
//!
//! One `ClientConfig` per stream, since a node may have several; its `client_scope` says which. Bodies are never in it,
//! so no secret can be.
//!
//! | `config_status` | Meaning |
//! |---|---|
//! | `SYNCED` | the client acknowledged the newest content, or stated it when it connected |
//! | `NOT_SENT` | the newest content, or the removal, waits; with `client_status` `DOES_NOT_EXIST`: asked for, and nowhere |
//! | `STALE` | sent, and not answered yet |
//! | `ERROR` | refused; `error_state` has the client's words and the version that it refused |
//!
//! `version_info` is what the client holds, empty if it holds nothing or nobody knows what.
//!
//! It tells everything about everybody, so it is not on the xDS port: mount [`service`] where only operators come.
//!
//! # Rule
//! `reliability.md` case 45.

use envoy_types::pb::envoy::admin::v3 as admin_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::service::status::v3 as status_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use status_pb::client_config::GenericXdsConfig;
use status_pb::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::inspection::{ResourceState, Sessions, StreamState, SyncStatus};
use super::message::Variant;
use super::node::Node;

/// Resources in one answer, some 200 bytes each.
const RESOURCES_MAX: usize = 500_000;

/// The service over the streams of a server.
#[must_use]
pub fn service(sessions: Sessions) -> ClientStatusDiscoveryServiceServer<Csds> {
    ClientStatusDiscoveryServiceServer::new(Csds { sessions })
}

/// Answers from the sessions themselves.
#[derive(Clone, Debug)]
pub struct Csds {
    sessions: Sessions,
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream = ReceiverStream<Result<status_pb::ClientStatusResponse, Status>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<status_pb::ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let mut requests = request.into_inner();
        let (outbound, responses) = mpsc::channel(1);
        let csds = self.clone();
        tokio::spawn(async move {
            // Ends when the client says nothing more, or listens no longer.
            while let Ok(Some(request)) = requests.message().await {
                let answer = csds.answer(&request).await;
                let is_last = answer.is_err();
                if outbound.send(answer).await.is_err() || is_last {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<status_pb::ClientStatusRequest>,
    ) -> Result<Response<status_pb::ClientStatusResponse>, Status> {
        self.answer(request.get_ref()).await.map(Response::new)
    }
}

impl Csds {
    async fn answer(
        &self,
        request: &status_pb::ClientStatusRequest,
    ) -> Result<status_pb::ClientStatusResponse, Status> {
        let matchers: Vec<IdMatcher> = request.node_matchers.iter().map(IdMatcher::read).collect::<Result<_, _>>()?;
        let wanted = |id: &str| matchers.is_empty() || matchers.iter().any(|matcher| matcher.matches(id));
        let states = self.sessions.inspect(RESOURCES_MAX, |peer| wanted(&peer.node.id)).await;
        let states = states.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        Ok(status_pb::ClientStatusResponse { config: states.iter().map(client_config).collect() })
    }
}

/// Which node ids a request is about.
#[derive(Debug)]
enum IdMatcher {
    Any,
    Exact(String),
    Prefix(String),
}

impl IdMatcher {
    fn read(matcher: &matcher_pb::NodeMatcher) -> Result<Self, Status> {
        use matcher_pb::string_matcher::MatchPattern;
        let unsupported = |what: &str| {
            Status::invalid_argument(format!(
                "node matchers support `node_id` with `exact` or `prefix`, regarding case; not {what}"
            ))
        };
        if !matcher.node_metadatas.is_empty() {
            return Err(unsupported("`node_metadatas`"));
        }
        match &matcher.node_id {
            None => Ok(Self::Any),
            Some(id) if id.ignore_case => Err(unsupported("`ignore_case`")),
            Some(id) => match &id.match_pattern {
                Some(MatchPattern::Exact(text)) => Ok(Self::Exact(text.clone())),
                Some(MatchPattern::Prefix(text)) => Ok(Self::Prefix(text.clone())),
                Some(_) => Err(unsupported("other patterns")),
                None => Err(unsupported("a matcher without a pattern")),
            },
        }
    }

    fn matches(&self, id: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => id == text,
            Self::Prefix(text) => id.starts_with(text.as_str()),
        }
    }
}

fn client_config(state: &StreamState) -> status_pb::ClientConfig {
    let StreamState { peer, variant, only, resources } = state;
    let service = only.map_or("ADS", |only| only.type_url());
    let variant = match variant {
        Variant::Delta => "delta",
        Variant::StateOfTheWorld => "state of the world",
    };
    status_pb::ClientConfig {
        node: Some(node(&peer.node)),
        generic_xds_configs: resources.iter().map(resource).collect(),
        client_scope: format!("gateway {}, stream {}, {service}, {variant}", peer.gateway, peer.stream.0),
        ..status_pb::ClientConfig::default()
    }
}

fn node(node: &Node) -> core_pb::Node {
    let version = node.version.map(|version| {
        let (major_number, minor_number, patch) = (version.major, version.minor, version.patch);
        let version = Some(SemanticVersion { major_number, minor_number, patch });
        core_pb::node::UserAgentVersionType::UserAgentBuildVersion(core_pb::BuildVersion { version, metadata: None })
    });
    core_pb::Node { id: node.id.to_string(), user_agent_version_type: version, ..core_pb::Node::default() }
}

fn resource(state: &ResourceState) -> GenericXdsConfig {
    use admin_pb::ClientResourceStatus;
    use status_pb::ConfigStatus;
    let (config_status, client_status) = match &state.status {
        SyncStatus::Synced => (ConfigStatus::Synced, ClientResourceStatus::Acked),
        SyncStatus::NotSent => (ConfigStatus::NotSent, ClientResourceStatus::Requested),
        SyncStatus::Sent => (ConfigStatus::Stale, ClientResourceStatus::Requested),
        SyncStatus::Refused(_) => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        SyncStatus::Missing => (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist),
    };
    let error_state = match &state.status {
        SyncStatus::Refused(objection) => Some(admin_pb::UpdateFailureState {
            details: objection.reason.to_string(),
            version_info: objection.version.to_string(),
            ..admin_pb::UpdateFailureState::default()
        }),
        SyncStatus::Synced | SyncStatus::NotSent | SyncStatus::Sent | SyncStatus::Missing => None,
    };
    GenericXdsConfig {
        type_url: state.resource_type.type_url().to_owned(),
        name: state.name.to_string(),
        version_info: state.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state,
        ..GenericXdsConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use matcher_pb::string_matcher::MatchPattern;

    use super::*;

    fn by_id(pattern: Option<MatchPattern>, ignore_case: bool) -> matcher_pb::NodeMatcher {
        let node_id = Some(matcher_pb::StringMatcher { ignore_case, match_pattern: pattern });
        matcher_pb::NodeMatcher { node_id, ..matcher_pb::NodeMatcher::default() }
    }

    #[test]
    fn case_45_what_a_matcher_says_is_done_or_refused() {
        let exact = || Some(MatchPattern::Exact("edge-1".to_owned()));
        let prefix = Some(MatchPattern::Prefix("edge-".to_owned()));
        for (matcher, id, expected) in [
            (by_id(exact(), false), "edge-1", true),
            (by_id(exact(), false), "edge-10", false),
            (by_id(prefix, false), "edge-10", true),
            (matcher_pb::NodeMatcher::default(), "anyone", true),
        ] {
            assert_eq!(IdMatcher::read(&matcher).unwrap().matches(id), expected, "{matcher:?} {id}");
        }
        let metadata = matcher_pb::NodeMatcher {
            node_metadatas: vec![matcher_pb::StructMatcher::default()],
            ..by_id(exact(), false)
        };
        for (matcher, names) in [
            (by_id(exact(), true), "`ignore_case`"),
            (by_id(Some(MatchPattern::Suffix("1".to_owned())), false), "other patterns"),
            (by_id(None, false), "without a pattern"),
            (metadata, "`node_metadatas`"),
        ] {
            let status = IdMatcher::read(&matcher).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(names), "{status:?}");
        }
    }
}
