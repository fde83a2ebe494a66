//! A JWTPolicy with its references followed.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::ir::policy::Phase;
use crate::ir::policy::jwt::{ClearRouteCache, Fetch, HeaderClaim, Jwt, KeySource, Keys, Provider, Verification};
use crate::ir::upstream::Purpose;
use crate::model::{FieldPath, Name, ObjectRef};
use crate::resolve::facts::Fault;
use crate::resolve::policy::parts::{config, fault, unsupported};
use crate::resolve::policy::settling::References;
use crate::resolve::world::World;

use super::jwks;

/// Follows the references of a policy.
///
/// # Errors
/// A Secret or an entry of it that is not there, or holds no public keys; a server that is not there or must not be
/// called; a claim that cannot be appended.
///
/// # Rule
/// R130.
pub(in crate::resolve::policy) fn settle<W: World + ?Sized>(
    references: &mut References<'_, W>,
    jwt: &Jwt,
) -> Result<Verification, Fault> {
    let root = config();
    let list = root.field("providers");
    let mut providers = BTreeMap::new();
    for (name, provider) in &jwt.providers {
        let field = list.field(name);
        for (header, claim) in &provider.claims_to_headers {
            check_appended(&field, header, claim)?;
        }
        let keys = keys(references, &field, &provider.keys)?;
        providers.insert(name.clone(), with_keys(provider, keys));
    }
    let jwt = Jwt {
        providers,
        mode: jwt.mode,
        place: jwt.place,
        clear_route_cache: jwt.clear_route_cache,
        claims: jwt.claims.clone(),
        scopes: jwt.scopes.clone(),
    };
    if jwt.place.phase == Phase::PostAuthz && jwt.clear_route_cache == ClearRouteCache::Always {
        let text = "after authorization the route is not chosen again: the request would reach another route with \
            what it was allowed on this one; verify in `preAuthz`";
        references.remark(&root.field("clearRouteCache"), text);
    }
    Ok(Verification { name: name(references, &jwt), policy: references.policy.clone(), jwt })
}

fn with_keys(provider: &Provider, keys: KeySource) -> Provider<KeySource> {
    Provider {
        issuer: provider.issuer.clone(),
        audiences: provider.audiences.clone(),
        headers: provider.headers.clone(),
        parameters: provider.parameters.clone(),
        keys,
        claims_to_headers: provider.claims_to_headers.clone(),
        payload_header: provider.payload_header.clone(),
        keep_token: provider.keep_token,
        clock_skew_seconds: provider.clock_skew_seconds,
    }
}

/// Claims are appended by a format string, in which some characters mean something else.
fn check_appended(provider: &FieldPath, header: &str, claim: &HeaderClaim) -> Result<(), Fault> {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"%():\"\\".contains(&b));
    if !claim.append || is_plain(&claim.claim) {
        return Ok(());
    }
    let message = format!("the claim of header `{header}` cannot be appended, only set: leave out `append`");
    Err(unsupported(&provider.field("claimsToHeaders"), message))
}

fn keys<W: World + ?Sized>(
    references: &mut References<'_, W>,
    provider: &FieldPath,
    keys: &Keys,
) -> Result<KeySource, Fault> {
    match keys {
        Keys::Inline(jwks) => Ok(KeySource::Inline(jwks.clone())),
        Keys::Secret { secret, key } => {
            let field = provider.field("local").field("secretRef");
            let content = references.secret(&field, secret, key)?;
            let wrong = |reason: &str| fault(&field, format!("entry `{key}` of `{secret}`: {reason}"));
            let text = std::str::from_utf8(content.expose()).map_err(|_| wrong("it is no text"))?;
            // What attaches is remembered in files, so nothing secret may come of it.
            let read = jwks::read(text).map_err(|reason| wrong(&reason))?;
            if let Some(left_out) = read.left_out {
                references.remark(&field, left_out);
            }
            Ok(KeySource::Inline(read.jwks))
        }
        Keys::Remote(remote) => {
            let field = provider.field("remote");
            let server = match &remote.destination {
                Some(written) => references.server(&field.field("destinationRef"), written, Purpose::HttpServer)?,
                None => references.dial(&field.field("url"), &remote.url.authority, (remote.url.tls, false))?,
            };
            Ok(KeySource::Remote(Fetch {
                url: remote.url.clone(),
                server,
                cache: remote.cache,
                timeout: remote.timeout,
                fetch_early: remote.fetch_early,
            }))
        }
    }
}

fn name<W: World + ?Sized>(references: &References<'_, W>, jwt: &Jwt<KeySource>) -> Name {
    let id = references.policy;
    named(id, &(id, &jwt.providers, jwt.mode, jwt.place.phase, jwt.clear_route_cache))
}

/// A name that says whose it is, and is another for other content: all that gateways hold of it beside routes.
pub(in crate::resolve::policy) fn named(id: &ObjectRef, shared: &impl std::fmt::Debug) -> Name {
    // The form has an order of its own for everything, so equal values give equal texts.
    let hash = xxh3_128(format!("{shared:?}").as_bytes());
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
    };
    format!("{}/{}/{}/{hash:032x}", plain(&id.cluster), plain(&id.namespace), plain(&id.name)).into()
}
