//! Where a match may still be growing: the *earliest live start* of a text whose end is not yet known.
//!
//! ```text
//!   ... my mail is jane.doe@exam|          the text so far ends at |
//!                  ^ earliest live start   left of it all is decided, right of it nothing is
//! ```
//!
//! A start is live for a detector when the text from it to the end is a *viable prefix*: one that some continuation
//! makes a match, or that already is a match and could become a longer one. The viable prefixes of a regular language
//! are regular, and so are they read backwards: the automaton that reads whole matches from their end to their start
//! reads their prefixes if it may begin in its middle. Made deterministic lazily and walked from the end of the text
//! backwards until it dies, it has accepted at exactly the live starts.
//!
//! It is minimal for the shapes, not for their checks: `999-00-` is held though no such number was ever issued.

use regex_automata::{
    Anchored, Input, MatchKind,
    hybrid::{
        LazyStateID,
        dfa::{Cache, DFA},
    },
    nfa::thompson::{self, BuildError, Builder, NFA, State, Transition, WhichCaptures},
    util::{
        pool::Pool,
        primitives::{PatternID, StateID},
    },
};

use super::{
    DetectorError,
    pattern::{Beyond, Pattern},
};

/// Bytes of lazily built automaton kept per cache; over it the cache starts anew, at a cost in time only.
const CACHE_BYTES: usize = 4 << 20;

type NewCache =
    Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// The backwards automaton. Caches are pooled, about one per thread, never one per stream.
pub(crate) struct Live {
    dfa: DFA,
    caches: Pool<Cache, NewCache>,
    /// Per detector.
    reach: Vec<usize>,
    beyond: Vec<Beyond>,
    longest: usize,
    shortest: usize,
}

/// Which starts a walk looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those of any detector that are within its reach.
    All,
    /// Those of detectors for which a text that outgrows its reach is found.
    Outgrowing,
}

/// A live start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) at: usize,
    /// The first detector in order that is live here; only those that outgrow their reach are told apart.
    pub(crate) pattern: usize,
}

impl Live {
    pub(crate) fn new(patterns: &[Pattern]) -> Result<Self, DetectorError> {
        let too_large = || DetectorError::TooLarge(CACHE_BYTES >> 10);
        let backward = backward(patterns).map_err(|_| too_large())?;
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true);
        let dfa = DFA::builder()
            .configure(config)
            .build_from_nfa(backward)
            .map_err(|_| too_large())?;
        let caches = {
            let dfa = dfa.clone();
            Pool::new(Box::new(move || dfa.create_cache()) as NewCache)
        };
        Ok(Self {
            dfa,
            caches,
            reach: patterns.iter().map(|p| p.reach).collect(),
            beyond: patterns.iter().map(|p| p.beyond).collect(),
            longest: patterns.iter().map(|p| p.reach).max().unwrap_or(0),
            shortest: patterns.iter().map(|p| p.reach).min().unwrap_or(0),
        })
    }

    /// The earliest live start in `text[from..]`, if there is any. Adds the bytes it read to `steps`.
    ///
    /// `text` ends between two characters. At most the longest reach is read. The byte before the first one is looked at, so that a word boundary there is
    /// seen as it is.
    pub(crate) fn earliest(
        &self,
        text: &[u8],
        from: usize,
        wanted: Wanted,
        steps: &mut u64,
    ) -> Option<Start> {
        let from = from.max(text.len().saturating_sub(self.longest));
        // Neither fault the automaton knows can occur: no byte quits (all assertions are ASCII) and a full cache is
        // cleared without limit. Should one occur all the same, everything in reach is held.
        let all = Some(Start {
            at: from,
            pattern: 0,
        });
        self.walk(text, from, wanted, steps)
            .unwrap_or(if wanted == Wanted::All { all } else { None })
    }

    fn walk(
        &self,
        text: &[u8],
        from: usize,
        wanted: Wanted,
        steps: &mut u64,
    ) -> Result<Option<Start>, Fault> {
        let (dfa, end) = (&self.dfa, text.len());
        let mut guard = self.caches.get();
        let cache = &mut *guard;
        let mut best = None;
        let mut state = dfa
            .start_state_reverse(cache, &Input::new(text).anchored(Anchored::Yes))
            .map_err(|_| Fault)?;
        for at in (from..end).rev() {
            state = dfa.next_state(cache, state, text[at]).map_err(|_| Fault)?;
            if !state.is_tagged() {
                continue;
            }
            if state.is_match() {
                // The automaton reports what it accepted one byte late.
                best = self.accepted(cache, state, at + 1, end, wanted).or(best);
            } else if state.is_dead() {
                *steps += (end - at) as u64;
                return Ok(best);
            }
        }
        *steps += (end - from) as u64;
        state = match from.checked_sub(1) {
            Some(before) => dfa.next_state(cache, state, text[before]),
            None => dfa.next_eoi_state(cache, state),
        }
        .map_err(|_| Fault)?;
        if state.is_match() {
            best = self.accepted(cache, state, from, end, wanted).or(best);
        }
        Ok(best)
    }

    fn accepted(
        &self,
        cache: &Cache,
        state: LazyStateID,
        at: usize,
        end: usize,
        wanted: Wanted,
    ) -> Option<Start> {
        // At its very end every text is live, and nothing is held for that.
        if at == end {
            return None;
        }
        // If there is none that does not reach as far, whichever it is counts.
        if wanted == Wanted::All && end - at <= self.shortest {
            return Some(Start { at, pattern: 0 });
        }
        let patterns = (0..self.dfa.match_len(cache, state))
            .map(|i| self.dfa.match_pattern(cache, state, i).as_usize());
        let counts = |&pattern: &usize| match wanted {
            Wanted::All => end - at <= self.reach[pattern],
            Wanted::Outgrowing => self.beyond[pattern] == Beyond::Found,
        };
        patterns
            .filter(counts)
            .min()
            .map(|pattern| Start { at, pattern })
    }
}

/// The lazy automaton could not go on.
struct Fault;

/// The automaton of the viable prefixes of all shapes, read backwards. Linear in the size of theirs.
fn backward(patterns: &[Pattern]) -> Result<NFA, Box<BuildError>> {
    let shapes: Vec<_> = patterns.iter().map(|pattern| &pattern.shape).collect();
    // Without the shrinking, each copy of a Unicode class would put hundreds of states into each set.
    let config = thompson::Config::new()
        .which_captures(WhichCaptures::None)
        .utf8(false)
        .reverse(true)
        .shrink(true);
    let whole = thompson::Compiler::new()
        .configure(config)
        .build_many_from_hir(&shapes)?;
    let mut builder = Builder::new();
    builder.set_utf8(false);
    builder.set_reverse(true);
    builder.set_look_matcher(whole.look_matcher().clone());
    let mut starts = Vec::new();
    for pattern in (0..whole.pattern_len()).map(PatternID::must) {
        builder.start_pattern()?;
        let end = whole.start_pattern(pattern).unwrap_or(StateID::ZERO);
        let start = from_anywhere(&whole, end, &mut builder)?;
        builder.finish_pattern(start)?;
        starts.push(start);
    }
    let start = builder.add_union(starts)?;
    Ok(builder.build(start, start)?)
}

/// Copies the automaton of one detector, and returns a state from which it can begin anywhere behind the first
/// character or assertion that it would read backwards, and between two characters.
fn from_anywhere(
    whole: &NFA,
    end: StateID,
    builder: &mut Builder,
) -> Result<StateID, Box<BuildError>> {
    let reachable = reachable(whole, end);
    let mut copies = vec![StateID::ZERO; whole.states().len()];
    for &state in &reachable {
        copies[state] = match whole.state(state) {
            State::Look { look, .. } => builder.add_look(StateID::ZERO, *look)?,
            State::Match { .. } => builder.add_match()?,
            _ => builder.add_union(Vec::new())?,
        };
    }
    let mut begins = Vec::new();
    for &id in &reachable {
        let state = whole.state(id);
        let edges = edges(state);
        let bytes: Vec<Transition> = edges
            .iter()
            .filter_map(|&(range, next)| {
                range.map(|(start, end)| Transition {
                    start,
                    end,
                    next: copies[next],
                })
            })
            .collect();
        for (_, next) in edges.iter().filter(|(range, _)| range.is_none()) {
            builder.patch(copies[id], copies[*next])?;
        }
        // A character's first byte is the last to be read; `0x80..=0xBF` are the others.
        begins.extend(
            bytes
                .iter()
                .filter(|by| by.start < 0x80 || by.end > 0xBF)
                .map(|by| by.next),
        );
        if let State::Look { next, .. } = state {
            begins.push(copies[*next]);
        }
        if !bytes.is_empty() {
            let sparse = builder.add_sparse(bytes)?;
            builder.patch(copies[id], sparse)?;
        }
    }
    begins.sort_unstable();
    begins.dedup();
    Ok(builder.add_union(begins)?)
}

/// Whether a text that has come to this state waits for what follows.
pub(crate) fn waits(state: &State) -> bool {
    matches!(
        state,
        State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Look { .. }
    )
}

fn reachable(nfa: &NFA, begin: StateID) -> Vec<StateID> {
    let mut seen = vec![false; nfa.states().len()];
    let mut found = Vec::new();
    let mut stack = vec![begin];
    while let Some(state) = stack.pop() {
        if !std::mem::replace(&mut seen[state], true) {
            found.push(state);
            stack.extend(edges(nfa.state(state)).into_iter().map(|(_, next)| next));
        }
    }
    found
}

/// Where a state leads, by which bytes; `None` where it takes no byte.
pub(crate) fn edges(state: &State) -> Vec<(Option<(u8, u8)>, StateID)> {
    match state {
        State::ByteRange { trans } => vec![(Some((trans.start, trans.end)), trans.next)],
        State::Sparse(sparse) => sparse
            .transitions
            .iter()
            .map(|t| (Some((t.start, t.end)), t.next))
            .collect(),
        State::Dense(dense) => {
            let to = (0..=u8::MAX).zip(dense.transitions.iter());
            to.filter(|(_, next)| **next != StateID::ZERO)
                .map(|(byte, next)| (Some((byte, byte)), *next))
                .collect()
        }
        State::Look { next, .. } | State::Capture { next, .. } => vec![(None, *next)],
        State::Union { alternates } => alternates.iter().map(|next| (None, *next)).collect(),
        State::BinaryUnion { alt1, alt2 } => vec![(None, *alt1), (None, *alt2)],
        State::Fail | State::Match { .. } => Vec::new(),
    }
}
