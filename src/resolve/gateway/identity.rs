//! Who a gateway is.

use std::collections::BTreeSet;

use crate::ir::trust::Identity;
use crate::model::labels::contains_all;
use crate::model::{Code, Finding, Findings, GatewayId, Kind, Name, ObjectRef};
use crate::resolve::world::World;

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
    let service = |name: &Name| ObjectRef::new(Kind::Service, &gateway.cluster, &gateway.namespace, name);
    let services: Vec<_> = gateway.services.iter().filter_map(|name| world.service(&service(name))).collect();
    let accounts: BTreeSet<Name> = world
        .pods(&gateway.cluster, &gateway.namespace)
        .iter()
        .filter(|pod| {
            !services.is_empty() && services.iter().all(|service| contains_all(&pod.labels, &service.selector))
        })
        .map(|pod| pod.service_account.clone())
        .collect();
    let account = accounts.first().cloned().unwrap_or_else(|| "default".into());
    if let (Some(service), true) = (services.first(), accounts.len() > 1) {
        let all: Vec<&str> = accounts.iter().map(Name::as_str).collect();
        let message = format!(
            "its Pods run as {}, and gateways of one Service share one identity: all of them are shown as `{account}`",
            all.join(", ")
        );
        findings.push(Finding::warning(&service.id, Code::Certificate, message));
    }
    Identity::uri(&gateway.cluster, &gateway.namespace, &account)
}
