//! Who a gateway is.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::secret::{Secret, SecretId, SecretPart};
use crate::ir::trust::{Identity, Trust};
use crate::model::labels::contains_all;
use crate::model::{Code, Finding, Findings, GatewayId, Kind, Name, ObjectRef};
use crate::resolve::facts::Service;
use crate::resolve::world::World;

/// What gateways show and trust among themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSecrets {
    /// The gateway's own certificate.
    pub identity: SecretId,
    /// The authorities.
    pub roots: SecretId,
}

/// The secrets of every gateway that has a part in the mesh.
#[must_use]
pub fn mesh_secrets(trust: &Trust) -> MeshSecrets {
    let id = |part| SecretId { object: trust.policy.clone(), part };
    MeshSecrets { identity: id(SecretPart::Identity), roots: id(SecretPart::Roots) }
}

/// A gateway's part in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Who it is.
    pub uri: Name,
    /// What it shows and trusts.
    pub secrets: [(SecretId, Secret); 2],
}

/// A gateway's part in the mesh; nothing without a root of trust.
///
/// # Findings
/// Those of an identity; [`Code::Certificate`] where the account cannot be a part of one: others see `default`.
///
/// # Rule
/// R193.
pub fn membership<W: World + ?Sized>(world: &W, gateway: &GatewayId, findings: &mut Findings) -> Option<Membership> {
    let trust = world.trust().as_ref().ok()?;
    let uri = of_gateway(world, gateway, findings).or_else(|problem| {
        let uri = Identity::uri(&gateway.cluster, &gateway.namespace, "default");
        if let (Some(service), Ok(uri)) = (services(world, gateway).first(), &uri) {
            let message = format!("{problem}; to other clusters its gateways are `{uri}`");
            findings.push(Finding::warning(&service.id, Code::Certificate, message));
        }
        uri
    });
    let uri = uri.ok()?;
    Some(Membership { secrets: secrets(trust, uri.clone()), uri })
}

/// What a gateway with an identity shows and trusts.
pub(super) fn secrets(trust: &Trust, uri: Name) -> [(SecretId, Secret); 2] {
    let MeshSecrets { identity, roots } = mesh_secrets(trust);
    let signer = trust.signer.as_ref().map(|signer| signer.id.clone()).unwrap_or_default();
    let own = Secret::Identity(Identity { uri, signer, terms: trust.terms.clone() });
    let trusted = Secret::Trust { authorities: trust.authorities.clone(), revoked: None };
    [(identity, own), (roots, trusted)]
}

/// The ServiceAccount of a class of gateway Envoys: the first of those of its Pods, and `default` without any.
///
/// # Rule
/// R193.
pub fn account_of<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> ObjectRef {
    let name = accounts(world, gateway).pop_first().unwrap_or_else(|| "default".into());
    ObjectRef::new(Kind::ServiceAccount, &gateway.cluster, &gateway.namespace, &name)
}

/// Whether a ServiceAccount may be a class of gateway Envoys: one of its Pods runs as it; `default` may be a class without Pods.
///
/// # Rule
/// R193.
pub fn runs_as<W: World + ?Sized>(world: &W, gateway: &GatewayId, account: &ObjectRef) -> bool {
    let accounts = accounts(world, gateway);
    let is_its_own = if accounts.is_empty() { account.name == "default" } else { accounts.contains(&account.name) };
    is_its_own && account.cluster == gateway.cluster && account.namespace == gateway.namespace
}

/// The accounts as which the Pods run that all Services of a class select.
fn accounts<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> BTreeSet<Name> {
    let services = services(world, gateway);
    let pods = world.pods(&gateway.cluster, &gateway.namespace);
    // One that has ended is nobody any more.
    let own = pods.iter().filter(|pod| !pod.has_ended).filter(|pod| {
        !services.is_empty() && services.iter().all(|service| contains_all(&pod.labels, &service.selector))
    });
    own.map(|pod| pod.service_account.clone()).collect()
}

fn services<W: World + ?Sized>(world: &W, gateway: &GatewayId) -> Vec<Arc<Service>> {
    let service = |name: &Name| ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name);
    gateway.services.iter().filter_map(|name| world.service(&service(name))).collect()
}

/// The identity of a class of gateway Envoys, as a URI.
///
/// It is that of the Pods that all Services of the class select, and the account `default` where there is no such Pod. What
/// an Envoy says of its own account counts for nothing.
///
/// # Errors
/// A part of a sentence: the identity cannot be written.
///
/// # Findings
/// [`Code::Certificate`] on a Service whose Pods run as several accounts: the first in the order of names is the gateway's,
/// so that a change of accounts, during which there are both, closes nothing.
///
/// # Rule
/// R193.
pub(super) fn of_gateway<W: World + ?Sized>(
    world: &W,
    gateway: &GatewayId,
    findings: &mut Findings,
) -> Result<Name, String> {
    let accounts = accounts(world, gateway);
    let account = account_of(world, gateway).name.clone();
    if let (Some(service), true) = (services(world, gateway).first(), accounts.len() > 1) {
        let all: Vec<&str> = accounts.iter().map(Name::as_str).collect();
        let message = format!(
            "its Pods run as {}, and gateways of one Service share one identity: all of them are shown as `{account}`",
            all.join(", ")
        );
        findings.push(Finding::warning(&service.id, Code::Certificate, message));
    }
    Identity::uri(&gateway.cluster, &gateway.namespace, &account)
}
