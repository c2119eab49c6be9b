//! How far a value that has outgrown its reach goes on: its automaton run forward, one byte at a time, in a state that
//! belongs to nobody's cache and can be kept between two pieces of a stream.

use std::sync::Arc;

use regex_automata::{
    nfa::thompson::{NFA, State},
    util::primitives::{PatternID, StateID},
};

use super::live::{edges, waits};

/// A value that goes on as long as the text still fits its shape. Holds at most one entry per state of the automaton.
#[derive(Clone)]
pub(crate) struct Growth {
    nfa: Arc<NFA>,
    pattern: usize,
    /// The byte before the next one.
    before: Option<u8>,
    /// Where the automaton has come to, not yet followed over edges that take no byte.
    states: Vec<StateID>,
}

impl Growth {
    pub(crate) fn new(nfa: Arc<NFA>, pattern: usize, before: Option<u8>) -> Self {
        let states = PatternID::new(pattern)
            .ok()
            .and_then(|id| nfa.start_pattern(id))
            .into_iter()
            .collect();
        Self {
            nfa,
            pattern,
            before,
            states,
        }
    }

    pub(crate) fn pattern(&self) -> usize {
        self.pattern
    }

    /// How many bytes of `text`, in whole characters, still fit. Fewer than all of them: it has ended.
    pub(crate) fn take(&mut self, text: &str) -> usize {
        for (at, c) in text.char_indices() {
            let mut bytes = [0; 4];
            if !c
                .encode_utf8(&mut bytes)
                .bytes()
                .all(|byte| self.step(byte))
            {
                return at;
            }
        }
        text.len()
    }

    /// Whether the text with this byte still fits: it is a match, or waits for more.
    fn step(&mut self, byte: u8) -> bool {
        let here = self.follow(Some(byte));
        let mut next: Vec<StateID> = here
            .into_iter()
            .flat_map(|state| edges(self.nfa.state(state)))
            .filter(|(range, _)| range.is_some_and(|(start, end)| (start..=end).contains(&byte)))
            .map(|(_, next)| next)
            .collect();
        next.sort_unstable();
        next.dedup();
        self.states = next;
        self.before = Some(byte);
        self.follow(None)
            .into_iter()
            .map(|state| self.nfa.state(state))
            .any(|s| waits(s) || matches!(s, State::Match { .. }))
    }

    /// The states reached without a byte. Assertions are decided if the byte that comes next is given, and stay where
    /// they are if it is not.
    fn follow(&self, next: Option<u8>) -> Vec<StateID> {
        let mut seen = vec![false; self.nfa.states().len()];
        let mut found = Vec::new();
        let mut stack = self.states.clone();
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut seen[id], true) {
                continue;
            }
            found.push(id);
            match (self.nfa.state(id), next) {
                (State::Look { .. }, None) => {}
                (State::Look { look, next: to }, Some(byte)) => {
                    let around: Vec<u8> = self.before.into_iter().chain([byte]).collect();
                    if self
                        .nfa
                        .look_matcher()
                        .matches(*look, &around, around.len() - 1)
                    {
                        stack.push(*to);
                    }
                }
                (state, _) => stack.extend(
                    edges(state)
                        .into_iter()
                        .filter(|(by, _)| by.is_none())
                        .map(|(_, to)| to),
                ),
            }
        }
        found
    }
}
