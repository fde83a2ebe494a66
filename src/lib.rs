//! Chancery: a control plane for Envoy.

#![allow(missing_docs)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod compile;
pub mod crd;
pub mod emit;
pub mod ir;
pub mod manual;
pub mod model;
pub mod publish;
pub mod render;
pub mod resolve;
pub mod settings;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tidy;
pub mod xds;
