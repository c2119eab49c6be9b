//! How far a value that has outgrown its reach goes on: its automaton run forward, one byte at a time, in a state that
//! belongs to nobody's cache and can be kept between two pieces of a stream. Within a piece it costs a look-up for each
//! byte, as a private key may be as long as a request.

use std::{mem, sync::Arc};

use regex_automata::{
    nfa::thompson::{NFA, State},
    util::primitives::{PatternID, StateID},
};

use super::{
    live::{edges, waits},
    machine::kind,
};

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
        if text.is_empty() {
            return 0;
        }
        let mut steps = Steps::new(&self.nfa);
        let mut place = steps.place(mem::take(&mut self.states), self.before);
        for (at, c) in text.char_indices() {
            let mut bytes = [0; 4];
            for &byte in c.encode_utf8(&mut bytes).as_bytes() {
                let (next, fits) = steps.step(place, byte);
                place = next;
                if !fits {
                    return at;
                }
            }
        }
        self.before = text.as_bytes().last().copied();
        self.states = steps.into_states(place);
        text.len()
    }
}

/// The automaton's steps over one piece of text, each taken once and remembered: a value that outgrew its reach may be
/// as long as a text, and takes the same few steps all along.
struct Steps<'n> {
    nfa: &'n NFA,
    places: Vec<Place>,
    /// Room to mark states in.
    seen: Vec<bool>,
}

/// Where the automaton has come to.
struct Place {
    /// Not yet followed over edges that take no byte.
    states: Vec<StateID>,
    before: Option<u8>,
    /// By byte: the place behind it and whether the text with it still fits.
    next: Vec<Option<(usize, bool)>>,
}

/// The most places that are remembered.
const PLACES: usize = 64;

impl<'n> Steps<'n> {
    fn new(nfa: &'n NFA) -> Self {
        Self {
            nfa,
            places: Vec::new(),
            seen: vec![false; nfa.states().len()],
        }
    }

    /// The place of these states behind this byte.
    fn place(&mut self, states: Vec<StateID>, before: Option<u8>) -> usize {
        let known = |place: &Place| place.states == states && kind(place.before) == kind(before);
        if let Some(place) = self.places.iter().position(known) {
            return place;
        }
        if self.places.len() == PLACES {
            self.places.clear();
        }
        self.places.push(Place {
            states,
            before,
            next: vec![None; 256],
        });
        self.places.len() - 1
    }

    fn into_states(mut self, place: usize) -> Vec<StateID> {
        mem::take(&mut self.places[place].states)
    }

    /// The place behind this byte, and whether the text with it still fits: it is a match, or waits for more.
    fn step(&mut self, place: usize, byte: u8) -> (usize, bool) {
        if let Some(known) = self.places[place].next[usize::from(byte)] {
            return known;
        }
        let Place { states, before, .. } = &self.places[place];
        let (states, before) = (states.clone(), *before);
        let here = self.follow(states, before, Some(byte));
        let mut next: Vec<StateID> = here
            .into_iter()
            .flat_map(|state| edges(self.nfa.state(state)))
            .filter(|(range, _)| range.is_some_and(|(start, end)| (start..=end).contains(&byte)))
            .map(|(_, next)| next)
            .collect();
        next.sort_unstable();
        next.dedup();
        let fits = self
            .follow(next.clone(), Some(byte), None)
            .into_iter()
            .map(|state| self.nfa.state(state))
            .any(|s| waits(s) || matches!(s, State::Match { .. }));
        let forgets = self.places.len() == PLACES;
        let behind = self.place(next, Some(byte));
        // Where places were forgotten to make room, this one was too.
        if !forgets || self.places.len() == PLACES {
            self.places[place].next[usize::from(byte)] = Some((behind, fits));
        }
        (behind, fits)
    }

    /// The states reached without a byte. Assertions are decided if the byte that comes next is given, and stay where
    /// they are if it is not.
    fn follow(
        &mut self,
        mut stack: Vec<StateID>,
        before: Option<u8>,
        next: Option<u8>,
    ) -> Vec<StateID> {
        let mut found = Vec::new();
        while let Some(id) = stack.pop() {
            if mem::replace(&mut self.seen[id], true) {
                continue;
            }
            found.push(id);
            match (self.nfa.state(id), next) {
                (State::Look { .. }, None) => {}
                (State::Look { look, next: to }, Some(byte)) => {
                    let around: Vec<u8> = before.into_iter().chain([byte]).collect();
                    let matcher = self.nfa.look_matcher();
                    if matcher.matches(*look, &around, around.len() - 1) {
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
        for &id in &found {
            self.seen[id] = false;
        }
        found
    }
}
