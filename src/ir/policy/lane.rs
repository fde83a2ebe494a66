//! Lanes: where the filters that routes bring themselves run.
//!
//! A lane stands on each side of authorization. It has [`RANKS`] places, with the verification of tokens between the third
//! and the fourth, and every listener has all of them, so that no policy and no priority changes a listener.
//!
//! # Rule
//! R125; the policy reference in the manual, "Filter slots".

use super::{Phase, Policy};

/// Places of a lane.
pub const RANKS: usize = 6;

/// Places before the verification of tokens.
pub const BEFORE_TOKENS: usize = 3;

/// The ranks of a route's steps in a lane, which come in the order of their priorities; nothing where there are too many.
///
/// `tokens` is the priority of the verification of tokens on the route, where there is one. Of equal priority, tokens come
/// first, so that other steps see what they claim. Where there is none, steps stand as beside one of priority 0 as long as
/// there is room: a request that somebody else's tokens move here must not have passed their places already.
#[must_use]
pub fn ranks(priorities: &[i32], tokens: Option<i32>) -> Option<Vec<usize>> {
    let (all, behind) = (priorities.len(), RANKS - BEFORE_TOKENS);
    let before = priorities.iter().take_while(|priority| **priority < tokens.unwrap_or(0)).count();
    let before = if tokens.is_some() { before } else { before.max(all.saturating_sub(behind)).min(BEFORE_TOKENS) };
    let fits = before <= BEFORE_TOKENS && all - before <= behind;
    fits.then(|| (0..before).chain(BEFORE_TOKENS..BEFORE_TOKENS + all - before).collect())
}

/// The priority of the verification of tokens in a phase, by policies of a route and of its destination; of two the first.
#[must_use]
pub fn tokens<'a>(policies: impl Iterator<Item = &'a Policy>, phase: Phase) -> Option<i32> {
    let places = policies.filter_map(|policy| match policy {
        Policy::Jwt(verification) => Some(verification.jwt.place),
        _ => None,
    });
    places.filter(|place| place.phase == phase).map(|place| place.priority).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r125_steps_stand_on_their_side_of_tokens() {
        for (priorities, tokens, expected) in [
            (&[][..], None, Some(vec![])),
            (&[0], None, Some(vec![3])),
            (&[-5, 0, 7], None, Some(vec![0, 3, 4])),
            (&[-5, -4, -3, -2], None, Some(vec![0, 1, 2, 3])),
            (&[0, 0, 0, 0], None, Some(vec![0, 3, 4, 5])),
            (&[0; 6], None, Some(vec![0, 1, 2, 3, 4, 5])),
            (&[0; 7], None, None),
            (&[-1, 0, 1], Some(0), Some(vec![0, 3, 4])),
            (&[0, 0, 0], Some(0), Some(vec![3, 4, 5])),
            (&[0, 0, 0, 0], Some(0), None),
            (&[-1, -1, -1], Some(0), Some(vec![0, 1, 2])),
            (&[-1, -1, -1, -1], Some(0), None),
            (&[-1, -1, -1, 5], Some(5), Some(vec![0, 1, 2, 3])),
        ] {
            assert_eq!(ranks(priorities, tokens), expected, "{priorities:?} {tokens:?}");
        }
    }
}
