//! The gRPC services: ADS, and one per type. Each method opens a stream of one variant; none owns a rule.

use std::sync::Arc;

use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_server as cds_pb;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server as ads_pb;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server as eds_pb;
use envoy_types::pb::envoy::service::extension::v3::extension_config_discovery_service_server as ecds_pb;
use envoy_types::pb::envoy::service::listener::v3::listener_discovery_service_server as lds_pb;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_server as rds_pb;
use envoy_types::pb::envoy::service::route::v3::scoped_routes_discovery_service_server as srds_pb;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server as sds_pb;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::health_server::{Health, HealthServer};

use super::super::observation::Observer;
use super::super::source::SnapshotSource;
use super::super::wire::{Delta, StateOfTheWorld};
use super::Streams;
use crate::snapshot::ResourceType;

type Responses<M> = ReceiverStream<Result<M, Status>>;
type Reply<T> = Result<Response<T>, Status>;

/// All services over the same streams.
pub(super) fn routes<S: SnapshotSource, O: Observer>(
    streams: &Arc<Streams<S, O>>,
    health: HealthServer<impl Health>,
    request_bytes: usize,
) -> Routes {
    macro_rules! served {
        ($($server:path),+) => {{
            let mut routes = Routes::builder();
            routes.add_service(health);
            $(routes.add_service(<$server>::from_arc(streams.clone()).max_decoding_message_size(request_bytes));)+
            routes.routes()
        }};
    }
    let routes = served!(
        ads_pb::AggregatedDiscoveryServiceServer::<Streams<S, O>>,
        cds_pb::ClusterDiscoveryServiceServer::<Streams<S, O>>,
        eds_pb::EndpointDiscoveryServiceServer::<Streams<S, O>>,
        lds_pb::ListenerDiscoveryServiceServer::<Streams<S, O>>,
        rds_pb::RouteDiscoveryServiceServer::<Streams<S, O>>,
        srds_pb::ScopedRoutesDiscoveryServiceServer::<Streams<S, O>>,
        sds_pb::SecretDiscoveryServiceServer::<Streams<S, O>>,
        ecds_pb::ExtensionConfigDiscoveryServiceServer::<Streams<S, O>>
    );
    Routes::from(routes.into_axum_router().fallback(unserved))
}

/// The answer to every other service.
async fn unserved() -> axum::http::Response<tonic::body::Body> {
    Status::unimplemented(
        "served are ADS, CDS, EDS, LDS, RDS, SRDS, SDS and ECDS of API version 3, as streams of either variant, and gRPC health",
    )
    .into_http()
}

fn no_fetch() -> Status {
    Status::unimplemented("single requests are not served: open a stream (`api_type: GRPC` or `DELTA_GRPC`)")
}

#[tonic::async_trait]
impl<S: SnapshotSource, O: Observer> ads_pb::AggregatedDiscoveryService for Streams<S, O> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Reply<Self::StreamAggregatedResourcesStream> {
        self.open::<StateOfTheWorld>(request, None)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Reply<Self::DeltaAggregatedResourcesStream> {
        self.open::<Delta>(request, None)
    }
}

/// A service for one type: its trait, its type, and the names of its methods and of their streams.
macro_rules! service {
    ($pb:ident::$service:ident, $type:ident, $stream:ident $Stream:ident, $delta:ident $Delta:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl<S: SnapshotSource, O: Observer> $pb::$service for Streams<S, O> {
            type $Stream = Responses<DiscoveryResponse>;
            type $Delta = Responses<DeltaDiscoveryResponse>;

            async fn $stream(&self, request: Request<Streaming<DiscoveryRequest>>) -> Reply<Self::$Stream> {
                self.open::<StateOfTheWorld>(request, Some(ResourceType::$type))
            }

            async fn $delta(&self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Reply<Self::$Delta> {
                self.open::<Delta>(request, Some(ResourceType::$type))
            }

            async fn $fetch(&self, _: Request<DiscoveryRequest>) -> Reply<DiscoveryResponse> {
                Err(no_fetch())
            }
        }
    };
}

service!(
    cds_pb::ClusterDiscoveryService,
    Cluster,
    stream_clusters StreamClustersStream,
    delta_clusters DeltaClustersStream,
    fetch_clusters
);
service!(
    eds_pb::EndpointDiscoveryService,
    Endpoint,
    stream_endpoints StreamEndpointsStream,
    delta_endpoints DeltaEndpointsStream,
    fetch_endpoints
);
service!(
    lds_pb::ListenerDiscoveryService,
    Listener,
    stream_listeners StreamListenersStream,
    delta_listeners DeltaListenersStream,
    fetch_listeners
);
service!(
    rds_pb::RouteDiscoveryService,
    Route,
    stream_routes StreamRoutesStream,
    delta_routes DeltaRoutesStream,
    fetch_routes
);
service!(
    srds_pb::ScopedRoutesDiscoveryService,
    ScopedRoute,
    stream_scoped_routes StreamScopedRoutesStream,
    delta_scoped_routes DeltaScopedRoutesStream,
    fetch_scoped_routes
);
service!(
    sds_pb::SecretDiscoveryService,
    Secret,
    stream_secrets StreamSecretsStream,
    delta_secrets DeltaSecretsStream,
    fetch_secrets
);
service!(
    ecds_pb::ExtensionConfigDiscoveryService,
    Extension,
    stream_extension_configs StreamExtensionConfigsStream,
    delta_extension_configs DeltaExtensionConfigsStream,
    fetch_extension_configs
);
