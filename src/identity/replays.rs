//! Proofs that were used, for as long as they could be used again.
//!
//! Promises: of one proof, [`Replays::take`] accepts one use, whatever the clock does: what was forgotten is too old from then on,
//! even where the clock goes back. Bounded: at the bound it refuses, rather than forget. Can miss: what another process, or
//! this one before it was restarted, has accepted.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use super::{PROOF_AGE, Proof, TokenError};

/// Most proofs that are remembered, some 25 MB: 3,700 a second for as long as one may be used.
pub const MAX_PROOFS: usize = 256 * 1024;
/// Most of them that one caller shows, with whatever keys, so that no caller uses up what all share.
pub const MAX_PROOFS_EACH: usize = MAX_PROOFS / 4;

/// The first half of a SHA-256. Who could find two that share it could only refuse themselves.
type Half = [u8; 16];

/// The proofs that were used.
#[derive(Debug)]
pub struct Replays {
    most: usize,
    most_each: usize,
    used: HashSet<Half>,
    /// When each was made, and whose it counts as: those that are forgotten first come first.
    by_age: BTreeMap<(i64, Half), Half>,
    by_caller: HashMap<Half, usize>,
    /// Whatever was made then or before is too old: it may have been forgotten.
    horizon: i64,
}

impl Default for Replays {
    fn default() -> Self {
        Self::with(MAX_PROOFS, MAX_PROOFS_EACH)
    }
}

impl Replays {
    /// Remembers at most `most` proofs, and `most_each` of one caller.
    #[must_use]
    pub fn with(most: usize, most_each: usize) -> Self {
        Self {
            most,
            most_each,
            used: HashSet::new(),
            by_age: BTreeMap::new(),
            by_caller: HashMap::new(),
            horizon: i64::MIN,
        }
    }

    /// Uses a proof, at the instant `now`, and counts it as `by`'s: the caller's, who may have keys as many as they like.
    ///
    /// # Errors
    /// [`TokenError::ProofReplayed`] where it was used, [`TokenError::ProofStale`] where that is not known any more,
    /// [`TokenError::ProofsFull`] at a bound.
    pub fn take(&mut self, proof: &Proof, by: [u8; 32], now: Timestamp) -> Result<(), TokenError> {
        self.forget(now.as_second().saturating_sub(PROOF_AGE));
        if proof.made <= self.horizon {
            return Err(TokenError::ProofStale);
        }
        let (id, by) = (half(proof.id), half(by));
        if self.used.contains(&id) {
            return Err(TokenError::ProofReplayed);
        }
        let each = self.by_caller.get(&by).copied().unwrap_or_default();
        if self.used.len() >= self.most || each >= self.most_each {
            return Err(TokenError::ProofsFull);
        }
        self.used.insert(id);
        self.by_age.insert((proof.made, id), by);
        self.by_caller.insert(by, each + 1);
        Ok(())
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// Forgets what was made before `oldest`.
    fn forget(&mut self, oldest: i64) {
        while let Some(first) = self.by_age.first_entry() {
            let (made, id) = *first.key();
            if made >= oldest {
                return;
            }
            let by = first.remove();
            self.used.remove(&id);
            self.horizon = self.horizon.max(made);
            match self.by_caller.get_mut(&by) {
                Some(each) if *each > 1 => *each -= 1,
                _ => _ = self.by_caller.remove(&by),
            }
        }
    }
}

fn half(hash: [u8; 32]) -> Half {
    let mut half = Half::default();
    for (to, from) in half.iter_mut().zip(hash) {
        *to = from;
    }
    half
}
