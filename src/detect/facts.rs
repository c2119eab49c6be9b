//! What is true of every match of a shape, read from its automaton: which bytes may stand where, and which must.

use regex_automata::{
    nfa::thompson::{NFA, State},
    util::primitives::StateID,
};
use regex_syntax::hir::{
    Hir,
    literal::{ExtractKind, Extractor},
};

use super::{
    DetectorError,
    block::ByteSet,
    live::{edges, waits},
    machine::automata,
    pattern::Pattern,
};

/// How many of a match's first bytes are known one by one.
pub(crate) const KNOWN: usize = 16;
/// How many of them are looked at in a block.
pub(crate) const FRONT: usize = 8;
/// The shortest literal worth looking for, the longest part of it that is looked for, and how many a shape may have.
const LITERAL: (usize, usize, usize) = (3, 8, 32);

/// Facts about the values of one detector.
pub(crate) struct Facts {
    /// Bytes that a match may begin with where a word character, or anything else or nothing, is before it.
    pub(crate) behind_word: ByteSet,
    pub(crate) behind_other: ByteSet,
    /// Bytes that a match may have at each place, or what may follow it where it may be over there. Behind that: all.
    pub(crate) at: [ByteSet; KNOWN],
    /// Whether a match may be over before each place.
    pub(crate) over: [bool; KNOWN],
    /// Whether each match has a digit among those bytes.
    pub(crate) digit: bool,
    /// Each match begins with one of these.
    pub(crate) literals: Option<Vec<Vec<u8>>>,
}

/// Bytes of which every match has one.
#[derive(Clone, Copy)]
pub(crate) struct Needed {
    pub(crate) bytes: ByteSet,
    /// What may stand before the first of them, and right behind.
    pub(crate) before: ByteSet,
    pub(crate) behind: ByteSet,
}

impl Facts {
    /// `nfa` is the automaton of `pattern` alone.
    pub(crate) fn of(pattern: &Pattern, nfa: &NFA) -> Result<Self, DetectorError> {
        let mut facts = Self {
            behind_word: first(nfa, &[Some(b'a')]),
            behind_other: first(
                nfa,
                &[None, Some(b' '), Some(b'\n'), Some(b'\r'), Some(0x80)],
            ),
            at: [ByteSet::ALL; KNOWN],
            over: [true; KNOWN],
            digit: has_digit(nfa),
            literals: literals(&pattern.shape),
        };
        facts.follow(nfa, following);
        if let Some(front) = &pattern.front {
            facts.follow(&automata(&[front])?, |_, _, _| ByteSet::ALL);
        }
        Ok(facts)
    }

    /// Learns what a match has at each place from an automaton that reads it or its front. `behind` says what may stand
    /// behind what was read, by the states where it may be over and the bytes before them.
    fn follow(&mut self, nfa: &NFA, behind: impl Fn(&NFA, &[StateID], ByteSet) -> ByteSet) {
        let mut states = vec![nfa.start_anchored()];
        let mut before = ByteSet::ALL;
        for (at, over) in self.at.iter_mut().zip(&mut self.over) {
            let reached = closure(nfa, states.clone(), |_| true);
            let taken = taken(nfa, &reached);
            if has_match(nfa, &reached) {
                *at = at.intersection(taken.union(behind(nfa, &states, before)));
                return;
            }
            *over = false;
            *at = at.intersection(taken);
            states = after(nfa, &reached, ByteSet::ALL);
            before = taken;
        }
    }
}

/// Bytes that may follow a match which is over in one of the states, behind one of the bytes.
fn following(nfa: &NFA, states: &[StateID], before: ByteSet) -> ByteSet {
    let classes = nfa.byte_classes();
    let may_follow = |byte: u8| {
        let holds = |look| {
            let mut before = before.bytes();
            before.any(|before| nfa.look_matcher().matches(look, &[before, byte], 1))
        };
        has_match(nfa, &closure(nfa, states.to_vec(), holds))
    };
    let bytes = classes
        .representatives(0..=u8::MAX)
        .filter_map(|unit| unit.as_u8());
    bytes
        .filter(|&byte| may_follow(byte))
        .fold(ByteSet::default(), |found, byte| {
            found.union(like(nfa, byte))
        })
}

/// The bytes that the automaton does not tell apart from this one.
fn like(nfa: &NFA, byte: u8) -> ByteSet {
    let classes = nfa.byte_classes();
    (0..=u8::MAX)
        .filter(|&other| classes.get(other) == classes.get(byte))
        .collect()
}

/// Bytes that some match begins with, if one of these bytes (or none) is before it.
fn first(nfa: &NFA, before: &[Option<u8>]) -> ByteSet {
    let classes = nfa.byte_classes();
    let mut found = ByteSet::default();
    for unit in classes.representatives(0..=u8::MAX) {
        let Some(byte) = unit.as_u8() else { continue };
        let takes = before.iter().any(|before| {
            let around: Vec<u8> = before.iter().copied().chain([byte]).collect();
            let holds = |look| nfa.look_matcher().matches(look, &around, around.len() - 1);
            let reached = closure(nfa, vec![nfa.start_anchored()], holds);
            taken(nfa, &reached).contains(byte)
        });
        if takes {
            found = found.union(like(nfa, byte));
        }
    }
    found
}

/// Whether no match is without a digit in its first bytes.
fn has_digit(nfa: &NFA) -> bool {
    let others = ByteSet::DIGITS.complement();
    let mut states = vec![nfa.start_anchored()];
    for _ in 0..FRONT {
        let reached = closure(nfa, states, |_| true);
        states = after(nfa, &reached, others);
        if has_match(nfa, &reached) || states.is_empty() {
            return !has_match(nfa, &reached);
        }
    }
    false
}

fn literals(shape: &Hir) -> Option<Vec<Vec<u8>>> {
    let (shortest, longest, most) = LITERAL;
    let mut found = Extractor::new().kind(ExtractKind::Prefix).extract(shape);
    found.keep_first_bytes(longest);
    found.dedup();
    let literals = found.literals()?;
    let usable = literals.len() <= most && literals.iter().all(|l| l.len() >= shortest);
    usable.then(|| literals.iter().map(|l| l.as_bytes().to_vec()).collect())
}

/// The bytes with what may be around the first of them, if no match is without.
pub(crate) fn needed(nfa: &NFA, bytes: ByteSet) -> Option<Needed> {
    let reached = reach(nfa, bytes.complement());
    if has_match(nfa, &reached) {
        return None;
    }
    let behind = closure(nfa, after(nfa, &reached, bytes), |_| true);
    Some(Needed {
        bytes,
        before: taken(nfa, &reached).intersection(bytes.complement()),
        behind: if has_match(nfa, &behind) {
            ByteSet::ALL
        } else {
            taken(nfa, &behind)
        },
    })
}

/// Every state that can be reached over these bytes, and over none.
fn reach(nfa: &NFA, over: ByteSet) -> Vec<StateID> {
    let mut seen = vec![false; nfa.states().len()];
    let mut stack = vec![nfa.start_anchored()];
    let mut found = Vec::new();
    while let Some(id) = stack.pop() {
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        found.push(id);
        let open = edges(nfa.state(id))
            .into_iter()
            .filter(|(by, _)| by.is_none_or(|(a, b)| (a..=b).any(|byte| over.contains(byte))));
        stack.extend(open.map(|(_, to)| to));
    }
    found
}

/// The states reached without a byte, where assertions hold as told.
fn closure(
    nfa: &NFA,
    mut stack: Vec<StateID>,
    holds: impl Fn(regex_automata::util::look::Look) -> bool,
) -> Vec<StateID> {
    let mut seen = vec![false; nfa.states().len()];
    let mut found = Vec::new();
    while let Some(id) = stack.pop() {
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        found.push(id);
        if matches!(nfa.state(id), State::Look { look, .. } if !holds(*look)) {
            continue;
        }
        let free = edges(nfa.state(id))
            .into_iter()
            .filter(|(by, _)| by.is_none());
        stack.extend(free.map(|(_, to)| to));
    }
    found
}

/// The states right behind one of these bytes.
fn after(nfa: &NFA, states: &[StateID], bytes: ByteSet) -> Vec<StateID> {
    let all = states.iter().flat_map(|&id| edges(nfa.state(id)));
    let mut found: Vec<StateID> = all
        .filter(|(by, _)| by.is_some_and(|(a, b)| (a..=b).any(|byte| bytes.contains(byte))))
        .map(|(_, to)| to)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn taken(nfa: &NFA, states: &[StateID]) -> ByteSet {
    let waiting = states.iter().map(|&id| nfa.state(id)).filter(|s| waits(s));
    waiting
        .flat_map(edges)
        .filter_map(|(by, _)| by)
        .flat_map(|(a, b)| a..=b)
        .collect()
}

fn has_match(nfa: &NFA, states: &[StateID]) -> bool {
    let is_match = |&id: &StateID| matches!(nfa.state(id), State::Match { .. });
    states.iter().any(is_match)
}
