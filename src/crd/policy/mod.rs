//! Policies: one file per kind, and the selectors that they share.

pub mod cors;
pub mod fault_injection;
pub mod header_manipulation;
pub mod opaque;
pub mod retry_timeout;
pub mod selector;
#[cfg(test)]
pub mod teapot;

pub use cors::CorsPolicy;
pub use fault_injection::FaultInjectionPolicy;
pub use header_manipulation::HeaderManipulationPolicy;
pub use opaque::OpaquePolicy;
pub use retry_timeout::RetryTimeoutPolicy;
#[cfg(test)]
pub use teapot::TeapotPolicy;
