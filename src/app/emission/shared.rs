//! What policies shared and share no more, as long as gateways may name it in their routes.
//!
//! Without it a gateway refuses the requests of routes that name it. So it goes when every connected gateway has
//! acknowledged routes that do not name it; time is only the least that it stays. What names something is the routes that
//! are published: while others stand in for refused ones, what these name does not even begin to leave.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use crate::emit::check_slot;
use crate::ir::upstream::Server;
use crate::ir::{Extensions, GatewayPlan, Secret, Upstream, UpstreamId};
use crate::model::ObjectRef;
use crate::snapshot::{Resource, Version};

/// The least that something stays that policies share no more, and the time between two looks whether gateways still
/// name it. Double fetches the keys of issuers that are gone for longer, half looks at all streams more often.
pub(in crate::app) const TAKEN_OVER: Duration = Duration::from_secs(15);

/// Most verifications that stay, of one key of gateways. Only edits faster than gateways answer get there; then the oldest
/// go, and routes of long ago are refused.
const MOST: usize = 1024;

/// Versions of routes of which is known what they don't name.
const VERSIONS: usize = 256;

/// What policies share, and what they shared.
#[derive(Debug, Default)]
pub(super) struct Shared {
    wanted: Arc<Extensions>,
    /// All upstreams of that time, for those that it names.
    upstreams: OrdMap<UpstreamId, Arc<Upstream>>,
    /// Oldest first.
    leaving: VecDeque<Leaving>,
    /// All of it, as it was emitted last.
    all: Arc<Extensions>,
    /// Whether that is to be made anew.
    is_stale: bool,
    /// How often something was published while something was leaving.
    number: u64,
    /// The number of the newest publication with these routes.
    numbers: BTreeMap<Version, u64>,
}

/// What one change left over.
#[derive(Debug)]
struct Leaving {
    extensions: Extensions,
    upstreams: BTreeMap<UpstreamId, Arc<Upstream>>,
    /// When to look who still names it.
    look_at: Instant,
    /// The first publication whose routes don't name it.
    from: u64,
    /// Whether routes name it that stood in for refused ones at the last publication.
    is_kept: bool,
}

/// A policy that has no filter yet, because others leave theirs.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    /// Those that wait together.
    pub(super) policies: &'a BTreeSet<ObjectRef>,
    /// Whose settings still have the room.
    pub(super) before: BTreeSet<&'a ObjectRef>,
}

impl Shared {
    /// Gateways may still name what an earlier run shared.
    pub(super) fn of_earlier_run(kept: Extensions) -> Self {
        let kept = Arc::new(kept);
        Self { wanted: kept.clone(), all: kept, is_stale: true, ..Self::default() }
    }

    /// A plan together with what is leaving. Names never mean something else, so the two do not clash.
    pub(super) fn with_leaving<'p>(&mut self, plan: &'p GatewayPlan, now: Instant) -> Cow<'p, GatewayPlan> {
        if !Arc::ptr_eq(&self.wanted, &plan.extensions) {
            self.follow(plan, now);
        }
        self.upstreams = plan.upstreams.clone();
        if self.is_stale {
            let mut leaving = Extensions::default();
            self.leaving.iter().for_each(|left| leaving.join(&left.extensions));
            let all = plan.extensions.after(&leaving, &self.all);
            if all == *plan.extensions {
                self.all = plan.extensions.clone();
            } else if all != *self.all {
                self.all = Arc::new(all);
            }
            self.is_stale = false;
        }
        if Arc::ptr_eq(&self.all, &plan.extensions) {
            return Cow::Borrowed(plan);
        }
        let mut plan = plan.clone();
        let has_identity = plan.secrets.values().any(|secret| matches!(secret, Secret::Identity(_)));
        for (id, upstream) in self.leaving.iter().flat_map(|leaving| &leaving.upstreams) {
            if plan.upstreams.contains_key(id) {
                continue;
            }
            let mut upstream = upstream.clone();
            // The gateway is not entitled to one any more.
            if upstream.needs_identity() && !has_identity {
                Arc::make_mut(&mut upstream).cut_off();
            }
            plan.secrets.extend(upstream.secrets.iter().cloned());
            plan.upstreams.insert(id.clone(), upstream);
        }
        plan.extensions = self.all.clone();
        Cow::Owned(plan)
    }

    /// Finds out what a plan leaves over, and what is back in it.
    fn follow(&mut self, plan: &GatewayPlan, now: Instant) {
        for leaving in &mut self.leaving {
            leaving.extensions = leaving.extensions.without(&plan.extensions);
        }
        self.leaving.retain(|leaving| !leaving.extensions.is_empty());
        if !plan.extensions.covers(&self.wanted) {
            let find = |id: &UpstreamId| self.upstreams.get(id).or_else(|| plan.upstreams.get(id)).cloned();
            let is_known = |server: &Server| match server {
                Server::Upstream(id) => find(id).is_some(),
                Server::Dial(_) => true,
            };
            let mut gone = self.wanted.without(&plan.extensions);
            // Of an earlier run only the names of destinations are known.
            gone.retain(|verification| verification.servers().all(is_known));
            if !gone.is_empty() {
                let upstreams = gone.upstreams().filter_map(|id| Some((id.clone(), find(id)?))).collect();
                let (look_at, from) = (now + TAKEN_OVER, self.number + 1);
                self.leaving.push_back(Leaving { extensions: gone, upstreams, look_at, from, is_kept: false });
            }
        }
        let left_over = |leaving: &VecDeque<Leaving>| -> usize {
            let shares = |left: &Leaving| left.extensions.verifications().count() + left.extensions.checks.len();
            leaving.iter().map(shares).sum()
        };
        while left_over(&self.leaving) > MOST {
            self.leaving.pop_front();
        }
        self.wanted = plan.extensions.clone();
        self.is_stale = true;
    }

    /// Notes that what was made last is published, with routes of a version, some of which stand in for refused ones.
    pub(super) fn published(&mut self, routes: impl FnOnce() -> Version, stand_ins: &[&Arc<Resource>]) {
        if self.leaving.is_empty() {
            self.numbers.clear();
            return;
        }
        self.number += 1;
        self.numbers.insert(routes(), self.number);
        if self.numbers.len() > VERSIONS {
            let kept = self.number.saturating_sub(VERSIONS as u64);
            self.numbers.retain(|_, number| *number > kept);
        }
        for leaving in &mut self.leaving {
            let names = leaving.extensions.verifications().map(|verification| verification.name.as_bytes());
            let mut names = names.map(|name| (name, 1));
            // Every route configuration names each filter once, to turn it off where nothing else is said.
            let slots = leaving.extensions.checks.keys().filter_map(|set| self.all.checks.get(set)?.slot);
            let mut slots = slots.map(|slot| (check_slot(slot).as_bytes(), 2));
            let mut is_named = |(name, times)| stand_ins.iter().any(|routes| contains(&routes.body, name, times));
            leaving.is_kept = names.any(&mut is_named) || slots.any(&mut is_named);
            if leaving.is_kept {
                leaving.from = self.number + 1;
            }
        }
    }

    /// Lets go what no gateway names any more; whether there was such.
    ///
    /// `have_all_taken` says whether every connected gateway has taken routes of a version for which a condition holds.
    pub(super) fn let_go(
        &mut self,
        now: Instant,
        mut have_all_taken: impl FnMut(&dyn Fn(&Version) -> bool) -> bool,
    ) -> bool {
        let before = self.leaving.len();
        let numbers = &self.numbers;
        self.leaving.retain_mut(|leaving| {
            if leaving.look_at > now {
                return true;
            }
            leaving.look_at = now + TAKEN_OVER;
            let from = leaving.from;
            !have_all_taken(&|routes| numbers.get(routes).is_some_and(|number| *number >= from))
        });
        self.is_stale |= before != self.leaving.len();
        before != self.leaving.len()
    }

    /// Policies that have no filter yet, because others leave theirs.
    ///
    /// # Cost
    /// In proportion to the sets of settings.
    pub(super) fn waiting(&self) -> Vec<Waiting<'_>> {
        let waiting = self.all.waiting(&self.wanted).into_iter();
        waiting.map(|(policies, before)| Waiting { policies, before }).collect()
    }

    /// Whether a gateway with routes of a version names no set of settings that is leaving; nothing where routes do that stand in
    /// for refused ones.
    pub(super) fn names_no_settings(&self) -> Option<impl Fn(&Version) -> bool> {
        let mut leaving = self.leaving.iter().filter(|leaving| !leaving.extensions.checks.is_empty());
        if leaving.clone().any(|leaving| leaving.is_kept) {
            return None;
        }
        let from = leaving.by_ref().map(|leaving| leaving.from).max().unwrap_or(0);
        Some(move |routes: &Version| self.numbers.get(routes).is_some_and(|number| *number >= from))
    }

    /// When to look again who names what is leaving.
    pub(super) fn due(&self) -> Option<Instant> {
        self.leaving.iter().map(|leaving| leaving.look_at).min()
    }

    /// What policies share now.
    pub(super) fn wanted(&self) -> &Arc<Extensions> {
        &self.wanted
    }

    /// What gateways may name, as it was emitted last.
    pub(super) fn all(&self) -> &Arc<Extensions> {
        &self.all
    }
}

/// Whether a text has a name so many times at least.
fn contains(text: &[u8], name: &[u8], times: usize) -> bool {
    !name.is_empty() && text.windows(name.len()).filter(|window| *window == name).nth(times - 1).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;
    use crate::ir::extension::{CheckSet, CheckUse, Level, Standing};
    use crate::ir::policy::ext_auth::CheckSettings;
    use crate::ir::upstream::Dial;
    use crate::model::Name;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(shown: &GatewayPlan) -> String {
        shown.extensions.verifications().map(|verification| verification.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// What has changed hands, step by step, with a gateway that takes what it is told to.
    struct World {
        shared: Shared,
        now: Instant,
        plan: GatewayPlan,
        taken: Option<Version>,
    }

    impl World {
        fn new(shared: Shared) -> Self {
            Self { shared, now: Instant::now(), plan: plan(&[]), taken: None }
        }

        /// What is emitted for what is wanted.
        fn wants(&mut self, wanted: &[&str]) -> String {
            self.plan = plan(wanted);
            names(&self.shared.with_leaving(&self.plan, self.now))
        }

        fn publishes(&mut self, routes: &str, stand_ins: &[&'static str]) {
            let stand_in =
                |body: &&'static str| Arc::new(Resource::from_content("r".into(), (*body).into(), [].into()));
            let stand_ins: Vec<Arc<Resource>> = stand_ins.iter().map(stand_in).collect();
            self.shared.published(|| Version::new(routes), &stand_ins.iter().collect::<Vec<_>>());
        }

        fn takes(&mut self, routes: &str) {
            self.taken = Some(Version::new(routes));
        }

        /// What is left after some time.
        fn after(&mut self, time: Duration) -> String {
            self.now += time;
            let taken = self.taken.clone();
            self.shared.let_go(self.now, |is_new| taken.as_ref().is_some_and(is_new));
            names(&self.shared.with_leaving(&self.plan, self.now))
        }
    }

    #[test]
    fn what_policies_share_no_more_stays_until_gateways_have_other_routes() {
        let mut world = World::new(Shared::default());
        assert_eq!(world.wants(&["a"]), "a");
        world.publishes("1", &[]);
        world.takes("1");
        assert_eq!(world.shared.due(), None);
        assert_eq!(world.wants(&["b"]), "a b");
        world.publishes("2", &[]);
        assert_eq!(world.shared.due(), Some(world.now + TAKEN_OVER));
        assert_eq!(world.after(TAKEN_OVER), "a b", "the gateway has the old routes");
        assert_eq!(world.after(1000 * TAKEN_OVER), "a b", "however long that takes");
        world.takes("2");
        assert_eq!(world.after(SECOND), "a b", "nobody looks yet");
        assert_eq!(world.after(TAKEN_OVER), "b");
        assert_eq!(world.shared.due(), None);
    }

    #[test]
    fn time_is_the_least() {
        let mut world = World::new(Shared::default());
        world.wants(&["a"]);
        assert_eq!(world.wants(&["b"]), "a b");
        world.publishes("2", &[]);
        world.takes("2");
        assert_eq!(world.after(TAKEN_OVER - SECOND), "a b");
        assert_eq!(world.after(SECOND), "b");
    }

    #[test]
    fn each_goes_by_itself_however_steadily_policies_are_edited() {
        let mut world = World::new(Shared::default());
        world.wants(&["v0"]);
        for edit in 1..100 {
            let (own, routes) = (format!("v{edit}"), format!("{edit}"));
            world.wants(&[&own]);
            world.publishes(&routes, &[]);
            world.takes(&routes);
            let left = world.after(TAKEN_OVER / 3);
            assert!(left.split(' ').count() <= 4, "{left}");
        }
    }

    #[test]
    fn what_is_wanted_again_stays_and_leaves_anew() {
        let mut world = World::new(Shared::default());
        world.wants(&["a"]);
        world.wants(&["b"]);
        world.publishes("2", &[]);
        world.takes("2");
        assert_eq!(world.wants(&["a", "b"]), "a b");
        world.publishes("3", &[]);
        assert_eq!(world.shared.due(), None);
        assert_eq!(world.wants(&["b"]), "a b");
        world.publishes("4", &[]);
        assert_eq!(world.after(TAKEN_OVER), "a b", "what it took names `a` by now, as far as is known");
        world.takes("4");
        assert_eq!(world.after(TAKEN_OVER), "b");
    }

    #[test]
    fn what_stands_in_names_what_it_names() {
        let mut world = World::new(Shared::default());
        world.wants(&["a1", "b1"]);
        assert_eq!(world.wants(&["c1"]), "a1 b1 c1");
        for _ in 0..3 {
            // Refused, so that routes of before stand in.
            world.publishes("stand-in", &["routes with b1 and more"]);
            world.takes("stand-in");
            world.after(TAKEN_OVER);
        }
        // They left together, so they go together.
        assert_eq!(world.after(TAKEN_OVER), "a1 b1 c1");
        world.publishes("fixed", &[]);
        assert_eq!(world.after(TAKEN_OVER), "a1 b1 c1");
        world.takes("fixed");
        assert_eq!(world.after(TAKEN_OVER), "c1");
    }

    #[test]
    fn an_earlier_run_is_remembered() {
        let kept = Extensions::clone(&plan(&["a", "b"]).extensions);
        let mut world = World::new(Shared::of_earlier_run(kept));
        assert_eq!(world.wants(&["b", "c"]), "a b c");
        world.publishes("1", &[]);
        assert_eq!(world.after(TAKEN_OVER), "a b c", "the gateway has what it had");
        world.takes("1");
        assert_eq!(world.after(TAKEN_OVER), "b c");
    }

    /// One whose policies ask servers over HTTP, each with a header of its own; the oldest first.
    fn asking(headers: &[&'static str]) -> GatewayPlan {
        let settings = |header: &&'static str| CheckSettings {
            failure_mode_allow: false,
            status_on_error: 403,
            stat_prefix: None,
            body: None,
            http: Some([Name::from(*header)].into()),
        };
        let sets = headers.iter().map(|header| CheckSet { level: Level::Route, nth: 0, settings: settings(header) });
        let sets: Vec<CheckSet> = sets.collect();
        let mut extensions = Extensions::default();
        let server = Server::Dial(Dial { host: "a.example".into(), port: 1, tls: false, http2: false });
        let uses = CheckUse { servers: [server].into(), ..CheckUse::default() };
        extensions.checks.extend(sets.iter().map(|set| (set.clone(), uses.clone())));
        extensions.settle_slots(sets.iter());
        GatewayPlan { extensions: Arc::new(extensions), ..plan(&[]) }
    }

    impl World {
        /// Which headers servers are asked with, with a star where new routes may name the filter.
        fn asks(&mut self, headers: &[&'static str]) -> String {
            self.plan = asking(headers);
            self.asked()
        }

        fn asked(&mut self) -> String {
            let shown = self.shared.with_leaving(&self.plan, self.now);
            let mut slots: Vec<String> = Vec::new();
            for (set, uses) in shown.extensions.checks.iter().filter(|(_, uses)| uses.slot.is_some()) {
                let header = set.settings.http.iter().flatten().next().map_or("-", Name::as_str);
                slots.push(format!("{header}{}", if uses.standing == Standing::InUse { "*" } else { "" }));
            }
            slots.join(" ")
        }
    }

    /// Who waits is told, and for whom: what stands in for refused routes keeps a filter only where it names it.
    #[test]
    fn settings_wait_for_those_that_leave_and_no_longer() {
        let mut world = World::new(Shared::default());
        assert_eq!(world.asks(&["b", "c", "d", "e"]), "b* c* d* e*");
        world.publishes("1", &[]);
        world.takes("1");
        let waiting = |world: &World| world.shared.waiting().len();
        assert_eq!(waiting(&world), 0);
        assert_eq!(world.asks(&["a", "b", "c", "d"]), "b* c* d* e");
        assert_eq!(waiting(&world), 1);
        let slot = |world: &World, header: &str| {
            let mut sets = world.shared.all().checks.iter();
            let (_, uses) = sets.find(|(set, _)| set.settings.http == Some([Name::from(header)].into())).unwrap();
            uses.slot.unwrap()
        };
        let named_twice = |slot: usize| -> &'static str { Box::leak(check_slot(slot).repeat(2).into_boxed_str()) };
        let (own, other) = (named_twice(slot(&world, "e")), named_twice(slot(&world, "b")));
        // Refused, so that routes of before stand in that ask by it.
        world.publishes("2", &[own]);
        world.takes("2");
        assert!(world.shared.names_no_settings().is_none());
        world.after(TAKEN_OVER);
        assert_eq!(world.asked(), "b* c* d* e");
        // Others stand in now, which turn that one off as all do.
        world.publishes("3", &[other, check_slot(slot(&world, "e"))]);
        let is_new = world.shared.names_no_settings().expect("none stands in");
        assert!(!is_new(&Version::new("2")) && is_new(&Version::new("3")), "the gateway is waited for");
        drop(is_new);
        world.after(TAKEN_OVER);
        assert_eq!((world.asked().as_str(), waiting(&world)), ("b* c* d* e", 1));
        world.takes("3");
        world.after(TAKEN_OVER);
        assert_eq!((world.asked().as_str(), waiting(&world)), ("a* b* c* d*", 0));
    }

    /// The filter of the youngest stays for the routes that gateways have, and a second emission gives it to the oldest.
    #[test]
    fn a_policy_that_loses_its_room_loses_no_setting_of_routes_that_are_still_served() {
        let mut world = World::new(Shared::default());
        assert_eq!(world.asks(&["b", "c", "d", "e"]), "b* c* d* e*");
        world.publishes("1", &[]);
        world.takes("1");
        assert_eq!(world.shared.due(), None);
        assert_eq!(world.asks(&["a", "b", "c", "d", "e"]), "b* c* d* e");
        world.publishes("2", &[]);
        world.after(TAKEN_OVER);
        assert_eq!(world.asked(), "b* c* d* e", "the gateway has the old routes");
        world.takes("2");
        world.after(TAKEN_OVER);
        assert_eq!(world.asked(), "a* b* c* d*");
        assert_eq!(world.shared.due(), None, "nothing is left over");
        // An edit of something else begins nothing anew.
        assert_eq!(world.asks(&["a", "b", "c", "d", "e"]), "a* b* c* d*");
        assert_eq!(world.shared.due(), None);
        // And the youngest gets what is free, once there is something.
        assert_eq!(world.asks(&["a", "b", "c", "e"]), "a* b* c* d");
        world.publishes("3", &[]);
        world.takes("3");
        world.after(TAKEN_OVER);
        assert_eq!(world.asked(), "a* b* c* e*");
    }

    #[test]
    fn a_policy_that_loses_its_room_while_chancery_is_away_keeps_it_for_routes_that_are_still_served() {
        let mut before = World::new(Shared::default());
        before.asks(&["b", "c", "d", "e"]);
        let mut world = World::new(Shared::of_earlier_run(Extensions::clone(before.shared.all())));
        assert_eq!(world.asks(&["a", "b", "c", "d", "e"]), "b* c* d* e");
        world.publishes("1", &[]);
        world.takes("1");
        world.after(TAKEN_OVER);
        assert_eq!(world.asked(), "a* b* c* d*");
    }

    #[test]
    fn what_nobody_lets_go_is_bounded() {
        let mut world = World::new(Shared::default());
        for edit in 0..MOST + 10 {
            world.wants(&[&format!("v{edit}")]);
        }
        assert_eq!(world.wants(&["last"]).split(' ').count(), MOST + 1);
    }
}
