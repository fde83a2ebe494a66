//! What policies shared, kept over a restart: gateways still name it in their routes when they connect again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ir::Extensions;
use crate::ir::extension::{CheckSet, CheckUse, Level};
use crate::ir::policy::Policy;
use crate::ir::policy::ext_auth::AccessTokens;
use crate::ir::policy::jwt::Verification;
use crate::publish::GatewayKey;

use super::refusals::document::Key;

/// Name of the document.
pub const SHARED: &str = "shared";

/// What is shared, by key of gateways; only keys with something of the kind.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Of an earlier run, of gateways that are not served yet.
    earlier: Vec<Kept>,
    now: BTreeMap<GatewayKey, Arc<Extensions>>,
}

/// What gateways of one key share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    key: Key,
    tokens: Vec<(Level, Arc<Verification>)>,
    #[serde(default)]
    access_tokens: Vec<Arc<AccessTokens>>,
    #[serde(default)]
    checks: Vec<(CheckSet, CheckUse)>,
}

impl Shared {
    pub(super) fn of_earlier_run(earlier: Vec<Kept>) -> Self {
        Self { earlier, now: BTreeMap::new() }
    }

    /// What gateways of a key may name.
    pub(super) fn of(&self, key: &GatewayKey) -> Extensions {
        if let Some(now) = self.now.get(key) {
            return (**now).clone();
        }
        let mut extensions = Extensions::default();
        for kept in self.earlier.iter().filter(|kept| kept.key.is(key)) {
            for (level, verification) in &kept.tokens {
                extensions.add(*level, &Policy::Jwt(verification.clone()));
            }
            let access_tokens = kept.access_tokens.iter();
            extensions.access_tokens.extend(access_tokens.map(|own| (own.verification.name.clone(), own.clone())));
            extensions.checks.extend(kept.checks.iter().cloned());
        }
        extensions
    }

    /// Takes over what all keys share that are served now; whether anything is another.
    pub(super) fn replace<'a>(&mut self, now: impl Iterator<Item = (&'a GatewayKey, &'a Arc<Extensions>)>) -> bool {
        let mut before = std::mem::take(&mut self.now);
        let mut changed = false;
        for (key, extensions) in now {
            let earlier = self.earlier.len();
            self.earlier.retain(|kept| !kept.key.is(key));
            changed |= earlier != self.earlier.len();
            if extensions.is_empty() {
                continue;
            }
            changed |= before.remove(key).is_none_or(|before| !Arc::ptr_eq(&before, extensions));
            self.now.insert(key.clone(), extensions.clone());
        }
        changed || !before.is_empty()
    }

    /// What is kept.
    pub(super) fn document(&self) -> Vec<Kept> {
        let kept = |(key, extensions): (&GatewayKey, &Arc<Extensions>)| Kept {
            key: key.into(),
            tokens: (extensions.tokens.iter())
                .flat_map(|((_, level), here)| here.values().map(|verification| (*level, verification.clone())))
                .collect(),
            access_tokens: extensions.access_tokens.values().cloned().collect(),
            checks: extensions.checks.iter().map(|(set, uses)| (set.clone(), uses.clone())).collect(),
        };
        self.earlier.iter().cloned().chain(self.now.iter().map(kept)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::policy::jwt::{ClearRouteCache, Jwt, Mode};
    use crate::ir::policy::{Phase, Place};
    use crate::model::{EnvoyRelease, Kind, ObjectRef};

    fn key(minor: u32) -> GatewayKey {
        GatewayKey {
            gateway: "c1/edge/web".parse().unwrap(),
            bind: "0.0.0.0".into(),
            envoy: EnvoyRelease::serving(Some((1, minor))),
        }
    }

    fn extensions(name: &str) -> Arc<Extensions> {
        let verification = Verification {
            name: name.into(),
            policy: ObjectRef::new(Kind::JwtPolicy, "c1", "shop", "p"),
            jwt: Jwt {
                providers: [].into(),
                mode: Mode::RequireValid,
                place: Place { phase: Phase::PostAuthz, priority: 0 },
                clear_route_cache: ClearRouteCache::Auto,
                claims: [].into(),
                scopes: [].into(),
            },
        };
        let mut extensions = Extensions::default();
        extensions.add(Level::Destination, &Policy::Jwt(Arc::new(verification)));
        Arc::new(extensions)
    }

    #[test]
    fn what_gateways_may_name_is_known_after_a_restart() {
        let (own, other, none) = (key(40), key(36), Arc::new(Extensions::default()));
        let mut before = Shared::default();
        let (a, b) = (extensions("a"), extensions("b"));
        assert!(before.replace([(&own, &a), (&other, &b)].into_iter()));
        assert!(!before.replace([(&own, &a), (&other, &b)].into_iter()), "nothing new");
        assert_eq!(before.of(&own), *a, "nor after a panic");
        let text = serde_json::to_string(&before.document()).unwrap();

        let mut after = Shared::of_earlier_run(serde_json::from_str(&text).unwrap());
        assert_eq!((after.of(&own), after.of(&other)), ((*a).clone(), (*b).clone()));
        assert!(after.replace([(&own, &none)].into_iter()), "nothing is named any more");
        assert_eq!((after.of(&own), after.of(&other)), (Extensions::default(), (*b).clone()));
        assert_eq!(after.document().len(), 1, "of gateways that did not come yet all is kept on");
        assert!(after.replace([(&other, &b)].into_iter()));
        assert!(after.replace(std::iter::empty()), "nobody is left");
        assert_eq!(after.document(), []);
    }
}
