//! The table of policy kinds in the manual, made from what the code does with each.
//!
//! What a kind selects is read from its schema, what it becomes in Envoy from the emission of a sample, which releases it
//! needs from [`NEWER`]. By hand stand only what is left out on purpose, and the tests that show the row on a real Envoy,
//! which must exist. So must those of the other table, of ways around policies.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{cluster_of, compile_manifests, yaml};
use crate::compile::Compiled;
use crate::crd::schema::examples;
use crate::emit::filter::NEWER;
use crate::emit::{EmitOptions, emit_gateway};
use crate::model::{Approval, EnvoyRelease, Kind};
use crate::render::to_json;
use crate::resolve::Options;
use crate::snapshot::ResourceType;

/// What stands by hand of a kind that is built.
struct Row {
    kind: Kind,
    /// `spec.config` with everything that the kind can do.
    sample: &'static str,
    /// What it does not do.
    lacks: &'static str,
    /// Functions in `e2e`, as `file::function`.
    shown_by: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        kind: Kind::OutlierDetectionPolicy,
        sample: "{consecutiveErrors: 2, consecutiveGatewayErrors: 1, interval: 1s, baseEjectionTime: 2s, maxEjectionPercent: 50}",
        lacks: "Services",
        shown_by: &["failover::r173_the_nearest_serve_and_others_take_over_and_give_back"],
    },
    Row {
        kind: Kind::FailoverPolicy,
        sample: "{localityMappings: [{from: {region: eu}, to: [{region: us, weight: 60}, {region: eu, weight: 40}]}]}",
        lacks: "gateways of one Service in several places, which count as in what these have in common",
        shown_by: &["failover::r176_requests_go_where_a_policy_leads_them"],
    },
    Row {
        kind: Kind::HeaderManipulationPolicy,
        sample: "{appendRequestHeaders: {x-a: a}, removeRequestHeaders: [x-b], appendResponseHeaders: {x-c: c}, removeResponseHeaders: [x-d]}",
        lacks: "pseudo-headers but `Host`",
        shown_by: &[
            "policies::headers_change_in_both_directions_on_route_and_destination",
            "bypasses::a_value_of_a_header_leads_nowhere_else",
        ],
    },
    Row {
        kind: Kind::RetryTimeoutPolicy,
        sample: "{requestTimeout: 5s, retries: {attempts: 3, perTryTimeout: 1s, retryOn: 5xx, retryRemoteLocalities: true}}",
        lacks: "",
        shown_by: &[
            "policies::a_request_timeout_ends_a_slow_answer_in_time",
            "policies::retries_are_as_many_as_the_policy_says",
        ],
    },
    Row {
        kind: Kind::FaultInjectionPolicy,
        sample: "{delay: {fixedDelay: 1s}, abort: {httpStatus: 503}}",
        lacks: "",
        shown_by: &["policies::faults_strike_the_share_of_requests_that_is_written"],
    },
    Row {
        kind: Kind::CorsPolicy,
        sample: "{allowOrigins: [{exact: 'https://a.example'}], allowMethods: [GET], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 1h, allowCredentials: true}",
        lacks: "redirects and direct responses answer preflights like any request",
        shown_by: &[
            "policies::preflights_are_answered_for_allowed_origins",
            "cors::preflights_are_answered_here_and_foreign_ones_go_on",
            "cors::the_oldest_policy_decides_and_the_loser_is_told",
            "cors::an_invalid_policy_allows_no_origin",
            "cors::foreign_preflights_go_on_to_authentication",
            "cors::a_twin_takes_the_preflights_of_its_route_and_nothing_else",
            "rerouting::browsers_are_told_by_the_route_on_which_a_request_comes_in",
        ],
    },
    Row {
        kind: Kind::CsrfPolicy,
        sample: "{filterEnabled: true, percentage: 50, additionalOrigins: [{exact: login.example.com}]}",
        lacks: "a shadow of a share: all requests are counted",
        shown_by: &[
            "csrf::requests_that_change_state_come_from_their_own_host_or_an_allowed_one",
            "csrf::the_oldest_policy_decides_and_the_loser_is_told",
            "csrf::an_invalid_policy_refuses_every_foreign_origin",
            "csrf::a_shadow_refuses_nothing_and_a_share_refuses_a_share",
            "rerouting::whoever_moves_to_a_route_is_judged_by_it",
        ],
    },
    Row {
        kind: Kind::JwtPolicy,
        sample: "{providers: {a: {issuer: 'https://a.example', remote: {url: 'https://a.example/keys'}, claimsToHeaders: [{claim: org, header: x-org, append: true}]}}, claims: [{key: org, values: [a]}]}",
        lacks: "claims that are URLs cannot be appended",
        shown_by: &[
            "jwt::only_good_tokens_pass_and_each_mode_is_its_own",
            "jwt::claims_and_scopes_are_wanted_of_every_token",
            "jwt::keys_come_from_secrets_and_servers_and_bad_sources_close",
            "jwt::r118_what_protects_a_destination_holds_on_every_route_to_it",
            "jwt::a_request_that_moves_to_another_route_is_judged_there",
            "bad_policies::a_bad_jwt_policy_closes_its_own_routes_and_says_why",
            "tokens::a_request_does_not_move_onto_a_route_that_would_not_look_at_it",
            "tokens::no_mark_is_carried_to_a_third_route",
            "tokens::r140_owners_of_destinations_protect_them_behind_frozen_trees_too",
            "tokens::r122_gateways_ask_no_service_for_keys_whose_owner_does_not_let_them",
            "default_deny::r51_what_requires_authentication_and_has_none_is_refused",
        ],
    },
    Row {
        kind: Kind::RateLimitPolicy,
        sample: "{ratelimitServerConfig: {name: limits}, serverSettings: {name: limits}, raw: {rateLimits: [{actions: [{remoteAddress: {}}], setActions: [{remoteAddress: {}}]}]}}",
        lacks: "by a service, redirects and direct responses; by gateways, limits of 0, of more values than 256 or carried by requests; more than 32 items for a request",
        shown_by: &[
            "rate_limit::rules_of_both_forms_limit_what_they_count",
            "rate_limit::r123_all_policies_of_a_route_and_its_destination_apply",
            "rate_limit::r125_limits_stand_before_tokens_or_behind_them",
            "rate_limit::limits_change_while_the_service_runs_and_faulty_ones_change_nothing",
            "rate_limit::without_its_service_a_policy_does_what_its_settings_say",
            "rate_limit::bad_policies_limit_nothing_and_say_why",
            "rate_limit::r130_an_envoy_that_cannot_limit_serves_no_limited_route",
            "rate_limit::a_service_gets_its_own_limits_and_nothing_else",
            "rerouting::whoever_moves_to_a_route_is_counted_there",
            "local_rate_limit::gateways_count_by_themselves_where_the_rules_say_so",
            "local_rate_limit::r125_what_gateways_count_stands_before_tokens_or_behind_them",
            "local_rate_limit::what_gateways_cannot_count_is_told_and_not_limited",
            "local_rate_limit::counting_begins_anew_when_a_route_of_the_listener_changes",
            "local_rate_limit::room_for_values_ends_and_nobody_loses_it_to_others",
        ],
    },
    Row {
        kind: Kind::ExtAuthPolicy,
        sample: "{glooAuth: {configs: [{name: a, basicAuth: {realm: r, encryption: {sha1: {}}, userList: {users: {u: {hashedPassword: e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4}}}}}, {name: b, apiKeyAuth: {headersFromMetadataEntry: {x-a: {name: a}}, k8sSecretApikeyStorage: {labelSelector: {a: b}}}}, {name: c, oauth2: {accessTokenValidation: {jwt: {remoteJwks: {url: 'https://a.example/keys'}}}}}, {name: d, oauth2: {accessTokenValidation: {jwt: {remoteJwks: {url: 'https://b.example/keys'}}}}}, {name: e, oauth2: {accessTokenValidation: {jwt: {remoteJwks: {url: 'https://c.example/keys'}}}}}, {name: f, passThroughAuth: {grpc: {address: 'a.example:80'}}}], booleanExpr: 'a && b && c && f && (d || e)'}}",
        lacks: "OpenID Connect and OAuth2 logins, introspection, OPA, LDAP, HMAC, plugins; `clearRouteCache`; more than four sets of settings for servers, or two that fail open",
        shown_by: &[
            "ext_auth::a_grpc_server_judges_each_request",
            "ext_auth::an_http_server_judges_each_request",
            "ext_auth::servers_may_stand_in_the_policy",
            "ext_auth::r118_a_route_and_its_destination_are_each_asked_about",
            "ext_auth::a_request_that_moves_to_another_route_is_judged_there",
            "ext_auth/methods::passwords_are_compared_by_the_gateway",
            "ext_auth/methods::api_keys_are_those_of_secrets",
            "ext_auth/methods::access_tokens_are_verified_with_their_scopes",
            "ext_auth/methods::methods_are_combined_as_the_expression_says",
            "ext_auth/methods::the_finding_of_a_jwt_policy_is_a_method",
            "ext_auth::a_bad_policy_closes_its_own_routes_and_says_why",
            "ext_auth::a_method_that_envoy_does_not_have_is_closed_and_said",
            "ext_auth/servers_change::a_server_that_fails_closes_unless_its_author_says_otherwise",
            "ext_auth/servers_change::a_fifth_set_of_settings_closes_the_youngest",
            "ext_auth/servers_change::a_policy_that_loses_its_room_is_closed_and_never_asked_about_in_another_way",
            "rerouting::whoever_moves_to_a_route_is_judged_by_it",
        ],
    },
    Row {
        kind: Kind::AccessPolicy,
        sample: "{authzList: [{allowedMethods: [GET]}, {allowedIpBlocks: [10.0.0.0/8]}]}",
        lacks: "traffic that passes no gateway",
        shown_by: &[
            "access::a_destination_is_called_by_those_who_may",
            "access::a_refused_request_makes_no_connection",
            "access::policies_unite_and_an_invalid_one_closes",
            "access::a_gateway_is_called_by_those_who_may",
            "principals::who_bears_a_token_is_told_from_others",
            "bad_policies::a_bad_access_policy_closes_its_destination_and_says_why",
            "replaced_isolation::r46_a_policy_replaces_isolation_behind_a_virtual_destination",
            "principals::a_gateway_tells_who_bears_a_token",
            "rerouting::whoever_moves_to_a_route_is_judged_by_it",
        ],
    },
    Row {
        kind: Kind::ClientTlsPolicy,
        sample: "{simple: {config: {sni: a.example}}}",
        lacks: "`istioMutual`",
        shown_by: &["external_services::r195_a_client_tls_policy_comes_and_goes"],
    },
];

/// Tests that show all kinds beside each other.
const TOGETHER: &[&str] = &[
    "all_at_once::all_kinds_on_one_route_judge_in_the_documented_order",
    "an_attachment_under_load::no_request_fails_while_policies_come_and_go",
    "versions/protecting::five_releases_protect_or_refuse_and_say_so",
];

/// Ways around policies that other control planes left open, with the tests on a real Envoy.
const WAYS_AROUND: &[(&str, &[&str])] = &[
    (
        "another way into the gateway: without a server name, with one that no listener has, in the clear, HTTP/2, a port that redirects",
        &["bypasses/ways_in::a_policy_holds_on_every_way_in"],
    ),
    (
        "another spelling of a path: dots, doubled slashes, escapes, parameters, an absolute URL",
        &["bypasses::no_spelling_of_a_path_leads_around_a_policy", "access::a_destination_is_called_by_those_who_may"],
    ),
    ("another spelling of a host, or a port behind it", &["bypasses::a_port_behind_the_host_leads_around_nothing"]),
    (
        "headers twice or in mixed case",
        &[
            "bypasses::headers_twice_or_in_mixed_case_lead_around_nothing",
            "access::a_destination_is_called_by_those_who_may",
            "ext_auth/methods::passwords_are_compared_by_the_gateway",
            "ext_auth/methods::api_keys_are_those_of_secrets",
            "jwt::only_good_tokens_pass_and_each_mode_is_its_own",
        ],
    ),
    (
        "literals that land in an expression",
        &["bypasses::literals_are_no_expressions", "bypasses::literals_beside_an_asterisk_are_no_expressions"],
    ),
    (
        "format strings in values",
        &["bypasses::a_value_of_a_header_leads_nowhere_else", "ext_auth::an_http_server_judges_each_request"],
    ),
    ("text that would break out into a script", &["ext_auth/methods::api_keys_are_those_of_secrets"]),
    (
        "a header in place of what a filter finds out: claims, keys, users",
        &[
            "jwt::claims_become_headers_and_no_client_can_write_them",
            "tokens::with_several_providers_no_client_writes_the_header_of_any",
            "ext_auth/methods::api_keys_are_those_of_secrets",
        ],
    ),
    (
        "a request that moves to another route",
        &[
            "rerouting::whoever_moves_to_a_route_is_judged_by_it",
            "tokens::a_request_does_not_move_onto_a_route_that_would_not_look_at_it",
            "tokens::no_mark_is_carried_to_a_third_route",
        ],
    ),
    (
        "a filter that pauses, and others that go on meanwhile",
        &[
            "all_at_once::all_kinds_on_one_route_judge_in_the_documented_order",
            "all_at_once::tokens_that_are_looked_at_last_are_so_behind_a_pause",
        ],
    ),
    (
        "a server or keys that cannot be reached",
        &[
            "ext_auth/servers_change::a_server_that_fails_closes_unless_its_author_says_otherwise",
            "tokens::r122_gateways_ask_no_service_for_keys_whose_owner_does_not_let_them",
        ],
    ),
    (
        "policies, Secrets, keys and servers of another workspace",
        &[
            "bypasses::policies_of_strangers_open_nothing_and_close_nothing",
            "bypasses::no_address_leads_a_policy_to_what_others_hide",
            "bypasses/names::no_name_leads_a_policy_to_what_others_hide_or_protect",
            "jwt::keys_come_from_secrets_and_servers_and_bad_sources_close",
            "ext_auth/methods::api_keys_are_those_of_secrets",
        ],
    ),
    (
        "a frozen tree in front of a destination",
        &["tokens::r140_owners_of_destinations_protect_them_behind_frozen_trees_too"],
    ),
];

/// One route that forwards, one for whole connections, and a policy on them.
const WORLD: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: KubernetesCluster
metadata: {name: cluster-1, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
---
apiVersion: admin.gloo.solo.io/v2
kind: Workspace
metadata: {name: shop, namespace: gloo-mesh, annotations: {cluster.solo.io/cluster: mgmt}}
spec: {workloadClusters: [{name: cluster-1, namespaces: [{name: shop}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9000}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualGateway
metadata: {name: web, namespace: shop}
spec: {workloads: [{selector: {labels: {app: web}}}], listeners: [{http: {}, port: {number: 80}}, {tcp: {}, port: {number: 90}}]}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: www, namespace: shop}
spec:
  hosts: [www.example]
  virtualGateways: [{name: web}]
  http: [{name: all, forwardTo: {destinations: [{ref: {name: web}, port: {number: 80}}]}}]
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw.example]
  virtualGateways: [{name: web}]
  tcp: [{forwardTo: {destinations: [{ref: {name: web}, port: {number: 80}}]}}]
---
apiVersion: v1
kind: Node
metadata: {name: here, labels: {topology.kubernetes.io/region: eu}}
---
apiVersion: v1
kind: Node
metadata: {name: there, labels: {topology.kubernetes.io/region: us}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {nodeName: here}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.1], nodeName: here}, {addresses: [10.0.0.2], nodeName: there}]
---
apiVersion: networking.gloo.solo.io/v2
kind: VirtualDestination
metadata: {name: cart, namespace: shop}
spec: {services: [{labels: {app: cart}}], ports: [{number: 80, protocol: HTTP}, {number: 81, protocol: HTTP, targetPort: {number: 80}}]}
---
apiVersion: resilience.policy.gloo.solo.io/v2
kind: OutlierDetectionPolicy
metadata: {name: cart, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {applyToDestinations: [{kind: VIRTUAL_DESTINATION, selector: {name: cart}, port: {number: 81}}], config: {}}
---
apiVersion: networking.gloo.solo.io/v2
kind: RouteTable
metadata: {name: zzz, namespace: shop}
spec:
  hosts: [zzz.example]
  virtualGateways: [{name: web}]
  http:
    - {name: one, matchers: [{uri: {prefix: /one}}], forwardTo: {destinations: [{ref: {name: cart}, kind: VIRTUAL_DESTINATION, port: {number: 80}}]}}
    - {name: two, forwardTo: {destinations: [{ref: {name: cart}, kind: VIRTUAL_DESTINATION, port: {number: 81}}]}}
---
apiVersion: v1
kind: Service
metadata: {name: limiter, namespace: shop}
spec: {selector: {app: limiter}, ports: [{port: 8081}]}
---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerSettings
metadata: {name: limits, namespace: shop}
spec: {destinationServer: {ref: {name: limiter}}}
---
apiVersion: admin.gloo.solo.io/v2
kind: RateLimitServerConfig
metadata: {name: limits, namespace: shop}
spec:
  destinationServers: [{ref: {name: limiter}}]
  raw:
    descriptors: [{key: remote_address, rateLimit: {unit: DAY, requestsPerUnit: 1}}]
    setDescriptors: [{rateLimit: {unit: DAY, requestsPerUnit: 1}}]
";

/// The world with a policy of a kind that has a sample as its configuration, on its routes, or else on what it is for without
/// selectors.
fn compiled(policy: Option<(Kind, &str)>) -> Compiled {
    let on_routes = policy.filter(|(kind, _)| has(*kind, "applyToRoutes"));
    compiled_with(policy, on_routes.map(|_| ("applyToRoutes", json!([{"route": {}}]))))
}

/// The same with one selector.
fn compiled_with(policy: Option<(Kind, &str)>, selector: Option<(&str, Value)>) -> Compiled {
    let mut manifests = yaml::documents(WORLD).expect("the world is YAML");
    if let Some((kind, sample)) = policy {
        let config = yaml::documents(sample).expect("the sample is YAML").pop().unwrap_or(Value::Null);
        let mut spec = json!({"config": config});
        if let Some((selector, items)) = selector {
            spec[selector] = items;
        }
        if kind == Kind::ClientTlsPolicy {
            spec["applyToDestinations"] = json!([{}]);
        }
        manifests.push(json!({
            "apiVersion": kind.group().api_version(), "kind": kind.as_str(),
            "metadata": {"name": "sample", "namespace": "shop"}, "spec": spec,
        }));
    }
    compile_manifests(manifests.into_iter().map(|manifest| (cluster_of(&manifest), manifest)), &Options::default())
}

/// All resources of a type of the world's gateway.
fn resources(compiled: &Compiled, kind: ResourceType) -> Vec<Value> {
    let plan = compiled.plans.values().next().expect("a gateway");
    let snapshot = emit_gateway(plan, &EmitOptions::default());
    let resources = snapshot.resources(kind);
    resources.values().map(|resource| to_json(kind, resource).expect("known")).collect()
}

/// Envoy's route of that world.
fn route(compiled: &Compiled) -> Value {
    let routes = resources(compiled, ResourceType::Route);
    routes.first().expect("a route configuration")["virtual_hosts"][0]["routes"][0].clone()
}

/// What a filter's configuration is.
fn message(config: &Value) -> &str {
    config["@type"].as_str().and_then(|url| url.rsplit('.').next()).unwrap_or_default()
}

fn values(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_object().into_iter().flat_map(|fields| fields.values()).chain(of.as_array().into_iter().flatten())
}

/// A group by the name of its cluster or its endpoints, whoever is behind it.
fn of_any_edition(name: &str) -> &str {
    name.split(['+', '@']).next().unwrap_or_default()
}

/// What there is beside routes: the filters of clusters, of all routes together and of whole connections, with their messages;
/// and the fields of a virtual destination.
fn beside_routes(compiled: &Compiled) -> BTreeSet<(String, String)> {
    let mut filters = BTreeSet::new();
    for cluster in resources(compiled, ResourceType::Cluster) {
        let options = values(&cluster["typed_extension_protocol_options"]);
        for filter in options.flat_map(|options| values(&options["http_filters"])) {
            let (name, config) = (filter["name"].as_str().unwrap_or_default(), &filter["typed_config"]);
            if name.starts_with("chancery.") {
                filters.insert((format!("`{name}` of the cluster: {}", message(config)), config.to_string()));
            }
        }
    }
    let is_group = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("vd/"));
    for cluster in resources(compiled, ResourceType::Cluster).iter().filter(|cluster| is_group(&cluster["name"])) {
        // The filters among them are told above, and the name of the endpoints says what the others are.
        let is_own = |field: &str| {
            !["name", "metadata", "typed_extension_protocol_options", "eds_cluster_config"].contains(&field)
        };
        for (field, value) in cluster.as_object().into_iter().flatten().filter(|(field, _)| is_own(field)) {
            let group = of_any_edition(cluster["name"].as_str().unwrap_or_default());
            filters.insert((format!("`{field}` of the cluster"), format!("{group} {value}")));
        }
    }
    for group in resources(compiled, ResourceType::Endpoint).iter().filter(|group| is_group(&group["cluster_name"])) {
        let cluster = of_any_edition(group["cluster_name"].as_str().unwrap_or_default());
        for (field, value) in values(&group["endpoints"]).filter_map(Value::as_object).flatten() {
            filters.insert((format!("`{field}` of the endpoints"), format!("{cluster} {value}")));
        }
    }
    for extension in resources(compiled, ResourceType::Extension) {
        let (name, config) = (extension["name"].as_str().unwrap_or_default(), &extension["typed_config"]);
        filters.insert((format!("`{name}` of the listener: {}", message(config)), config.to_string()));
    }
    for listener in resources(compiled, ResourceType::Listener) {
        for filter in values(&listener["filter_chains"]).flat_map(|chain| values(&chain["filters"])) {
            let (name, config) = (filter["name"].as_str().unwrap_or_default(), &filter["typed_config"]);
            // Where connections go is no filter of a policy.
            if name != "envoy.filters.network.tcp_proxy" {
                filters.insert((format!("`{name}` of the listener: {}", message(config)), config.to_string()));
            }
        }
    }
    for cluster in resources(compiled, ResourceType::Cluster) {
        let transport = &cluster["transport_socket"]["typed_config"];
        // What filters ask outside the mesh is no destination.
        let is_destination = cluster["name"].as_str().is_some_and(|name| name.starts_with("svc/"));
        if is_destination && !transport.is_null() {
            filters
                .insert((format!("`transport_socket` of the cluster: {}", message(transport)), transport.to_string()));
        }
    }
    filters
}

/// What a sample changes in Envoy: in the route, slots with the message that goes there and fields; and filters beside it.
fn in_envoy(row: &Row) -> BTreeSet<String> {
    let (bare, policy) = (compiled(None), Some((row.kind, row.sample)));
    let mut all = vec![compiled(policy)];
    if has(row.kind, "applyToWorkloads") {
        all.push(compiled_with(policy, Some(("applyToWorkloads", json!([{}])))));
    }
    let (known, bare) = (beside_routes(&bare), route(&bare));
    let mut changed = BTreeSet::new();
    for compiled in all {
        changed.extend(beside_routes(&compiled).difference(&known).map(|(filter, _)| filter.clone()));
        changed.extend(of_route(&bare, &route(&compiled)));
    }
    changed
}

/// What differs between two forms of a route.
fn of_route(bare: &Value, with: &Value) -> BTreeSet<String> {
    let mut changed = BTreeSet::new();
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    // Without selectors some kinds are on destinations.
    let of_destination = fields(&with["route"]["weighted_clusters"]["clusters"][0]["typed_per_filter_config"]);
    for (slot, config) in fields(&with["typed_per_filter_config"]).into_iter().chain(of_destination) {
        changed.insert(format!("`{slot}`: {}", message(&config)));
    }
    for (before, now) in [(bare, with), (&bare["route"], &with["route"])] {
        let differs = |(field, value): &(String, Value)| before.get(field) != Some(value);
        let fields = fields(now).into_iter().filter(differs).map(|(field, _)| field);
        changed.extend(
            fields
                .filter(|field| !["typed_per_filter_config", "route", "weighted_clusters"].contains(&field.as_str()))
                .map(|field| format!("`{field}`")),
        );
    }
    changed
}

/// Whether a kind has a selector.
fn has(kind: Kind, selector: &str) -> bool {
    selects(kind).contains(&format!("`{selector}`"))
}

/// The selectors that the schema of a kind has.
fn selects(kind: Kind) -> Vec<String> {
    let all = examples::all();
    let example = all.iter().find(|(of, _)| *of == kind).and_then(|(_, example)| example.as_object().cloned());
    let fields = example.unwrap_or_default().into_iter().map(|(field, _)| field);
    fields.filter(|field| field.starts_with("applyTo")).map(|field| format!("`{field}`")).collect()
}

fn releases(kind: Kind) -> String {
    let rows: Vec<String> =
        NEWER.iter().filter(|row| row.kind == kind).map(|row| format!("{} for {}", row.since, row.what)).collect();
    if rows.is_empty() { "every one".to_owned() } else { rows.join(", ") }
}

/// The table of the manual.
fn table() -> String {
    let mut text = String::from(
        "| Kind | Selects by | In Envoy | Release | Not supported | Shown in `e2e` by |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for row in ROWS {
        let envoy: Vec<String> = in_envoy(row).into_iter().collect();
        let shown: Vec<String> = row.shown_by.iter().map(|test| format!("`{test}`")).collect();
        let lacks = if row.lacks.is_empty() { "nothing" } else { row.lacks };
        let cells =
            [selects(row.kind).join(", "), envoy.join(", "), releases(row.kind), lacks.to_owned(), shown.join(", ")];
        let _ = writeln!(text, "| {} | {} |", row.kind, cells.join(" | "));
    }
    let together: Vec<String> = TOGETHER.iter().map(|test| format!("`{test}`")).collect();
    let _ = writeln!(text, "\nBeside each other they are shown by {}.", together.join(", "));
    text
}

/// The other table of the manual.
fn ways_around() -> String {
    let mut text = String::from("| Way around | Tried in `e2e` by |\n| --- | --- |\n");
    for (way, tests) in WAYS_AROUND {
        let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
        let _ = writeln!(text, "| {way} | {} |", tests.join(", "));
    }
    text
}

#[test]
fn the_manual_has_the_tables_as_the_code_makes_them() {
    let page = include_str!("../manual/policies.md");
    for (made, section) in [(table(), "What is built"), (ways_around(), "Ways around policies")] {
        assert!(page.contains(&made), "put this into src/manual/policies.md, section \"{section}\":\n{made}");
        let rows = made.lines().filter(|line| !line.is_empty() && !line.starts_with("| ---"));
        for row in rows {
            assert_eq!(page.matches(row).count(), 1, "a row stands twice in src/manual/policies.md: {row}");
        }
    }
}

/// A kind has a row as soon as a policy of it can be accepted.
#[test]
fn every_kind_that_is_built_has_a_row_and_no_other() {
    for row in ROWS {
        let compiled = compiled(Some((row.kind, row.sample)));
        let (id, verdict) = compiled.verdicts.iter().find(|(id, _)| id.kind == row.kind).expect("a verdict");
        // A policy on destinations is warned that only gateways enforce it.
        let is_built = matches!(verdict.approval, Approval::Accepted | Approval::Warning);
        assert!(is_built, "{id}: {:?} {}", verdict.approval, verdict.message);
        assert!(!in_envoy(row).is_empty(), "{id} changes nothing in Envoy's route");
    }
    let without_row = Kind::ALL.iter().filter(|kind| kind.is_policy() && **kind != Kind::TeapotPolicy);
    for kind in without_row.filter(|kind| ROWS.iter().all(|row| row.kind != **kind)) {
        let compiled = compiled(Some((*kind, "{}")));
        let told = compiled.findings.iter().any(|finding| {
            finding.subject.as_ref().is_some_and(|subject| subject.kind == *kind)
                && finding.severity == crate::model::Severity::Error
        });
        assert!(told, "{kind} is accepted: give it a row");
    }
}

/// R130: a release that does not know a part of one policy gets everybody else's tokens all the same, and closes that one.
#[test]
fn r130_claims_by_url_are_left_out_for_releases_that_refuse_them() {
    let sample = "{providers: {a: {issuer: 'https://a.example', remote: {url: 'https://a.example/keys'}, claimsToHeaders: [{claim: 'https://a.example/org', header: x-org}]}}}";
    let compiled = compiled(Some((Kind::JwtPolicy, sample)));
    let plan = compiled.plans.values().next().expect("a gateway");
    for (minor, can) in [(39, false), (40, true)] {
        let options = EmitOptions { release: EnvoyRelease::new(1, minor), ..EmitOptions::default() };
        let snapshot = emit_gateway(plan, &options);
        let tokens = snapshot.get(ResourceType::Extension, "chancery.jwt.pre.0").expect("the filter");
        let tokens = to_json(ResourceType::Extension, tokens).expect("known").to_string();
        assert_eq!(tokens.contains("claim_path"), can, "1.{minor}: {tokens}");
        let routes = snapshot.resources(ResourceType::Route);
        let route = to_json(ResourceType::Route, routes.values().next().expect("routes")).expect("known");
        let answer = &route["virtual_hosts"][0]["routes"][0]["direct_response"]["status"];
        assert_eq!(answer.as_u64(), (!can).then_some(500), "1.{minor}: {route}");
        assert_eq!(crate::snapshot::verify::verify(&snapshot), [], "1.{minor}");
    }
}

/// What stands in for routes that were refused keeps what their filters ask.
#[test]
fn the_service_of_a_limit_stays_as_long_as_its_routes() {
    let row = ROWS.iter().find(|row| row.kind == Kind::RateLimitPolicy).expect("it is built");
    let compiled = compiled(Some((row.kind, row.sample)));
    let snapshot = emit_gateway(compiled.plans.values().next().expect("a gateway"), &EmitOptions::default());
    let routes = snapshot.resources(ResourceType::Route);
    let body = &routes.values().next().expect("routes").body;
    let found = crate::memory::refusals::references::references(ResourceType::Route, body);
    let limiter = "svc/cluster-1/shop/limiter/8081#grpc".into();
    assert!(found.contains(&(ResourceType::Cluster, limiter)), "{found:?}");
}

/// R130: what only newer releases know of ExtAuthPolicy is closed on older ones, method by method.
#[test]
fn r130_methods_that_a_release_does_not_have_are_closed_there() {
    const USERS: &str =
        "encryption: {sha1: {}}, userList: {users: {u: {hashedPassword: e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4}}}";
    let basic = |rest: &str| format!("{{basicAuth: {{{rest}{USERS}}}}}");
    let key = "{apiKeyAuth: {k8sSecretApikeyStorage: {labelSelector: {a: b}}}}".to_owned();
    let http = "{passThroughAuth: {http: {url: 'http://a.example/x'}}}".to_owned();
    let grpc = "{passThroughAuth: {grpc: {address: 'a.example:80'}}}".to_owned();
    for (method, since) in [(grpc, 36), (http, 38), (basic(""), 39), (basic("realm: r, "), 40), (key, 40)] {
        let compiled = compiled(Some((Kind::ExtAuthPolicy, &format!("{{glooAuth: {{configs: [{method}]}}}}"))));
        let plan = compiled.plans.values().next().expect("a gateway");
        for minor in 36..=40 {
            let options = EmitOptions { release: EnvoyRelease::new(1, minor), ..EmitOptions::default() };
            let snapshot = emit_gateway(plan, &options);
            let routes = snapshot.resources(ResourceType::Route);
            let route = to_json(ResourceType::Route, routes.values().next().expect("routes")).expect("known");
            let answer = &route["virtual_hosts"][0]["routes"][0]["direct_response"]["status"];
            assert_eq!(answer.as_u64(), (minor < since).then_some(500), "1.{minor}, {method}: {route}");
            assert_eq!(crate::snapshot::verify::verify(&snapshot), [], "1.{minor}, {method}");
            assert!(!route.to_string().contains("5en6G6MezRroT3XKqkdPOmY"), "passwords are in no text: {route}");
        }
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    for row in ROWS {
        assert!(!row.shown_by.is_empty(), "{} is shown by no test on a real Envoy", row.kind);
        for test in row.shown_by {
            assert!(is_test(test), "{}: no test `{test}`", row.kind);
            let times = row.shown_by.iter().filter(|other| *other == test).count();
            assert_eq!(times, 1, "{}: `{test}` stands there twice", row.kind);
        }
    }
    for test in TOGETHER.iter().chain(WAYS_AROUND.iter().flat_map(|(_, tests)| *tests)) {
        assert!(is_test(test), "no test `{test}`");
    }
}

/// Whether `e2e` has a test, `file::function`.
fn is_test(test: &str) -> bool {
    let (file, function) = test.split_once("::").expect("file::function");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e").join(format!("{file}.rs"));
    let source = std::fs::read_to_string(&path).unwrap_or_default();
    let is_test = |(start, _): (usize, &str)| {
        source[..start].lines().last().is_some_and(|attribute| attribute.starts_with("#[tokio::test"))
    };
    source.match_indices(&format!("\nasync fn {function}(")).any(is_test)
}
