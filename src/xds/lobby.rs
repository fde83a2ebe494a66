//! How many connections and streams there may be: all together, of those who proved nothing yet, and of one account.
//!
//! Whoever proved nothing has a short time to. While too many of them wait, those who waited long enough for anybody on a slow
//! line make room, and nobody new is let in before there is some: new connections wait in the system's queue, in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::server::ServerSettings;
use crate::model::ObjectRef;

/// The part of the time for a proof that anybody has, however many others wait: 2 s of 10 s. A third lets a flood hold up
/// others for longer; a tenth turns away who is far away.
const GRACE_PART: u32 = 5;

/// The connections of a server.
#[derive(Debug)]
pub(super) struct Lobby {
    /// Connections at a time.
    most: usize,
    /// Of these, connections of those who proved nothing yet.
    most_waiting: usize,
    time: Duration,
    grace: Duration,
    /// By who proved to be there.
    accounts: Arc<Shares>,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    all: usize,
    /// Who proved nothing yet, in the order of arrival.
    waiting: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    /// Sent away, and not gone yet.
    leaving: BTreeSet<u64>,
    /// When the last of these was.
    sent_away: Option<Instant>,
}

/// Whether one more may come in.
enum Room {
    Free,
    /// Not before somebody has gone; then there may be somebody to send away.
    Perhaps(Instant),
    /// Not before somebody has gone.
    None,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    lobby: Arc<Lobby>,
    id: u64,
    /// Whose it is; held as long as it counts for him.
    share: Mutex<Option<Share>>,
}

/// Ready when somebody who proved nothing has to go.
#[derive(Debug)]
pub(super) struct Stay {
    sent_away: oneshot::Receiver<()>,
    until: Instant,
}

impl Lobby {
    pub(super) fn new(settings: &ServerSettings) -> Arc<Self> {
        Arc::new(Self {
            most: settings.connections.max(1),
            most_waiting: settings.unproven.max(1),
            time: settings.proof,
            grace: settings.proof / GRACE_PART,
            accounts: Shares::new(settings.connections_per_account),
            inner: Mutex::default(),
            changed: Notify::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when one more may come in; tells, if that waits for somebody who may stay. May be dropped and asked again.
    pub(super) async fn room(&self, is_full: impl Fn()) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.make_room() {
                Room::Free => return,
                Room::Perhaps(at) => tokio::select! {
                    () = &mut changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                Room::None => {
                    is_full();
                    changed.await;
                }
            }
        }
    }

    /// Sends somebody away if there has to be room.
    fn make_room(&self) -> Room {
        let mut inner = self.inner();
        let Inner { all, waiting, leaving, sent_away, .. } = &mut *inner;
        let now = Instant::now();
        if let Some(gone) = sent_away.map(|at| at + self.grace).filter(|at| now < *at)
            && *all >= self.most
            && !leaving.is_empty()
        {
            return Room::Perhaps(gone);
        }
        if *all < self.most && waiting.len() < self.most_waiting {
            return Room::Free;
        }
        let Some(oldest) = waiting.first_entry() else { return Room::None };
        let may_go = oldest.get().0 + self.grace;
        if now < may_go {
            return Room::Perhaps(may_go);
        }
        let (id, (_, away)) = oldest.remove_entry();
        // Who has gone meanwhile is noticed as well.
        let _ = away.send(());
        leaving.insert(id);
        *sent_away = Some(now);
        if *all < self.most { Room::Free } else { Room::Perhaps(now + self.grace) }
    }

    /// Counts a connection of somebody who proved nothing yet.
    pub(super) fn enter(self: &Arc<Self>) -> (Arc<Visit>, Stay) {
        let (away, sent_away) = oneshot::channel();
        let now = Instant::now();
        let visit = self.count(|id, inner| drop(inner.waiting.insert(id, (now, away))));
        (visit, Stay { sent_away, until: now + self.time })
    }

    /// Counts a connection of somebody who is not asked.
    pub(super) fn pass(self: &Arc<Self>) -> Arc<Visit> {
        self.count(|_, _| ())
    }

    fn count(self: &Arc<Self>, also: impl FnOnce(u64, &mut Inner)) -> Arc<Visit> {
        let mut inner = self.inner();
        inner.next += 1;
        inner.all += 1;
        let id = inner.next;
        also(id, &mut inner);
        Arc::new(Visit { lobby: self.clone(), id, share: Mutex::default() })
    }
}

impl Visit {
    /// Somebody proved to be an account, and may stay.
    ///
    /// # Errors
    /// In words, if the account has as many connections already as it may have.
    pub(super) fn prove(&self, account: &ObjectRef) -> Result<(), String> {
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        if share.is_none() {
            *share = Some(self.lobby.accounts.take(account).ok_or("this account has too many connections")?);
            self.lobby.inner().waiting.remove(&self.id);
            self.lobby.changed.notify_one();
        }
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut inner = self.lobby.inner();
        inner.all -= 1;
        inner.waiting.remove(&self.id);
        inner.leaving.remove(&self.id);
        self.lobby.changed.notify_one();
    }
}

impl Stay {
    /// Ready when there is need for the room, or the time to prove something is over. Never, once something is proven.
    pub(super) async fn over(self) {
        tokio::select! {
            biased;
            sent_away = self.sent_away => {
                if sent_away.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            () = tokio::time::sleep_until(self.until) => {}
        }
    }
}

/// How much each account has of something.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    taken: Mutex<BTreeMap<ObjectRef, usize>>,
}

/// One of what an account has, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    account: ObjectRef,
}

impl Shares {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// One more, unless the account has as many as it may have.
    pub(super) fn take(self: &Arc<Self>, account: &ObjectRef) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(account).copied().unwrap_or_default();
        (count < self.most).then(|| {
            taken.insert(account.clone(), count + 1);
            Share { shares: self.clone(), account: account.clone() }
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.account) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.account)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    const GRACE: Duration = Duration::from_millis(100);

    /// Far longer than anything here takes; only a failing test waits for it.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn lobby(connections: usize, unproven: usize) -> Arc<Lobby> {
        let proof = GRACE * GRACE_PART;
        let settings =
            ServerSettings { connections, unproven, proof, connections_per_account: 2, ..Default::default() };
        Lobby::new(&settings)
    }

    fn account(name: &str) -> ObjectRef {
        ObjectRef::new(Kind::ServiceAccount, "c1", "edge", name)
    }

    #[tokio::test]
    async fn who_proves_nothing_makes_room_after_a_grace_and_goes_after_a_time() {
        let lobby = lobby(10, 2);
        let begin = Instant::now();
        let (first, first_stays) = lobby.enter();
        let (second, second_stays) = lobby.enter();
        lobby.room(|| unreachable!()).await;
        assert!(begin.elapsed() >= GRACE, "the oldest has its time");
        tokio::time::timeout(PATIENCE, first_stays.over()).await.expect("it is sent away");
        drop(first);
        let third_comes = Instant::now();
        let (_third, third_stays) = lobby.enter();
        second.prove(&account("web")).unwrap();
        lobby.room(|| unreachable!()).await;
        tokio::time::timeout(PATIENCE, third_stays.over()).await.expect("its time is over");
        assert!(third_comes.elapsed() >= GRACE * GRACE_PART);
        let stays = tokio::time::timeout(GRACE * GRACE_PART * 2, second_stays.over()).await;
        assert!(stays.is_err(), "who proved something stays");
    }

    #[tokio::test]
    async fn a_full_house_lets_nobody_in_before_somebody_has_gone() {
        let lobby = lobby(2, 2);
        let proven = lobby.enter().0;
        proven.prove(&account("web")).unwrap();
        let (waits, stay) = lobby.enter();
        let out = tokio::spawn(async move {
            stay.over().await;
            drop(waits);
        });
        tokio::time::timeout(PATIENCE, lobby.room(|| unreachable!())).await.expect("somebody has gone");
        out.await.unwrap();
        let other = lobby.pass();
        let told = std::cell::Cell::new(false);
        let room = lobby.room(|| told.set(true));
        assert!(tokio::time::timeout(GRACE * GRACE_PART, room).await.is_err());
        assert!(told.get());
        drop(other);
        tokio::time::timeout(PATIENCE, lobby.room(|| unreachable!())).await.expect("somebody has gone");
    }

    #[tokio::test]
    async fn an_account_has_so_many_connections_and_others_theirs() {
        let lobby = lobby(10, 10);
        let visits: Vec<_> = (0..3).map(|_| lobby.enter().0).collect();
        visits[0].prove(&account("web")).unwrap();
        visits[0].prove(&account("web")).unwrap();
        visits[1].prove(&account("web")).unwrap();
        assert_eq!(visits[2].prove(&account("web")).unwrap_err(), "this account has too many connections");
        visits[2].prove(&account("other")).unwrap();
        drop(visits);
        let again = lobby.enter().0;
        again.prove(&account("web")).unwrap();
    }
}
