//! What becomes of grants in the control log: how often each was used, and which were revoked.
//!
//! Bounds: [`MAX_GRANTS`] are remembered, each until a while after it has expired by the log's time. At nine tenths of it none is used for
//! the first time, nor revoked by its holder if it was never used: the rest is for administrators. Of the nine tenths nobody has more
//! than would still be free for others: one caller alone has at most half, and whoever comes later finds room.
//! Can miss: who has many accounts has as many shares.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Ignored;
use crate::identity::{MAX_CLOCK_SKEW, account, token_hash};

/// Most grants that are remembered: some 40 MiB.
pub const MAX_GRANTS: usize = 200_000;
/// Longest that anything may be remembered for: a grant that would last longer is not used, nor one revoked for longer.
pub const LONGEST_GRANT: Duration = Duration::from_secs(86_400);

/// Something that can be used so many times is about to be: a grant, or an assertion, by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// What is used.
    pub grant: String,
    /// How often it can be.
    pub max_uses: u32,
    /// Until when, in seconds since 1970.
    pub until: i64,
    /// The session that uses it.
    pub session: String,
    /// In whose [share] of the memory it is counted. Events of before there were shares have none, and one together.
    #[serde(default)]
    pub share: String,
}

/// A grant counts for nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// The grant.
    pub grant: String,
    /// Until when it would have counted, in seconds since 1970.
    pub until: i64,
    /// Who revoked it: issuer and subject; nobody where it was its holder, who is known by having it.
    pub by: Option<super::Party>,
    /// In whose [share] of the memory it is counted; in nobody's where an administrator revoked it.
    #[serde(default)]
    pub share: String,
}

/// Whose share of the memory this caller's is: a hash, as a use in the log need not say who calls.
#[must_use]
pub fn share(issuer: &str, subject: &str) -> String {
    hex::encode(&token_hash(&account(issuer, subject))[..16])
}

/// Which grants were used how often, and which were revoked.
#[derive(Debug, Default)]
pub(super) struct Uses {
    grants: HashMap<String, Known>,
    /// When each is forgotten.
    forgotten: BTreeSet<(i64, String)>,
    /// How many are remembered of each share. Never 0.
    shares: HashMap<Arc<str>, usize>,
}

#[derive(Clone, Debug)]
struct Known {
    used: u32,
    revoked: bool,
    forgotten_at: i64,
    /// Whose place it takes; nobody's where an administrator gave it one.
    share: Option<Arc<str>>,
}

impl Uses {
    /// The use by its number, from 1, if there is one left at `now` by the log's time.
    pub(super) fn take(&mut self, wanted: &Use, now: Timestamp) -> Result<u32, Ignored> {
        check(wanted.until, now)?;
        if self.is_revoked(&wanted.grant) {
            return Err(Ignored::Revoked);
        }
        if self.used(&wanted.grant) >= wanted.max_uses {
            return Err(Ignored::UsedUp);
        }
        let known = self.known(&wanted.grant, wanted.until, Some(&wanted.share))?;
        known.used += 1;
        Ok(known.used)
    }

    pub(super) fn revoke(&mut self, revoked: &Revoked, now: Timestamp) -> Result<(), Ignored> {
        check(revoked.until, now)?;
        let share = revoked.by.is_none().then_some(revoked.share.as_str());
        let known = self.known(&revoked.grant, revoked.until, share)?;
        if known.revoked {
            return Err(Ignored::Revoked);
        }
        known.revoked = true;
        Ok(())
    }

    pub(super) fn is_revoked(&self, grant: &str) -> bool {
        self.grants.get(grant).is_some_and(|known| known.revoked)
    }

    pub(super) fn used(&self, grant: &str) -> u32 {
        self.grants.get(grant).map_or(0, |known| known.used)
    }

    pub(super) fn len(&self) -> usize {
        self.grants.len()
    }

    /// What is known of the grant, which takes a place where it is new: one of this share, or any there is.
    fn known(
        &mut self,
        grant: &str,
        until: i64,
        share: Option<&str>,
    ) -> Result<&mut Known, Ignored> {
        // Later than any use of it could count.
        let forgotten_at = until.saturating_add(2 * seconds(MAX_CLOCK_SKEW));
        if !self.grants.contains_key(grant) {
            let share = self.place(share)?;
            let new = Known {
                used: 0,
                revoked: false,
                forgotten_at,
                share,
            };
            self.grants.insert(grant.to_owned(), new);
        }
        // It is there; were it not, refusing would be right too.
        let known = self.grants.get_mut(grant).ok_or(Ignored::Full)?;
        // Where somebody says that it lasts longer it must not be forgotten sooner.
        self.forgotten
            .remove(&(known.forgotten_at, grant.to_owned()));
        known.forgotten_at = known.forgotten_at.max(forgotten_at);
        self.forgotten
            .insert((known.forgotten_at, grant.to_owned()));
        Ok(known)
    }

    /// Takes a place of this share. INVARIANT: the same on every replica, as it depends on what the log says alone.
    fn place(&mut self, share: Option<&str>) -> Result<Option<Arc<str>>, Ignored> {
        let most = match share {
            Some(_) => MAX_GRANTS / 10 * 9,
            None => MAX_GRANTS,
        };
        let free = most.saturating_sub(self.grants.len());
        if free == 0 {
            return Err(Ignored::Full);
        }
        let Some(share) = share else { return Ok(None) };
        let (share, has) = match self.shares.get_key_value(share) {
            Some((share, has)) => (Arc::clone(share), *has),
            None => (Arc::from(share), 0),
        };
        if has >= free {
            return Err(Ignored::TooManyGrants);
        }
        self.shares.insert(Arc::clone(&share), has + 1);
        Ok(Some(share))
    }

    /// Drops what cannot count any more at `now` by the log's time.
    pub(super) fn forget(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.forgotten.first()
            && *at < now.as_second()
            && let Some((_, grant)) = self.forgotten.pop_first()
        {
            let share = self.grants.remove(&grant).and_then(|known| known.share);
            if let Some(share) = share {
                self.leave(&share);
            }
        }
    }

    fn leave(&mut self, share: &Arc<str>) {
        if let Some(has) = self.shares.get_mut(share) {
            *has -= 1;
            if *has == 0 {
                self.shares.remove(share);
            }
        }
    }
}

/// Whether what ends then can still count, and can be remembered for so long.
fn check(until: i64, now: Timestamp) -> Result<(), Ignored> {
    let now = now.as_second();
    if now >= until {
        return Err(Ignored::Late);
    }
    if until > now.saturating_add(seconds(LONGEST_GRANT)) {
        return Err(Ignored::Impossible);
    }
    Ok(())
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn wanted(grant: &str, max_uses: u32, until: i64) -> Use {
        Use {
            grant: grant.to_owned(),
            max_uses,
            until,
            session: "s".to_owned(),
            share: String::new(),
        }
    }

    fn by_share(share: usize, wanted: Use) -> Use {
        let share = share.to_string();
        Use { share, ..wanted }
    }

    fn revoked(grant: &str, until: i64) -> Revoked {
        Revoked {
            grant: grant.to_owned(),
            until,
            by: None,
            share: String::new(),
        }
    }

    #[test]
    fn a_grant_is_used_as_often_as_it_says_and_no_more() {
        let mut uses = Uses::default();
        let twice = wanted("g", 2, 100);
        assert_eq!(uses.take(&twice, at(1)), Ok(1));
        assert_eq!(uses.take(&twice, at(2)), Ok(2));
        assert_eq!(uses.take(&twice, at(3)), Err(Ignored::UsedUp));
        assert_eq!(uses.take(&wanted("other", 1, 100), at(3)), Ok(1));
        assert_eq!(
            uses.take(&wanted("none", 0, 100), at(3)),
            Err(Ignored::UsedUp)
        );
    }

    #[test]
    fn a_revoked_grant_is_not_used_whatever_is_left_of_it() {
        let mut uses = Uses::default();
        assert_eq!(uses.take(&wanted("g", 5, 100), at(1)), Ok(1));
        uses.revoke(&revoked("g", 100), at(2)).unwrap();
        assert!(uses.is_revoked("g"));
        // Said again it is no news.
        assert_eq!(
            uses.revoke(&revoked("g", 100), at(3)),
            Err(Ignored::Revoked)
        );
        assert_eq!(
            uses.take(&wanted("g", 5, 100), at(3)),
            Err(Ignored::Revoked)
        );
        uses.revoke(&revoked("unused", 100), at(3)).unwrap();
        assert_eq!(
            uses.take(&wanted("unused", 1, 100), at(4)),
            Err(Ignored::Revoked)
        );
    }

    #[test]
    fn nothing_is_forgotten_that_could_still_count() {
        let mut uses = Uses::default();
        let once = wanted("g", 1, 100);
        uses.take(&once, at(1)).unwrap();
        let skew = i64::try_from(MAX_CLOCK_SKEW.as_secs()).unwrap();
        for now in [100, 100 + skew, 101 + skew, 100 + 2 * skew, 1_000_000] {
            uses.forget(at(now));
            assert!(uses.take(&once, at(now)).is_err(), "{now}");
        }
        assert_eq!(uses.len(), 0);
    }

    #[test]
    fn a_later_end_keeps_what_is_known_of_it() {
        let mut uses = Uses::default();
        uses.take(&wanted("g", 1, 100), at(1)).unwrap();
        uses.revoke(&revoked("g", 5000), at(2)).unwrap();
        uses.forget(at(2000));
        assert!(uses.is_revoked("g"));
        uses.forget(at(10_000));
        assert_eq!(uses.len(), 0);
        assert!(uses.forgotten.is_empty());
    }

    #[test]
    fn what_would_have_to_be_remembered_too_long_does_not_count() {
        let mut uses = Uses::default();
        let longest = i64::try_from(LONGEST_GRANT.as_secs()).unwrap();
        assert_eq!(
            uses.take(&wanted("g", 1, longest + 1), at(0)),
            Err(Ignored::Impossible)
        );
        assert_eq!(uses.take(&wanted("g", 1, longest), at(0)), Ok(1));
        assert_eq!(
            uses.revoke(&revoked("h", longest + 1), at(0)),
            Err(Ignored::Impossible)
        );
    }

    #[test]
    fn a_full_memory_takes_nothing_new_and_goes_on_with_what_it_knows() {
        let mut uses = Uses::default();
        for n in 0..MAX_GRANTS / 10 * 9 {
            let one_of_many = by_share(n % 1000, wanted(&n.to_string(), 2, 100));
            // At last all have so many that none may have one more, but somebody new.
            if uses.take(&one_of_many, at(0)).is_err() {
                let new = by_share(1000 + n, wanted(&n.to_string(), 2, 100));
                uses.take(&new, at(0)).unwrap();
            }
        }
        assert_eq!(uses.take(&wanted("new", 1, 100), at(1)), Err(Ignored::Full));
        assert_eq!(uses.revoke(&revoked("new", 100), at(1)), Err(Ignored::Full));
        // Whoever answers for it all still can, up to the last place.
        let by = Some(super::super::Party::default());
        for n in 0..MAX_GRANTS / 10 {
            let told = Revoked {
                by: by.clone(),
                ..revoked(&format!("by-root-{n}"), 100)
            };
            uses.revoke(&told, at(1)).unwrap();
        }
        let one_more = Revoked {
            by,
            ..revoked("one-more", 100)
        };
        assert_eq!(uses.revoke(&one_more, at(1)), Err(Ignored::Full));
        assert_eq!(uses.take(&wanted("7", 2, 100), at(1)), Ok(2));
        uses.revoke(&revoked("7", 100), at(1)).unwrap();
    }
    /// How many of its own this share can use, starting with `from`.
    fn uses_up(uses: &mut Uses, share: usize, until: i64) -> usize {
        let new = |n: usize| by_share(share, wanted(&format!("{share}-{n}"), 1, until));
        let refused = |n: &usize| uses.take(&new(*n), at(1)).is_err();
        let most = (0..=MAX_GRANTS).find(refused).unwrap();
        assert_eq!(uses.take(&new(most), at(1)), Err(Ignored::TooManyGrants));
        most
    }

    #[test]
    fn nobody_has_more_than_is_left_for_others() {
        let mut uses = Uses::default();
        let all = MAX_GRANTS / 10 * 9;
        let first = uses_up(&mut uses, 1, 100);
        assert_eq!(first, all / 2);
        // Nor by revoking what they never use.
        let own = Revoked {
            share: "1".to_owned(),
            ..revoked("own", 100)
        };
        assert_eq!(uses.revoke(&own, at(1)), Err(Ignored::TooManyGrants));
        // What is known of theirs goes on.
        let known = by_share(1, wanted("1-0", 2, 100));
        assert_eq!(uses.take(&known, at(1)), Ok(2));
        // Others find room, and an administrator's revocations count against nobody.
        let by = Some(super::super::Party::default());
        uses.revoke(&Revoked { by, ..own }, at(1)).unwrap();
        let second = uses_up(&mut uses, 2, 1000);
        assert_eq!(second, (all - first) / 2);
        let left = all - uses.len();
        assert!(left > second / 2, "{left}");
        // What has expired counts against nobody any more.
        uses.forget(at(100 + 2 * seconds(MAX_CLOCK_SKEW) + 1));
        assert_eq!(uses.len(), second);
        assert_eq!(uses_up(&mut uses, 3, 1500), (all - second) / 2);
        uses.forget(at(10_000));
        assert!(uses.grants.is_empty() && uses.shares.is_empty());
    }

    #[test]
    fn a_share_tells_accounts_apart_and_not_who_they_are() {
        let one = share("https://idp.example", "alice");
        assert!(one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(one, share("https://idp.example", "bob"));
        assert_ne!(one, share("https://other.example", "alice"));
        // Written before there were shares, an event is understood still.
        let old = r#"{"grant":"g","max_uses":1,"until":100,"session":"s"}"#;
        assert_eq!(
            serde_json::from_str::<Use>(old).unwrap(),
            wanted("g", 1, 100)
        );
    }
}
