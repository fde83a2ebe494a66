//! Where objects come from: a directory, or API servers. Either gives its batches to the lane and the compile thread.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use tokio::sync::{mpsc, oneshot, watch};

use super::identities::Identities;
use super::lane::Lane;
use super::secrets::Secrets;
use super::tokens::TokenReviews;
use super::{AppError, Event};
use crate::memory::{Documents, Keeper};
use crate::resolve;
use crate::settings::Origin;
use crate::source::directory::Watched;
use crate::source::kubernetes::{
    self, Access, Clients, Current, Given, Kubernetes, Missing, NewRoot, SecretQuery, Shelf, Stale, With,
};
use crate::source::{self, Batch, Listed, Places};
use crate::xds::review::Reviewer;

/// An origin that can be read, and is not followed yet.
pub(super) enum Opened {
    Directory(Box<Listed>, Batch),
    Kubernetes(Box<kube::Config>, kubernetes::Options, Clients),
}

/// An origin that is followed for as long as this is kept.
pub(super) enum Followed {
    Directory(#[expect(dead_code, reason = "kept for its end")] Watched),
    Kubernetes(Arc<Kubernetes>),
}

/// The channel by which the compile thread asks for Secrets.
pub(super) type Asked = watch::Receiver<BTreeSet<SecretQuery>>;

/// What following an origin takes beside itself.
pub(super) struct Way {
    pub(super) lane: Arc<Lane>,
    pub(super) events: std_mpsc::Sender<Event>,
    pub(super) asked: Asked,
    pub(super) new_roots: mpsc::UnboundedReceiver<NewRoot>,
    /// Where `--state` is.
    pub(super) state: Option<PathBuf>,
    /// Told when the compile thread takes no more.
    pub(super) over: oneshot::Sender<()>,
    /// Dropped when all that is to be kept is kept.
    pub(super) at_work: std_mpsc::Sender<Infallible>,
}

/// The document of all objects that were read from API servers.
const OBJECTS: &str = "objects";

impl Opened {
    /// # Errors
    /// Where a directory cannot be read, or there is no usable credential of an API server. Whether one answers is no error:
    /// it is waited for.
    pub(super) async fn open(origin: &Origin, options: &resolve::Options) -> Result<Self, AppError> {
        match origin {
            Origin::Directory(directory) => {
                let management = options.management_cluster.clone();
                let source_options = source::Options { management, ..source::Options::default() };
                let directory = directory.clone();
                let opened = tokio::task::spawn_blocking(move || Listed::open(&directory, source_options)).await;
                match opened {
                    Ok(opened) => {
                        opened.map(|(listed, first)| Self::Directory(Box::new(listed), first)).map_err(Into::into)
                    }
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                }
            }
            Origin::Kubernetes { kubeconfig, context } => {
                let access = Access { kubeconfig: kubeconfig.clone(), context: context.clone() };
                let credential = access.load().await?;
                let config = credential.config().clone();
                // What would fail later, in a thread of its own, fails here.
                kube::Client::try_from(config.clone()).map_err(|error| AppError::Client {
                    credential: credential.found().to_owned(),
                    server: credential.server(),
                    reason: error.to_string(),
                })?;
                let options = kubernetes::Options {
                    management: options.management_cluster.clone(),
                    admin_namespace: options.admin_namespace.clone(),
                    server: credential.server(),
                    credential: credential.found().to_owned(),
                };
                Ok(Self::Kubernetes(Box::new(config), options, Clients::default()))
            }
        }
    }

    /// Where objects stand in files.
    pub(super) fn places(&self) -> Places {
        match self {
            Self::Directory(listed, _) => listed.places().clone(),
            Self::Kubernetes(..) => Places::default(),
        }
    }

    /// How the compile thread asks for Secrets. A directory has given them all.
    pub(super) fn secrets(&self) -> (Secrets, Asked) {
        let (asker, asked) = watch::channel(BTreeSet::new());
        match self {
            Self::Directory(..) => (Secrets::all_given(), asked),
            Self::Kubernetes(..) => (Secrets::asking(asker), asked),
        }
    }

    /// Who knows tokens of ServiceAccounts.
    pub(super) fn reviewer(&self) -> Option<Arc<dyn Reviewer>> {
        match self {
            Self::Directory(..) => None,
            Self::Kubernetes(_, options, clients) => {
                Some(Arc::new(TokenReviews { clients: clients.clone(), management: options.management.clone() }))
            }
        }
    }

    /// Whether what Envoys state about their Pods counts where there is no such Pod.
    ///
    /// # Rule
    /// R15.
    pub(super) fn trusts_labels(&self) -> bool {
        matches!(self, Self::Directory(..))
    }

    /// Where a generated root of trust is kept: a directory keeps it beside what else is kept, API servers in Secrets. `maker` makes
    /// such a Secret; none where nothing may be written.
    pub(super) fn keeps_root(
        &self,
        identities: Identities,
        maker: Option<mpsc::UnboundedSender<NewRoot>>,
    ) -> Identities {
        match self {
            Self::Directory(..) => identities,
            Self::Kubernetes(..) => identities.in_secrets(maker),
        }
    }

    /// Gives everything, and goes on to give what changes.
    pub(super) fn follow(self, way: Way) -> Result<Followed, AppError> {
        let Way { lane, events, asked, new_roots, state, over, at_work } = way;
        match self {
            Self::Directory(listed, first) => {
                lane.take(&first);
                // The receiver lives as long as senders do, so sending cannot fail before the end.
                let _ = events.send(Event::Source(first));
                let mut taker = Taker { lane, events, over: Some(over) };
                Ok(Followed::Directory(listed.deliver(move |batch| taker.batch(batch))?))
            }
            Self::Kubernetes(config, options, clients) => {
                let mut taker = Taker { lane, events, over: Some(over) };
                let take = move |given| match given {
                    Given::Batch(batch) => taker.batch(batch),
                    Given::Answered(answered) => taker.send(Event::Secrets(answered)),
                    Given::Roots(known) => taker.send(Event::Roots(known)),
                };
                let shelf = state.as_deref().map(shelf).transpose().map_err(AppError::Thread)?;
                let with = With { asked, new_roots, clients, shelf, at_work };
                let kubernetes = Kubernetes::start(*config, options, with, take).map_err(AppError::Thread)?;
                Ok(Followed::Kubernetes(Arc::new(kubernetes)))
            }
        }
    }
}

/// Where what API servers hold is kept over a restart.
///
/// # Errors
/// No thread can be started.
fn shelf(state: &Path) -> std::io::Result<Shelf> {
    let mut documents = Documents::open(state);
    let earlier = documents.load(OBJECTS);
    let keeper = Keeper::start(documents)?;
    Ok(Shelf { earlier, keep: Box::new(move |current: Current| keeper.keep(OBJECTS, current)) })
}

impl Followed {
    /// The API servers, where it is they.
    pub(super) fn kubernetes(&self) -> Option<Arc<Kubernetes>> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.clone()),
        }
    }

    /// Which clusters are not what they are at their API servers, where that may be.
    pub(super) fn stale(&self) -> Option<Stale> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.stale().clone()),
        }
    }

    /// What the first complete list waits for, where it may take a while.
    pub(super) fn missing(&self) -> Option<Missing> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.missing().clone()),
        }
    }
}

/// Takes what changed, on the thread that found it: what of it the lane serves is served at once. Tells when the compile
/// thread takes no more.
struct Taker {
    lane: Arc<Lane>,
    events: std_mpsc::Sender<Event>,
    over: Option<oneshot::Sender<()>>,
}

impl Taker {
    fn batch(&mut self, batch: Batch) -> bool {
        let event = if self.lane.take(&batch) { Event::Endpoints(batch) } else { Event::Source(batch) };
        self.send(event)
    }

    fn send(&mut self, event: Event) -> bool {
        let is_taken = self.events.send(event).is_ok();
        if !is_taken && let Some(over) = self.over.take() {
            // Nobody hears it when the program ends.
            let _ = over.send(());
        }
        is_taken
    }
}
