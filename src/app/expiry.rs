//! When the certificates end that listeners show: told to their authors two weeks before, and measured.
//!
//! A finding says when, and counts no days, so it changes twice in a certificate's life and not every day. What a Secret
//! holds is compiled the same whatever the clock says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::compile::Compiled;
use crate::ir::listener::CertificateSource;
use crate::ir::{Secret, SecretId};
use crate::model::{Code, Finding, Findings, SecretBytes};
use crate::trust::validity;

/// How long before its end a certificate is told of, in seconds: two weeks. Half of it is a holiday, double is what renewal
/// by ACME leaves of 90 days when all is well.
const TOLD_BEFORE: i64 = 14 * 86_400;

/// The ends of the certificates that listeners show.
#[derive(Default)]
pub(super) struct Expiry {
    /// By Secret: its chain, and when the first certificate of it ends, in seconds since 1970.
    ends: BTreeMap<SecretId, (SecretBytes, i64)>,
}

impl Expiry {
    /// Takes in which certificates there are.
    ///
    /// # Cost
    /// A comparison per certificate, and one parse of each that is new.
    pub(super) fn look(&mut self, compiled: &Compiled) {
        let mut before = std::mem::take(&mut self.ends);
        for (id, secret) in compiled.plans.values().flat_map(|plan| &plan.secrets) {
            let Secret::KeyPair { chain, .. } = secret else { continue };
            if self.ends.contains_key(id) {
                continue;
            }
            let known = before.remove(id).filter(|(known, _)| known == chain);
            let found = known.or_else(|| Some((chain.clone(), validity(chain).ok()?.1)));
            self.ends.extend(found.map(|found| (id.clone(), found)));
        }
    }

    /// The earliest end.
    pub(super) fn earliest(&self) -> Option<i64> {
        self.ends.values().map(|(_, ends)| *ends).min()
    }

    /// When the findings change.
    pub(super) fn changes(&self) -> impl Iterator<Item = i64> {
        self.ends.values().flat_map(|(_, ends)| [ends - TOLD_BEFORE, ends + 1])
    }

    /// What a moment says of the certificates, to the virtual gateways whose listeners show them.
    ///
    /// # Findings
    /// [`Code::Certificate`] as a warning: Envoy goes on to show what has ended, and clients refuse it.
    pub(super) fn findings(&self, compiled: &Compiled, now: i64) -> Findings {
        let due: BTreeMap<&SecretId, i64> =
            self.ends.iter().map(|(id, (_, ends))| (id, *ends)).filter(|(_, ends)| now >= ends - TOLD_BEFORE).collect();
        if due.is_empty() {
            return Findings::new();
        }
        let mut findings = BTreeSet::new();
        for listener in compiled.plans.values().flat_map(|plan| plan.listeners.values()) {
            for chain in &listener.chains {
                let Some(CertificateSource::Secret(id)) = chain.tls.as_ref().map(|tls| &tls.certificate) else {
                    continue;
                };
                let Some(ends) = due.get(id) else { continue };
                let date = Timestamp::from_second(*ends).map(|at| at.to_string()).unwrap_or_default();
                let message = if now > *ends {
                    format!("the certificate of `{}` ended at {date}, so clients refuse it: replace it", id.object)
                } else {
                    format!("the certificate of `{}` ends at {date}: replace it", id.object)
                };
                findings.extend(
                    chain
                        .gateways
                        .iter()
                        .map(|gateway| Finding::warning(gateway, Code::Certificate, message.clone()).with(&id.object)),
                );
            }
        }
        findings.into_iter().collect()
    }
}
