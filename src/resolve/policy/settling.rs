//! From what a policy says to what it does: its references are followed, once for all routes.
//!
//! # How a kind settles
//!
//! `lower` gives a [`Draft`] in which Secrets, servers, destinations and configurations are names. [`settle`] hands it to
//! the kind's own `settle`, which looks them up in [`World`] by the functions of [`References`] and gives a [`Policy`] that
//! needs nothing more: upstreams, public keys, settings with all their values. What cannot be found is a [`Fault`], and then the
//! policy is as invalid as one with a bad field: where it protects, it closes (R130).
//!
//! A `settle` may ask for objects, Secrets and destinations, never for policies, tables or bindings: it runs before
//! those. Whatever it asked is recorded, so that it runs again when one of the answers is another; if what comes of it is
//! equal, no route is looked at.
//!
//! What a filter asks must be a [`Server`]: [`References::server`] for destinations of the mesh, which become upstreams of
//! their own; [`References::dial`] for addresses outside it.

use std::sync::Arc;

use crate::ir::policy::Policy;
use crate::ir::policy::reference::{DestinationRef, HostPort, PortRef};
use crate::ir::upstream::{Dial, Purpose, Server, UpstreamId};
use crate::model::{Code, FieldPath, Finding, Findings, Kind, Name, ObjectRef, SecretBytes, WorkspaceId};
use crate::resolve::LoopbackEndpoints;
use crate::resolve::destination::{Speaks, resolve_destination};
use crate::resolve::facts::{
    DestinationKind, DestinationPlace, DestinationReference, Draft, Fault, PolicyEffect, PolicyObject, Port, Reference,
    Selector,
};
use crate::resolve::own_host::may_reach_itself;
use crate::resolve::selection::Holder;
use crate::resolve::visibility::is_visible;
use crate::resolve::world::World;

use super::parts::{fault, quoted};
use super::rate_limit::LimitObject;
use super::{ext_auth, jwt, rate_limit};

/// Whether a policy has references that are to be followed.
#[must_use]
pub fn refers(policy: &PolicyObject) -> bool {
    matches!(policy.effect, PolicyEffect::Draft(_))
}

/// A policy with its references followed: its effect is valid or invalid, and no draft.
///
/// # Findings
/// As errors on the policy what its references do not lead to; remarks as warnings.
///
/// # Cost
/// In proportion to its references.
///
/// # Rule
/// R130.
pub fn settle<W: World + ?Sized>(world: &W, policy: &PolicyObject, findings: &mut Findings) -> PolicyObject {
    let PolicyEffect::Draft(draft) = &policy.effect else { return policy.clone() };
    let mut remarks = Findings::new();
    let settled = match world.roster().owner_of(&policy.id) {
        Some(owner) => {
            let mut references = References { world, policy: &policy.id, owner, remarks: &mut remarks };
            match draft {
                Draft::Jwt(jwt) => jwt::settle(&mut references, jwt).map(|jwt| Policy::Jwt(Arc::new(jwt))),
                Draft::RateLimit(limits) => rate_limit::settle(&mut references, limits).map(Policy::RateLimit),
                Draft::ExtAuth(auth) => {
                    ext_auth::settle(&mut references, auth).map(|auth| Policy::ExtAuth(Arc::new(auth)))
                }
            }
        }
        None => Err(fault(&FieldPath::root(), "no workspace owns the policy")),
    };
    let effect = match settled {
        Ok(effect) => {
            findings.append(&mut remarks);
            PolicyEffect::Valid(effect)
        }
        Err(fault) => {
            findings.push(Finding::error(&policy.id, fault.code, fault.message.clone()).at(fault.field.clone()));
            PolicyEffect::Invalid(Arc::new(fault))
        }
    };
    PolicyObject { effect, ..policy.clone() }
}

/// Follows the references of one policy.
pub(super) struct References<'a, W: World + ?Sized> {
    pub(super) world: &'a W,
    pub(super) policy: &'a ObjectRef,
    pub(super) owner: &'a WorkspaceId,
    pub(super) remarks: &'a mut Findings,
}

impl<W: World + ?Sized> References<'_, W> {
    /// Says that a setting works differently from what its author may expect.
    pub(super) fn remark(&mut self, field: &FieldPath, message: impl Into<String>) {
        super::parts::remark(self.policy, field, message, self.remarks);
    }

    /// An entry of a Secret of the policy's own workspace.
    ///
    /// # Errors
    /// There is none. Secrets of other workspaces are not there.
    pub(super) fn secret(&self, field: &FieldPath, secret: &ObjectRef, key: &Name) -> Result<SecretBytes, Fault> {
        let found = self.world.secret(secret).filter(|_| self.world.roster().owner_of(secret) == Some(self.owner));
        let Some(found) = found else {
            let message = format!("`{secret}` does not exist in workspace `{}`; check the reference", self.owner);
            return Err(fault(field, message));
        };
        let entry = found.data.get(key).cloned();
        entry.ok_or_else(|| fault(field, format!("`{secret}` has no entry {}; check `key`", quoted(key))))
    }

    /// An object of the policy's own workspace that says something of limits.
    ///
    /// # Errors
    /// There is none. Those of other workspaces are not there.
    pub(super) fn limit_object(&self, field: &FieldPath, id: &ObjectRef) -> Result<Arc<LimitObject>, Fault> {
        let found = self.world.limit_object(id).filter(|_| self.world.roster().owner_of(id) == Some(self.owner));
        found.ok_or_else(|| {
            let message = format!("`{id}` does not exist in workspace `{}`; check the reference", self.owner);
            fault(field, message)
        })
    }

    /// A destination that a filter asks, visible to the policy's workspace.
    ///
    /// # Errors
    /// What would be wrong with it as a destination of a route.
    ///
    /// # Rule
    /// R37 to R42.
    pub(super) fn server(
        &mut self,
        field: &FieldPath,
        written: &DestinationRef,
        purpose: Purpose,
    ) -> Result<Server, Fault> {
        let found = find_server(self.world, self.policy, self.owner, field, written, self.remarks)?;
        Ok(Server::Upstream(UpstreamId { purpose, ..found }))
    }

    /// The same, where one of the same name in another cluster will do.
    pub(super) fn upstream(
        &mut self,
        field: &FieldPath,
        written: &DestinationRef,
        purpose: Purpose,
    ) -> Result<UpstreamId, Fault> {
        let found = find_server_anywhere(self.world, self.policy, self.owner, field, written, self.remarks)?;
        Ok(UpstreamId { purpose, ..found })
    }

    /// An address outside the mesh that a filter asks. What it leads to depends on the gateway, which [closes](crate::ir::Extensions)
    /// routes that would ask what the policy's workspace may not use.
    ///
    /// # Errors
    /// It could reach the gateway's own host, where its admin port is. `--allow-loopback-endpoints` permits that.
    pub(super) fn dial(
        &mut self,
        field: &FieldPath,
        address: &HostPort,
        (tls, http2): (bool, bool),
    ) -> Result<Server, Fault> {
        if self.world.options().loopback_endpoints == LoopbackEndpoints::Refused && may_reach_itself(&address.host) {
            let message = format!(
                "`{}` could be the gateway's own host, and is not called; name another, or a Service",
                address.host
            );
            return Err(Fault { code: Code::UnsafeEndpoint, field: field.clone(), message });
        }
        if self.is_short(&address.host) {
            let message = format!(
                "`{}` is looked up as it is written, and no list of domains completes it: write the name of a Service in full, as `name.namespace.svc.cluster.local`",
                address.host
            );
            self.remark(field, message);
        }
        Ok(Server::Dial(Dial { host: address.host.clone(), port: address.port, tls, http2 }))
    }

    /// Whether a host looks like a short name of a Service that the policy's workspace sees.
    fn is_short(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let (name, namespace) = match labels[..] {
            [name] => (name, None),
            [name, namespace] | [name, namespace, "svc"] => (name, Some(namespace.into())),
            _ => return false,
        };
        let wanted = Selector { name: Some(name.into()), namespace, ..Selector::default() };
        let found = self.world.services(&wanted);
        found.iter().any(|service| is_visible(self.world, self.owner, &service.id, &service.labels))
    }
}

/// A destination that an object names, visible to its owner.
///
/// # Errors
/// What would be wrong with it as a destination of a route.
///
/// # Rule
/// R37 to R42.
pub(super) fn find_server<W: World + ?Sized>(
    world: &W,
    holder: &ObjectRef,
    owner: &WorkspaceId,
    field: &FieldPath,
    written: &DestinationRef,
    remarks: &mut Findings,
) -> Result<UpstreamId, Fault> {
    find(world, Holder { id: holder, owner }, field, written, Some(&written.object.cluster), remarks)
}

/// The same, where one of the same name in another cluster will do.
fn find_server_anywhere<W: World + ?Sized>(
    world: &W,
    holder: &ObjectRef,
    owner: &WorkspaceId,
    field: &FieldPath,
    written: &DestinationRef,
    remarks: &mut Findings,
) -> Result<UpstreamId, Fault> {
    let holder = Holder { id: holder, owner };
    let there = find(world, holder, field, written, Some(&written.object.cluster), &mut Findings::new());
    there.or_else(|fault| find(world, holder, field, written, None, remarks).map_err(|_| fault))
}

fn find<W: World + ?Sized>(
    world: &W,
    holder: Holder<'_>,
    field: &FieldPath,
    written: &DestinationRef,
    cluster: Option<&Name>,
    remarks: &mut Findings,
) -> Result<UpstreamId, Fault> {
    let object = &written.object;
    let kind = match object.kind {
        Kind::VirtualDestination => DestinationKind::VirtualDestination,
        Kind::ExternalService => DestinationKind::ExternalService,
        _ => DestinationKind::Service,
    };
    let written = DestinationReference {
        reference: Reference {
            name: object.name.clone(),
            namespace: Some(object.namespace.clone()),
            cluster: cluster.cloned(),
        },
        kind,
        port: written.port.as_ref().map(|port| match port {
            PortRef::Number(number) => Port::Number(*number),
            PortRef::Name(name) => Port::Name(name.clone()),
        }),
        subset: written.subset.clone(),
        weight: 100,
        place: DestinationPlace::Route,
    };
    resolve_destination(world, holder, holder.owner, &written, &|| field.clone(), Speaks::Http, remarks)
}
