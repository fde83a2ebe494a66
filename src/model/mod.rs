//! Ring 0: the vocabulary. Values that every other module may use.
//!
//! Nothing here knows a serialisation format, Envoy, Kubernetes clients or the time of day.

pub mod expression;
pub mod finding;
pub mod host;
pub mod id;
pub mod labels;
pub mod name;
pub mod path;
pub mod release;

pub use finding::{Approval, Code, FieldPath, Finding, Findings, Location, Severity};
pub use host::Host;
pub use id::{GatewayId, Kind, ObjectName, ObjectRef, WorkspaceId};
pub use labels::Labels;
pub use name::{Name, SecretBytes};
pub use path::PathMatch;
pub use release::EnvoyRelease;
