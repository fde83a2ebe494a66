//! Make before break: which type may be sent now, given how all types of one client stand.
//!
//! Additions and changes go out in the order Secret, Cluster, Endpoint, Listener, Extension, ScopedRoute and Route, each
//! after the acknowledgement of what it needs. Endpoints wait for nobody: Envoy acknowledges a cluster only when it is warm, and
//! it is not warm without them. Only the first of what a policy protects wait for what protects it, which may be on routes.
//! Removals come last, users first: a cluster goes only when every listener and route that used it is acknowledged in the
//! version that doesn't.
//!
//! Nobody waits for ever: each wait has its end in [`Timeouts`]. Times are durations since the stream began.
//!
//! # Rule
//! `performance.md` section 5, rule 5; `reliability.md` cases 31 and 32.

use std::time::Duration;

use crate::snapshot::ResourceType;

use ResourceType::{Cluster, Endpoint, Extension, Listener, RateLimit, Route, ScopedRoute, Secret};

/// How long one type waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long additions wait for the acknowledgement of what they need. Above the 15 s after which Envoy gives up
    /// warming a cluster, because routes to a cluster that is still warming answer 503.
    pub stage: Duration,
    /// How long removals wait for the acknowledgement of what stopped using the resource. A resource that stays too
    /// long costs memory, one that goes too early costs requests.
    pub removal: Duration,
    /// How long removals wait for a client to ask for what it has been given names of: routes after a listener, all
    /// types after a reconnect. Envoy asks within milliseconds.
    pub settle: Duration,
}

impl Default for Timeouts {
    /// 20 s, 60 s and 5 s.
    fn default() -> Self {
        Self { stage: Duration::from_secs(20), removal: Duration::from_secs(60), settle: Duration::from_secs(5) }
    }
}

/// How one type of one client stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When the response that awaits its answer was sent.
    pub in_flight: Option<Duration>,
    /// Whether that response carries something that later types may need, or such a thing waits behind it.
    pub opens: bool,
    /// Whether there are additions or changes to send.
    pub additions: bool,
    /// Since when the additions wait for other types.
    pub additions_since: Option<Duration>,
    /// Since when first endpoints wait for what protects them to be in force.
    pub firsts_since: Option<Duration>,
    /// Whether there are removals to send.
    pub removals: bool,
    /// Since when the removals wait for other types.
    pub removals_since: Option<Duration>,
    /// Whether the client holds an older version of something because it refused the newer one. What the older version
    /// uses must stay.
    pub clings: bool,
    /// Whether the client asked for nothing of this type yet. It may still hold some, from the stream before.
    pub unopened: bool,
    /// Since when the client is known to hold back its first request of this type.
    pub held_back_since: Option<Duration>,
    /// Whether something exists that the client didn't ask for, so that a request may be on its way.
    pub expecting: bool,
}

impl Standing {
    /// Whether the types that need this one must wait.
    fn holds_up(&self, now: Duration, timeouts: &Timeouts) -> bool {
        if let Some(since) = self.held_back_since {
            return now < since + timeouts.stage;
        }
        match self.in_flight {
            Some(sent) => self.opens && now < sent + timeouts.stage,
            None => self.additions,
        }
    }

    /// Whether the client has everything of this type, so that what it doesn't use there is unused. What it only has too
    /// much of may still use something.
    fn is_quiet(&self, until: Settled) -> bool {
        self.in_flight.is_none() && !self.additions && (!self.removals || until == Settled::Added)
    }
}

/// What of a type removals of another wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// Additions and changes.
    Added,
    /// These, and removals.
    Whole,
}

/// How all types of one client stand at one time.
#[derive(Clone, Debug)]
pub struct Board {
    /// By type, in the order of [`ResourceType::ALL`].
    pub standings: [Standing; ResourceType::ALL.len()],
    /// Until when first requests are expected of types that the client didn't mention yet.
    pub opens_until: Duration,
    /// Until when requests are expected for what exists and wasn't asked for.
    pub settles_at: Duration,
    /// The time of the stream.
    pub now: Duration,
}

impl Board {
    /// Whether first endpoints have waited long enough, whatever protects them.
    #[must_use]
    pub fn is_overdue(&self, resource_type: ResourceType, timeouts: &Timeouts) -> bool {
        self.of(resource_type).firsts_since.is_some_and(|since| self.now >= since + timeouts.stage)
    }

    /// Whether additions and changes of a type may be sent.
    #[must_use]
    pub fn may_add(&self, resource_type: ResourceType, timeouts: &Timeouts) -> bool {
        let overdue = self.of(resource_type).additions_since.is_some_and(|since| self.now >= since + timeouts.stage);
        overdue || needs(resource_type).iter().all(|needed| !self.of(*needed).holds_up(self.now, timeouts))
    }

    /// Whether removals of a type may be sent.
    #[must_use]
    pub fn may_remove(&self, resource_type: ResourceType, timeouts: &Timeouts) -> bool {
        if self.is_clung_to(resource_type) {
            return false;
        }
        let standing = self.of(resource_type);
        let overdue = standing.removals_since.is_some_and(|since| self.now >= since + timeouts.removal);
        overdue || users(resource_type).iter().all(|(user, until)| self.is_settled(self.of(*user), *until))
    }

    /// Whether the client may use removed resources of a type because it refused what stopped using them. As long
    /// as that is so, the wait for the removal doesn't even begin.
    #[must_use]
    pub fn is_clung_to(&self, resource_type: ResourceType) -> bool {
        users(resource_type).iter().any(|(user, _)| self.of(*user).clings)
    }

    /// Whether what isn't used by a type now will not be used by it until the next snapshot.
    fn is_settled(&self, user: &Standing, until: Settled) -> bool {
        let complete = !user.expecting || self.now >= self.settles_at;
        let opened = !user.unopened || self.now >= self.opens_until;
        user.is_quiet(until) && complete && opened
    }

    /// When waiting alone may allow something that isn't allowed now; none if nothing waits.
    #[must_use]
    pub fn next_deadline(&self, timeouts: &Timeouts) -> Option<Duration> {
        let waits_for_removal = |resource_type| self.of(resource_type).removals && !self.is_clung_to(resource_type);
        let is_waiting = |resource_type: &ResourceType| {
            let standing = self.of(*resource_type);
            standing.in_flight.is_none()
                && (standing.additions || standing.firsts_since.is_some() || waits_for_removal(*resource_type))
        };
        ResourceType::ALL.iter().find(|resource_type| is_waiting(resource_type))?;
        let own = ResourceType::ALL.into_iter().flat_map(|resource_type| {
            let standing = self.of(resource_type);
            let removals_since = standing.removals_since.filter(|_| waits_for_removal(resource_type));
            [
                standing.in_flight.map(|sent| sent + timeouts.stage),
                standing.held_back_since.map(|since| since + timeouts.stage),
                standing.additions_since.map(|since| since + timeouts.stage),
                standing.firsts_since.map(|since| since + timeouts.stage),
                removals_since.map(|since| since + timeouts.removal),
            ]
        });
        own.flatten().chain([self.settles_at, self.opens_until]).filter(|at| *at > self.now).min()
    }

    fn of(&self, resource_type: ResourceType) -> &Standing {
        &self.standings[resource_type as usize]
    }
}

/// The types whose additions must be acknowledged before those of a type are sent.
fn needs(resource_type: ResourceType) -> &'static [ResourceType] {
    match resource_type {
        // A cluster or listener that is warming waits for its secret and its endpoints, so these never wait for it.
        // Rate-limit services ask for nothing but their limits.
        Secret | Endpoint | RateLimit => &[],
        Cluster => &[Secret],
        Listener => &[Secret, Cluster, Endpoint],
        Extension => &[Secret, Cluster, Endpoint, Listener],
        // Neither of these waits for the other: a client has no routes for a new scope before the scope, and scopes
        // never change.
        ScopedRoute | Route => &[Secret, Cluster, Endpoint, Listener, Extension],
    }
}

/// The types that may use resources of a type, and must have stopped before one is removed.
///
/// Who waits for the removals of another has them wait for none of its own: what waits in a circle waits until it is overdue.
fn users(resource_type: ResourceType) -> &'static [(ResourceType, Settled)] {
    use Settled::{Added, Whole};
    match resource_type {
        // Nothing uses a listener. Envoy takes the removals of a response before its additions, so a new listener can
        // only have an old one's address when both travel together.
        Listener | RateLimit => &[],
        Extension => &[(Listener, Whole)],
        // A listener that was told to take its routes from elsewhere uses the old ones until it has the new. Routes that
        // go use no scope: they go after the scopes that lead to them.
        ScopedRoute => &[(Listener, Whole), (Route, Added)],
        Route => &[(Listener, Whole), (ScopedRoute, Whole)],
        // State of the world cannot say that routes go: those of a scope that goes are in use until it has gone.
        Cluster => &[(Listener, Whole), (Extension, Whole), (ScopedRoute, Whole), (Route, Whole)],
        Endpoint | Secret => &[(Listener, Whole), (Extension, Whole), (Route, Whole), (Cluster, Whole)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts =
        Timeouts { stage: Duration::from_secs(20), removal: Duration::from_secs(60), settle: Duration::from_secs(5) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn board(now: u64, standings: &[(ResourceType, Standing)]) -> Board {
        let zero = Duration::ZERO;
        let mut board = Board { standings: Default::default(), opens_until: zero, settles_at: zero, now: seconds(now) };
        for (resource_type, standing) in standings {
            board.standings[*resource_type as usize] = *standing;
        }
        board
    }

    fn in_flight(sent: u64) -> Standing {
        Standing { in_flight: Some(seconds(sent)), opens: true, ..Standing::default() }
    }

    fn adding() -> Standing {
        Standing { additions: true, ..Standing::default() }
    }

    /// The types of which additions, or removals, may be sent.
    fn allowed(board: &Board, may: impl Fn(&Board, ResourceType, &Timeouts) -> bool) -> Vec<ResourceType> {
        of_gateways().into_iter().filter(|resource_type| may(board, *resource_type, &TIMEOUTS)).collect()
    }

    /// The types that gateways have.
    fn of_gateways() -> Vec<ResourceType> {
        ResourceType::ALL.into_iter().filter(|resource_type| *resource_type != RateLimit).collect()
    }

    #[test]
    fn limits_wait_for_nobody() {
        let board = board(1, &[(Cluster, in_flight(0)), (Route, adding()), (Secret, adding())]);
        assert!(board.may_add(RateLimit, &TIMEOUTS) && board.may_remove(RateLimit, &TIMEOUTS));
    }

    #[test]
    fn indices_are_positions() {
        for (position, resource_type) in ResourceType::ALL.into_iter().enumerate() {
            assert_eq!(resource_type as usize, position);
        }
    }

    #[test]
    fn additions_wait_for_what_they_need() {
        for (name, board, expected) in [
            ("nothing going on", board(0, &[]), of_gateways()),
            (
                "case 24: clusters not asked for yet",
                board(1, &[(Cluster, Standing { unopened: true, held_back_since: Some(seconds(0)), ..adding() })]),
                vec![Secret, Cluster, Endpoint],
            ),
            (
                "case 24: clusters never asked for",
                board(20, &[(Cluster, Standing { unopened: true, held_back_since: Some(seconds(0)), ..adding() })]),
                of_gateways(),
            ),
            ("clusters unacknowledged", board(1, &[(Cluster, in_flight(0))]), vec![Secret, Cluster, Endpoint]),
            ("secrets waiting", board(1, &[(Secret, adding())]), vec![Secret, Endpoint]),
            (
                "listeners unacknowledged",
                board(1, &[(Listener, in_flight(0))]),
                vec![Secret, Cluster, Endpoint, Listener],
            ),
            ("routes unacknowledged", board(1, &[(Route, in_flight(0))]), of_gateways()),
            ("case 32: clusters never acknowledged", board(20, &[(Cluster, in_flight(0))]), of_gateways()),
            (
                "endpoints of known clusters unacknowledged",
                board(1, &[(Endpoint, Standing { opens: false, ..in_flight(0) })]),
                of_gateways(),
            ),
        ] {
            assert_eq!(allowed(&board, Board::may_add), expected, "{name}");
        }
    }

    #[test]
    fn additions_never_starve() {
        let waiting = Standing { additions: true, additions_since: Some(seconds(5)), ..Standing::default() };
        assert!(!board(24, &[(Cluster, in_flight(24)), (Route, waiting)]).may_add(Route, &TIMEOUTS));
        assert!(board(25, &[(Cluster, in_flight(24)), (Route, waiting)]).may_add(Route, &TIMEOUTS));
    }

    #[test]
    fn removals_wait_for_their_users() {
        let clings = Standing { clings: true, ..Standing::default() };
        let removing = Standing { removals: true, ..Standing::default() };
        for (name, board, expected) in [
            ("nothing going on", board(0, &[]), of_gateways()),
            ("case 31: routes unacknowledged", board(1, &[(Route, in_flight(0))]), vec![Listener, Extension, Route]),
            ("routes waiting", board(1, &[(Route, adding())]), vec![Listener, Extension, Route]),
            ("listeners to remove", board(1, &[(Listener, removing)]), vec![Listener]),
            (
                "clusters to remove",
                board(1, &[(Cluster, removing)]),
                vec![Cluster, Listener, Extension, ScopedRoute, Route],
            ),
            (
                "case 31: scopes to remove",
                board(1, &[(ScopedRoute, removing)]),
                vec![Secret, Endpoint, Listener, Extension, ScopedRoute],
            ),
            (
                "case 31: routes to remove",
                board(1, &[(Route, removing)]),
                vec![Listener, Extension, ScopedRoute, Route],
            ),
            (
                "case 31: a part to remove, with its scope",
                board(1, &[(ScopedRoute, removing), (Route, removing)]),
                vec![Listener, Extension, ScopedRoute],
            ),
            (
                "scopes unacknowledged",
                board(1, &[(ScopedRoute, in_flight(0))]),
                vec![Secret, Endpoint, Listener, Extension, ScopedRoute],
            ),
            ("an older route in use", board(100, &[(Route, clings)]), vec![Listener, Extension, Route]),
            ("endpoints changing", board(1, &[(Endpoint, in_flight(0))]), of_gateways()),
        ] {
            assert_eq!(allowed(&board, Board::may_remove), expected, "{name}");
        }
    }

    #[test]
    fn removals_wait_until_a_client_has_asked_for_everything() {
        let expecting = Standing { expecting: true, ..Standing::default() };
        let unopened = Standing { unopened: true, ..Standing::default() };
        for (standing, settles_at, opens_until) in [(expecting, 5, 0), (unopened, 0, 5)] {
            let mut waiting = board(4, &[(Route, standing)]);
            (waiting.settles_at, waiting.opens_until) = (seconds(settles_at), seconds(opens_until));
            assert!(!waiting.may_remove(Cluster, &TIMEOUTS));
            waiting.now = seconds(5);
            assert!(waiting.may_remove(Cluster, &TIMEOUTS));
        }
    }

    #[test]
    fn deadlines_only_when_something_waits() {
        assert_eq!(board(0, &[(Cluster, in_flight(0))]).next_deadline(&TIMEOUTS), None);
        let waiting = Standing { additions: true, additions_since: Some(seconds(3)), ..Standing::default() };
        let board = board(4, &[(Cluster, in_flight(2)), (Route, waiting)]);
        assert_eq!(board.next_deadline(&TIMEOUTS), Some(seconds(22)));
    }
}
