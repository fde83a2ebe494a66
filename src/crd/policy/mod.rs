//! Policies: one file per kind, and the selectors that they share.

pub mod access;
pub mod client_tls;
pub mod cors;
pub mod csrf;
pub mod ext_auth;
pub mod failover;
pub mod fault_injection;
pub mod header_manipulation;
pub mod jwt;
pub mod opaque;
pub mod outlier_detection;
pub mod rate_limit;
pub mod retry_timeout;
pub mod selector;
#[cfg(test)]
pub mod teapot;

pub use access::AccessPolicy;
pub use client_tls::ClientTlsPolicy;
pub use cors::CorsPolicy;
pub use csrf::CsrfPolicy;
pub use ext_auth::ExtAuthPolicy;
pub use failover::FailoverPolicy;
pub use fault_injection::FaultInjectionPolicy;
pub use header_manipulation::HeaderManipulationPolicy;
pub use jwt::JwtPolicy;
pub use opaque::OpaquePolicy;
pub use outlier_detection::OutlierDetectionPolicy;
pub use rate_limit::{RateLimitClientConfig, RateLimitPolicy};
pub use retry_timeout::RetryTimeoutPolicy;
#[cfg(test)]
pub use teapot::TeapotPolicy;
