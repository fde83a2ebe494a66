//! What one compile hands to the next: the last accepted routes of the trees of tables that may freeze.
//!
//! An input and an output of compiling, beside the objects, so that compiling stays a function and two replicas that
//! remember the same decide the same. `memory` keeps it over a restart.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::model::{ObjectRef, WorkspaceId};

use super::{Matcher, RouteBody};

/// What is remembered of one compile.
///
/// # Cost
/// A clone is two words for every tree; matchers and bodies are shared.
///
/// # Rule
/// R140, R141.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// By root table: what stays in force while a route of its tree is invalid.
    pub accepted: OrdMap<ObjectRef, Arc<Accepted>>,
    /// Root tables that replaced invalid routes in that compile. One of them that freezes now was switched, so what it
    /// serves at the switch is what it keeps. Not kept over a restart.
    pub replacing: OrdSet<ObjectRef>,
}

impl Remembered {
    /// What was kept of an earlier run.
    #[must_use]
    pub fn of_earlier_run(accepted: Vec<Arc<Accepted>>) -> Self {
        let accepted = accepted.into_iter().map(|tree| (tree.root.clone(), tree)).collect();
        Self { accepted, replacing: OrdSet::new() }
    }
}

/// The configuration of a tree of tables as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The root table.
    pub root: ObjectRef,
    /// Its owner then. For another owner it is not in force.
    pub owner: WorkspaceId,
    /// Final routes in order.
    pub routes: Vec<AcceptedRoute>,
}

/// A final route as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRoute {
    /// Alternatives; at least one.
    pub matchers: Arc<[Matcher]>,
    /// Whether it is the error route that a delegation leaves for what no valid child serves (R89).
    pub is_remainder: bool,
    /// What it does and who said so.
    pub body: Arc<RouteBody>,
    /// Whose clients inside the cluster it leads nowhere, on the gateway at hand.
    #[serde(skip)]
    pub shut_out: Arc<[WorkspaceId]>,
}
