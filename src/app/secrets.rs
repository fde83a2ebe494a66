//! Which Secrets the rules ask for, where a source reads only those: nothing is told or published while it is not known
//! whether one of them is there, so that no listener goes without its certificate for the time of a question.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::compile::{Compiler, SecretRead};
use crate::source::kubernetes::SecretQuery;

/// Questions for Secrets and whether they are answered.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// How to ask; none where a source gives all Secrets by itself.
    asker: Option<watch::Sender<BTreeSet<SecretQuery>>>,
    answered: Arc<BTreeSet<SecretQuery>>,
    /// Whether it was said which are asked for, if only that none are.
    is_asked: bool,
}

impl Secrets {
    /// Of a source that gives all Secrets.
    pub(super) fn all_given() -> Self {
        Self::default()
    }

    /// Of a source that gives those that are asked for.
    pub(super) fn asking(asker: watch::Sender<BTreeSet<SecretQuery>>) -> Self {
        Self { asker: Some(asker), answered: Arc::default(), is_asked: false }
    }

    /// Takes in which questions the source has answered.
    pub(super) fn take(&mut self, answered: Arc<BTreeSet<SecretQuery>>) {
        self.answered = answered;
    }

    /// Asks for what the last compile asked for; whether all of it is answered.
    ///
    /// # Rule
    /// R7.
    pub(super) fn are_known(&mut self, compiler: &Compiler) -> bool {
        let Some(asker) = &self.asker else { return true };
        let wanted: BTreeSet<SecretQuery> = compiler.secrets().map(query).collect();
        let is_known = wanted.is_subset(&self.answered);
        asker.send_if_modified(|asked| {
            let is_other = *asked != wanted || !std::mem::replace(&mut self.is_asked, true);
            *asked = wanted;
            is_other
        });
        is_known
    }
}

/// What a source is asked. Rules ask for Secrets by their labels only.
fn query(read: SecretRead<'_>) -> SecretQuery {
    match read {
        SecretRead::One(id) => SecretQuery::One(id.clone()),
        SecretRead::Selected(selector) => SecretQuery::Labelled(selector.labels.clone()),
    }
}
