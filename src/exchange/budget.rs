//! Bounds shared by all exchanges: one budget for the bytes they stash, and caps on how many run at once.
//!
//! At the bound the answer is no, at once: nothing waits for memory or for a place.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Bytes that all exchanges together may hold in memory.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    cap: usize,
}

/// One exchange's share of a [`Budget`], and of its principal's once that is known; given back when dropped.
#[derive(Debug)]
pub struct Share {
    all: Budget,
    own: Option<Budget>,
    held: usize,
}

impl Budget {
    /// A budget of `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self {
            used: Arc::default(),
            cap,
        }
    }

    /// The same budget under another cap: what is in use stays counted.
    #[must_use]
    pub fn with_cap(&self, cap: usize) -> Self {
        Self {
            used: self.used.clone(),
            cap,
        }
    }

    /// An empty share.
    #[must_use]
    pub fn share(&self) -> Share {
        Share {
            all: self.clone(),
            own: None,
            held: 0,
        }
    }

    /// The most that may be in use, in bytes.
    #[must_use]
    pub fn cap(&self) -> usize {
        self.cap
    }

    /// Bytes in use now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` more; false where that would pass the cap.
    fn take(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.cap);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.used.fetch_update(set, get, within).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Share {
    /// Says how many bytes are held now.
    ///
    /// # Errors
    /// Whose cap would be passed by growing to `bytes`; the share stays as it was.
    pub fn set(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes > self.held {
            let more = bytes - self.held;
            if let Some(own) = &self.own
                && !own.take(more)
            {
                return Err(Full::Principal);
            }
            if !self.all.take(more) {
                self.own.iter().for_each(|own| own.give_back(more));
                return Err(Full::Gateway);
            }
        } else {
            let less = self.held - bytes;
            self.all.give_back(less);
            self.own.iter().for_each(|own| own.give_back(less));
        }
        self.held = bytes;
        Ok(())
    }

    /// What is held counts for its principal too from here on.
    ///
    /// # Errors
    /// [`Full::Principal`] where that passes their cap: nothing changes.
    pub fn belongs_to(&mut self, own: Budget) -> Result<(), Full> {
        if !own.take(self.held) {
            return Err(Full::Principal);
        }
        if let Some(before) = self.own.replace(own) {
            before.give_back(self.held);
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.give_back(self.held);
        self.own.iter().for_each(|own| own.give_back(self.held));
    }
}

/// Who is inside: a cap on all streams, and one on each principal's.
#[derive(Clone, Debug)]
pub struct Admission {
    inside: Arc<Mutex<Inside>>,
    all: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Inside {
    total: usize,
    // Bounded by `all`: an entry lives only while its principal has a stream.
    by_principal: HashMap<(String, String), Theirs>,
}

/// What one principal has.
#[derive(Debug, Default)]
struct Theirs {
    streams: usize,
    bytes: Arc<AtomicUsize>,
}

/// Why there was no place, or no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The principal has as much as one may have.
    Principal,
    /// The gateway has as much as it may have.
    Gateway,
}

/// A place among the streams; given back when dropped.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    who: (String, String),
    bytes: Arc<AtomicUsize>,
}

impl Place {
    /// What the principal's streams together hold of at most `cap` bytes.
    #[must_use]
    pub fn budget(&self, cap: usize) -> Budget {
        Budget {
            used: self.bytes.clone(),
            cap,
        }
    }
}

impl Admission {
    /// At most `all` streams together and `each` per principal.
    #[must_use]
    pub fn new(all: usize, each: usize) -> Self {
        Self {
            inside: Arc::default(),
            all,
            each,
        }
    }

    /// The same places under other caps: who is inside stays counted.
    #[must_use]
    pub fn with_caps(&self, all: usize, each: usize) -> Self {
        Self {
            inside: self.inside.clone(),
            all,
            each,
        }
    }

    /// Streams inside.
    #[cfg(any(test, fuzzing))]
    pub(super) fn inside(&self) -> usize {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.total
    }

    /// A place for the principal `subject` of `issuer`.
    ///
    /// # Errors
    /// [`Full`], at once, where there is none.
    pub fn enter(&self, issuer: &str, subject: &str) -> Result<Place, Full> {
        let who = (issuer.to_owned(), subject.to_owned());
        // Poisoning is no reason to refuse: the counts are whole after every statement below.
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.total >= self.all {
            return Err(Full::Gateway);
        }
        let streams = inside.by_principal.get(&who).map_or(0, |they| they.streams);
        if streams >= self.each {
            return Err(Full::Principal);
        }
        let theirs = inside.by_principal.entry(who.clone()).or_default();
        theirs.streams += 1;
        let bytes = theirs.bytes.clone();
        inside.total += 1;
        drop(inside);
        Ok(Place {
            admission: self.clone(),
            who,
            bytes,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self
            .admission
            .inside
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        inside.total -= 1;
        if let Some(theirs) = inside.by_principal.get_mut(&self.who) {
            theirs.streams -= 1;
            if theirs.streams == 0 {
                inside.by_principal.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_to_the_cap_and_gives_all_back() {
        let budget = Budget::new(100);
        let mut first = budget.share();
        let mut second = budget.share();
        assert_eq!(first.set(60), Ok(()));
        assert_eq!(second.set(41), Err(Full::Gateway));
        assert_eq!(second.set(40), Ok(()));
        assert_eq!(first.set(10), Ok(()));
        assert_eq!(budget.used(), 50);
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn one_principal_cannot_take_all_memory() {
        let (budget, admission) = (Budget::new(100), Admission::new(9, 9));
        let enter = |who: &str| admission.enter("iss", who).unwrap();
        let places = [enter("alice"), enter("alice"), enter("bob")];
        let mut shares = places.each_ref().map(|_| budget.share());
        let [first, second, other] = &mut shares;
        // What came before it was known whose it is counts too.
        assert_eq!(first.set(40), Ok(()));
        assert_eq!(first.belongs_to(places[0].budget(60)), Ok(()));
        assert_eq!(second.set(21), Ok(()));
        assert_eq!(
            second.belongs_to(places[1].budget(60)),
            Err(Full::Principal)
        );
        assert_eq!(second.set(20), Ok(()));
        assert_eq!(second.belongs_to(places[1].budget(60)), Ok(()));
        assert_eq!(second.set(21), Err(Full::Principal));
        assert_eq!(other.belongs_to(places[2].budget(60)), Ok(()));
        assert_eq!(other.set(41), Err(Full::Gateway));
        assert_eq!(other.set(40), Ok(()));
        assert_eq!(first.set(10), Ok(()));
        assert_eq!(second.set(51), Err(Full::Principal));
        assert_eq!(second.set(50), Ok(()));
        drop(shares);
        assert_eq!(budget.used(), 0);
        assert!(places.iter().all(|place| place.budget(60).used() == 0));
    }

    #[test]
    fn one_principal_cannot_take_every_place() {
        let admission = Admission::new(3, 2);
        let places: Vec<_> = (0..2)
            .filter_map(|_| admission.enter("iss", "alice").ok())
            .collect();
        assert_eq!(places.len(), 2);
        assert_eq!(admission.enter("iss", "alice").err(), Some(Full::Principal));
        let bob = admission.enter("iss", "bob");
        assert!(bob.is_ok());
        assert_eq!(admission.enter("iss", "carol").err(), Some(Full::Gateway));
        drop(places);
        assert!(admission.enter("iss", "alice").is_ok());
        drop(bob);
        assert!(
            admission
                .inside
                .lock()
                .is_ok_and(|inside| inside.by_principal.is_empty() && inside.total == 0)
        );
    }
}
