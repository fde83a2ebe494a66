//! An ExtAuthPolicy with its references followed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::policy::ext_auth::{
    AccessToken, AccessTokens, ApiClient, ApiKey, AuthChain, AuthMethod, AuthRule, AuthServer, Authorization, Basic,
    BasicCheck, BodyToServer, Call, CallPath, Check, CheckSettings, CustomAuth, ExtAuth, GrpcServer, HttpCall,
    HttpServer, KeyCheck, Method, Protocol, Shown,
};
use crate::ir::policy::jwt::{ClearRouteCache, Fetch, Jwt, KeySource, Keys, Mode, Provider, Verification};
use crate::ir::policy::reference::{DestinationRef, HttpUrl};
use crate::ir::policy::sealed::Sealed;
use crate::ir::policy::{Phase, Place};
use crate::ir::upstream::{Purpose, Server};
use crate::model::{FieldPath, Kind, Name, ObjectRef};
use crate::resolve::facts::{AuthServerObject, Fault};
use crate::resolve::policy::jwt::named;
use crate::resolve::policy::parts::{config, fault, quoted, unsupported};
use crate::resolve::policy::settling::References;
use crate::resolve::world::World;

use super::keys;

/// The Service that an ExtAuthServer means that names none, and its namespace.
const DEFAULT_SERVER: (&str, &str) = ("ext-auth-service", "gloo-mesh");

/// Status where a server of `passThroughAuth` cannot be reached.
const STATUS: u16 = 403;

/// Follows the references of a policy.
///
/// # Errors
/// A server or Secret that is not there, or that cannot be used; an expression that never holds. `UNSUPPORTED` where one
/// gateway has room for fewer methods of a kind.
///
/// # Rule
/// R130.
pub(in crate::resolve::policy) fn settle<W: World + ?Sized>(
    references: &mut References<'_, W>,
    auth: &ExtAuth,
) -> Result<Authorization, Fault> {
    match auth {
        ExtAuth::Custom(custom) => Ok(Authorization {
            policy: references.policy.clone(),
            checks: vec![check_custom(references, custom)?],
            tokens: None,
            basic: None,
            key: None,
            rule: None,
        }),
        ExtAuth::Chain(chain) => settle_chain(references, chain),
    }
}

fn check_custom<W: World + ?Sized>(references: &mut References<'_, W>, custom: &CustomAuth) -> Result<Check, Fault> {
    let field = config().field("server");
    let object = match &custom.server {
        Some(id) => references.world.auth_server(id).ok_or_else(|| {
            fault(&field, format!("`{id}` does not exist, or is in no namespace of a workspace; check the reference"))
        })?,
        None => {
            let all = references.world.auth_servers();
            let is_own = |server: &Arc<AuthServerObject>| {
                references.world.roster().owner_of(&server.id) == Some(references.owner)
            };
            all.into_iter().find(is_own).ok_or_else(|| {
                let message = format!(
                    "the policy names no `server`, and workspace `{}` has no ExtAuthServer: write one of them",
                    references.owner
                );
                fault(&field, message)
            })?
        }
    };
    let of_object = |wrong: Fault| Fault {
        field: field.clone(),
        message: format!("`{}` cannot be asked: {} (`{}`)", object.id, wrong.message, wrong.field),
        ..wrong
    };
    let server = object.server.as_ref().map_err(|wrong| of_object(wrong.clone()))?;
    let called = called(references, &object.id, server).map_err(of_object)?;
    if server.clear_route_cache {
        let text = "`clearRouteCache` of the server is ignored: the request would reach another route with what it was \
            allowed on this one";
        references.remark(&field, text);
    }
    let (http, call, body) = match &server.protocol {
        Protocol::Grpc => (None, Call::Grpc(None), server.body.clone()),
        Protocol::Http { path_prefix, request_headers, added_headers, upstream_headers, client_headers } => {
            if !custom.context.is_empty() {
                let field = config().field("customAuth").field("contextExtensions");
                references
                    .remark(&field, "servers that speak HTTP are told nothing of this; let the server speak gRPC");
            }
            let call = HttpCall {
                path: CallPath::Prefix(path_prefix.clone().unwrap_or_default()),
                added_headers: added_headers.clone(),
                upstream_headers: upstream_headers.clone(),
                upstream_append: BTreeSet::new(),
                client_headers: client_headers.clone(),
            };
            let body = server.body.clone().map(|body| BodyToServer { as_bytes: false, ..body });
            (Some(request_headers.clone()), Call::Http(call), body)
        }
    };
    let settings = CheckSettings {
        failure_mode_allow: server.failure_mode_allow,
        status_on_error: server.status_on_error,
        stat_prefix: server.stat_prefix.clone(),
        body,
        http,
    };
    Ok(Check { server: called, timeout: server.timeout, context: custom.context.clone(), settings, call })
}

/// The destination of an ExtAuthServer, as its owner sees it.
fn called<W: World + ?Sized>(
    references: &mut References<'_, W>,
    id: &ObjectRef,
    server: &AuthServer,
) -> Result<Server, Fault> {
    let field = FieldPath::new("spec.destinationServer");
    let world = references.world;
    let Some(owner) = world.roster().owner_of(id) else {
        return Err(fault(&field, "no workspace owns the server"));
    };
    let (name, namespace) = DEFAULT_SERVER;
    let destination = server.destination.clone().unwrap_or_else(|| DestinationRef {
        object: ObjectRef::new(Kind::Service, &id.cluster, namespace, name),
        port: None,
        subset: Default::default(),
    });
    let purpose = match server.protocol {
        Protocol::Grpc => Purpose::GrpcServer,
        Protocol::Http { .. } => Purpose::HttpServer,
    };
    References { world, policy: id, owner, remarks: &mut *references.remarks }.server(&field, &destination, purpose)
}

fn settle_chain<W: World + ?Sized>(
    references: &mut References<'_, W>,
    chain: &AuthChain,
) -> Result<Authorization, Fault> {
    let field = config().field("glooAuth");
    let mandatory: BTreeSet<usize> = chain.mandatory.iter().copied().collect();
    let mut made = Making {
        references,
        checks: Vec::new(),
        basic: None,
        key: None,
        tokens: tokens(chain, &mandatory),
        keys: BTreeMap::new(),
    };
    let mut factors: Vec<AuthRule<Shown>> = Vec::new();
    for index in &mandatory {
        let Some(method) = chain.methods.get(*index) else { continue };
        if made.require(method)? {
            factors.push(AuthRule::Method(Shown::Jwt));
        }
    }
    if let Some(rule) = &chain.rule {
        match made.rule(chain, &mandatory, rule)? {
            Truth::Always => {}
            Truth::Never => {
                let why = "the expression holds for no request, so nobody passes; correct it, or remove the policy";
                return Err(fault(&field.field("booleanExpr"), why));
            }
            Truth::When(AuthRule::All(rules)) => factors.extend(rules),
            Truth::When(rule) => factors.push(rule),
        }
    }
    let rule = match factors.len() {
        0 | 1 => factors.pop(),
        _ => Some(AuthRule::All(factors)),
    };
    if made.checks.len() > 1 {
        let text = "servers are asked in an order of their own, and none is told what another answered";
        made.references.remark(&field.field("configs"), text);
    }
    let Making { references, checks, basic, key, tokens, .. } = made;
    let tokens = match tokens.is_empty() {
        true => None,
        false => Some(Arc::new(settle_tokens(references, tokens)?)),
    };
    Ok(Authorization { policy: references.policy.clone(), checks, tokens, basic, key, rule })
}

/// Access tokens by the names of their methods, with their places, and whether a request must have them.
type Tokens<'c> = BTreeMap<&'c Name, (&'c AccessToken, &'c FieldPath, bool)>;

/// The access tokens of a policy by the names of their methods, and whether a request must have them.
fn tokens<'c>(chain: &'c AuthChain, mandatory: &BTreeSet<usize>) -> Tokens<'c> {
    let all = chain.methods.iter().enumerate();
    let tokens = all.filter_map(|(index, method)| match &method.method {
        Method::AccessToken(token) => Some((&method.name, (token, &method.field, mandatory.contains(&index)))),
        _ => None,
    });
    tokens.collect()
}

/// What of a rule is left to ask.
enum Truth {
    Always,
    Never,
    When(AuthRule<Shown>),
}

/// An authorization while methods are added.
struct Making<'m, 'c, 'w, W: World + ?Sized> {
    references: &'m mut References<'w, W>,
    checks: Vec<Check>,
    basic: Option<BasicCheck>,
    key: Option<KeyCheck>,
    tokens: Tokens<'c>,
    /// What rules ask of keys, by the name of the method.
    keys: BTreeMap<Name, Shown>,
}

impl<W: World + ?Sized> Making<'_, '_, '_, W> {
    /// Adds a method that every request must pass; whether it asks what a JWTPolicy found.
    fn require(&mut self, method: &AuthMethod) -> Result<bool, Fault> {
        match &method.method {
            Method::Basic(basic) => self.put_basic(method, basic, false)?,
            Method::ApiKey(key) => {
                let clients = keys::clients(self.references, &method.field, key)?;
                self.put_key(method, key, Sealed::new(clients), false)?;
            }
            // All of them are in `tokens`.
            Method::AccessToken(_) => {}
            Method::Jwt => return Ok(true),
            Method::Grpc(server) => self.checks.push(check_grpc(self.references, &method.field, server)?),
            Method::Http(server) => self.checks.push(check_http(self.references, &method.field, server)?),
        }
        Ok(false)
    }

    fn put_basic(&mut self, method: &AuthMethod, basic: &Basic, is_optional: bool) -> Result<(), Fault> {
        let own = BasicCheck { realm: basic.realm.clone(), users: basic.users.clone(), is_optional };
        match &self.basic {
            Some(other) if *other != own => Err(second(method, "basicAuth")),
            _ => {
                self.basic = Some(own);
                Ok(())
            }
        }
    }

    fn put_key(
        &mut self,
        method: &AuthMethod,
        key: &ApiKey,
        clients: Sealed<Vec<ApiClient>>,
        is_optional: bool,
    ) -> Result<(), Fault> {
        let headers = key.headers.keys().cloned().collect();
        let own = KeyCheck { header: key.header.clone(), clients, headers, is_optional };
        match &self.key {
            Some(other) if *other != own => Err(second(method, "apiKeyAuth")),
            _ => {
                self.key = Some(own);
                Ok(())
            }
        }
    }

    /// A rule in which methods that every request passes hold.
    fn rule(&mut self, chain: &AuthChain, mandatory: &BTreeSet<usize>, rule: &AuthRule) -> Result<Truth, Fault> {
        Ok(match rule {
            AuthRule::Method(index) if mandatory.contains(index) => Truth::Always,
            AuthRule::Method(index) => match chain.methods.get(*index) {
                Some(method) => Truth::When(AuthRule::Method(self.ask(method)?)),
                None => Truth::Never,
            },
            AuthRule::Not(inner) => match self.rule(chain, mandatory, inner)? {
                Truth::Always => Truth::Never,
                Truth::Never => Truth::Always,
                Truth::When(AuthRule::Not(inner)) => Truth::When(*inner),
                Truth::When(inner) => Truth::When(AuthRule::Not(Box::new(inner))),
            },
            AuthRule::All(rules) | AuthRule::Any(rules) => {
                let is_all = matches!(rule, AuthRule::All(_));
                let mut left = Vec::new();
                for rule in rules {
                    match (self.rule(chain, mandatory, rule)?, is_all) {
                        (Truth::Always, true) | (Truth::Never, false) => {}
                        (Truth::Never, true) => return Ok(Truth::Never),
                        (Truth::Always, false) => return Ok(Truth::Always),
                        (Truth::When(rule), _) => left.push(rule),
                    }
                }
                match (left.len(), left.pop(), is_all) {
                    (_, None, true) => Truth::Always,
                    (_, None, false) => Truth::Never,
                    (1, Some(only), _) => Truth::When(only),
                    (_, Some(last), true) => Truth::When(AuthRule::All(left.into_iter().chain([last]).collect())),
                    (_, Some(last), false) => Truth::When(AuthRule::Any(left.into_iter().chain([last]).collect())),
                }
            }
        })
    }

    /// What a rule asks about a method without which a request may pass.
    fn ask(&mut self, method: &AuthMethod) -> Result<Shown, Fault> {
        match &method.method {
            Method::Basic(basic) => {
                self.put_basic(method, basic, true)?;
                Ok(Shown::User)
            }
            Method::ApiKey(key) => {
                if let Some(known) = self.keys.get(&method.name) {
                    return Ok(known.clone());
                }
                let clients = Sealed::new(keys::clients(self.references, &method.field, key)?);
                if !key.headers.is_empty() {
                    self.put_key(method, key, clients.clone(), true)?;
                }
                let shown = Shown::Key(key.header.clone(), clients);
                self.keys.insert(method.name.clone(), shown.clone());
                Ok(shown)
            }
            Method::AccessToken(_) => {
                let position = self.tokens.keys().position(|other| **other == method.name);
                position.map(Shown::Token).ok_or_else(|| fault(&method.field, "a token is missing"))
            }
            Method::Jwt => Ok(Shown::Jwt),
            Method::Grpc(_) | Method::Http(_) => {
                let why = "it calls a server, so it cannot stand below `||` or `!`";
                Err(unsupported(&method.field.field("passThroughAuth"), why))
            }
        }
    }
}

/// There is one filter of a kind for users, and one for keys.
fn second(method: &AuthMethod, what: &str) -> Fault {
    let why = format!("{} is the second {what} of the policy, and there is room for one only", quoted(&method.name));
    unsupported(&method.field.field(what), why)
}

fn check_grpc<W: World + ?Sized>(
    references: &mut References<'_, W>,
    field: &FieldPath,
    server: &GrpcServer,
) -> Result<Check, Fault> {
    Ok(Check {
        server: references.dial(
            &field.field("passThroughAuth").field("grpc").field("address"),
            &server.address,
            (server.tls, true),
        )?,
        timeout: server.timeout,
        context: BTreeMap::new(),
        settings: CheckSettings {
            failure_mode_allow: server.failure_mode_allow,
            status_on_error: STATUS,
            stat_prefix: None,
            body: None,
            http: None,
        },
        call: Call::Grpc(server.retries.clone()),
    })
}

fn check_http<W: World + ?Sized>(
    references: &mut References<'_, W>,
    field: &FieldPath,
    server: &HttpServer,
) -> Result<Check, Fault> {
    let HttpUrl { tls, authority, path } = &server.url;
    let called =
        references.dial(&field.field("passThroughAuth").field("http").field("url"), authority, (*tls, false))?;
    let call = HttpCall {
        path: CallPath::Fixed(path.clone()),
        added_headers: server.added_headers.clone(),
        upstream_headers: server.upstream_overwrite.clone(),
        upstream_append: server.upstream_append.clone(),
        client_headers: server.client_on_denied.clone(),
    };
    Ok(Check {
        server: called,
        timeout: server.timeout,
        context: BTreeMap::new(),
        settings: CheckSettings {
            failure_mode_allow: server.failure_mode_allow,
            status_on_error: STATUS,
            stat_prefix: None,
            body: None,
            http: Some(server.request_headers.clone()),
        },
        call: Call::Http(call),
    })
}

fn settle_tokens<W: World + ?Sized>(
    references: &mut References<'_, W>,
    tokens: Tokens<'_>,
) -> Result<AccessTokens, Fault> {
    let mandatory: BTreeSet<usize> =
        tokens.values().enumerate().filter_map(|(index, (.., is_mandatory))| is_mandatory.then_some(index)).collect();
    let scopes = tokens.values().map(|(token, ..)| token.scopes.clone()).collect();
    let mut providers = BTreeMap::new();
    for (name, (token, field, _)) in tokens {
        let jwt = field.field("oauth2").field("accessTokenValidation").field("jwt");
        let url = jwt.field("remoteJwks").field("url");
        let keys = match &token.keys {
            Keys::Inline(jwks) => KeySource::Inline(jwks.clone()),
            Keys::Remote(remote) => KeySource::Remote(Fetch {
                url: remote.url.clone(),
                server: references.dial(&url, &remote.url.authority, (remote.url.tls, false))?,
                cache: remote.cache,
                timeout: remote.timeout,
                fetch_early: remote.fetch_early,
            }),
            Keys::Secret { .. } => return Err(fault(&jwt, "the keys of access tokens are in no Secret")),
        };
        let provider = Provider {
            issuer: token.issuer.clone(),
            audiences: BTreeSet::new(),
            headers: Vec::new(),
            parameters: Vec::new(),
            keys,
            claims_to_headers: BTreeMap::new(),
            payload_header: None,
            keep_token: true,
            clock_skew_seconds: 60,
        };
        providers.insert(name.clone(), provider);
    }
    let jwt = Jwt {
        providers,
        mode: Mode::RequireValid,
        place: Place { phase: Phase::PreAuthz, priority: 0 },
        clear_route_cache: ClearRouteCache::Never,
        claims: BTreeSet::new(),
        scopes: BTreeSet::new(),
    };
    let policy = references.policy.clone();
    let name = named(&policy, &("access", &policy, &jwt.providers, &mandatory));
    Ok(AccessTokens { verification: Verification { name, policy, jwt }, scopes, mandatory })
}
