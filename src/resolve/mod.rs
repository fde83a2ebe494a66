//! Ring 3: what the inputs mean. Pure: no clock, no network, no order of arrival.
//!
//! | file | question it answers |
//! |---|---|
//! | [`lower`] | what does one object say, checked, without following any reference |
//! | [`facts`] | the checked forms |
//! | [`world`] | every question that may be asked about the inputs, and no others |
//! | [`roster`] | which namespaces and clusters belong to which workspace |
//! | [`visibility`] | who may refer to whom |
//! | [`selection`] | which visible objects does a selector or reference mean |
//! | [`destination`] | what does a destination reference come down to on a gateway |
//! | `edition` | which guarded members are behind a group, so that no route leads to those that it does not know |
//! | [`balancing`] | in which order are the endpoints of a destination used |
//! | [`crossing`] | how a gateway reaches another cluster, and whom that lets in |
//! | [`eastwest`] | which gateways carry traffic into a workspace's clusters |
//! | [`mesh`] | what clients inside a cluster find on its east-west gateways, and who they are |
//! | [`delegation`] | the tree of a root table: walk, inherit, order, cycles, orphans |
//! | [`external`] | what does an external service lead to |
//! | `origination` | what TLS does a gateway start towards a destination |
//! | [`attachment`] | which policies reach which route, and why the others do not |
//! | [`access`] | who may call what at a destination and on a gateway |
//! | [`policy`] | per policy kind: what it means |
//! | [`trust`] | what all gateways trust, and what signs for them |
//! | [`gateway`] | the plan of one class of gateway Envoys |
//!
//! # What degrades how
//!
//! A broken object degrades only what it alone owns.
//!
//! | fault | what happens |
//! |---|---|
//! | a route that can be matched but not served | it answers 500 on its own matchers (R142) |
//! | a matcher that cannot be understood | that alternative is left out; the route's others answer 500 |
//! | a delegation without consent, without tables, too deep or circular | 500 for what no valid child serves (R89) |
//! | labels of a table or route that cannot be read | the routes answer 500: they may miss a protecting policy |
//! | a listener whose settings or certificate cannot be used | its chain is left out, never served in plaintext (R60) |
//! | a route of whole connections that is misconfigured | its connections are closed |
//! | a policy that protects and is invalid or unsupported | what it selects is closed (R130) |
//! | any other invalid policy | as if absent (R130) |
//! | a Service, slice or Pod that makes no sense | its endpoints are left out |

pub mod access;
pub mod attachment;
pub mod balancing;
mod certificate;
pub mod crossing;
pub mod delegation;
pub mod destination;
pub mod eastwest;
mod edition;
pub mod expression;
pub mod external;
pub mod facts;
pub mod gateway;
pub mod hidden;
pub mod lower;
pub mod mesh;
mod origination;
pub mod own_host;
pub mod policy;
mod remote;
pub mod roster;
pub mod selection;
pub mod trust;
pub mod upstream;
pub mod visibility;
pub mod world;

use crate::model::Name;

/// Settings that rules depend on; the same for every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Namespace of the management cluster in which admin kinds count (R3, R17). Default `gloo-mesh`.
    pub admin_namespace: Name,
    /// Name under which the management cluster's own objects are known (R16). Default `mgmt`.
    pub management_cluster: Name,
    /// Which direction of sharing makes a delegation valid (D14).
    pub consent: Consent,
    /// The default-deny switch (R51).
    pub require_auth: RequireAuth,
    /// Whether endpoints may be loopback or link-local addresses.
    pub loopback_endpoints: LoopbackEndpoints,
    /// The root of trust that the control plane itself keeps (R191).
    pub kept_root: trust::KeptRoot,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admin_namespace: "gloo-mesh".into(),
            management_cluster: "mgmt".into(),
            consent: Consent::ParentExports,
            require_auth: RequireAuth::Off,
            loopback_endpoints: LoopbackEndpoints::Refused,
            kept_root: trust::KeptRoot::Elsewhere,
        }
    }
}

/// Which direction of sharing makes a delegation across workspaces valid.
///
/// # Rule
/// R85 to R87, D14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Every ancestor exports its table to the child's workspace, which imports it.
    ParentExports,
    /// The same, or: the child's owner exports the child table and the direct parent's owner imports it.
    Either,
}

/// Whether routes that are labelled so must have an authenticating policy.
///
/// # Rule
/// R51, D9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequireAuth {
    /// No effect.
    Off,
    /// A labelled route without such a policy answers 403.
    On,
}

/// Whether addresses that may reach the gateway's own host are used as endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopbackEndpoints {
    /// Left out with a finding.
    Refused,
    /// Used, for a mesh on one machine.
    Allowed,
}
