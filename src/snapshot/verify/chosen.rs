//! Checks of listeners that choose their chains by name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Place, listener_pb, matching_pb};

impl Checker<'_> {
    /// What chooses chains by name names those that are there, and none is called like another.
    pub(super) fn check_chosen(
        &mut self,
        place: Place<'_>,
        matcher: &matching_pb::Matcher,
        listener: &listener_pb::Listener,
    ) {
        use matching_pb::matcher::matcher_tree::TreeType;
        use matching_pb::matcher::on_match::OnMatch as Taken;
        use matching_pb::matcher::{MatcherType, OnMatch};
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for chain in &listener.filter_chains {
            if chain.name.is_empty() || !names.insert(&chain.name) {
                self.report(place, format!("chooses chains by name, and two are called `{}`", chain.name));
            }
            if chain.filter_chain_match.is_some() {
                self.report(place, format!("chooses chain `{}` in two ways", chain.name));
            }
        }
        let tree = match &matcher.matcher_type {
            Some(MatcherType::MatcherTree(tree)) => tree.tree_type.as_ref(),
            Some(MatcherType::MatcherList(_)) => {
                self.report(place, "chooses chains by a list");
                None
            }
            None => None,
        };
        let known: BTreeMap<&String, &OnMatch> = match tree {
            Some(TreeType::ExactMatchMap(known)) => known.map.iter().collect(),
            _ => BTreeMap::new(),
        };
        for taken in known.into_values().chain(matcher.on_no_match.as_deref()) {
            let config = match &taken.on_match {
                Some(Taken::Action(action)) => action.typed_config.as_ref(),
                _ => None,
            };
            let chosen: Option<String> = self.unpack(place, config);
            if !chosen.as_ref().is_some_and(|chosen| names.contains(chosen.as_str())) {
                self.report(place, format!("chooses chain {chosen:?}, which does not exist"));
            }
        }
    }
}
