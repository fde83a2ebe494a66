//! Where objects come from: a directory, or API servers. Either gives its batches to the lane and the compile thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use tokio::sync::{oneshot, watch};

use super::lane::Lane;
use super::secrets::Secrets;
use super::tokens::TokenReviews;
use super::{AppError, Event};
use crate::resolve;
use crate::settings::Origin;
use crate::source::directory::Watched;
use crate::source::kubernetes::{self, Access, Clients, Given, Kubernetes, Missing, SecretQuery};
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
                let config = access.load().await?;
                // What would fail later, in a thread of its own, fails here.
                kube::Client::try_from(config.clone()).map_err(|error| AppError::Client {
                    server: config.cluster_url.to_string(),
                    reason: error.to_string(),
                })?;
                let options = kubernetes::Options {
                    management: options.management_cluster.clone(),
                    admin_namespace: options.admin_namespace.clone(),
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

    /// Gives everything, and goes on to give what changes. `over` is told when the compile thread takes no more.
    pub(super) fn follow(
        self,
        lane: Arc<Lane>,
        events: std_mpsc::Sender<Event>,
        asked: Asked,
        over: oneshot::Sender<()>,
    ) -> Result<Followed, AppError> {
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
                };
                let kubernetes = Kubernetes::start(*config, options, asked, clients, take).map_err(AppError::Thread)?;
                Ok(Followed::Kubernetes(Arc::new(kubernetes)))
            }
        }
    }
}

impl Followed {
    /// The API servers, where it is they.
    pub(super) fn kubernetes(&self) -> Option<Arc<Kubernetes>> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.clone()),
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
