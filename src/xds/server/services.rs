//! The gRPC services: ADS, and one per type. Each method opens a stream of one variant; none owns a rule. Who asks comes first,
//! whatever is asked; but for health, which everybody may ask.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::super::observation::Observer;
use super::super::source::SnapshotSource;
use super::super::wire::{Delta, StateOfTheWorld};
use super::Streams;
use crate::snapshot::ResourceType;

/// One service.
struct Service {
    /// Its full name.
    name: &'static str,
    /// The methods that stream, without `Stream` and `Delta`, and the one for single requests, without `Fetch`.
    methods: &'static str,
    /// The one type that it serves; none for ADS, which has no single requests.
    only: Option<ResourceType>,
}

const SERVICES: [Service; 8] = [
    Service {
        name: "envoy.service.discovery.v3.AggregatedDiscoveryService",
        methods: "AggregatedResources",
        only: None,
    },
    Service {
        name: "envoy.service.cluster.v3.ClusterDiscoveryService",
        methods: "Clusters",
        only: Some(ResourceType::Cluster),
    },
    Service {
        name: "envoy.service.endpoint.v3.EndpointDiscoveryService",
        methods: "Endpoints",
        only: Some(ResourceType::Endpoint),
    },
    Service {
        name: "envoy.service.listener.v3.ListenerDiscoveryService",
        methods: "Listeners",
        only: Some(ResourceType::Listener),
    },
    Service {
        name: "envoy.service.route.v3.RouteDiscoveryService",
        methods: "Routes",
        only: Some(ResourceType::Route),
    },
    Service {
        name: "envoy.service.route.v3.ScopedRoutesDiscoveryService",
        methods: "ScopedRoutes",
        only: Some(ResourceType::ScopedRoute),
    },
    Service {
        name: "envoy.service.secret.v3.SecretDiscoveryService",
        methods: "Secrets",
        only: Some(ResourceType::Secret),
    },
    Service {
        name: "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        methods: "ExtensionConfigs",
        only: Some(ResourceType::Extension),
    },
];

/// All services over the same streams.
pub(super) fn routes<S: SnapshotSource, O: Observer>(
    streams: &Arc<Streams<S, O>>,
    health: HealthServer<impl Health>,
) -> Routes {
    let mut router = Routes::new(health).into_axum_router();
    for Service { name, methods, only } in SERVICES {
        let state = streams.clone();
        let stream = move |request: Request| async move { state.answer::<StateOfTheWorld>(request, only).await };
        let delta = streams.clone();
        let delta = move |request: Request| async move { delta.answer::<Delta>(request, only).await };
        router = router
            .route(&format!("/{name}/Stream{methods}"), any(stream))
            .route(&format!("/{name}/Delta{methods}"), any(delta));
        if only.is_some() {
            let state = streams.clone();
            let fetch = move |request: Request| async move {
                state.admit(&request.into_parts().0).await.map_or_else(Status::into_http, |_| no_fetch())
            };
            router = router.route(&format!("/{name}/Fetch{methods}"), any(fetch));
        }
    }
    let state = streams.clone();
    let other = move |request: Request| async move {
        state.admit(&request.into_parts().0).await.map_or_else(Status::into_http, |_| unserved())
    };
    Routes::from(router.fallback(other))
}

/// The answer to every other service.
fn unserved() -> Response<Body> {
    Status::unimplemented(
        "served are ADS, CDS, EDS, LDS, RDS, SRDS, SDS and ECDS of API version 3, as streams of either variant, and gRPC health",
    )
    .into_http()
}

fn no_fetch() -> Response<Body> {
    Status::unimplemented("single requests are not served: open a stream (`api_type: GRPC` or `DELTA_GRPC`)")
        .into_http()
}
