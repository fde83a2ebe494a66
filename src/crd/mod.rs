//! Ring 1: what users write, field for field. Serde only.
//!
//! Bytes become [`Object`]s in [`yaml`]; [`schema`] knows from the types what may stand where, so that every problem
//! of a manifest is reported with its place and one bad value never loses the rest; [`definition`] makes from it what API
//! servers are told. What a field means to routing is not known here: required fields, ranges and references are the
//! business of the resolver.

pub mod common;
pub mod core;
mod decode;
pub mod definition;
pub mod destination;
pub mod duration;
pub mod gateway;
mod manifest;
pub mod object;
pub mod policy;
pub mod route_table;
pub mod schema;
pub mod secret;
pub mod server;
pub mod workspace;
pub mod yaml;

pub use destination::{ExternalEndpoint, ExternalService, VirtualDestination};
pub use duration::Duration;
pub use gateway::VirtualGateway;
pub use object::{Change, Defect, Kept, Meta, OWN_ANNOTATIONS, Object, Spec};
pub use policy::RateLimitClientConfig;
pub use route_table::RouteTable;
pub use server::{ExtAuthServer, RateLimitServerConfig, RateLimitServerSettings};
pub use workspace::{KubernetesCluster, RootTrustPolicy, Workspace, WorkspaceSettings};
