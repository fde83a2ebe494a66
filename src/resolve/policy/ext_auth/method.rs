//! One method of an ExtAuthPolicy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::crd::common::ObjectRef as WrittenRef;
use crate::crd::common::ObjectReference;
use crate::crd::policy::ext_auth as written;
use crate::ir::policy::ext_auth::{
    AccessToken, ApiKey, Basic, CheckRetries, GrpcServer, HttpServer, Method, SecretEntry,
};
use crate::ir::policy::jwt::{Keys, RemoteKeys};
use crate::ir::policy::sealed::Sealed;
use crate::model::{FieldPath, Findings, Kind, ObjectRef};
use crate::resolve::facts::Fault;
use crate::resolve::lower::labels;

use super::super::jwt::{CACHE, FETCH, LONGEST_CACHE, inline_keys, scope};
use super::super::parts::{
    LONGEST_CALL, MILLISECOND, added_headers, address, fault, header, optional_text, reference, remark, set,
    settable_header, span, text, unsupported, url,
};
use super::basic;

/// Header of API keys.
const API_KEY: &str = "api-key";

/// Time for a check by a server of the author's own.
const CHECK: Duration = Duration::from_secs(5);

/// Before the first retry of a check.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Longest time between retries that Envoy takes and that can be meant.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(3600);

/// A method.
pub(super) fn lower(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::AuthMethod,
    remarks: &mut Findings,
) -> Result<Method, Fault> {
    let without = |method: &str, advice: &str| {
        Err(unsupported(&field.field(method), format!("{method} is not supported yet: {advice}")))
    };
    let server = "ask a server of your own by `customAuth` or `passThroughAuth`";
    match written {
        written::AuthMethod { basic_auth: Some(basic), .. } => {
            let field = field.field("basicAuth");
            let users = Sealed::new(basic::users(&field, basic)?);
            Ok(Method::Basic(Basic { realm: optional_text(&field.field("realm"), &basic.realm)?, users }))
        }
        written::AuthMethod { api_key_auth: Some(key), .. } => {
            api_key(id, &field.field("apiKeyAuth"), key, remarks).map(Method::ApiKey)
        }
        written::AuthMethod { pass_through_auth: Some(server), .. } => {
            pass_through(id, &field.field("passThroughAuth"), server, remarks)
        }
        written::AuthMethod { oauth2: Some(oauth2), .. } => {
            let field = field.field("oauth2");
            let without = |method: &str| {
                Err(unsupported(&field.field(method), format!("oauth2.{method} is not supported yet: {server}")))
            };
            match oauth2 {
                written::OAuth2 { oidc_authorization_code: Some(_), .. } => without("oidcAuthorizationCode"),
                written::OAuth2 { oauth2: Some(_), .. } => without("oauth2"),
                written::OAuth2 { access_token_validation: Some(token), .. } => {
                    access_token(id, &field.field("accessTokenValidation"), token, remarks).map(Method::AccessToken)
                }
                _ => Err(fault(&field, "nothing is checked: write `accessTokenValidation`")),
            }
        }
        written::AuthMethod { jwt: Some(_), .. } => Ok(Method::Jwt),
        written::AuthMethod { oauth: Some(_), .. } => without("oauth", server),
        written::AuthMethod { plugin_auth: Some(_), .. } => without("pluginAuth", server),
        written::AuthMethod { opa_auth: Some(_), .. } => without("opaAuth", "ask an OPA server by `customAuth`"),
        written::AuthMethod { ldap: Some(_), .. } => without("ldap", server),
        written::AuthMethod { hmac_auth: Some(_), .. } => without("hmacAuth", server),
        written::AuthMethod { opa_server_auth: Some(_), .. } => {
            without("opaServerAuth", "ask an OPA server by `customAuth`")
        }
        _ => Err(fault(field, "there is no method here: write for instance `apiKeyAuth`")),
    }
}

fn api_key(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::ApiKeyAuth,
    remarks: &mut Findings,
) -> Result<ApiKey, Fault> {
    if written.aerospike_apikey_storage.is_some() {
        let why = "apiKeyAuth.aerospikeApikeyStorage is not supported: keep the keys in Secrets";
        return Err(unsupported(&field.field("aerospikeApikeyStorage"), why));
    }
    let deprecated = !written.label_selector.is_empty() || !written.api_key_secret_refs.is_empty();
    let (place, wanted, refs) = match &written.k8s_secret_apikey_storage {
        Some(storage) => {
            if deprecated {
                let name = if written.label_selector.is_empty() { "apiKeySecretRefs" } else { "labelSelector" };
                let why = "this is ignored beside `k8sSecretApikeyStorage`; move it there";
                remark(id, &field.field(name), why, remarks);
            }
            (field.field("k8sSecretApikeyStorage"), &storage.label_selector, &storage.api_key_secret_refs)
        }
        None => (field.clone(), &written.label_selector, &written.api_key_secret_refs),
    };
    let list = place.field("apiKeySecretRefs");
    let mut secrets = BTreeMap::new();
    for (index, secret) in refs.iter().enumerate() {
        let place = list.index(index);
        secrets.insert(secret_reference(&place, secret, id)?, place);
    }
    let secret_labels = (!wanted.is_empty()).then(|| labels(wanted));
    if secrets.is_empty() && secret_labels.is_none() {
        let why = "there are no keys: write `labelSelector` or `apiKeySecretRefs` below `k8sSecretApikeyStorage`";
        return Err(fault(&place, why));
    }
    let header = match written.header_name.as_str() {
        "" => API_KEY.into(),
        name => header(&field.field("headerName"), name)?,
    };
    let mut headers = BTreeMap::new();
    for (name, entries) in [
        ("headersFromMetadata", &written.headers_from_metadata),
        ("headersFromMetadataEntry", &written.headers_from_metadata_entry),
    ] {
        let mut own = BTreeSet::new();
        for (target, entry) in entries {
            let field = field.field(name).field(target);
            let target = settable_header(&field, target)?;
            let entry = SecretEntry { name: text(&field.field("name"), &entry.name)?, required: entry.required };
            if !own.insert(target.clone()) {
                return Err(fault(&field, "the header is named twice in different case; keep one"));
            }
            headers.insert(target, entry);
        }
    }
    Ok(ApiKey { header, secrets, secret_labels, headers })
}

fn secret_reference(field: &FieldPath, written: &WrittenRef, holder: &ObjectRef) -> Result<ObjectRef, Fault> {
    let written =
        ObjectReference { name: written.name.clone(), namespace: written.namespace.clone(), cluster: String::new() };
    reference(field, Kind::Secret, &written, holder)
}

fn access_token(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::AccessTokenValidation,
    remarks: &mut Findings,
) -> Result<AccessToken, Fault> {
    const INSTEAD: &str = "validate tokens that are JWTs by `jwt`, or ask a server of your own";
    for (name, is_there) in [
        ("introspection", written.introspection.is_some()),
        ("introspectionUrl", written.introspection_url.is_some()),
        ("userinfoUrl", !written.userinfo_url.is_empty()),
    ] {
        if is_there {
            let why = format!("oauth2.accessTokenValidation.{name} is not supported yet: {INSTEAD}");
            return Err(unsupported(&field.field(name), why));
        }
    }
    let Some(jwt) = &written.jwt else {
        return Err(fault(field, "it is not said how tokens are validated: write `jwt`"));
    };
    if written.cache_timeout.is_some() {
        remark(id, &field.field("cacheTimeout"), "nothing is asked about JWTs, so nothing is kept", remarks);
    }
    if !written.dynamic_metadata_from_claims.is_empty() {
        let why = "the claims stand below the metadata of `envoy.filters.http.jwt_authn`, under their own names";
        remark(id, &field.field("dynamicMetadataFromClaims"), why, remarks);
    }
    let place = field.field("jwt");
    let keys = match (&jwt.remote_jwks, &jwt.local_jwks) {
        (Some(remote), _) => {
            let place = place.field("remoteJwks");
            Keys::Remote(RemoteKeys {
                url: url(&place.field("url"), &remote.url)?,
                destination: None,
                cache: span(
                    &place.field("refreshInterval"),
                    remote.refresh_interval,
                    CACHE,
                    MILLISECOND..=LONGEST_CACHE,
                )?,
                timeout: FETCH,
                fetch_early: false,
            })
        }
        (None, Some(local)) => {
            inline_keys(id, &place.field("localJwks").field("inlineString"), &local.inline_string, remarks)?
        }
        (None, None) => return Err(fault(&place, "there are no keys: write `remoteJwks` or `localJwks`")),
    };
    let scopes = written.required_scopes.clone().unwrap_or_default().scope;
    Ok(AccessToken {
        issuer: optional_text(&place.field("issuer"), &jwt.issuer)?,
        keys,
        scopes: set(&field.field("requiredScopes").field("scope"), &scopes, scope)?,
    })
}

fn pass_through(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::PassThroughAuth,
    remarks: &mut Findings,
) -> Result<Method, Fault> {
    if written.config.is_some() {
        let why = "passThroughAuth.config is not supported yet: leave it out, or tell the server by `customAuth`";
        return Err(unsupported(&field.field("config"), why));
    }
    let allow = written.failure_mode_allow;
    match (&written.grpc, &written.http) {
        (Some(server), _) => grpc(&field.field("grpc"), server, allow).map(Method::Grpc),
        (None, Some(server)) => http(id, &field.field("http"), server, allow, remarks).map(Method::Http),
        (None, None) => Err(fault(field, "there is no server: write `grpc` or `http`")),
    }
}

fn grpc(field: &FieldPath, written: &written::PassThroughGrpc, allow: bool) -> Result<GrpcServer, Fault> {
    let retries = match &written.retry_policy {
        None => None,
        Some(retries) => {
            let times = retries.retry_back_off.clone().unwrap_or_default();
            let place = field.field("retryPolicy").field("retryBackOff");
            let range = MILLISECOND..=LONGEST_BACK_OFF;
            let base = span(&place.field("baseInterval"), times.base_interval, BACK_OFF, range)?;
            let most = span(&place.field("maxInterval"), times.max_interval, base, base..=LONGEST_BACK_OFF)?;
            Some(CheckRetries {
                attempts: retries.num_retries.unwrap_or(1),
                base_interval: base,
                max_interval: times.max_interval.map(|_| most),
            })
        }
    };
    Ok(GrpcServer {
        address: address(&field.field("address"), &written.address)?,
        tls: written.tls_config.is_some(),
        timeout: span(
            &field.field("connectionTimeout"),
            written.connection_timeout,
            CHECK,
            MILLISECOND..=LONGEST_CALL,
        )?,
        retries,
        failure_mode_allow: allow,
    })
}

fn http(
    id: &ObjectRef,
    field: &FieldPath,
    written: &written::PassThroughHttp,
    allow: bool,
    remarks: &mut Findings,
) -> Result<HttpServer, Fault> {
    let request = written.request.clone().unwrap_or_default();
    let response = written.response.clone().unwrap_or_default();
    let (asked, answered) = (field.field("request"), field.field("response"));
    for (place, name, is_there) in [
        (&asked, "passThroughState", request.pass_through_state),
        (&asked, "passThroughFilterMetadata", request.pass_through_filter_metadata),
        (&asked, "passThroughBody", request.pass_through_body),
        (&answered, "readStateFromResponse", response.read_state_from_response),
    ] {
        if is_there {
            let why = format!("passThroughAuth.http with {name} is not supported: Envoy sends and reads headers alone");
            return Err(unsupported(&place.field(name), why));
        }
    }
    let place = field.field("url");
    let url = url(&place, &written.url)?;
    if url.path.contains('?') {
        return Err(fault(&place, "the URL has a query, which is not sent; remove it"));
    }
    let why = "the server gets the client's own method and always its `Authorization`; the original platform sent POST";
    remark(id, field, why, remarks);
    let overwrite = "allowedUpstreamHeadersToOverwrite";
    Ok(HttpServer {
        url,
        timeout: span(
            &field.field("connectionTimeout"),
            written.connection_timeout,
            CHECK,
            MILLISECOND..=LONGEST_CALL,
        )?,
        request_headers: set(&asked.field("allowedHeaders"), &request.allowed_headers, header)?,
        added_headers: added_headers(&asked.field("headersToAdd"), &request.headers_to_add)?,
        upstream_append: set(
            &answered.field("allowedUpstreamHeaders"),
            &response.allowed_upstream_headers,
            settable_header,
        )?,
        upstream_overwrite: set(
            &answered.field(overwrite),
            &response.allowed_upstream_headers_to_overwrite,
            settable_header,
        )?,
        client_on_denied: set(
            &answered.field("allowedClientHeadersOnDenied"),
            &response.allowed_client_headers_on_denied,
            header,
        )?,
        failure_mode_allow: allow,
    })
}
