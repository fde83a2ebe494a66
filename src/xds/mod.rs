//! Ring 6: where snapshots go. Serves them to Envoys: ADS and a service per type, delta and state of the world.
//!
//! - `door` accepts connections, in plaintext or with [`credentials`], and [`caller`] is who proved to be there.
//! - [`server`] opens streams; `stream` is one stream's task. They move messages and own no rule. `wire` and `grpc`
//!   read and write the messages and their frames, without copying what is large; `commons` is what streams work out once
//!   for all of them.
//! - [`session`] is the protocol: a state machine per stream, pure; `lane` is its part for one type, [`message`] what it
//!   hears and says.
//! - [`subscription`], [`ordering`] and [`node`] are rules by themselves: what is asked for, what goes first, who asks.
//! - [`source`] and [`observation`] are the two doors to the rest of the program; [`inspection`] is the window, and [`csds`]
//!   shows it to operators in the protocol's own words.
//!
//! What is promised to whom, case by case, stands in the [manual](crate::manual::sessions).
//!
//! Nothing here knows how a resource was made. With snapshots and versions of your own, this is an xDS server by
//! itself:
//!
//! ```
//! use std::sync::Arc;
//!
//! use chancery::snapshot::{Resource, ResourceType, Snapshot, Version};
//! use chancery::xds::caller::Caller;
//! use chancery::xds::inspection::Sessions;
//! use chancery::xds::node::{Node, NodeError};
//! use chancery::xds::server::{Access, ServerSettings, serve};
//! use chancery::xds::source::{SnapshotSource, Subscription};
//! use tokio::sync::watch;
//!
//! /// Everybody gets the same.
//! struct Shared(watch::Sender<Option<Arc<Snapshot>>>);
//!
//! impl SnapshotSource for Shared {
//!     async fn subscribe(&self, node: &Node, _: &Caller) -> Result<Subscription, NodeError> {
//!         if !node.id.starts_with("edge-") {
//!             return Err(NodeError::Unknown(format!("node {:?} is no gateway of ours", node.id)));
//!         }
//!         Ok(Subscription { gateway: "edge".into(), snapshots: self.0.subscribe(), held: None })
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = envoy_types::pb::envoy::config::cluster::v3::Cluster {
//!     name: "backend".to_owned(),
//!     ..Default::default()
//! };
//! let resource = Resource {
//!     name: "backend".into(),
//!     version: Version::new("release-7"),
//!     body: prost::Message::encode_to_vec(&cluster).into(),
//!     owners: Arc::from([]),
//! };
//! let source = Arc::new(Shared(watch::Sender::new(None)));
//! source.0.send_replace(Some(Arc::new(Snapshot::new().with(ResourceType::Cluster, [resource]))));
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let shutdown = async { /* a signal, in earnest */ };
//! let sessions = Sessions::default();
//! serve((listener, Access::Anybody), source, Arc::new(()), sessions, ServerSettings::default(), shutdown).await?;
//! # Ok(())
//! # }
//! ```

pub mod caller;
pub mod credentials;
pub mod csds;
pub mod inspection;
pub mod message;
pub mod node;
pub mod observation;
pub mod ordering;
pub mod review;
pub mod server;
pub mod session;
pub mod source;
pub mod subscription;

mod commons;
mod door;
mod grpc;
mod lane;
mod slot;
mod spread;
mod stream;
mod turnstile;
mod wire;
