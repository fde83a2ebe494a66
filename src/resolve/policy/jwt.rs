//! JWTPolicy: which tokens pass, and what becomes of their claims. The oldest applies.

pub mod jwks;
mod settled;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::crd::common::DestinationKind;
use crate::crd::policy::JwtPolicy;
use crate::crd::policy::jwt as written;
use crate::ir::policy::jwt::{
    ClaimCheck, ClaimValue, ClearRouteCache, Decimal, HeaderClaim, Jwt, Keys, Literal, Mode, Provider, RemoteKeys,
    TokenHeader,
};
use crate::ir::policy::{Phase, TextPattern};
use crate::model::{FieldPath, Findings, Kind, Name, ObjectRef};
use crate::resolve::facts::Fault;

pub(super) use settled::{named, settle};

use super::no_config;
use super::parts::{
    LONGEST_CALL, MILLISECOND, at_most, config, destination, destination_kinds, fault, glob, header, optional_text,
    place, quoted, reference, remark, set, settable_header, span, text, url,
};

/// How long fetched keys are kept.
pub(super) const CACHE: Duration = Duration::from_secs(300);

/// Time for fetching keys.
pub(super) const FETCH: Duration = Duration::from_secs(5);

/// Longest time that keys may be kept, 146 years: Envoy refuses twice as much as fits into nanoseconds of 63 bits, and with
/// it the keys of everybody.
pub(super) const LONGEST_CACHE: Duration = Duration::from_secs(4_611_686_017);

/// Tolerance for times in tokens, in seconds.
const CLOCK_SKEW: u32 = 60;

/// Headers of clients that no claim may become: Envoy removes what clients send under the name, from 1.40 on also on the
/// routes of everybody else's policies of the phase.
const OF_CLIENTS: &[&str] = &[
    "accept",
    "accept-*",
    "access-control-*",
    "authorization",
    "cache-control",
    "content-*",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "grpc-*",
    "if-*",
    "origin",
    "range",
    "referer",
    "sec-*",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-request-id",
];

/// Most providers of a policy. Every route that it is on asks for each claim of each of them.
const MOST_PROVIDERS: usize = 16;

/// Most items of the lists of a provider, and of the list of claims.
const MOST_ITEMS: usize = 64;

/// Most values of a claim, of each of both sorts, and most scopes.
const MOST_VALUES: usize = 256;

/// Most that the conditions on claims and scopes may come to on one route, in bytes, as [`conditions`] counts. A hundred
/// thousand routes with as much are as large as a gateway's memory.
const MOST_CONDITIONS: usize = 65_536;

/// What a JWTPolicy means.
///
/// # Errors
/// No provider, or one without keys; keys that cannot be read; a URL without host; a reference without name; a claim
/// without values; a header that two claims would set; a destination that is no Service.
///
/// # Rule
/// R123, R125, R130.
pub fn lower(id: &ObjectRef, policy: &JwtPolicy, remarks: &mut Findings) -> Result<Jwt, Fault> {
    let config = policy.config.as_ref().ok_or_else(no_config)?;
    destination_kinds(&policy.apply_to_destinations, &[DestinationKind::Service], "select Services or routes")?;
    let root = self::config();
    let list = root.field("providers");
    if config.providers.is_empty() {
        return Err(fault(&list, "there is no provider: name one with its `issuer` and its keys"));
    }
    at_most(&list, config.providers.len(), MOST_PROVIDERS)?;
    let mut providers = BTreeMap::new();
    let mut headers = BTreeSet::new();
    for (name, written) in &config.providers {
        let field = list.field(name);
        let name = text(&field, name)?;
        providers.insert(name, provider(id, &field, written, &mut headers, remarks)?);
    }
    let mode = match config.validation_policy {
        written::JwtValidationPolicy::RequireValid if config.allow_missing_or_failed => Mode::AllowMissingOrFailed,
        written::JwtValidationPolicy::RequireValid => Mode::RequireValid,
        written::JwtValidationPolicy::AllowMissing => Mode::AllowMissing,
        written::JwtValidationPolicy::AllowMissingOrFailed => Mode::AllowMissingOrFailed,
    };
    if config.allow_missing_or_failed {
        let text = "this is deprecated; write `validationPolicy: ALLOW_MISSING_OR_FAILED`";
        remark(id, &root.field("allowMissingOrFailed"), text, remarks);
    }
    let claims = claims(&root.field("claims"), &config.claims)?;
    at_most(&root.field("requiredScopes"), config.required_scopes.len(), MOST_VALUES)?;
    let scopes = set(&root.field("requiredScopes"), &config.required_scopes, scope)?;
    if conditions(&claims, &scopes).saturating_mul(providers.len()) > MOST_CONDITIONS {
        let message = format!(
            "claims and scopes come to more than {MOST_CONDITIONS} bytes for all providers together, which each route would \
             have; use fewer or shorter values"
        );
        return Err(fault(&root.field("claims"), message));
    }
    if mode != Mode::RequireValid && !(claims.is_empty() && scopes.is_empty()) {
        let text =
            "requests without a valid token are refused all the same, because `claims` or `requiredScopes` want one";
        remark(id, &root.field("validationPolicy"), text, remarks);
    }
    Ok(Jwt {
        providers,
        mode,
        place: place(config.phase.as_ref(), Phase::PreAuthz),
        clear_route_cache: match config.clear_route_cache {
            written::ClearRouteCache::Auto => ClearRouteCache::Auto,
            written::ClearRouteCache::False => ClearRouteCache::Never,
            written::ClearRouteCache::True => ClearRouteCache::Always,
        },
        claims,
        scopes,
    })
}

/// Roughly the bytes that the conditions on a token take on a route: each value is written twice, for texts and for lists.
pub(super) fn conditions(claims: &BTreeSet<ClaimCheck>, scopes: &BTreeSet<Name>) -> usize {
    /// What stands around a value, and around a condition.
    const AROUND: usize = 32;
    let text = |value: &ClaimValue| match &value.text {
        TextPattern::Any => AROUND,
        TextPattern::Exact(text) | TextPattern::Prefix(text) | TextPattern::Suffix(text) | TextPattern::Regex(text) => {
            2 * (text.len() + AROUND)
        }
    };
    let claim = |check: &ClaimCheck| -> usize {
        let path = check.path.iter().map(|name| name.len() + AROUND).sum::<usize>();
        4 * AROUND + 2 * path + check.values.iter().chain(&check.not_values).map(text).sum::<usize>()
    };
    claims.iter().map(claim).sum::<usize>() + scopes.iter().map(|scope| scope.len() + 4 * AROUND).sum::<usize>()
}

/// `headers` collects what tokens of this policy set.
fn provider(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::JwtProvider,
    headers: &mut BTreeSet<Name>,
    remarks: &mut Findings,
) -> Result<Provider, Fault> {
    let source = written.token_source.clone().unwrap_or_default();
    let place = field.field("tokenSource");
    at_most(&place, source.headers.len() + source.query_params.len(), MOST_ITEMS)?;
    at_most(&field.field("audiences"), written.audiences.len(), MOST_VALUES)?;
    at_most(&field.field("claimsToHeaders"), written.claims_to_headers.len(), MOST_ITEMS)?;
    let mut token_headers = Vec::new();
    for (index, written) in source.headers.iter().enumerate() {
        let field = place.field("headers").index(index);
        let name = header(&field.field("name"), &written.name)?;
        let prefix = optional_text(&field.field("prefix"), &written.prefix)?.unwrap_or_default();
        token_headers.push(TokenHeader { name, prefix });
    }
    let list = place.field("queryParams");
    let parameters = source.query_params.iter().enumerate().map(|(index, name)| text(&list.index(index), name));
    let parameters = parameters.collect::<Result<_, _>>()?;
    let mut set_once = |field: &FieldPath, written: &str| {
        let name = settable_header(field, written)?;
        if OF_CLIENTS.iter().any(|own| name == *own || own.strip_suffix('*').is_some_and(|head| name.starts_with(head)))
        {
            let message = format!(
                "`{name}` is a header of clients, and gateways would take it from requests; choose a name of your own"
            );
            return Err(fault(field, message));
        }
        if headers.insert(name.clone()) {
            return Ok(name);
        }
        Err(fault(field, format!("the header `{name}` is set twice in this policy; give each its own")))
    };
    let mut claims_to_headers = BTreeMap::new();
    for (index, written) in written.claims_to_headers.iter().enumerate() {
        let field = field.field("claimsToHeaders").index(index);
        let claim = text(&field.field("claim"), &written.claim)?;
        let header = set_once(&field.field("header"), &written.header)?;
        let is_url = claim.contains("://");
        claims_to_headers.insert(header, HeaderClaim { claim, is_url, append: written.append });
    }
    let payload_header = match written.output_payload_to_header.as_str() {
        "" => None,
        name => Some(set_once(&field.field("outputPayloadToHeader"), name)?),
    };
    let clock_skew_seconds = match written.clock_skew_seconds {
        None => CLOCK_SKEW,
        Some(0) => {
            let text = "Envoy takes 0 for 60 seconds, so 1 second is allowed";
            remark(id, &field.field("clockSkewSeconds"), text, remarks);
            1
        }
        Some(seconds) => seconds,
    };
    Ok(Provider {
        issuer: optional_text(&field.field("issuer"), &written.issuer)?,
        audiences: set(&field.field("audiences"), &written.audiences, text)?,
        headers: token_headers,
        parameters,
        keys: keys(id, field, written, remarks)?,
        claims_to_headers,
        payload_header,
        keep_token: written.keep_token,
        clock_skew_seconds,
    })
}

fn keys(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::JwtProvider,
    remarks: &mut Findings,
) -> Result<Keys, Fault> {
    let local = field.field("local");
    match (&written.local, &written.remote) {
        (Some(keys), _) => match (&keys.inline, &keys.secret_ref) {
            (Some(inline), _) => inline_keys(id, &local.field("inline"), inline, remarks),
            (None, Some(entry)) => {
                let place = local.field("secretRef");
                let Some(secret) = &entry.object_ref else {
                    return Err(fault(&place.field("objectRef"), "the Secret is not named: write `objectRef`"));
                };
                Ok(Keys::Secret {
                    secret: reference(&place.field("objectRef"), Kind::Secret, secret, id)?,
                    key: text(&place.field("key"), &entry.key)?,
                })
            }
            (None, None) => Err(fault(&local, "there are no keys: write `inline` or `secretRef`")),
        },
        (None, Some(remote)) => {
            let place = field.field("remote");
            Ok(Keys::Remote(RemoteKeys {
                url: url(&place.field("url"), &remote.url)?,
                destination: match &remote.destination_ref {
                    Some(written) => Some(destination(&place.field("destinationRef"), written, id)?),
                    None => None,
                },
                cache: span(&place.field("cacheDuration"), remote.cache_duration, CACHE, MILLISECOND..=LONGEST_CACHE)?,
                timeout: span(&place.field("timeout"), remote.timeout, FETCH, MILLISECOND..=LONGEST_CALL)?,
                fetch_early: remote.enable_async_fetch,
            }))
        }
        (None, None) => Err(fault(field, "the provider has no keys: write `local` or `remote`")),
    }
}

/// Keys that are written in a policy.
pub(super) fn inline_keys(
    id: &ObjectRef,
    field: &FieldPath,
    written: &str,
    remarks: &mut Findings,
) -> Result<Keys, Fault> {
    let read = jwks::read(written).map_err(|reason| fault(field, reason))?;
    if let Some(left_out) = read.left_out {
        remark(id, field, left_out, remarks);
    }
    Ok(Keys::Inline(read.jwks))
}

/// One scope, as it stands in the list that the claim is.
pub(super) fn scope(field: &FieldPath, written: &str) -> Result<Name, Fault> {
    if written.contains(char::is_whitespace) {
        return Err(fault(
            field,
            format!("{} has a space, which no scope has; write one scope per item", quoted(written)),
        ));
    }
    text(field, written)
}

fn claims(list: &FieldPath, written: &[written::JwtClaim]) -> Result<BTreeSet<ClaimCheck>, Fault> {
    at_most(list, written.len(), MOST_ITEMS)?;
    let mut checks = BTreeSet::new();
    for (index, claim) in written.iter().enumerate() {
        let field = list.index(index);
        let key = text(&field.field("key"), &claim.key)?;
        let path: Vec<Name> = match claim.nested_claim_delimiter.as_str() {
            "" => vec![key],
            delimiter => key.split(delimiter).map(Name::from).collect(),
        };
        if path.iter().any(|name| name.is_empty()) {
            return Err(fault(&field.field("key"), "a name between two delimiters is empty; correct the claim's path"));
        }
        if claim.values.is_empty() && claim.not_values.is_empty() {
            return Err(fault(&field, "the claim has no condition: write `values` or `notValues`"));
        }
        at_most(&field.field("values"), claim.values.len(), MOST_VALUES)?;
        at_most(&field.field("notValues"), claim.not_values.len(), MOST_VALUES)?;
        checks.insert(ClaimCheck {
            path,
            values: set(&field.field("values"), &claim.values, claim_value)?,
            not_values: set(&field.field("notValues"), &claim.not_values, claim_value)?,
        });
    }
    Ok(checks)
}

fn claim_value(field: &FieldPath, written: &str) -> Result<ClaimValue, Fault> {
    let pattern = glob(field, written)?;
    let literal = match (&pattern, written) {
        (TextPattern::Exact(_), "true") => Some(Literal::Bool(true)),
        (TextPattern::Exact(_), "false") => Some(Literal::Bool(false)),
        (TextPattern::Exact(_), text) => Decimal::parse(text).map(Literal::Number),
        _ => None,
    };
    Ok(ClaimValue { text: pattern, literal })
}

#[cfg(test)]
mod tests;
