//! Who a client inside a cluster is, as a gateway of that cluster sees him.

use std::net::IpAddr;

use crate::compile::full::Compiled;
use crate::ir::GatewayPlan;
use crate::ir::client::{CLIENT_HEADER, Client};
use crate::model::{Kind, ObjectRef, WorkspaceId};
use crate::resolve::world::World;

use super::Request;

/// The client that a text names: an address, a Pod as `namespace/name`, or a workspace, of which one Pod stands for all.
/// None is a client whom the gateway does not know.
///
/// # Errors
/// A sentence where there is no such Pod or workspace.
pub(super) fn named(compiled: &Compiled, plan: &GatewayPlan, text: &str) -> Result<Option<Client>, String> {
    let Some(clients) = &plan.clients else { return Ok(None) };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(clients.0.get(&address.to_canonical()).cloned());
    }
    let cluster = &plan.gateway.cluster;
    if let Some((namespace, name)) = text.split_once('/') {
        let id = ObjectRef::new(Kind::Pod, cluster, namespace, name);
        let pod = compiled.inputs.pod(&id).ok_or_else(|| format!("there is no `{id}`"))?;
        let address = pod.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
        return Ok(address.and_then(|address| clients.0.get(&address.to_canonical()).cloned()));
    }
    let workspace = WorkspaceId(text.into());
    if !compiled.inputs.roster().workspaces.contains_key(&workspace) {
        return Err(format!("`{text}` is no address, no Pod as `namespace/name`, and no workspace"));
    }
    Ok(clients.0.values().find(|client| client.workspace == workspace).cloned())
}

/// A request as routes see it: with who sends it, whatever the client wrote.
pub(super) fn tagged(request: &Request, client: Option<&Client>) -> Request {
    let mut request = request.clone();
    request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(CLIENT_HEADER));
    request.headers.extend(client.map(|client| (CLIENT_HEADER.to_owned(), client.to_string())));
    request
}
