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
    LONGEST_CALL, MILLISECOND, config, destination, destination_kinds, fault, glob, header, optional_text, place,
    quoted, reference, remark, set, settable_header, span, text, url,
};

/// How long fetched keys are kept.
pub(super) const CACHE: Duration = Duration::from_secs(300);

/// Time for fetching keys.
pub(super) const FETCH: Duration = Duration::from_secs(5);

/// Longest time that keys may be kept: what Envoy takes.
pub(super) const LONGEST_CACHE: Duration = Duration::from_secs(9_000_000_000);

/// Tolerance for times in tokens, in seconds.
const CLOCK_SKEW: u32 = 60;

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
    let scopes = set(&root.field("requiredScopes"), &config.required_scopes, scope)?;
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
    Ok(Provider {
        issuer: optional_text(&field.field("issuer"), &written.issuer)?,
        audiences: set(&field.field("audiences"), &written.audiences, text)?,
        headers: token_headers,
        parameters,
        keys: keys(id, field, written, remarks)?,
        claims_to_headers,
        payload_header,
        keep_token: written.keep_token,
        clock_skew_seconds: written.clock_skew_seconds.unwrap_or(CLOCK_SKEW),
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
    let read = jwks::read(written, jwks::From::Policy).map_err(|reason| fault(field, reason))?;
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
