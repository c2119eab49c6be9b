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

/// The budget is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent;

/// One exchange's share of a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
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
            budget: self.clone(),
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
}

impl Share {
    /// Says how many bytes are held now.
    ///
    /// # Errors
    /// [`Spent`] where growing to `bytes` would pass the cap; the share stays as it was.
    pub fn set(&mut self, bytes: usize) -> Result<(), Spent> {
        if bytes > self.held {
            let more = bytes - self.held;
            let grown =
                self.budget
                    .used
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                        used.checked_add(more).filter(|sum| *sum <= self.budget.cap)
                    });
            grown.map_err(|_| Spent)?;
        } else {
            self.budget
                .used
                .fetch_sub(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
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
    by_principal: HashMap<(String, String), usize>,
}

/// Why there was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The principal has as many streams as one may have.
    Principal,
    /// The gateway has as many streams as it may have.
    Gateway,
}

/// A place among the streams; given back when dropped.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    who: (String, String),
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
        let theirs = inside.by_principal.get(&who).copied().unwrap_or_default();
        if theirs >= self.each {
            return Err(Full::Principal);
        }
        inside.by_principal.insert(who.clone(), theirs + 1);
        inside.total += 1;
        drop(inside);
        Ok(Place {
            admission: self.clone(),
            who,
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
            *theirs -= 1;
            if *theirs == 0 {
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
        assert_eq!(second.set(41), Err(Spent));
        assert_eq!(second.set(40), Ok(()));
        assert_eq!(first.set(10), Ok(()));
        assert_eq!(budget.used(), 50);
        drop((first, second));
        assert_eq!(budget.used(), 0);
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
