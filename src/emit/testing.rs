//! Plans for tests, in few words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ir::listener::{HttpHosts, Purpose as Whom};
use crate::ir::policy::{Cors, FaultInjection, HeaderManipulation, OriginMatch, OriginPattern};
use crate::ir::route::{
    Attachment, DirectResponse, Forward, HeaderMatch, Hop, HostRewrite, PathRewrite, QueryMatch, Redirect, ValueMatch,
    WeightedDestination,
};
use crate::ir::upstream::{Closed, Endpoint, Locality, Remote, UpstreamProtocol};
use crate::ir::{
    Action, Chain, GatewayPlan, Listener, Matcher, Policy, Route, RouteBody, Serves, Upstream, UpstreamId, VirtualHost,
};
use crate::model::{Host, Kind, Name, ObjectRef, PathMatch, WorkspaceId};

pub(crate) fn object(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "cluster-1", "shop", name)
}

/// A Service of namespace `shop` on port 80.
pub(crate) fn service(name: &str) -> UpstreamId {
    UpstreamId::new(&object(Kind::Service, name), 80)
}

/// The upstream of [`service`] with one endpoint of unknown locality.
pub(crate) fn upstream(name: &str) -> Upstream {
    Upstream {
        id: service(name),
        protocol: UpstreamProtocol::Http1,
        hostname: format!("{name}.shop.svc.cluster.local").into(),
        endpoints: [(Locality::default(), vec![Endpoint::direct("127.0.0.1".into(), 9101)])].into(),
        shares: BTreeMap::new(),
        outlier: None,
        tls: None,
        externals: BTreeMap::new(),
        remotes: BTreeMap::new(),
        secrets: Vec::new(),
        closed: None,
        guards: Vec::new(),
        protected_by: Vec::new(),
    }
}

/// A way into another cluster.
pub(crate) fn remote(cluster: &str) -> (Name, Remote) {
    let namespaces = ["mesh".into()].into();
    (
        cluster.into(),
        Remote { target: service("far"), server_name: format!("far.{cluster}").into(), tls: None, namespaces },
    )
}

pub(crate) fn closed(name: &str, closed: Closed) -> Upstream {
    Upstream { closed: Some(closed), ..upstream(name) }
}

pub(crate) fn plan(
    virtual_hosts: impl IntoIterator<Item = VirtualHost>,
    upstreams: impl IntoIterator<Item = Upstream>,
) -> GatewayPlan {
    let listener = Listener {
        bind_port: 8080,
        purpose: Whom::Gateway,
        service_ports: [80].into(),
        gateways: vec![object(Kind::VirtualGateway, "edge")],
        chains: vec![plain_chain(virtual_hosts)],
    };
    GatewayPlan {
        gateway: "cluster-1/edge/ingress".parse().unwrap(),
        listeners: [(8080, Arc::new(listener))].into(),
        extensions: Arc::default(),
        guard: None,
        clients: None,
        upstreams: upstreams.into_iter().map(|upstream| (upstream.id.clone(), Arc::new(upstream))).collect(),
        secrets: BTreeMap::new(),
    }
}

/// The one chain of a plaintext listener.
pub(crate) fn plain_chain(virtual_hosts: impl IntoIterator<Item = VirtualHost>) -> Chain {
    let hosts =
        HttpHosts { virtual_hosts: virtual_hosts.into_iter().map(Arc::new).collect(), misdirected: BTreeSet::new() };
    Chain {
        name: Name::default(),
        gateways: vec![object(Kind::VirtualGateway, "edge")],
        client: None,
        server_names: BTreeSet::new(),
        tls: None,
        guards: Vec::new(),
        serves: Serves::Http(hosts),
    }
}

pub(crate) fn host(domain: &str, routes: impl IntoIterator<Item = TestRoute>) -> VirtualHost {
    VirtualHost {
        domain: Host::parse(domain).unwrap(),
        tables: vec![object(Kind::RouteTable, "www")],
        redirects_to_https: false,
        routes: routes.into_iter().map(TestRoute::build).collect(),
    }
}

/// A route being described; it matches everything and answers 404 until told otherwise.
pub(crate) struct TestRoute {
    name: Name,
    owner: &'static str,
    matcher: Matcher,
    action: Action,
    policies: Vec<Policy>,
    attached: Vec<Attachment>,
}

pub(crate) fn route(name: &str) -> TestRoute {
    TestRoute {
        name: format!("shop/www:{name}").into(),
        owner: "shop",
        matcher: Matcher::any(),
        action: Action::Direct(DirectResponse { status: 404, body: "".into() }),
        policies: Vec::new(),
        attached: Vec::new(),
    }
}

impl TestRoute {
    /// In a table of another workspace.
    pub(crate) fn owner(mut self, owner: &'static str) -> Self {
        self.owner = owner;
        self
    }

    pub(crate) fn path(mut self, path: PathMatch) -> Self {
        self.matcher.path = path;
        self
    }

    pub(crate) fn prefix(self, path: &str) -> Self {
        self.path(PathMatch::Prefix(path.into()))
    }

    pub(crate) fn ignoring_case(mut self) -> Self {
        self.matcher.ignore_case = true;
        self
    }

    pub(crate) fn method(mut self, method: &str) -> Self {
        self.matcher.method = Some(method.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: ValueMatch) -> Self {
        self.matcher.headers.push(HeaderMatch { name: name.into(), value, invert: false });
        self
    }

    pub(crate) fn not_header(mut self, name: &str, value: ValueMatch) -> Self {
        self.matcher.headers.push(HeaderMatch { name: name.into(), value, invert: true });
        self
    }

    pub(crate) fn query(mut self, name: &str, value: ValueMatch) -> Self {
        self.matcher.query_parameters.push(QueryMatch { name: name.into(), value });
        self
    }

    /// Adds a destination.
    pub(crate) fn forward(self, service_name: &str, weight: u32) -> Self {
        self.weighted(service_name, weight, [])
    }

    /// Adds a destination with policies of its own.
    pub(crate) fn weighted(
        mut self,
        service_name: &str,
        weight: u32,
        policies: impl IntoIterator<Item = Policy>,
    ) -> Self {
        let policies = policies.into_iter().collect();
        let destination = WeightedDestination { upstream: service(service_name), weight, policies };
        if let Action::Forward(forward) = &mut self.action {
            let forward = Arc::make_mut(forward);
            forward.destinations = forward.destinations.iter().cloned().chain([destination]).collect();
        } else {
            let forward = Forward { destinations: [destination].into(), path_rewrite: None, host_rewrite: None };
            self.action = Action::Forward(forward.into());
        }
        self
    }

    pub(crate) fn rewriting(mut self, path: Option<PathRewrite>, host: Option<HostRewrite>) -> Self {
        if let Action::Forward(forward) = &mut self.action {
            let forward = Arc::make_mut(forward);
            (forward.path_rewrite, forward.host_rewrite) = (path, host);
        }
        self
    }

    pub(crate) fn redirect(mut self, host: Option<&str>, path: Option<&str>, status: u16) -> Self {
        let redirect = Redirect { host: host.map(Name::from), path: path.map(Name::from), status };
        self.action = Action::Redirect(redirect.into());
        self
    }

    pub(crate) fn direct(mut self, status: u16, body: &str) -> Self {
        self.action = Action::Direct(DirectResponse { status, body: body.into() });
        self
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.attached.push(Attachment {
            policy: object(Kind::CorsPolicy, "attached"),
            owner: WorkspaceId("shop".into()),
            selected_by: "all routes".into(),
            destination: None,
        });
        self.policies.push(policy);
        self
    }

    fn build(self) -> Route {
        let hop = Hop {
            table: object(Kind::RouteTable, "www"),
            owner: WorkspaceId(self.owner.into()),
            route: self.name.clone(),
            index: 0,
        };
        let body = RouteBody {
            action: self.action,
            policies: self.policies.into(),
            chain: [hop].into(),
            labels: Default::default(),
            attached: self.attached.into(),
            fault: None,
        };
        Route { name: self.name, matcher: self.matcher, body: Arc::new(body) }
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<Name, Name> {
    pairs.iter().map(|(name, value)| (Name::from(*name), Name::from(*value))).collect()
}

fn names(names: &[&str]) -> BTreeSet<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

pub(crate) fn request_headers(append: &[(&str, &str)], remove: &[&str]) -> Policy {
    Policy::HeaderManipulation(HeaderManipulation {
        append_request: pairs(append),
        remove_request: names(remove),
        ..Default::default()
    })
}

pub(crate) fn response_headers(append: &[(&str, &str)], remove: &[&str]) -> Policy {
    Policy::HeaderManipulation(HeaderManipulation {
        append_response: pairs(append),
        remove_response: names(remove),
        ..Default::default()
    })
}

pub(crate) fn new_host(host: &str) -> Policy {
    Policy::HeaderManipulation(HeaderManipulation { host: Some(host.into()), ..Default::default() })
}

pub(crate) fn abort(http_status: u16, per_million: u32) -> Policy {
    let abort = crate::ir::policy::FaultAbort { http_status, per_million };
    Policy::FaultInjection(FaultInjection { delay: None, abort: Some(abort) })
}

pub(crate) fn cors(origin: OriginPattern) -> Policy {
    Policy::Cors(Cors {
        allow_origins: vec![OriginMatch { pattern: origin, ignore_case: false }],
        allow_methods: vec!["GET".into(), "POST".into()],
        allow_headers: vec!["x-a".into()],
        max_age_seconds: Some(3600),
        allow_credentials: Some(true),
        ..Default::default()
    })
}
