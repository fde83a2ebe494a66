//! Tokens that an API server knows: whom they prove is asked there, and remembered for a while.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::caller::TokenDigest;
use crate::model::{Name, ObjectRef, SecretBytes};

/// What is said of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Review {
    /// It proves this ServiceAccount, and the Pod of this name for which it was made out, if it was for one.
    Account(ObjectRef, Option<Name>),
    /// It proves nobody.
    Nobody,
    /// Nobody could be asked.
    Unavailable,
}

/// Says whom a token proves.
pub trait Reviewer: fmt::Debug + Send + Sync {
    /// Asks whom a token proves.
    fn review(&self, token: SecretBytes) -> Pin<Box<dyn Future<Output = Review> + Send>>;
}

/// How long an answer is remembered: a gateway opens several streams at once.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Most answers that are remembered; tokens are what clients choose.
const MOST: usize = 4096;

/// How often a token is reviewed again while a stream lasts. One that is no longer valid ends its streams that late.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// Largest token that is looked at, in bytes.
const TOKEN_BYTES: usize = 16 << 10;

/// A reviewer with its memory. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Reviews {
    reviewer: Arc<dyn Reviewer>,
    known: Arc<Mutex<BTreeMap<TokenDigest, (Review, Instant)>>>,
}

impl Reviews {
    pub(super) fn new(reviewer: Arc<dyn Reviewer>) -> Self {
        Self { reviewer, known: Arc::default() }
    }

    /// Whom a token proves, as it was said a moment ago or is said now.
    pub(super) async fn review(&self, token: &SecretBytes) -> Review {
        if token.expose().len() > TOKEN_BYTES || token.expose().is_empty() {
            return Review::Nobody;
        }
        let digest = TokenDigest::of(token.expose());
        let known =
            self.lock().get(&digest).filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(review, _)| review.clone());
        if let Some(review) = known {
            return review;
        }
        let review = self.reviewer.review(token.clone()).await;
        let mut known = self.lock();
        if known.len() >= MOST {
            known.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        }
        if review != Review::Unavailable && known.len() < MOST {
            known.insert(digest, (review.clone(), Instant::now()));
        }
        review
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TokenDigest, (Review, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
