//! RateLimitServerConfig and RateLimitServerSettings: what the service allows, and how it is asked.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::crd::server as written;
use crate::crd::{Meta, RateLimitServerConfig, RateLimitServerSettings};
use crate::ir::policy::rate_limit::{Enforcers, Limit, LimitRules, LimitServer, LimitUnit, SetRule, TreeRule};
use crate::model::{FieldPath, Findings, Name, ObjectRef};
use crate::resolve::facts::Fault;

use super::super::parts::{LONGEST_CALL, destination, fault, optional_text, quoted, remark, span, text};
use super::{LOCAL, local, serving, sets};

/// Most rules that are sets: each names all later ones.
const MAX_SETS: usize = 500;

/// How the keys begin that only Chancery writes.
const RESERVED: &str = "chancery.";

/// How deep rules that are trees may be nested.
const MAX_DEPTH: usize = 16;

/// How gateways ask a rate-limit service.
///
/// # Errors
/// A destination that cannot be one, a time that is too long.
pub fn server(id: &ObjectRef, settings: &RateLimitServerSettings) -> Result<LimitServer, Fault> {
    let root = FieldPath::new("spec");
    let defaults = LimitServer::default();
    Ok(LimitServer {
        destination: match &settings.destination_server {
            Some(written) => Some(destination(&root.field("destinationServer"), written, id)?),
            None => None,
        },
        timeout: span(
            &root.field("requestTimeout"),
            settings.request_timeout,
            defaults.timeout,
            Duration::ZERO..=LONGEST_CALL,
        )?,
        deny_on_fail: settings.deny_on_fail,
    })
}

/// What a rate-limit service allows, or gateways by themselves.
///
/// The service refuses everything at once for one fault, so all that it would refuse is a fault here.
///
/// # Errors
/// No server or no rules; a rule without key or limit; a limit without window; siblings that the service cannot tell
/// apart; keys that are Chancery's own; rules that are too many; a word of [`LOCAL`] that is none.
pub fn rules(meta: &Meta, config: &RateLimitServerConfig, remarks: &mut Findings) -> Result<LimitRules, Fault> {
    let id = &meta.id;
    let root = FieldPath::new("spec");
    let enforcers = enforcers(meta, config, remarks)?;
    let place = root.field("raw");
    let Some(raw) = &config.raw else { return Err(fault(&place, "there are no rules: write `raw`")) };
    // About what the service reads into values.
    let mut of_values = Findings::new();
    let tree = tree(id, &place.field("descriptors"), &raw.descriptors, 1, &mut of_values)?;
    let list = place.field("setDescriptors");
    if raw.set_descriptors.len() > MAX_SETS {
        return Err(fault(
            &list,
            format!("there are more than {MAX_SETS} rules; split them into several configurations"),
        ));
    }
    let mut sets = Vec::new();
    for (index, written) in raw.set_descriptors.iter().enumerate() {
        sets.push(set(id, &list.index(index), written, &mut of_values)?);
    }
    let made = sets::nodes(id, &sets).map_err(|reason| fault(&list, reason))?;
    for index in made.unreachable {
        let why = "the rule never counts, because an earlier one does wherever it matches; remove it, or move it up";
        remark(id, &list.index(index), why, remarks);
    }
    let rules = LimitRules { enforcers, tree, sets };
    if rules.enforcers == Enforcers::Gateways {
        local::check(id, &rules, remarks)?;
        return Ok(rules);
    }
    remarks.append(&mut of_values);
    let bytes = serving::bytes(&serving::node(id, &rules));
    if bytes > serving::LARGEST {
        let most = serving::LARGEST >> 10;
        return Err(fault(
            &place,
            format!("the rules come to more than {most} KiB; split them into several configurations"),
        ));
    }
    Ok(rules)
}

/// Who enforces the rules: the servers that are named, unless the annotation says that nobody is to be asked.
fn enforcers(meta: &Meta, config: &RateLimitServerConfig, remarks: &mut Findings) -> Result<Enforcers, Fault> {
    let id = &meta.id;
    let list = FieldPath::new("spec").field("destinationServers");
    match meta.annotations.get(LOCAL.0).map(Name::as_str) {
        Some(word) if word == LOCAL.1 => {
            if !config.destination_servers.is_empty() {
                let why = "gateways count by themselves, as the annotation says, so no server gets the rules";
                remark(id, &list, why, remarks);
            }
            return Ok(Enforcers::Gateways);
        }
        Some(word) => {
            let place = FieldPath::new("metadata.annotations").field(LOCAL.0);
            return Err(fault(&place, format!("{} is not known; write `{}` or remove it", quoted(word), LOCAL.1)));
        }
        None => {}
    }
    if config.destination_servers.is_empty() {
        let why = format!(
            "no server gets the rules: name at least one, or let gateways count by themselves, with the annotation `{}: {}`",
            LOCAL.0, LOCAL.1
        );
        return Err(fault(&list, why));
    }
    let servers =
        config.destination_servers.iter().enumerate().map(|(index, one)| destination(&list.index(index), one, id));
    Ok(Enforcers::Services(servers.collect::<Result<_, _>>()?))
}

fn tree(
    id: &ObjectRef,
    list: &FieldPath,
    written: &[written::Descriptor],
    depth: usize,
    remarks: &mut Findings,
) -> Result<Vec<TreeRule>, Fault> {
    if depth > MAX_DEPTH && !written.is_empty() {
        return Err(fault(list, format!("the rules are nested deeper than {MAX_DEPTH}; simplify them")));
    }
    // As the service keys them: `a` with `b_c` is `a_b` with `c`.
    let mut known = BTreeSet::new();
    let mut rules = Vec::new();
    for (index, written) in written.iter().enumerate() {
        let field = list.index(index);
        let (key, value) = entry(id, &field, &written.key, &written.value, remarks)?;
        let composite = value.as_ref().map_or_else(|| key.to_string(), |value| format!("{key}_{value}"));
        if !known.insert(composite) {
            let why =
                "the service cannot tell this rule from one before it: key and value, joined by `_`, are the same";
            return Err(fault(&field, why));
        }
        rules.push(TreeRule {
            key,
            value,
            limit: match &written.rate_limit {
                Some(limit) => Some(self::limit(&field.field("rateLimit"), limit)?),
                None => None,
            },
            rules: tree(id, &field.field("descriptors"), &written.descriptors, depth + 1, remarks)?,
            weight: written.weight,
            always_apply: written.always_apply,
        });
    }
    Ok(rules)
}

fn set(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::SetDescriptor,
    remarks: &mut Findings,
) -> Result<SetRule, Fault> {
    let list = field.field("simpleDescriptors");
    let mut entries: Vec<(Name, Option<Name>)> = Vec::new();
    for (index, one) in written.simple_descriptors.iter().enumerate() {
        let place = list.index(index);
        let (key, value) = entry(id, &place, &one.key, &one.value, remarks)?;
        if entries.iter().any(|(known, _)| *known == key) {
            let why = format!("{} stands twice in one rule; keep one of the two", quoted(&key));
            return Err(fault(&place.field("key"), why));
        }
        entries.push((key, value));
    }
    entries.sort();
    let place = field.field("rateLimit");
    let Some(limit) = &written.rate_limit else {
        return Err(fault(&place, "the rule has no limit: write `rateLimit` with `unit` and `requestsPerUnit`"));
    };
    Ok(SetRule { entries, limit: self::limit(&place, limit)?, always_apply: written.always_apply })
}

fn entry(
    id: &ObjectRef,
    field: &FieldPath,
    key: &str,
    value: &str,
    remarks: &mut Findings,
) -> Result<(Name, Option<Name>), Fault> {
    let place = field.field("value");
    if value.contains('*') {
        remark(id, &place, "the service takes `*` for any run of characters, not for itself", remarks);
    }
    let place_of_key = field.field("key");
    let key = text(&place_of_key, key)?;
    // Descriptors begin with such keys, and two rules that look alike would cost everybody the rules of the service.
    if key.starts_with(RESERVED) {
        return Err(fault(
            &place_of_key,
            format!("keys that begin with `{RESERVED}` are Chancery's own; choose another"),
        ));
    }
    Ok((key, optional_text(&place, value)?))
}

fn limit(field: &FieldPath, written: &written::RateLimit) -> Result<Limit, Fault> {
    let unit = match written.unit {
        written::RateLimitUnit::Unknown => {
            let why = "the limit has no window: write `SECOND`, `MINUTE`, `HOUR` or `DAY`";
            return Err(fault(&field.field("unit"), why));
        }
        written::RateLimitUnit::Second => LimitUnit::Second,
        written::RateLimitUnit::Minute => LimitUnit::Minute,
        written::RateLimitUnit::Hour => LimitUnit::Hour,
        written::RateLimitUnit::Day => LimitUnit::Day,
    };
    Ok(Limit { unit, requests: written.requests_per_unit })
}
