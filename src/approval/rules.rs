//! Who may decide.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Given, Party, Requirement, Vote};

/// Who decides, as their token of that moment says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// Who.
    pub who: Party,
    /// Their groups, as far as the requirement names them.
    pub groups: BTreeSet<String>,
}

/// Why somebody may not decide, or not like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cannot {
    /// The caller themselves, under whatever account.
    #[error("the caller cannot decide on their own request")]
    OwnRequest,
    /// In none of the groups asked for.
    #[error("none of your groups is asked for this approval")]
    NotAsked,
    /// The same person decided before.
    #[error("you have decided on this already")]
    DecidedAlready,
    /// Every seat they could fill is filled.
    #[error("every seat that your groups could fill is filled")]
    SeatsFilled,
    /// In none of the groups that may decide alone.
    #[error("none of your groups may decide alone")]
    NoBreakGlass,
    /// Whoever decides alone says why.
    #[error("deciding alone needs a reason")]
    NoReason,
    /// Their token does not say who is behind the account, and their issuer's do.
    #[error("your token does not say which person you are: ask for the scope that has it do so")]
    NoPerson,
    /// They proved who they are too long ago.
    #[error("sign in again: who decides must have done so a moment ago")]
    Stale,
    /// Their issuer does not say when they did.
    #[error("your token does not say when you signed in (`auth_time`)")]
    NoAuthTime,
}

impl Cannot {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::OwnRequest => "own_request",
            Self::NotAsked => "not_asked",
            Self::DecidedAlready => "decided_already",
            Self::SeatsFilled => "seats_filled",
            Self::NoBreakGlass => "no_break_glass",
            Self::NoReason => "no_reason",
            Self::NoPerson => "no_person",
            Self::Stale => "authentication_too_old",
            Self::NoAuthTime => "no_auth_time",
        }
    }
}

/// How fresh a proof of identity must be (RFC 9470).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// At most so old.
    pub within: Duration,
    /// Whether the moment a token was issued counts where its issuer does not say when its holder signed in.
    pub or_issued: bool,
}

impl Freshness {
    /// Whether someone who signed in at `authenticated`, by a token issued at `issued`, may decide at `now`.
    ///
    /// # Errors
    /// [`Cannot::Stale`], [`Cannot::NoAuthTime`].
    pub fn check(
        self,
        authenticated: Option<Timestamp>,
        issued: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Cannot> {
        let at = match (authenticated, issued) {
            (Some(at), _) => at,
            (None, Some(at)) if self.or_issued => at,
            _ => return Err(Cannot::NoAuthTime),
        };
        // A moment to come is not fresh but wrong, beyond what clocks may differ by.
        let age = now.duration_since(at);
        let within = i128::try_from(self.within.as_nanos()).unwrap_or(i128::MAX);
        if age.as_nanos() > within || age.as_secs() < -60 {
            return Err(Cannot::Stale);
        }
        Ok(())
    }
}

/// What a decision does to what was asked for with `requirement` by `caller` and has `votes` so far: whether it is decided
/// with it.
///
/// # Errors
/// [`Cannot`].
pub fn judge(
    requirement: &Requirement,
    caller: &Party,
    votes: &[Vote],
    by: &Approver,
    given: Given,
    reason: &str,
) -> Result<bool, Cannot> {
    if by.who.is_same_as(caller) {
        return Err(Cannot::OwnRequest);
    }
    let in_group = |group: &str| by.groups.contains(group);
    let alone = requirement.break_glass.iter().any(|group| in_group(group));
    if given == Given::BreakGlass {
        return match (alone, reason.trim().is_empty()) {
            (false, _) => Err(Cannot::NoBreakGlass),
            (true, true) => Err(Cannot::NoReason),
            (true, false) => Ok(true),
        };
    }
    if !requirement.seats().any(in_group) {
        return Err(Cannot::NotAsked);
    }
    if votes.iter().any(|vote| vote.by.who.is_same_as(&by.who)) {
        return Err(Cannot::DecidedAlready);
    }
    if given == Given::Deny {
        return Ok(true);
    }
    let seats: Vec<&str> = requirement.seats().collect();
    let mut persons: Vec<&BTreeSet<String>> = votes.iter().map(|vote| &vote.by.groups).collect();
    let before = filled(&seats, &persons);
    persons.push(&by.groups);
    let after = filled(&seats, &persons);
    if after == before {
        return Err(Cannot::SeatsFilled);
    }
    Ok(after == seats.len())
}

/// How many seats these persons can fill together, each one of them: a maximum matching, found by augmenting paths.
/// Whoever could sit here or there moves over for who could not.
fn filled(seats: &[&str], persons: &[&BTreeSet<String>]) -> usize {
    let mut taken: Vec<Option<usize>> = vec![None; seats.len()];
    let mut count = 0;
    for person in 0..persons.len() {
        let mut tried = vec![false; seats.len()];
        count += usize::from(seat(person, seats, persons, &mut taken, &mut tried));
    }
    count
}

fn seat(
    person: usize,
    seats: &[&str],
    persons: &[&BTreeSet<String>],
    taken: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for at in 0..seats.len() {
        let fits = match (persons.get(person), seats.get(at)) {
            (Some(groups), Some(group)) => groups.contains(*group),
            _ => false,
        };
        if !fits || tried.get(at) != Some(&false) {
            continue;
        }
        if let Some(tried) = tried.get_mut(at) {
            *tried = true;
        }
        let holder = taken.get(at).copied().flatten();
        if holder.is_none_or(|holder| seat(holder, seats, persons, taken, tried)) {
            if let Some(seat) = taken.get_mut(at) {
                *seat = Some(person);
            }
            return true;
        }
    }
    false
}
