//! ExtAuthPolicy: how a request shows who sends it. The oldest applies.

mod basic;
mod expression;
mod keys;
mod method;
mod server;
mod settled;
mod together;

use crate::crd::common::DestinationKind;
use crate::crd::policy::ExtAuthPolicy;
use crate::crd::policy::ext_auth as written;
use crate::ir::policy::ext_auth::{AuthChain, AuthMethod, AuthRule, CustomAuth, ExtAuth};
use crate::model::{FieldPath, Findings, Kind, Name, ObjectRef};
use crate::resolve::facts::Fault;

use super::no_config;
use super::parts::{config, destination_kinds, fault, quoted, reference, remark, text, unsupported};

pub use server::{server, server_object};
pub(super) use settled::settle;
pub use together::clash;

/// What an ExtAuthPolicy means.
///
/// # Errors
/// None or two ways to check; no method, one that is empty, or two of one name; an expression that cannot be read; users,
/// addresses, headers or keys that are none; a destination that is no Service. [`Code::Unsupported`](crate::model::Code)
/// for methods and combinations that stock Envoy does not have, naming the method.
///
/// # Rule
/// R123, R130.
pub fn lower(id: &ObjectRef, policy: &ExtAuthPolicy, remarks: &mut Findings) -> Result<ExtAuth, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    let root = self::config();
    destination_kinds(&policy.apply_to_destinations, &[DestinationKind::Service], "select Services or routes")?;
    if config.disable.is_some() {
        let why = "`disable` is not part of the API any more; leave it out, and select what the policy is for";
        return Err(fault(&root.field("disable"), why));
    }
    match (&config.gloo_auth, &config.custom_auth) {
        (Some(chain), _) => lower_chain(id, &root.field("glooAuth"), chain, remarks).map(ExtAuth::Chain),
        (None, Some(custom)) => {
            let server = match &config.server {
                Some(server) => Some(reference(&root.field("server"), Kind::ExtAuthServer, server, id)?),
                None => None,
            };
            let place = root.field("customAuth").field("contextExtensions");
            let mut context = std::collections::BTreeMap::new();
            for (key, value) in &custom.context_extensions {
                context.insert(text(&place.field(key), key)?, Name::from(value));
            }
            Ok(ExtAuth::Custom(CustomAuth { server, context }))
        }
        (None, None) => Err(fault(&root, "nothing is checked: write `glooAuth` or `customAuth`")),
    }
}

fn lower_chain(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::GlooAuth,
    remarks: &mut Findings,
) -> Result<AuthChain, Fault> {
    let list = field.field("configs");
    if written.configs.is_empty() {
        return Err(fault(&list, "there is no method: write for instance `apiKeyAuth`"));
    }
    let mut methods: Vec<AuthMethod> = Vec::new();
    for (index, config) in written.configs.iter().enumerate() {
        let place = list.index(index);
        let name = match &config.name {
            Some(name) if !name.is_empty() => text(&place.field("name"), name)?,
            _ => format!("config_{index}").into(),
        };
        if methods.iter().any(|other| other.name == name) {
            let why = format!("{} is the name of two methods; give each its own", quoted(&name));
            return Err(fault(&place.field("name"), why));
        }
        let method = method::lower(id, &place, config, remarks)?;
        methods.push(AuthMethod { name, field: place, method });
    }
    let place = field.field("booleanExpr");
    let (mandatory, rule) = if written.boolean_expr.trim().is_empty() {
        ((0..methods.len()).collect(), None)
    } else {
        let names: Vec<&Name> = methods.iter().map(|method| &method.name).collect();
        let rule = expression::parse(&written.boolean_expr, &names).map_err(|reason| fault(&place, reason))?;
        let (mandatory, rule) = split(rule);
        for index in rule.iter().flat_map(positions) {
            if !methods[index].method.can_be_optional() {
                let name = quoted(&methods[index].name);
                let why = format!(
                    "{name} calls a server, which Envoy cannot do below `||` or `!`: only basicAuth, apiKeyAuth, jwt and \
                     access tokens may stand there"
                );
                return Err(unsupported(&place, why));
            }
        }
        (mandatory, rule)
    };
    let mut chain = AuthChain { methods, mandatory, rule, fail_on_redirect: written.fail_on_redirect };
    for name in drop_unused(&mut chain) {
        let why = format!("{} is not part of the expression, so it is not checked; remove the method", quoted(&name));
        remark(id, &place, why, remarks);
    }
    Ok(chain)
}

/// What must hold by itself, and the rest.
fn split(rule: AuthRule) -> (Vec<usize>, Option<AuthRule>) {
    let factors = match rule {
        AuthRule::All(factors) => factors,
        other => vec![other],
    };
    let mut mandatory = Vec::new();
    let mut rest = Vec::new();
    for factor in factors {
        match factor {
            AuthRule::Method(index) => mandatory.push(index),
            other => rest.push(other),
        }
    }
    mandatory.sort_unstable();
    mandatory.dedup();
    let rule = match rest.len() {
        0 | 1 => rest.pop(),
        _ => Some(AuthRule::All(rest)),
    };
    (mandatory, rule)
}

/// The methods of a rule by position; some several times.
fn positions(rule: &AuthRule) -> Vec<usize> {
    match rule {
        AuthRule::Method(index) => vec![*index],
        AuthRule::Not(inner) => positions(inner),
        AuthRule::All(rules) | AuthRule::Any(rules) => rules.iter().flat_map(positions).collect(),
    }
}

/// Takes methods out that nothing asks for, and gives their names.
fn drop_unused(chain: &mut AuthChain) -> Vec<Name> {
    let mut used = chain.mandatory.clone();
    used.extend(chain.rule.iter().flat_map(positions));
    used.sort_unstable();
    used.dedup();
    let position = |index: usize| used.iter().position(|used| *used == index).unwrap_or(index);
    fn renumber(rule: &mut AuthRule, position: &impl Fn(usize) -> usize) {
        match rule {
            AuthRule::Method(index) => *index = position(*index),
            AuthRule::Not(inner) => renumber(inner, position),
            AuthRule::All(rules) | AuthRule::Any(rules) => {
                for rule in rules {
                    renumber(rule, position);
                }
            }
        }
    }
    for index in &mut chain.mandatory {
        *index = position(*index);
    }
    if let Some(rule) = &mut chain.rule {
        renumber(rule, &position);
    }
    let mut unused = Vec::new();
    let mut kept = Vec::new();
    for (index, method) in std::mem::take(&mut chain.methods).into_iter().enumerate() {
        if used.contains(&index) {
            kept.push(method);
        } else {
            unused.push(method.name);
        }
    }
    chain.methods = kept;
    unused
}

#[cfg(test)]
mod tests;
