//! The generated root of trust where API servers are the source: in Secrets of the admin namespace, each made once by one
//! replica, and taken by all.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::ir::trust::Terms;
use crate::model::Name;
use crate::resolve::trust::KeptRoot;
use crate::source::kubernetes::{NewRoot, RootSecrets};
use crate::trust::root::{self, Root};

/// How long nothing is published because it is unknown whether there is a root, in seconds.
const AWAITED: i64 = 10;

/// When one that could not be made is asked for again, in seconds.
const TRIED_AGAIN: i64 = 60;

/// Roots in Secrets.
#[derive(Debug)]
pub(super) struct InSecrets {
    /// Those that are there, the oldest first; none while that is unknown.
    roots: Option<Result<Vec<Root>, String>>,
    /// The names of their Secrets.
    names: Vec<Name>,
    problem: Option<String>,
    /// How one is made; none where nothing may be written.
    maker: Option<mpsc::UnboundedSender<NewRoot>>,
    /// One that was made here, until it is known which one counts.
    made: Option<Root>,
    /// Those that an earlier release kept in a file, which are kept in Secrets from now on.
    of_file: Vec<Root>,
    /// When one was asked for.
    asked: Option<i64>,
    /// Since when a root is wanted and it is unknown whether there is one.
    awaited: Option<i64>,
}

impl InSecrets {
    pub(super) fn new(maker: Option<mpsc::UnboundedSender<NewRoot>>, of_file: Vec<Root>) -> Self {
        Self { roots: None, names: Vec::new(), problem: None, maker, made: None, of_file, asked: None, awaited: None }
    }

    /// Takes in what is known of the Secrets.
    pub(super) fn take(&mut self, known: RootSecrets) {
        self.problem = known.problem;
        let Some(found) = known.found else { return };
        self.names = found.iter().map(|secret| secret.name.clone()).collect();
        let mut by_age: BTreeMap<(i64, Name), Root> = BTreeMap::new();
        let mut wrong = None;
        for secret in found {
            match Root::of_secrets(&secret.certificate, &secret.key) {
                Ok(root) => drop(by_age.insert((root.begins(), secret.name), root)),
                Err(reason) => {
                    wrong = Some(format!(
                        "the Secret `{}` of the admin namespace: {reason}; restore it, or delete it to begin with a new root",
                        secret.name
                    ));
                }
            }
        }
        let is_news = !by_age.is_empty();
        self.roots = Some(wrong.map_or_else(|| Ok(by_age.into_values().collect()), Err));
        if is_news {
            (self.made, self.asked) = (None, None);
        }
    }

    /// Whether a root is wanted of which it is not known yet whether it is there: then nothing is published.
    pub(super) fn is_awaited(&self, now: i64) -> bool {
        self.awaited.is_some_and(|since| now < since + AWAITED)
    }

    /// When to look again, in seconds since 1970.
    pub(super) fn due(&self, terms: &Terms, now: i64) -> Option<i64> {
        let changes = self.roots.as_ref().and_then(|roots| roots.as_ref().ok());
        let change = changes.and_then(|roots| root::next_change(roots, terms, now));
        let again = self.asked.map(|asked| asked + TRIED_AGAIN).filter(|at| *at > now);
        change.into_iter().chain(again).chain(self.is_awaited(now).then_some(now + 1)).min()
    }

    /// See [`Identities::kept_root`](super::identities::Identities::kept_root).
    pub(super) fn kept_root(&mut self, wanted: Option<&Terms>, default: &Terms, now: i64) -> KeptRoot {
        let needs = match (&self.roots, wanted) {
            (None, Some(_)) => true,
            (Some(Ok(roots)), Some(terms)) => root::needs_another(roots, terms, now),
            (_, None) | (Some(Err(_)), Some(_)) => false,
        };
        if let (true, Some(Ok(_)), Some(terms)) = (needs, &self.roots, wanted) {
            self.make(terms, now);
        }
        let is_unknown = needs && self.problem.is_none() && self.signing(wanted.unwrap_or(default), now).is_none();
        self.awaited = if is_unknown && (self.maker.is_some() || self.roots.is_none()) {
            Some(self.awaited.unwrap_or(now))
        } else {
            None
        };
        if let Some(Err(reason)) = &self.roots {
            return KeptRoot::Failed(reason.as_str().into());
        }
        if let Some(kept) = self.signing(wanted.unwrap_or(default), now) {
            return kept;
        }
        match &self.problem {
            Some(problem) => KeptRoot::Failed(problem.as_str().into()),
            None if self.awaited.is_some() && !self.is_awaited(now) => {
                KeptRoot::Failed("the API server has not answered yet".into())
            }
            None if needs && self.roots.is_some() && self.maker.is_none() => {
                KeptRoot::Failed("there is none, and with --read-only none is made".into())
            }
            None => KeptRoot::Missing,
        }
    }

    fn signing(&self, terms: &Terms, now: i64) -> Option<KeptRoot> {
        let roots = self.roots.as_ref()?.as_ref().ok()?;
        let signer = root::signing(roots, terms, now)?;
        Some(KeptRoot::Kept { signer, authorities: root::trusted(roots, now) })
    }

    /// Asks for another root to be kept, unless that was done a moment ago.
    fn make(&mut self, terms: &Terms, now: i64) {
        let Some(maker) = &self.maker else { return };
        if self.asked.is_some_and(|asked| now < asked + TRIED_AGAIN) {
            return;
        }
        self.asked = Some(now);
        let is_first = matches!(&self.roots, Some(Ok(roots)) if roots.is_empty());
        let known = self.of_file.iter().rfind(|root| is_first && root.lasts(now)).cloned();
        let root = match self.made.take().or(known) {
            Some(root) => root,
            None => match Root::make(terms, now) {
                Ok(root) => root,
                Err(error) => {
                    self.problem = Some(error.to_string());
                    return;
                }
            },
        };
        let (certificate, key) = root.pair();
        self.made = Some(root);
        // Nobody takes it when the program ends.
        let _ = maker.send(NewRoot::after(self.names.iter(), certificate, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::trust::KeyType;
    use crate::model::SecretBytes;
    use crate::source::kubernetes::RootSecret;

    const NOW: i64 = 1_767_225_600;
    const DAY: i64 = 86_400;

    fn terms() -> Terms {
        Terms { days: 100, key: KeyType::EcdsaP256, organization: Name::default(), renew_with_left: 100_000 }
    }

    fn secret(name: &str, new: &NewRoot) -> RootSecret {
        RootSecret { name: name.into(), certificate: new.certificate.clone(), key: new.key.clone() }
    }

    fn found(secrets: &[RootSecret]) -> RootSecrets {
        RootSecrets { found: Some(secrets.to_vec()), problem: None }
    }

    fn signer(kept: &KeptRoot) -> Option<&str> {
        match kept {
            KeptRoot::Kept { signer, .. } => Some(signer.id.as_str()),
            _ => None,
        }
    }

    #[test]
    fn r191_of_two_replicas_both_take_what_one_of_them_made() {
        let replicas = [(); 2].map(|()| {
            let (maker, made) = mpsc::unbounded_channel();
            (InSecrets::new(Some(maker), Vec::new()), made)
        });
        let [(mut first, mut made_first), (mut second, mut made_second)] = replicas;
        for replica in [&mut first, &mut second] {
            assert_eq!(replica.kept_root(Some(&terms()), &terms(), NOW), KeptRoot::Missing);
            assert!(replica.is_awaited(NOW), "unknown: nothing is published");
            replica.take(found(&[]));
            assert_eq!(replica.kept_root(Some(&terms()), &terms(), NOW), KeptRoot::Missing);
            assert!(replica.is_awaited(NOW));
        }
        let (one, _) = (made_first.try_recv().unwrap(), made_second.try_recv().unwrap());
        // The first was faster; the second hears of it and forgets its own.
        for replica in [&mut first, &mut second] {
            replica.take(found(&[secret("chancery-root", &one)]));
        }
        let kept = first.kept_root(Some(&terms()), &terms(), NOW);
        assert!(signer(&kept).is_some());
        assert_eq!(kept, second.kept_root(Some(&terms()), &terms(), NOW));
        assert!(!first.is_awaited(NOW) && !second.is_awaited(NOW));
        assert!(made_second.try_recv().is_err(), "nothing else is made");
        // Near its end a successor: trusted at once, and the first goes on to sign.
        let near = NOW + 91 * DAY;
        assert_eq!(signer(&first.kept_root(Some(&terms()), &terms(), near)), signer(&kept));
        let two = made_first.try_recv().unwrap();
        first.take(found(&[secret("chancery-root", &one), secret("chancery-root-2", &two)]));
        let KeptRoot::Kept { signer: now, authorities } = first.kept_root(Some(&terms()), &terms(), near) else {
            panic!("a root")
        };
        assert_eq!(Some(now.id.as_str()), signer(&kept));
        assert_eq!(authorities.expose(), [one.certificate.expose(), two.certificate.expose()].concat());
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_told_and_nothing_is_made_in_its_place() {
        let (maker, mut made) = mpsc::unbounded_channel();
        let mut roots = InSecrets::new(Some(maker), Vec::new());
        let canary = || SecretBytes::new(b"CANARY");
        let new = NewRoot::after([].iter(), canary(), canary());
        roots.take(found(&[secret("chancery-root", &new)]));
        let KeptRoot::Failed(reason) = roots.kept_root(Some(&terms()), &terms(), NOW) else { panic!("it is used") };
        assert!(reason.contains("the Secret `chancery-root`") && reason.contains("delete it"), "{reason}");
        assert!(!reason.contains("CANARY"));
        assert!(made.try_recv().is_err() && !roots.is_awaited(NOW));
    }

    #[test]
    fn what_cannot_be_made_is_told_and_tried_again_and_not_made_again() {
        let (maker, mut made) = mpsc::unbounded_channel();
        let mut roots = InSecrets::new(Some(maker), Vec::new());
        roots.take(found(&[]));
        roots.kept_root(Some(&terms()), &terms(), NOW);
        let first = made.try_recv().unwrap();
        assert_eq!(
            roots.kept_root(Some(&terms()), &terms(), NOW + AWAITED),
            KeptRoot::Failed("the API server has not answered yet".into())
        );
        roots.take(RootSecrets { found: Some(Vec::new()), problem: Some("forbidden".to_owned()) });
        assert_eq!(roots.kept_root(Some(&terms()), &terms(), NOW + 11), KeptRoot::Failed("forbidden".into()));
        assert!(!roots.is_awaited(NOW + 11), "everything else is published");
        assert!(made.try_recv().is_err());
        assert_eq!(roots.due(&terms(), NOW + 11), Some(NOW + TRIED_AGAIN));
        roots.kept_root(Some(&terms()), &terms(), NOW + TRIED_AGAIN);
        assert_eq!(made.try_recv().unwrap().certificate, first.certificate);
    }

    #[test]
    fn with_read_only_none_is_made() {
        let mut roots = InSecrets::new(None, Vec::new());
        roots.take(found(&[]));
        let KeptRoot::Failed(reason) = roots.kept_root(Some(&terms()), &terms(), NOW) else { panic!("one is made") };
        assert!(reason.contains("--read-only"), "{reason}");
        assert_eq!(roots.kept_root(None, &terms(), NOW), KeptRoot::Missing);
    }

    #[test]
    fn the_root_of_a_file_is_kept_on_as_a_secret() {
        let (maker, mut made) = mpsc::unbounded_channel();
        let of_file = Root::make(&terms(), NOW).unwrap();
        let mut roots = InSecrets::new(Some(maker), vec![of_file.clone()]);
        roots.take(found(&[]));
        roots.kept_root(Some(&terms()), &terms(), NOW);
        assert_eq!(made.try_recv().unwrap().certificate, of_file.pair().0);
    }
}
