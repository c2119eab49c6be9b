//! The automata that read forward: one per detector from a known start, and one that finds where any of some begins.

use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton, StartKind, dense},
    meta,
    nfa::thompson::{self, NFA, WhichCaptures},
    util::{primitives::StateID, start},
};
use regex_syntax::hir::Hir;

use super::{DetectorError, pattern::Pattern};

/// Bytes of lazily built automaton that each thread keeps for a search that needs one.
const CACHE_BYTES: usize = 4 << 20;
/// The largest automaton of one detector that is built beforehand, in bytes, and what building it may take.
const DENSE_BYTES: usize = 256 << 10;

/// Reads the matches of one detector from a known start.
pub(crate) enum Machine {
    /// Built beforehand: no cache.
    Dense(Box<Dense>),
    /// Too large for that.
    Lazy(meta::Regex),
}

impl Machine {
    pub(crate) fn new(pattern: &Pattern, nfa: &NFA) -> Result<Self, DetectorError> {
        let config = dense::Config::new()
            .match_kind(MatchKind::LeftmostFirst)
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(DENSE_BYTES))
            .determinize_size_limit(Some(4 * DENSE_BYTES));
        let dense = dense::Builder::new().configure(config).build_from_nfa(nfa);
        match dense {
            Ok(dfa) => Dense::new(dfa).map(|dense| Self::Dense(Box::new(dense))),
            Err(_) => regex(&[&pattern.shape]).map(Self::Lazy),
        }
    }

    /// Where the leftmost-first match from `start` on ends, if only `text[..window]` may be in it. Adds the bytes that
    /// were read to `steps`.
    pub(crate) fn end(
        &self,
        text: &str,
        start: usize,
        window: usize,
        steps: &mut u64,
    ) -> Option<usize> {
        match self {
            Self::Dense(dense) => dense.end(text.as_bytes(), start, window, steps),
            Self::Lazy(regex) => {
                let input = Input::new(text).span(start..window);
                *steps += (window - start) as u64;
                let found = regex.search(&input.anchored(Anchored::Yes));
                found.map(|found| found.end())
            }
        }
    }
}

/// An automaton built beforehand, and where it begins behind each kind of byte.
pub(crate) struct Dense {
    dfa: dense::DFA<Vec<u32>>,
    starts: [StateID; 5],
}

impl Dense {
    fn new(dfa: dense::DFA<Vec<u32>>) -> Result<Self, DetectorError> {
        let mut starts = [StateID::ZERO; 5];
        for before in [None, Some(b'a'), Some(b' '), Some(b'\n'), Some(b'\r')] {
            let config = start::Config::new().anchored(Anchored::Yes);
            let config = config.look_behind(before);
            starts[kind(before)] = dfa.start_state(&config).map_err(|_| too_large())?;
        }
        Ok(Self { dfa, starts })
    }

    fn end(&self, text: &[u8], start: usize, window: usize, steps: &mut u64) -> Option<usize> {
        let dfa = &self.dfa;
        let mut state = self.starts[kind(start.checked_sub(1).map(|before| text[before]))];
        let mut end = None;
        for (at, &byte) in text[start..window].iter().enumerate() {
            // No byte quits, as all assertions are ASCII: reading cannot fail.
            state = dfa.next_state(state, byte);
            if dfa.is_special_state(state) {
                if dfa.is_match_state(state) {
                    // A match is told one byte late.
                    end = Some(start + at);
                } else if dfa.is_dead_state(state) {
                    *steps += at as u64 + 1;
                    return end;
                }
            }
        }
        *steps += (window - start) as u64;
        state = match text.get(window) {
            Some(&byte) => dfa.next_state(state, byte),
            None => dfa.next_eoi_state(state),
        };
        if dfa.is_match_state(state) {
            end = Some(window);
        }
        end
    }
}

/// What assertions tell apart before a match.
pub(super) fn kind(before: Option<u8>) -> usize {
    match before {
        None => 0,
        Some(b'\n') => 1,
        Some(b'\r') => 2,
        Some(b'0'..=b'9' | b'A'..=b'Z' | b'_' | b'a'..=b'z') => 3,
        Some(_) => 4,
    }
}

/// The automaton of a detector alone.
pub(crate) fn automaton(pattern: &Pattern) -> Result<NFA, DetectorError> {
    automata(&[&pattern.shape])
}

/// One automaton of these shapes, in order.
pub(crate) fn automata(shapes: &[&Hir]) -> Result<NFA, DetectorError> {
    thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .which_captures(WhichCaptures::None)
                .utf8(false),
        )
        .build_many_from_hir(shapes)
        .map_err(|_| too_large())
}

/// Finds the first place where one of these shapes has a match.
pub(crate) fn regex(shapes: &[&Hir]) -> Result<meta::Regex, DetectorError> {
    meta::Builder::new()
        .configure(
            meta::Config::new()
                .utf8_empty(false)
                .which_captures(WhichCaptures::Implicit)
                .nfa_size_limit(None)
                .hybrid_cache_capacity(CACHE_BYTES),
        )
        .build_many_from_hir(shapes)
        .map_err(|_| too_large())
}

pub(crate) fn too_large() -> DetectorError {
    DetectorError::TooLarge(CACHE_BYTES >> 10)
}
