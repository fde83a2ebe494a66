use std::time::Duration;

use super::*;
use crate::ir::policy::Place;
use crate::ir::policy::jwt::{ClearRouteCache, Jwt, Mode, Verification};
use crate::ir::policy::rate_limit::{Counter, LimitAction, LimitItem, LimitService};
use crate::ir::upstream::Purpose;
use crate::model::Kind;

fn upstream(name: &str, purpose: Purpose) -> UpstreamId {
    let object = ObjectRef::new(Kind::Service, "c1", "shop", name);
    UpstreamId { purpose, ..UpstreamId::new(&object, 80) }
}

fn id(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::RateLimitPolicy, "c1", "shop", name)
}

fn limits(name: &str, phase: Phase, priority: i32, items: usize) -> Arc<Limits> {
    let service = LimitService {
        server: upstream("limiter", Purpose::GrpcServer),
        timeout: Duration::from_millis(100),
        deny_on_fail: false,
    };
    let item = |index| LimitItem {
        actions: vec![LimitAction::Generic { key: None, value: format!("{name}-{index}").into() }],
        limit: None,
    };
    let place = Place { phase, priority };
    Arc::new(Limits {
        policy: id(name),
        place,
        counter: Counter::Service(service),
        items: (0..items).map(item).collect(),
    })
}

fn post(name: &str, priority: i32) -> Arc<Limits> {
    limits(name, Phase::PostAuthz, priority, 1)
}

fn tokens(phase: Phase, priority: i32) -> Policy {
    Policy::Jwt(Arc::new(Verification {
        name: "v".into(),
        policy: ObjectRef::new(Kind::JwtPolicy, "c1", "shop", "p"),
        jwt: Jwt {
            providers: [].into(),
            mode: Mode::RequireValid,
            place: Place { phase, priority },
            clear_route_cache: ClearRouteCache::Auto,
            claims: [].into(),
            scopes: [].into(),
        },
    }))
}

/// A route with policies on it and on its destinations, which it forwards to. Ages are the order of names.
struct Route {
    own: Vec<Policy>,
    destinations: BTreeMap<UpstreamId, Vec<Policy>>,
    upstreams: Vec<UpstreamId>,
    ages: BTreeMap<ObjectRef, Age>,
}

impl Route {
    fn new(own: Vec<Policy>, destinations: Vec<(&str, Vec<Policy>)>) -> Self {
        let destinations: BTreeMap<UpstreamId, Vec<Policy>> =
            destinations.into_iter().map(|(name, policies)| (upstream(name, Purpose::Routes), policies)).collect();
        let all = own.iter().chain(destinations.values().flatten());
        let policies = all.flat_map(|policy| match policy {
            Policy::RateLimit(limits) => limits.iter().map(|limits| limits.policy.clone()).collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let ages = policies.map(|id| (id.clone(), Age::new(None, &id))).collect();
        Self { own, upstreams: destinations.keys().cloned().collect(), destinations, ages }
    }

    fn fit(&mut self) -> Vec<String> {
        let (own, destinations) = (&mut self.own, &mut self.destinations);
        let told = fit(OnRoute { own, destinations, upstreams: &self.upstreams, ages: &self.ages });
        let shown =
            |told: &Told| format!("{}{} {}", if told.is_left_out { "!" } else { "" }, told.policy.name, told.message);
        told.iter().map(shown).collect()
    }
}

/// The policies that limit, each with the number of its items.
fn shown(policies: &[Policy]) -> String {
    let of = |policy: &Policy| match policy {
        Policy::RateLimit(limits) => {
            limits.iter().map(|limits| format!("{}:{}", limits.policy.name, limits.items.len())).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    policies.iter().flat_map(of).collect::<Vec<_>>().join(" ")
}

#[test]
fn r125_limits_stand_by_phase_priority_and_age() {
    let own =
        vec![Policy::RateLimit(vec![post("b", 0), post("a", 0), post("c", -1), limits("d", Phase::PreAuthz, 9, 1)])];
    let mut route = Route::new(own, vec![("web", vec![])]);
    assert_eq!(route.fit(), Vec::<String>::new());
    assert_eq!(shown(&route.own), "d:1 c:1 a:1 b:1");
    assert!(route.destinations.values().all(Vec::is_empty));
}

#[test]
fn what_a_destination_has_of_its_own_makes_each_have_everything() {
    let own = vec![Policy::RateLimit(vec![post("b", 0)])];
    let mut route =
        Route::new(own, vec![("stock", vec![]), ("web", vec![Policy::RateLimit(vec![post("a", 0), post("b", 0)])])]);
    assert_eq!(route.fit(), Vec::<String>::new());
    assert_eq!(shown(&route.destinations[&upstream("web", Purpose::Routes)]), "a:1 b:1", "each policy once");
    assert_eq!(shown(&route.destinations[&upstream("stock", Purpose::Routes)]), "b:1");
    // Tokens of a destination may move what runs before them.
    let own = vec![Policy::RateLimit(vec![post("b", 0)])];
    let mut route = Route::new(own, vec![("stock", vec![]), ("web", vec![tokens(Phase::PostAuthz, 5)])]);
    assert_eq!(route.fit(), Vec::<String>::new());
    assert_eq!(shown(&route.destinations[&upstream("stock", Purpose::Routes)]), "b:1");
}

#[test]
fn the_youngest_goes_where_there_is_no_place() {
    let seven = ["a", "b", "c", "d", "e", "f", "g"];
    let own = || vec![Policy::RateLimit(seven.iter().zip(0..).map(|(name, priority)| post(name, -priority)).collect())];
    let mut route = Route::new(own(), vec![("web", vec![])]);
    let told = route.fit();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("!g nothing of this policy applies"), "{told:?}");
    assert_eq!(shown(&route.own), "f:1 e:1 d:1 c:1 b:1 a:1");
    // With tokens between them, three have a place on each side.
    let mut with_tokens = own();
    with_tokens.push(tokens(Phase::PostAuthz, -10));
    let mut route = Route::new(with_tokens, vec![("web", vec![])]);
    assert_eq!(route.fit().len(), 4);
    assert_eq!(shown(&route.own), "c:1 b:1 a:1");
    // Those of one priority and service share a place.
    let own = vec![Policy::RateLimit(seven.iter().map(|name| post(name, 0)).collect())];
    let mut route = Route::new(own, vec![("web", vec![])]);
    assert_eq!(route.fit(), Vec::<String>::new());
}

#[test]
fn older_policies_take_the_room_for_items_first() {
    let of = |name, items| limits(name, Phase::PostAuthz, 0, items);
    let own = vec![Policy::RateLimit(vec![of("c", 5), of("b", 5), of("a", 30)])];
    let mut route = Route::new(own, vec![("web", vec![])]);
    let told = route.fit();
    assert_eq!(told.len(), 2);
    assert!(
        told[0].starts_with("b only 2 of the 5 items") && told[1].starts_with("!c only 0 of the 5 items"),
        "{told:?}"
    );
    assert_eq!(shown(&route.own), "a:30 b:2");
}

#[test]
fn what_is_not_forwarded_is_not_limited() {
    let mut route = Route::new(vec![Policy::RateLimit(vec![post("a", 0)])], vec![]);
    assert!(route.fit()[0].starts_with("a nothing is limited"));
    assert!(route.own.is_empty());
}
