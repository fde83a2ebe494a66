//! Methods that Envoy has itself.

use std::collections::HashMap;
use std::fmt::Write as _;

use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::rbac::v3 as rules_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use envoy_types::pb::envoy::extensions::filters::http::api_key_auth::v3 as api_key_pb;
use envoy_types::pb::envoy::extensions::filters::http::basic_auth::v3 as basic_pb;
use envoy_types::pb::envoy::extensions::filters::http::composite::v3 as composite_pb;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_pb;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3 as lua_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::google::protobuf::{self as google_pb, Any};
use envoy_types::pb::xds::core::v3 as xds_core_pb;
use envoy_types::pb::xds::r#type::matcher::v3 as xds_pb;

use crate::ir::Policy;
use crate::ir::extension::Extensions;
use crate::ir::policy::TextPattern;
use crate::ir::policy::ext_auth::{AccessTokens, ApiClient, AuthRule, Authorization, BasicCheck, KeyCheck, Shown};
use crate::model::{Name, ObjectRef};

use super::super::super::route::RouteBuilder;
use super::super::super::{pb, wire};
use super::super::jwt;

/// Verifies access tokens.
pub(super) const TOKENS: &str = "chancery.auth.jwt";
const SCOPES: &str = "chancery.auth.jwt-claims";
const BASIC: &str = "chancery.auth.basic";
const KEY: &str = "chancery.auth.key";
const KEY_HEADERS: &str = "chancery.auth.key-headers";
const RULE: &str = "chancery.auth.or";

/// Says whose key a request has, from one filter to the next. No client can set it, and no upstream sees it.
const CLIENT: &str = "x-chancery-api-client";

/// The script that sets headers by whose key a request has.
const SCRIPT: &str = "key-headers";

/// Sets the headers of the client whose key the request has: as the filter before says whose it is, or by the key itself
/// where that filter lets all pass. Everything that could fail is within a call that is watched, and then the request is
/// refused: by itself, Envoy would let it pass.
pub(in super::super) const SCRIPT_CODE: &str = r#"
function envoy_on_request(handle)
  local done = pcall(function()
    local headers = handle:headers()
    local context = handle:filterContext()
    local shown = headers:get(context:get("source"))
    headers:remove("x-chancery-api-client")
    for _, name in ipairs(context:get("headers")) do
      headers:remove(name)
    end
    local client = nil
    if shown ~= nil then
      client = context:get("clients")[shown]
    end
    if client == nil and not context:get("optional") then
      error("no client")
    end
    for name, value in pairs(client or {}) do
      headers:replace(name, value)
    end
  end)
  if not done then
    handle:respond({[":status"] = "500"}, "chancery: the headers of the API key cannot be set")
  end
end
"#;

/// The neutral form of the slot for such scripts: none runs unless a route names it.
pub(in super::super) fn scripts() -> lua_pb::Lua {
    let code = core_pb::DataSource {
        specifier: Some(core_pb::data_source::Specifier::InlineString(SCRIPT_CODE.to_owned())),
        ..Default::default()
    };
    lua_pb::Lua { source_codes: [(SCRIPT.to_owned(), code)].into(), ..Default::default() }
}

/// Puts the methods of a policy on a route or destination.
pub(super) fn apply(authorization: &Authorization, route: &mut RouteBuilder<'_>) {
    let policies = route.policies();
    let scope = route.scope();
    if let Some(tokens) = &authorization.tokens {
        let requirement = jwt_pb::PerRouteConfig {
            requirement_specifier: Some(jwt_pb::per_route_config::RequirementSpecifier::RequirementName(
                tokens.verification.name.to_string(),
            )),
        };
        scope.slots.insert(TOKENS, wire::any(&requirement));
        if !tokens.mandatory.is_empty() {
            let all = tokens.mandatory.iter().map(|index| emit_token(tokens, *index)).collect();
            scope.slots.insert(SCOPES, wire::any(&allow(all_of(all))));
        }
    }
    if let Some(basic) = &authorization.basic {
        scope.slots.insert(BASIC, wire::any(&held("basic", emit_basic(basic))));
    }
    if let Some(key) = &authorization.key {
        if !key.is_optional {
            scope.slots.insert(KEY, wire::any(&held("key", wire::any(&emit_key(key)))));
        }
        if !key.headers.is_empty() {
            scope.slots.insert(KEY_HEADERS, wire::any(&emit_key_headers(key)));
        }
    }
    if let Some(rule) = &authorization.rule {
        let rule = emit_rule(rule, authorization, policies);
        scope.slots.insert(RULE, wire::any(&allow(rule)));
    }
}

/// The access tokens of all policies, and whose they are.
pub(super) fn emit_tokens(extensions: &Extensions) -> (Any, Vec<ObjectRef>) {
    let mut message = jwt_pb::JwtAuthentication { strip_failure_response: true, ..Default::default() };
    for tokens in extensions.access_tokens.values() {
        let verification = &tokens.verification;
        for (index, provider) in verification.jwt.providers.values().enumerate() {
            let name = verification.provider(index);
            message.providers.insert(name.to_string(), jwt::emit_provider(verification, &name, provider));
        }
        message.requirement_map.insert(verification.name.to_string(), emit_requirement(tokens));
    }
    let owners = extensions.access_tokens.values().map(|tokens| tokens.verification.policy.clone());
    (wire::any(&message), owners.collect())
}

/// A token of every provider that is wanted; the others let every request pass, and a rule asks what they found.
fn emit_requirement(tokens: &AccessTokens) -> jwt_pb::JwtRequirement {
    use jwt_pb::jwt_requirement::RequiresType;
    let requirement = |kind| jwt_pb::JwtRequirement { requires_type: Some(kind) };
    let one = |index: usize| {
        let own = requirement(RequiresType::ProviderName(tokens.verification.provider(index).to_string()));
        if tokens.mandatory.contains(&index) {
            return own;
        }
        let requirements = vec![own, requirement(RequiresType::AllowMissingOrFailed(Default::default()))];
        requirement(RequiresType::RequiresAny(jwt_pb::JwtRequirementOrList { requirements }))
    };
    let mut all: Vec<jwt_pb::JwtRequirement> = (0..tokens.verification.jwt.providers.len()).map(one).collect();
    match all.pop() {
        Some(only) if all.is_empty() => only,
        last => {
            all.extend(last);
            requirement(RequiresType::RequiresAll(jwt_pb::JwtRequirementAndList { requirements: all }))
        }
    }
}

/// Whether a token of a provider was verified, with all its scopes.
fn emit_token(tokens: &AccessTokens, index: usize) -> rules_pb::Permission {
    let provider = tokens.verification.provider(index);
    let scope = [Name::from("scope")];
    let wanted = tokens.scopes.get(index).into_iter().flatten();
    let scopes = wanted
        .map(|wanted| jwt::payload(&provider, &scope, jwt::in_list(jwt::text(&TextPattern::Exact(wanted.clone())))));
    all_of([jwt::payload(&provider, &[], jwt::present())].into_iter().chain(scopes).collect())
}

/// Users and passwords. The message of the library lacks `realm`, the newest field, so it is put behind the others.
fn emit_basic(basic: &BasicCheck) -> Any {
    let mut lines = String::new();
    for (user, hash) in basic.users.get().into_iter().flatten() {
        let _ = writeln!(lines, "{user}:{{SHA}}{}", base64(hash.expose()));
    }
    let message = basic_pb::BasicAuth {
        users: Some(core_pb::DataSource {
            specifier: Some(core_pb::data_source::Specifier::InlineString(lines)),
            ..Default::default()
        }),
        allow_missing: basic.is_optional,
        emit_dynamic_metadata: basic.is_optional,
        ..Default::default()
    };
    let mut any = wire::any(&message);
    if let Some(realm) = &basic.realm {
        prost::encoding::string::encode(REALM, &realm.to_string(), &mut any.value);
    }
    any
}

/// The number of the field `realm` of the filter for users and passwords.
const REALM: u32 = 6;

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().chain(&[0, 0]).take(3).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        for position in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn emit_key(key: &KeyCheck) -> api_key_pb::ApiKeyAuth {
    let credential =
        |client: &ApiClient| api_key_pb::Credential { key: text(client.key.expose()), client: named(client) };
    let forwarding = api_key_pb::Forwarding { header: CLIENT.to_owned(), ..Default::default() };
    api_key_pb::ApiKeyAuth {
        credentials: key.clients.get().into_iter().flatten().map(credential).collect(),
        key_sources: vec![api_key_pb::KeySource { header: key.header.to_string(), ..Default::default() }],
        forwarding: (!key.headers.is_empty()).then_some(forwarding),
    }
}

/// Checked to be ASCII.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the filters call the owner of a key.
fn named(client: &ApiClient) -> String {
    let secret = &client.secret;
    format!("{}/{}/{}", secret.cluster, secret.namespace, secret.name)
}

fn emit_key_headers(key: &KeyCheck) -> lua_pb::LuaPerRoute {
    use google_pb::value::Kind;
    let value = |kind| google_pb::Value { kind: Some(kind) };
    let string = |text: String| value(Kind::StringValue(text));
    let object = |fields: HashMap<String, google_pb::Value>| value(Kind::StructValue(google_pb::Struct { fields }));
    let clients = key.clients.get().into_iter().flatten().map(|client| {
        let headers = client.headers.iter().map(|(name, value)| (name.to_string(), string(text(value.expose()))));
        let shown = if key.is_optional { text(client.key.expose()) } else { named(client) };
        (shown, object(headers.collect()))
    });
    let headers = key.headers.iter().map(|name| string(name.to_string())).collect();
    let headers = value(Kind::ListValue(google_pb::ListValue { values: headers }));
    let source = if key.is_optional { key.header.to_string() } else { CLIENT.to_owned() };
    let fields = [
        ("source".to_owned(), string(source)),
        ("optional".to_owned(), value(Kind::BoolValue(key.is_optional))),
        ("headers".to_owned(), headers),
        ("clients".to_owned(), object(clients.collect())),
    ];
    lua_pb::LuaPerRoute {
        filter_context: Some(google_pb::Struct { fields: fields.into() }),
        r#override: Some(lua_pb::lua_per_route::Override::Name(SCRIPT.to_owned())),
        ..Default::default()
    }
}

/// A filter for a holder, which runs for every request.
fn held(name: &str, config: Any) -> composite_pb::CompositePerRoute {
    let filter = core_pb::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) };
    let action = composite_pb::ExecuteFilterAction { typed_config: Some(filter), ..Default::default() };
    let action = xds_core_pb::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(wire::any(&action)) };
    let always = xds_pb::matcher::OnMatch {
        on_match: Some(xds_pb::matcher::on_match::OnMatch::Action(action)),
        ..Default::default()
    };
    let matcher = xds_pb::Matcher { on_no_match: Some(Box::new(always)), ..Default::default() };
    composite_pb::CompositePerRoute { matcher: Some(matcher) }
}

fn emit_rule(rule: &AuthRule<Shown>, own: &Authorization, policies: &[Policy]) -> rules_pb::Permission {
    let each = |rules: &[AuthRule<Shown>]| rules.iter().map(|rule| emit_rule(rule, own, policies)).collect();
    match rule {
        AuthRule::Not(inner) => not(emit_rule(inner, own, policies)),
        AuthRule::All(rules) => all_of(each(rules)),
        AuthRule::Any(rules) => any_of(each(rules)),
        AuthRule::Method(Shown::User) => user(),
        AuthRule::Method(Shown::Token(index)) => match &own.tokens {
            Some(tokens) => emit_token(tokens, *index),
            None => any_of(Vec::new()),
        },
        AuthRule::Method(Shown::Key(header, clients)) => {
            any_of(clients.get().into_iter().flatten().map(|client| has_key(header, client)).collect())
        }
        AuthRule::Method(Shown::Jwt) => {
            let verifications = policies.iter().filter_map(|policy| match policy {
                Policy::Jwt(verification) => Some(verification),
                _ => None,
            });
            let providers = verifications.flat_map(|verification| {
                (0..verification.jwt.providers.len()).map(|index| verification.provider(index))
            });
            any_of(providers.map(|provider| jwt::payload(&provider, &[], jwt::present())).collect())
        }
    }
}

/// Whether a user was found. Within a holder, the holder's name is that of the metadata.
fn user() -> rules_pb::Permission {
    use matcher_pb::metadata_matcher::{PathSegment, path_segment::Segment};
    let matcher = matcher_pb::MetadataMatcher {
        filter: BASIC.to_owned(),
        path: vec![PathSegment { segment: Some(Segment::Key("username".to_owned())) }],
        value: Some(jwt::present()),
        ..Default::default()
    };
    let sourced = rules_pb::SourcedMetadata { metadata_matcher: Some(matcher), ..Default::default() };
    rules_pb::Permission { rule: Some(rules_pb::permission::Rule::SourcedMetadata(sourced)) }
}

fn has_key(header: &Name, client: &ApiClient) -> rules_pb::Permission {
    use matcher_pb::string_matcher::MatchPattern;
    use route_pb::header_matcher::HeaderMatchSpecifier;
    let key = pb::string_matcher(MatchPattern::Exact(text(client.key.expose())), false);
    let matcher = route_pb::HeaderMatcher {
        name: header.to_string(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(key)),
        ..Default::default()
    };
    rules_pb::Permission { rule: Some(rules_pb::permission::Rule::Header(matcher)) }
}

fn not(rule: rules_pb::Permission) -> rules_pb::Permission {
    rules_pb::Permission { rule: Some(rules_pb::permission::Rule::NotRule(Box::new(rule))) }
}

/// All of several, at least one.
fn all_of(rules: Vec<rules_pb::Permission>) -> rules_pb::Permission {
    rules_pb::Permission { rule: Some(rules_pb::permission::Rule::AndRules(rules_pb::permission::Set { rules })) }
}

/// One of several; of none, nothing.
fn any_of(rules: Vec<rules_pb::Permission>) -> rules_pb::Permission {
    if rules.is_empty() {
        return not(rules_pb::Permission { rule: Some(rules_pb::permission::Rule::Any(true)) });
    }
    rules_pb::Permission { rule: Some(rules_pb::permission::Rule::OrRules(rules_pb::permission::Set { rules })) }
}

/// Refuses what a condition does not hold for.
fn allow(condition: rules_pb::Permission) -> rbac_pb::RbacPerRoute {
    let anybody = rules_pb::Principal { identifier: Some(rules_pb::principal::Identifier::Any(true)) };
    let policy = rules_pb::Policy { permissions: vec![condition], principals: vec![anybody], ..Default::default() };
    let rules = rules_pb::Rbac {
        action: rules_pb::rbac::Action::Allow.into(),
        policies: [("shown".to_owned(), policy)].into(),
        ..Default::default()
    };
    rbac_pb::RbacPerRoute { rbac: Some(rbac_pb::Rbac { rules: Some(rules), ..Default::default() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_rows() {
        for (bytes, expected) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xef\xbe\x00", "/+++AA==")]
        {
            assert_eq!(base64(bytes), expected, "{bytes:?}");
        }
    }
}
