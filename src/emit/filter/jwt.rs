//! JWTPolicy: verification of tokens, which all routes share; on a route its name, what tokens must claim, and claims that are
//! appended to headers.
//!
//! # Rule
//! The policy reference in the manual, "JWTPolicy" and "Filter slots".

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::common::mutation_rules::v3 as mutation_pb;
use envoy_types::pb::envoy::config::core::v3 as core_pb;
use envoy_types::pb::envoy::config::rbac::v3 as rules_pb;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as header_mutation_pb;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3 as jwt_pb;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as rbac_pb;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state_pb;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_pb;
use envoy_types::pb::google::protobuf::Any;

use crate::ir::Policy;
use crate::ir::extension::{Extensions, Level};
use crate::ir::policy::jwt::{
    ClaimCheck, ClaimValue, ClearRouteCache, Fetch, HeaderClaim, Jwt, KeySource, Literal, Mode, Provider, Verification,
};
use crate::ir::policy::{Phase, TextPattern};
use crate::model::{EnvoyRelease, Name, ObjectRef};

use super::super::route::RouteBuilder;
use super::super::{name, pb, wire};
use super::principal;
use super::release::needs;

/// The namespace of dynamic metadata that every instance of the filter writes, whatever it is called.
pub(super) const METADATA: &str = "envoy.filters.http.jwt_authn";

/// The slots of one lane and level.
pub(super) struct Slots {
    /// Notes which verification judges a request, before anything may choose the route again.
    mark: &'static str,
    /// Removes what a client sends under the names of headers that claims become.
    strip: &'static str,
    /// Verifies tokens.
    pub(super) tokens: &'static str,
    claims: &'static str,
    headers: &'static str,
}

/// The slots of every lane and level.
pub(super) const SLOTS: [(Phase, Level, Slots); 4] = [
    (
        Phase::PreAuthz,
        Level::Route,
        Slots {
            mark: "chancery.jwt-mark.pre.0",
            strip: "chancery.jwt-strip.pre.0",
            tokens: "chancery.jwt.pre.0",
            claims: "chancery.jwt-claims.pre.0",
            headers: "chancery.jwt-headers.pre.0",
        },
    ),
    (
        Phase::PreAuthz,
        Level::Destination,
        Slots {
            mark: "chancery.jwt-mark.pre.1",
            strip: "chancery.jwt-strip.pre.1",
            tokens: "chancery.jwt.pre.1",
            claims: "chancery.jwt-claims.pre.1",
            headers: "chancery.jwt-headers.pre.1",
        },
    ),
    (
        Phase::PostAuthz,
        Level::Route,
        Slots {
            mark: "chancery.jwt-mark.post.0",
            strip: "chancery.jwt-strip.post.0",
            tokens: "chancery.jwt.post.0",
            claims: "chancery.jwt-claims.post.0",
            headers: "chancery.jwt-headers.post.0",
        },
    ),
    (
        Phase::PostAuthz,
        Level::Destination,
        Slots {
            mark: "chancery.jwt-mark.post.1",
            strip: "chancery.jwt-strip.post.1",
            tokens: "chancery.jwt.post.1",
            claims: "chancery.jwt-claims.post.1",
            headers: "chancery.jwt-headers.post.1",
        },
    ),
];

/// Names the verification on a route or destination, and says what its tokens must claim.
pub(super) fn apply(verification: &Verification, route: &mut RouteBuilder<'_>) {
    let (phase, level) = (verification.jwt.place.phase, route.level());
    let Some((.., slots)) = SLOTS.iter().find(|(p, l, _)| (*p, *l) == (phase, level)) else { return };
    let requirement = jwt_pb::PerRouteConfig {
        requirement_specifier: Some(jwt_pb::per_route_config::RequirementSpecifier::RequirementName(
            verification.name.to_string(),
        )),
    };
    let scope = route.scope();
    scope.slots.insert(slots.tokens, wire::any(&requirement));
    let jwt = &verification.jwt;
    // A request that another route's policy let pass, and that came here afterwards, has no payload of this one's. Where
    // none is asked for, it has not the mark.
    if jwt.mode == Mode::RequireValid || !(jwt.claims.is_empty() && jwt.scopes.is_empty()) {
        scope.slots.insert(slots.claims, wire::any(&emit_claims(verification)));
    } else {
        scope.slots.insert(slots.mark, wire::any(&emit_mark(slots.mark, verification)));
        scope.slots.insert(slots.claims, wire::any(&emit_marked(slots.mark, verification)));
    }
    let stripped = emit_stripped(jwt);
    if !stripped.is_empty() {
        let mutations = header_mutation_pb::Mutations { request_mutations: stripped, ..Default::default() };
        let mutations = header_mutation_pb::HeaderMutationPerRoute { mutations: Some(mutations) };
        scope.slots.insert(slots.strip, wire::any(&mutations));
    }
    scope.slots.insert(principal::SLOT, principal::emit(verification, level));
    let appended = emit_appended(verification);
    if !appended.is_empty() {
        let mutations = header_mutation_pb::Mutations { request_mutations: appended, ..Default::default() };
        let mutations = header_mutation_pb::HeaderMutationPerRoute { mutations: Some(mutations) };
        scope.slots.insert(slots.headers, wire::any(&mutations));
    }
}

/// What is verified in a slot, and whose it is; nothing for slots of other kinds.
///
/// What the release cannot do is left out: Envoy would refuse everybody's with it. Its routes are closed there.
pub(super) fn emit_tokens(slot: &str, extensions: &Extensions, release: EnvoyRelease) -> Option<(Any, Vec<ObjectRef>)> {
    let (phase, level, _) = SLOTS.iter().find(|(.., slots)| slots.tokens == slot)?;
    let none = BTreeMap::new();
    let here = extensions.tokens.get(&(*phase, *level)).unwrap_or(&none);
    let here = || here.values().filter(|verification| needs(&Policy::Jwt((*verification).clone())) <= release);
    let mut message = jwt_pb::JwtAuthentication { strip_failure_response: true, ..Default::default() };
    for verification in here() {
        for (index, provider) in verification.jwt.providers.values().enumerate() {
            let name = verification.provider(index);
            let mut provider = emit_provider(verification, &name, provider);
            // The mark of a request is of its first route. Could it move once more after a second route's verification, it
            // would come to a third with the mark of the first, which that third one's own policy may have set there.
            provider.clear_route_cache &= *level == Level::Route;
            message.providers.insert(name.to_string(), provider);
        }
        message.requirement_map.insert(verification.name.to_string(), emit_requirement(verification));
    }
    Some((wire::any(&message), here().map(|verification| verification.policy.clone()).collect()))
}

/// The forms that allow more stand beside the policy's own providers: alone they would verify against those of everybody.
fn emit_requirement(verification: &Verification) -> jwt_pb::JwtRequirement {
    use jwt_pb::jwt_requirement::RequiresType;
    let requirement = |kind| jwt_pb::JwtRequirement { requires_type: Some(kind) };
    let nothing = Default::default;
    let mut any: Vec<jwt_pb::JwtRequirement> = (0..verification.jwt.providers.len())
        .map(|index| requirement(RequiresType::ProviderName(verification.provider(index).to_string())))
        .collect();
    match verification.jwt.mode {
        Mode::RequireValid => {}
        Mode::AllowMissing => any.push(requirement(RequiresType::AllowMissing(nothing()))),
        Mode::AllowMissingOrFailed => any.push(requirement(RequiresType::AllowMissingOrFailed(nothing()))),
    }
    match any.pop() {
        Some(only) if any.is_empty() => only,
        last => {
            any.extend(last);
            requirement(RequiresType::RequiresAny(jwt_pb::JwtRequirementOrList { requirements: any }))
        }
    }
}

pub(super) fn emit_provider(
    verification: &Verification,
    name: &Name,
    provider: &Provider<KeySource>,
) -> jwt_pb::JwtProvider {
    use jwt_pb::jwt_provider::{JwksSourceSpecifier, NormalizePayload};
    let keys = match &provider.keys {
        KeySource::Inline(jwks) => JwksSourceSpecifier::LocalJwks(core_pb::DataSource {
            specifier: Some(core_pb::data_source::Specifier::InlineString(jwks.0.to_string())),
            ..Default::default()
        }),
        KeySource::Remote(fetch) => JwksSourceSpecifier::RemoteJwks(emit_fetch(fetch)),
    };
    let headers = provider
        .headers
        .iter()
        .map(|header| jwt_pb::JwtHeader { name: header.name.to_string(), value_prefix: header.prefix.to_string() });
    let set = provider.claims_to_headers.iter().filter(|(_, claim)| !claim.append);
    jwt_pb::JwtProvider {
        issuer: provider.issuer.as_ref().map(Name::to_string).unwrap_or_default(),
        audiences: provider.audiences.iter().map(Name::to_string).collect(),
        forward: provider.keep_token,
        from_headers: headers.collect(),
        from_params: provider.parameters.iter().map(Name::to_string).collect(),
        forward_payload_header: provider.payload_header.as_ref().map(Name::to_string).unwrap_or_default(),
        payload_in_metadata: name.to_string(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: vec!["scope".to_owned()] }),
        clock_skew_seconds: provider.clock_skew_seconds,
        claim_to_headers: set.map(|(header, claim)| emit_claim_header(header, claim)).collect(),
        clear_route_cache: clears(verification, provider),
        jwks_source_specifier: Some(keys),
        ..Default::default()
    }
}

/// Whether the route is chosen again: by itself where a header is set by which it may be chosen, and never once the
/// request has been authorized on this one.
fn clears(verification: &Verification, provider: &Provider<KeySource>) -> bool {
    let sets_headers =
        provider.payload_header.is_some() || provider.claims_to_headers.values().any(|claim| !claim.append);
    verification.jwt.place.phase == Phase::PreAuthz
        && match verification.jwt.clear_route_cache {
            ClearRouteCache::Auto => sets_headers,
            ClearRouteCache::Never => false,
            ClearRouteCache::Always => true,
        }
}

fn emit_fetch(fetch: &Fetch) -> jwt_pb::RemoteJwks {
    let url = &fetch.url;
    let (scheme, plain_port) = if url.tls { ("https", 443) } else { ("http", 80) };
    let host = &url.authority.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let port = if url.authority.port == plain_port { String::new() } else { format!(":{}", url.authority.port) };
    let uri = core_pb::HttpUri {
        uri: format!("{scheme}://{host}{port}{}", url.path),
        timeout: Some(pb::duration(fetch.timeout)),
        http_upstream_type: Some(core_pb::http_uri::HttpUpstreamType::Cluster(name::server(&fetch.server).to_string())),
    };
    jwt_pb::RemoteJwks {
        http_uri: Some(uri),
        cache_duration: Some(pb::duration(fetch.cache)),
        // Nothing else waits for a slow issuer.
        async_fetch: fetch.fetch_early.then(|| jwt_pb::JwksAsyncFetch { fast_listener: true, ..Default::default() }),
        ..Default::default()
    }
}

/// Envoy separates names by dots, which a URL has as well; its other form takes names as they are.
fn emit_claim_header(header: &Name, claim: &HeaderClaim) -> jwt_pb::JwtClaimToHeader {
    use jwt_pb::jwt_claim_to_header::PathSegment;
    let segment = || PathSegment { key: claim.claim.to_string() };
    jwt_pb::JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: if claim.is_url { String::new() } else { claim.claim.to_string() },
        claim_path: if claim.is_url { vec![segment()] } else { Vec::new() },
    }
}

/// The name of the verification that judges a request, as the filter state of its slot's name.
fn emit_mark(mark: &str, verification: &Verification) -> set_filter_state_pb::Config {
    use core_pb::substitution_format_string::Format;
    use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as state_pb;
    let source = core_pb::data_source::Specifier::InlineString(verification.name.to_string());
    let format = core_pb::SubstitutionFormatString {
        format: Some(Format::TextFormatSource(core_pb::DataSource { specifier: Some(source), ..Default::default() })),
        ..Default::default()
    };
    let value = state_pb::FilterStateValue {
        key: Some(state_pb::filter_state_value::Key::ObjectKey(mark.to_owned())),
        factory_key: "envoy.string".to_owned(),
        value: Some(state_pb::filter_state_value::Value::FormatString(format)),
        ..Default::default()
    };
    set_filter_state_pb::Config { on_request_headers: vec![value], ..Default::default() }
}

/// Whether this verification is the one that has judged the request.
fn emit_marked(mark: &str, verification: &Verification) -> rbac_pb::RbacPerRoute {
    let matcher = matcher_pb::FilterStateMatcher {
        key: mark.to_owned(),
        matcher: Some(matcher_pb::filter_state_matcher::Matcher::StringMatch(pb::string_matcher(
            matcher_pb::string_matcher::MatchPattern::Exact(verification.name.to_string()),
            false,
        ))),
    };
    let judged = rules_pb::Principal { identifier: Some(rules_pb::principal::Identifier::FilterState(matcher)) };
    let anything = rules_pb::Permission { rule: Some(rules_pb::permission::Rule::Any(true)) };
    let policy = rules_pb::Policy { permissions: vec![anything], principals: vec![judged], ..Default::default() };
    let rules = rules_pb::Rbac {
        action: rules_pb::rbac::Action::Allow.into(),
        policies: [(verification.name.to_string(), policy)].into(),
        ..Default::default()
    };
    rbac_pb::RbacPerRoute { rbac: Some(rbac_pb::Rbac { rules: Some(rules), ..Default::default() }) }
}

/// With several providers Envoy before 1.40 removes from a request the headers of those that it tries, and it tries none
/// after the first that fits (seen on 1.36.4 and 1.39.3). So all are removed before.
fn emit_stripped(jwt: &Jwt<KeySource>) -> Vec<mutation_pb::HeaderMutation> {
    if jwt.providers.len() == 1 {
        return Vec::new();
    }
    let set = |provider: &Provider<KeySource>| -> Vec<Name> {
        let claims = provider.claims_to_headers.iter().filter(|(_, claim)| !claim.append);
        claims.map(|(header, _)| header.clone()).chain(provider.payload_header.clone()).collect()
    };
    let removed = |header: Name| mutation_pb::HeaderMutation {
        action: Some(mutation_pb::header_mutation::Action::Remove(header.to_string())),
    };
    jwt.providers.values().flat_map(set).map(removed).collect()
}

fn emit_appended(verification: &Verification) -> Vec<mutation_pb::HeaderMutation> {
    use core_pb::header_value_option::HeaderAppendAction;
    let mut mutations = Vec::new();
    for (index, provider) in verification.jwt.providers.values().enumerate() {
        let key = verification.provider(index);
        for (header, claim) in provider.claims_to_headers.iter().filter(|(_, claim)| claim.append) {
            let path = claim.claim.split('.').collect::<Vec<_>>().join(":");
            let value = format!("%DYNAMIC_METADATA({METADATA}:{key}:{path})%");
            let option = core_pb::HeaderValueOption {
                header: Some(core_pb::HeaderValue { key: header.to_string(), value, raw_value: Vec::new() }),
                append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
                ..Default::default()
            };
            let action = Some(mutation_pb::header_mutation::Action::Append(option));
            mutations.push(mutation_pb::HeaderMutation { action });
        }
    }
    mutations
}

/// One policy per provider: a token of it with all claims and scopes suffices.
fn emit_claims(verification: &Verification) -> rbac_pb::RbacPerRoute {
    let policy = |index| {
        let key = verification.provider(index);
        // The payload itself: some token of this provider was verified.
        let mut rules = vec![payload(&key, &[], present())];
        rules.extend(verification.jwt.claims.iter().flat_map(|claim| emit_claim(&key, claim)));
        let scope = [Name::from("scope")];
        rules.extend(
            verification
                .jwt
                .scopes
                .iter()
                .map(|wanted| payload(&key, &scope, in_list(text(&TextPattern::Exact(wanted.clone()))))),
        );
        let permission = rules_pb::permission::Rule::AndRules(rules_pb::permission::Set { rules });
        let anybody = rules_pb::Principal { identifier: Some(rules_pb::principal::Identifier::Any(true)) };
        let policy = rules_pb::Policy {
            permissions: vec![rules_pb::Permission { rule: Some(permission) }],
            principals: vec![anybody],
            ..Default::default()
        };
        (key.to_string(), policy)
    };
    let rules = rules_pb::Rbac {
        action: rules_pb::rbac::Action::Allow.into(),
        policies: (0..verification.jwt.providers.len()).map(policy).collect(),
        ..Default::default()
    };
    rbac_pb::RbacPerRoute { rbac: Some(rbac_pb::Rbac { rules: Some(rules), ..Default::default() }) }
}

fn emit_claim(provider: &Name, claim: &ClaimCheck) -> Vec<rules_pb::Permission> {
    let mut rules = Vec::new();
    if !claim.values.is_empty() {
        rules.push(payload(provider, &claim.path, one_of(&claim.values)));
    }
    if !claim.not_values.is_empty() {
        let not = payload(provider, &claim.path, one_of(&claim.not_values));
        rules.push(rules_pb::Permission { rule: Some(rules_pb::permission::Rule::NotRule(Box::new(not))) });
    }
    rules
}

/// A condition on the payload of a provider's token, or on a claim in it.
pub(super) fn payload(provider: &Name, path: &[Name], value: matcher_pb::ValueMatcher) -> rules_pb::Permission {
    use matcher_pb::metadata_matcher::{PathSegment, path_segment::Segment};
    let segments = std::iter::once(provider).chain(path);
    let segments = segments.map(|name| PathSegment { segment: Some(Segment::Key(name.to_string())) });
    let matcher = matcher_pb::MetadataMatcher {
        filter: METADATA.to_owned(),
        path: segments.collect(),
        value: Some(value),
        ..Default::default()
    };
    let sourced = rules_pb::SourcedMetadata { metadata_matcher: Some(matcher), ..Default::default() };
    rules_pb::Permission { rule: Some(rules_pb::permission::Rule::SourcedMetadata(sourced)) }
}

/// One of several values, as the claim itself or as an item of the list that it is.
fn one_of(values: &std::collections::BTreeSet<ClaimValue>) -> matcher_pb::ValueMatcher {
    use matcher_pb::value_matcher::MatchPattern;
    let mut any = Vec::new();
    for value in values {
        let mut forms = vec![text(&value.text)];
        forms.extend(value.literal.as_ref().map(literal));
        for form in forms {
            any.push(in_list(form.clone()));
            any.push(form);
        }
    }
    matcher_pb::ValueMatcher {
        match_pattern: Some(MatchPattern::OrMatch(matcher_pb::OrMatcher { value_matchers: any })),
    }
}

pub(super) fn present() -> matcher_pb::ValueMatcher {
    matcher_pb::ValueMatcher { match_pattern: Some(matcher_pb::value_matcher::MatchPattern::PresentMatch(true)) }
}

pub(super) fn in_list(item: matcher_pb::ValueMatcher) -> matcher_pb::ValueMatcher {
    use matcher_pb::list_matcher::MatchPattern;
    let list = matcher_pb::ListMatcher { match_pattern: Some(MatchPattern::OneOf(Box::new(item))) };
    matcher_pb::ValueMatcher { match_pattern: Some(matcher_pb::value_matcher::MatchPattern::ListMatch(Box::new(list))) }
}

pub(super) fn text(pattern: &TextPattern) -> matcher_pb::ValueMatcher {
    use matcher_pb::string_matcher::MatchPattern;
    let pattern = match pattern {
        TextPattern::Any => return present(),
        TextPattern::Exact(text) => MatchPattern::Exact(text.to_string()),
        TextPattern::Prefix(text) => MatchPattern::Prefix(text.to_string()),
        TextPattern::Suffix(text) => MatchPattern::Suffix(text.to_string()),
        TextPattern::Regex(regex) => MatchPattern::SafeRegex(pb::regex(regex)),
    };
    let matcher = pb::string_matcher(pattern, false);
    matcher_pb::ValueMatcher { match_pattern: Some(matcher_pb::value_matcher::MatchPattern::StringMatch(matcher)) }
}

fn literal(literal: &Literal) -> matcher_pb::ValueMatcher {
    use matcher_pb::double_matcher::MatchPattern as Number;
    use matcher_pb::value_matcher::MatchPattern;
    let pattern = match literal {
        Literal::Bool(value) => MatchPattern::BoolMatch(*value),
        Literal::Number(number) => {
            MatchPattern::DoubleMatch(matcher_pb::DoubleMatcher { match_pattern: Some(Number::Exact(number.get())) })
        }
    };
    matcher_pb::ValueMatcher { match_pattern: Some(pattern) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message;

    use super::*;
    use crate::ir::policy::Place;
    use crate::ir::policy::jwt::Jwks;
    use crate::model::Kind;

    /// A request moves at most once: were it to move again behind the verification of a second route, a third could take the
    /// mark of the first for its own, and let a token pass that nobody has looked at.
    #[test]
    fn only_what_is_verified_for_a_route_chooses_the_route_again() {
        let claim = HeaderClaim { claim: "org".into(), is_url: false, append: false };
        let provider = Provider {
            issuer: None,
            audiences: [].into(),
            headers: Vec::new(),
            parameters: Vec::new(),
            keys: KeySource::Inline(Jwks("{}".into())),
            claims_to_headers: [("x-org".into(), claim)].into(),
            payload_header: None,
            keep_token: false,
            clock_skew_seconds: 60,
        };
        for clear_route_cache in [ClearRouteCache::Auto, ClearRouteCache::Always] {
            for (phase, level, slot, expected) in [
                (Phase::PreAuthz, Level::Route, "chancery.jwt.pre.0", true),
                (Phase::PreAuthz, Level::Destination, "chancery.jwt.pre.1", false),
                (Phase::PostAuthz, Level::Route, "chancery.jwt.post.0", false),
                (Phase::PostAuthz, Level::Destination, "chancery.jwt.post.1", false),
            ] {
                let jwt = Jwt {
                    providers: [("a".into(), provider.clone())].into(),
                    mode: Mode::AllowMissing,
                    place: Place { phase, priority: 0 },
                    clear_route_cache,
                    claims: [].into(),
                    scopes: [].into(),
                };
                let policy = ObjectRef::new(Kind::JwtPolicy, "c1", "shop", "p");
                let verification = Policy::Jwt(Arc::new(Verification { name: "v".into(), policy, jwt }));
                let mut extensions = Extensions::default();
                extensions.add(level, &verification);
                let (config, _) = emit_tokens(slot, &extensions, EnvoyRelease::new(1, 40)).expect("its slot");
                let made = jwt_pb::JwtAuthentication::decode(config.value.as_slice()).expect("a message");
                let clears: Vec<bool> = made.providers.values().map(|provider| provider.clear_route_cache).collect();
                assert_eq!(clears, [expected], "{slot} {clear_route_cache:?}");
            }
        }
    }
}
