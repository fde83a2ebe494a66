//! Listeners and virtual hosts of a gateway.

use std::collections::BTreeSet;

use crate::model::{Host, ObjectRef};

use super::Route;

/// A bound HTTP port of a gateway.
///
/// Listeners of several virtual gateways that share a port are one listener with merged hosts (R57).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The port that Envoy binds: the gateway Service port's `targetPort`.
    pub bind_port: u16,
    /// Ports of the gateway Services that lead here; what a client dials and a matcher's `port` means.
    pub service_ports: BTreeSet<u16>,
    /// The virtual gateways that declare it, in age order.
    pub gateways: Vec<ObjectRef>,
    /// Virtual hosts in the order of their domains; empty means that every request gets 404 (R67).
    pub virtual_hosts: Vec<VirtualHost>,
}

/// The routes of one domain, in the order in which Envoy tries them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    /// The domain, unique within the listener.
    pub domain: Host,
    /// The root tables that serve it, in age order.
    pub tables: Vec<ObjectRef>,
    /// Routes in order; the first match serves.
    pub routes: Vec<Route>,
}
