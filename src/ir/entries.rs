//! The routes that Envoy has for a matcher: nearly always one.
//!
//! # Rule
//! R73; inverted header matches and preflights as the policy reference in the manual says.

use super::policy::Policy;
use super::route::{HeaderMatch, Matcher, ValueMatch};

/// Header conditions that need two alternatives each are split up to this many; 2 to the power of it is the number of
/// Envoy routes that one matcher can become.
const MOST_SPLITS: usize = 4;

/// The matchers that take the place of one, in order; a request matches it if any of them does. Nearly always itself.
///
/// A negated header condition that takes the empty text becomes two: the absent header, then the condition.
#[must_use]
pub fn alternatives(matcher: &Matcher) -> Vec<Matcher> {
    let mut alternatives = vec![Matcher { headers: Vec::new(), ..matcher.clone() }];
    for header in &matcher.headers {
        let absence = header_absence(header).filter(|_| alternatives.len() < 1 << MOST_SPLITS);
        let forms: Vec<HeaderMatch> = absence.into_iter().chain([header.clone()]).collect();
        alternatives = forms
            .iter()
            .flat_map(|form| {
                alternatives.iter().map(move |before| {
                    let mut longer = before.clone();
                    longer.headers.push(form.clone());
                    longer
                })
            })
            .collect();
    }
    alternatives
}

/// The matcher of the preflights for requests with a method: the same conditions on an OPTIONS request that announces
/// it.
#[must_use]
pub fn preflight(matcher: &Matcher) -> Option<Matcher> {
    let method = matcher.method.as_ref().filter(|method| **method != "OPTIONS")?;
    let mut twin = matcher.clone();
    twin.headers.push(HeaderMatch {
        name: "access-control-request-method".into(),
        value: ValueMatch::Exact(method.clone()),
        invert: false,
    });
    twin.method = Some("OPTIONS".into());
    Some(twin)
}

/// How many routes Envoy has for a matcher with these policies.
#[must_use]
pub fn count<'p>(matcher: &Matcher, policies: impl IntoIterator<Item = &'p Policy>) -> u64 {
    // Conditions of a twin are those of the matcher and one that is never split.
    let has_twin = || policies.into_iter().any(|policy| matches!(policy, Policy::Cors(_)));
    let twice = preflight(matcher).is_some() && has_twin();
    let own = if matcher.headers.iter().any(|header| header.invert) { alternatives(matcher).len() as u64 } else { 1 };
    own * if twice { 2 } else { 1 }
}

/// For a negated condition that takes the empty text: the absence of the header, as an alternative of its own, because
/// counting the absent header as empty would then fail the condition.
fn header_absence(header: &HeaderMatch) -> Option<HeaderMatch> {
    (header.invert && takes_empty(&header.value)).then(|| HeaderMatch {
        name: header.name.clone(),
        value: ValueMatch::Present,
        invert: true,
    })
}

/// Whether the empty text fulfils a condition, before it is negated.
#[must_use]
pub fn takes_empty(value: &ValueMatch) -> bool {
    match value {
        ValueMatch::Regex(expression) => {
            regex::Regex::new(&format!("^(?:{expression})$")).is_ok_and(|regex| regex.is_match(""))
        }
        ValueMatch::Exact(value) => value.is_empty(),
        ValueMatch::Prefix(text) => text.is_empty(),
        ValueMatch::Present => false,
    }
}
