//! Who is to blame for a refused route configuration.
//!
//! One is made from every table of its port, and Envoy's words name no table (F3). But if the version before was accepted,
//! only what changed since can be bad: virtual hosts and routes whose bytes differ.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{GatewayPlan, VirtualHost};
use crate::model::ObjectRef;

/// Field numbers of `RouteConfiguration.virtual_hosts`, and of `VirtualHost.name` and `routes`, and `Route.name`.
const VIRTUAL_HOSTS: u64 = 2;
const HOST_NAME: u64 = 1;
const ROUTES: u64 = 3;
const ROUTE_NAME: u64 = 14;

/// What differs between two route configurations, as far as the newer one has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether something beside the virtual hosts differs.
    pub settings: bool,
    /// Virtual hosts that are new or differ, by name, and in each the names of Envoy's routes that are new or differ. None of
    /// them: the order of the routes, or what is said of the host as a whole.
    pub hosts: BTreeMap<String, BTreeSet<String>>,
}

/// What a route configuration has that an older one doesn't have in the same form.
///
/// # Cost
/// One pass over both.
#[must_use]
pub fn changes(older: &[u8], newer: &[u8]) -> Changes {
    let (older, newer) = (Level::read(older, VIRTUAL_HOSTS, HOST_NAME), Level::read(newer, VIRTUAL_HOSTS, HOST_NAME));
    let before = older.by_name();
    let hosts = newer.changed(&before).map(|(name, host)| {
        let read = |bytes| Level::read(bytes, ROUTES, ROUTE_NAME);
        let before = before.get(name).map(|bytes| read(bytes)).unwrap_or_default();
        let routes = read(host).changed(&before.by_name()).map(|(name, _)| name.to_owned()).collect();
        (name.to_owned(), routes)
    });
    Changes { settings: older.rest != newer.rest, hosts: hosts.collect() }
}

/// The objects behind what changed, in order; none if the plan doesn't know what changed.
///
/// Of a route the tables on the way to it and the policies on it; of a virtual host its root tables.
#[must_use]
pub fn blamed(plan: &GatewayPlan, changes: &Changes) -> Option<BTreeSet<ObjectRef>> {
    // Something of the gateway as a whole: that concerns everybody.
    if changes.settings {
        return None;
    }
    let mut blamed = BTreeSet::new();
    for host in plan.listeners.values().flat_map(|listener| listener.virtual_hosts()) {
        if let Some(routes) = changes.hosts.get(&host.domain.to_string()) {
            blame_host(host, routes, &mut blamed);
        }
    }
    (!blamed.is_empty()).then_some(blamed)
}

fn blame_host(host: &VirtualHost, routes: &BTreeSet<String>, blamed: &mut BTreeSet<ObjectRef>) {
    if routes.is_empty() {
        blamed.extend(host.tables.iter().cloned());
    }
    // One route of the plan may be several of Envoy's: `name`, `name#2`, `name#preflight`.
    let names: BTreeSet<&str> = routes.iter().flat_map(|name| [name.as_str(), plan_name(name)]).collect();
    for route in host.routes.iter().filter(|route| names.contains(route.name.as_str())) {
        blamed.extend(route.body.chain.iter().map(|hop| hop.table.clone()));
        blamed.extend(route.body.attached.iter().map(|attachment| attachment.policy.clone()));
    }
}

/// The name of a route in the plan, of one of Envoy's with a suffix.
fn plan_name(name: &str) -> &str {
    let name = name.split_once("#preflight").map_or(name, |(name, _)| name);
    name.rsplit_once('#').filter(|(_, number)| number.parse::<usize>().is_ok()).map_or(name, |(name, _)| name)
}

/// A message cut into its named parts and everything else, all as bytes.
#[derive(Debug, Default, PartialEq)]
struct Level<'a> {
    parts: Vec<(&'a str, &'a [u8])>,
    rest: Vec<&'a [u8]>,
}

impl<'a> Level<'a> {
    /// Cuts a message: `part` is the field of the parts, `name` that of the name within each.
    fn read(bytes: &'a [u8], part: u64, name: u64) -> Self {
        let mut level = Self::default();
        for field in fields(bytes) {
            match field.content.filter(|_| field.number == part) {
                Some(content) => level.parts.push((text(content, name), content)),
                None => level.rest.push(field.whole),
            }
        }
        level
    }

    fn by_name(&self) -> BTreeMap<&'a str, &'a [u8]> {
        self.parts.iter().copied().collect()
    }

    /// The parts that others, by name, don't have in the same form.
    fn changed<'b>(&'b self, others: &'b BTreeMap<&str, &[u8]>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.parts.iter().copied().filter(|(name, bytes)| others.get(name) != Some(bytes))
    }
}

/// The text in a field; empty if there is none.
fn text(message: &[u8], number: u64) -> &str {
    let field = fields(message).find(|field| field.number == number);
    field.and_then(|field| field.content).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// One field of a message on the wire.
struct Field<'a> {
    number: u64,
    /// What a field with a length holds.
    content: Option<&'a [u8]>,
    /// The field with its key.
    whole: &'a [u8],
}

/// The fields of a message in the order of its bytes; ends at what is no field.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        let (key, mut after) = varint(left)?;
        let mut content = None;
        match key & 7 {
            0 => after = varint(after)?.1,
            1 => after = after.get(8..)?,
            2 => {
                let (length, start) = varint(after)?;
                let length = usize::try_from(length).ok()?;
                content = Some(start.get(..length)?);
                after = start.get(length..)?;
            }
            5 => after = after.get(4..)?,
            _ => return None,
        }
        let whole = &left[..left.len() - after.len()];
        left = after;
        Some(Field { number: key >> 3, content, whole })
    })
}

/// A number at the beginning, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests;
