//! What the log says while the first complete lists are awaited: each change of state once, and again after a while.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Options;
use super::held::{Held, Trouble, What};
use crate::model::Name;

/// After this, lists that are under way are worth a line: a large cluster takes as long.
const LISTS_TAKE: Duration = Duration::from_secs(20);

/// Between two lines, whatever changes.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// Until the same is said again.
const AGAIN: Duration = Duration::from_secs(600);

/// What is wrong with each cluster that is awaited, by how grave it is; none where nothing is.
type State = Vec<(Name, Option<u8>)>;

/// See the module.
pub(super) struct Narrator {
    begun: Instant,
    told: Option<(State, Instant)>,
}

impl Narrator {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, told: None }
    }

    /// What is to be said now.
    ///
    /// `unreached` are registered clusters to which there is no connection, with why.
    pub(super) fn says(
        &mut self,
        held: &Held,
        unreached: &BTreeMap<Name, String>,
        options: &Options,
        now: Instant,
    ) -> Option<String> {
        let awaited = held.awaited();
        let gravity = |name: &Name, trouble: &Option<(&What, &Trouble)>| match trouble {
            Some((_, trouble)) => Some(trouble.gravity()),
            None => unreached.contains_key(name).then_some(u8::MAX),
        };
        let state: State = awaited.iter().map(|(name, trouble)| ((*name).clone(), gravity(name, trouble))).collect();
        let is_quiet = state.iter().all(|(_, trouble)| trouble.is_none());
        let is_due = match &self.told {
            None => !is_quiet || now >= self.begun + LISTS_TAKE,
            Some((told, at)) => now >= *at + if *told == state { AGAIN } else { AT_MOST_EVERY },
        };
        if awaited.is_empty() || !is_due {
            return None;
        }
        self.told = Some((state, now));
        let texts = awaited.iter().map(|(name, trouble)| match unreached.get(*name) {
            Some(reason) => format!(
                "cluster `{name}` was connected before and is waited for (R10): {reason}; `skipWarming` of its \
                 KubernetesCluster ends the wait"
            ),
            None => sentence(name, *trouble, options),
        });
        Some(format!("nothing is served yet: {}", texts.collect::<Vec<_>>().join("; ")))
    }

    /// What is to be said when everything was listed; none where nobody was told that it was not.
    pub(super) fn ends(&mut self) -> Option<&'static str> {
        self.told.take().map(|_| "everything was listed")
    }

    /// When something may be to be said though nothing happens.
    pub(super) fn due(&self, now: Instant) -> Instant {
        match &self.told {
            None => self.begun + LISTS_TAKE,
            Some((_, at)) if now < *at + AT_MOST_EVERY => *at + AT_MOST_EVERY,
            Some((_, at)) => *at + AGAIN,
        }
    }
}

fn sentence(name: &Name, trouble: Option<(&What, &Trouble)>, options: &Options) -> String {
    let (server, look) = if *name == options.management {
        (format!(", {},", options.server), format!("its address in {}", options.credential))
    } else {
        (String::new(), "its address in the kubeconfig".to_owned())
    };
    match trouble {
        None => format!("the objects of cluster `{name}`{server} are not listed completely"),
        Some((_, Trouble::Unreachable(words))) => format!(
            "the API server of cluster `{name}`{server} does not answer: {words}; look at the server, and at {look}; it is \
             asked again and again"
        ),
        Some((what, Trouble::Refused(words))) => format!(
            "the API server of cluster `{name}`{server} refuses to let Chancery read {}: {words}; grant `list` and `watch` \
             (config/kubernetes has the roles), or correct the credential",
            what.text()
        ),
        Some((what, Trouble::NotServed)) => format!(
            "the server of cluster `{name}`{server} does not serve {}, so it is no API server of Kubernetes; look at {look}",
            what.text()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn each_state_is_said_once_and_again_after_a_while() {
        let options = Options {
            management: "mgmt".into(),
            admin_namespace: "gloo-mesh".into(),
            server: "https://10.0.0.1/".to_owned(),
            credential: "--kubeconfig admin".to_owned(),
        };
        let (mut held, begin) = (Held::new(&"mgmt".into()), Instant::now());
        let (mut narrator, nowhere) = (Narrator::new(begin), BTreeMap::new());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(narrator.says(&held, &nowhere, &options, begin), None, "lists take their time");
        let away = |words: &str| Trouble::Unreachable(format!("{words:?}"));
        held.troubled(&"mgmt".into(), &What::Kind(Kind::Pod), away("refused"));
        let said = narrator.says(&held, &nowhere, &options, at(1)).unwrap();
        assert!(said.contains("cluster `mgmt`, https://10.0.0.1/, does not answer: \"refused\""), "{said}");
        assert!(said.contains("its address in --kubeconfig admin"), "{said}");
        // Other words, and more kinds, are no other state.
        held.troubled(&"mgmt".into(), &What::Kind(Kind::Node), away("timed out"));
        for second in 2..599 {
            assert_eq!(narrator.says(&held, &nowhere, &options, at(second)), None, "{second}");
        }
        assert!(narrator.says(&held, &nowhere, &options, at(601)).is_some());
        for kind in [Kind::Pod, Kind::Node] {
            held.troubled(&"mgmt".into(), &What::Kind(kind), Trouble::Refused("\"forbidden\"".to_owned()));
        }
        assert_eq!(narrator.says(&held, &nowhere, &options, at(602)), None, "not every second");
        let said = narrator.says(&held, &nowhere, &options, at(607)).unwrap();
        assert!(said.contains("refuses to let Chancery read `pods`: \"forbidden\""), "{said}");
        assert!(narrator.ends().is_some());
        assert_eq!(narrator.ends(), None);
    }
}
