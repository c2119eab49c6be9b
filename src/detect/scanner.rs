//! Finding values in a text, by the definition in [`super`].

use std::{collections::BTreeSet, fmt, ops::DerefMut, sync::Arc};

use regex_automata::{nfa::thompson::NFA, util::pool::Pool};

use super::{
    DetectorError, Entity, Finding, LOOK_BEHIND, MAX_REACH, UPSTREAM_CREDENTIAL,
    dictionary::Dictionary,
    fold::{Folding, View},
    growth::Growth,
    live::{Live, Start, Wanted},
    machine::{Machine, automata, automaton},
    pattern::{Beyond, Check, Pattern},
    sieve::{Groups, Sieve, group},
    watch::Watch,
};

/// How much text is worked through at a time, while it is close at hand.
const SPAN: usize = 16 * MAX_REACH;

/// Some detectors, compiled together.
pub struct Scanner {
    patterns: Vec<Pattern>,
    dictionaries: Vec<(Entity, Arc<Dictionary>)>,
    entities: BTreeSet<Entity>,
    /// By detector.
    machines: Vec<Machine>,
    sieve: Sieve,
    nfa: Arc<NFA>,
    live: Live,
    longest: usize,
    /// The groups with values that may outgrow their reach: those that are told by their first bytes, and whether there
    /// are others.
    outgrowing: Groups,
    hidden: bool,
    labels: bool,
    /// To fold text in: about one per thread, never one per stream, each as large as one slice of it or a short text.
    rooms: Pool<Folding, fn() -> Folding>,
}

/// What a scan cost: bytes given to each machine. Tests count these, not seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    /// Bytes that the backwards automaton read.
    pub(crate) walked: u64,
    /// Bytes that forward searches were given to read, at most.
    pub(crate) searched: u64,
    /// How often a check was asked.
    pub(crate) checked: u64,
}

/// A value found by one of the scanner's detectors.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) pattern: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The value outgrew its reach; where `end` is the end of the text, it may go on.
    pub(crate) growth: Option<Growth>,
}

impl fmt::Debug for Scanner {
    /// The names only: a shape may be a lent credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner")
            .field("entities", &self.entities)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth")
            .field("pattern", &self.pattern())
            .finish_non_exhaustive()
    }
}

impl Scanner {
    /// `patterns` in priority order, and behind them `dictionaries` in theirs.
    pub(crate) fn new(
        patterns: Vec<Pattern>,
        dictionaries: Vec<(Entity, Arc<Dictionary>)>,
    ) -> Result<Self, DetectorError> {
        let shapes: Vec<_> = patterns.iter().map(|pattern| &pattern.shape).collect();
        let each: Vec<NFA> = patterns.iter().map(automaton).collect::<Result<_, _>>()?;
        let machines = patterns.iter().zip(&each);
        let sieve = Sieve::new(&patterns, &each)?;
        let outgrowing = patterns
            .iter()
            .enumerate()
            .filter(|(_, pattern)| pattern.beyond == Beyond::Found)
            .fold(0, |groups, (i, _)| groups | 1 << group(i));
        Ok(Self {
            live: Live::new(&patterns)?,
            nfa: Arc::new(automata(&shapes)?),
            machines: machines
                .map(|(pattern, nfa)| Machine::new(pattern, nfa))
                .collect::<Result<_, _>>()?,
            entities: patterns
                .iter()
                .map(|pattern| &pattern.entity)
                .chain(dictionaries.iter().map(|(entity, _)| entity))
                .cloned()
                .collect(),
            longest: patterns
                .iter()
                .map(|pattern| pattern.reach)
                .chain(dictionaries.iter().map(|(_, terms)| terms.reach()))
                .max()
                .unwrap_or(0),
            outgrowing: outgrowing & sieve.told_by_their_front(),
            hidden: outgrowing & !sieve.told_by_their_front() != 0,
            labels: patterns.iter().any(Pattern::looks_back)
                && !patterns.iter().any(Pattern::is_anchored),
            sieve,
            patterns,
            dictionaries,
            rooms: Pool::new(Folding::default),
        })
    }

    /// What it looks for.
    #[must_use]
    pub fn entities(&self) -> &BTreeSet<Entity> {
        &self.entities
    }

    /// The longest text in bytes, as it is seen, that a masker with this scanner holds back, at most [`MAX_REACH`].
    #[must_use]
    pub fn reach(&self) -> usize {
        self.longest
    }

    /// Whether a label before a text changes what is found in it: some check reads what stands before a value, and no
    /// shape asks for the text's beginning, which would be lost.
    pub(crate) fn reads_labels(&self) -> bool {
        self.labels
    }

    /// The shapes as regular expressions, in order, to measure other engines with; that of a lent credential is not
    /// told.
    #[must_use]
    pub fn shapes(&self) -> Vec<String> {
        let told = |p: &&Pattern| &*p.entity != UPSTREAM_CREDENTIAL;
        let shapes = self.patterns.iter().filter(told);
        shapes.map(|pattern| pattern.shape.to_string()).collect()
    }

    /// Every value in a whole text, in order and without overlap.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let (mut effort, mut room) = (Effort::default(), self.rooms.get());
        let view = View::of(text, &mut room);
        let found = self.hits(view.text, &mut effort).map(|hit| Finding {
            entity: self.entity(hit.pattern).clone(),
            start: view.start(hit.start + self.joint(view.text, &hit)),
            end: view.end(hit.end),
        });
        let found = found.collect();
        room.give_back();
        found
    }

    /// Bytes of the `_` that joins a found value to what is before it, and is none of the value.
    fn joint(&self, text: &str, hit: &Hit) -> usize {
        let joined = |pattern: &Pattern| matches!(pattern.check, Check::Joined(_));
        let taken = self.patterns.get(hit.pattern).is_some_and(joined);
        usize::from(taken && text[hit.start..].starts_with('_'))
    }

    /// Room to fold a slice of text in.
    pub(crate) fn room(&self) -> impl DerefMut<Target = Folding> + '_ {
        self.rooms.get()
    }

    pub(crate) fn hits<'a>(
        &'a self,
        text: &'a str,
        effort: &'a mut Effort,
    ) -> impl Iterator<Item = Hit> + 'a {
        let mut search = self.search(text, 0);
        std::iter::from_fn(move || search.next(text.len(), effort))
    }

    /// Looks for values in a text from `from` on.
    pub(crate) fn search<'s>(&'s self, text: &'s str, from: usize) -> Search<'s> {
        Search {
            scanner: self,
            text,
            at: from,
            watch: Watch::new(&self.sieve, text),
            outgrown: None,
            settled: from,
        }
    }

    #[cfg(test)]
    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// How many detectors there are: patterns, and behind them dictionaries.
    pub(crate) fn len(&self) -> usize {
        self.patterns.len() + self.dictionaries.len()
    }

    pub(crate) fn entity(&self, detector: usize) -> &Entity {
        match self.patterns.get(detector) {
            Some(pattern) => &pattern.entity,
            None => &self.dictionaries[detector - self.patterns.len()].0,
        }
    }

    /// Where the undecided part of `text[from..]` begins, given that more may follow; the length of `text` where all
    /// is decided.
    pub(crate) fn undecided(&self, text: &str, from: usize, effort: &mut Effort) -> usize {
        let start = self
            .live
            .earliest(text.as_bytes(), from, Wanted::All, &mut effort.walked);
        let terms = self.dictionaries.iter();
        let terms = terms.filter_map(|(_, terms)| terms.live(text, from)).min();
        let mut at = start.map_or(text.len(), |start| start.at);
        at = terms.map_or(at, |start| start.min(at));
        // INVARIANT: a live start is a character's start already, as shapes match whole characters.
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// Values in one text, from left to right.
pub(crate) struct Search<'s> {
    scanner: &'s Scanner,
    text: &'s str,
    at: usize,
    watch: Watch<'s>,
    /// The first start that outgrows its reach, and before where there is no other.
    outgrown: Option<Start>,
    settled: usize,
}

impl Search<'_> {
    /// The next value that starts before `limit`.
    ///
    /// The answer for a start depends on the text up to `reach` bytes and one more behind it, no further.
    pub(crate) fn next(&mut self, limit: usize, effort: &mut Effort) -> Option<Hit> {
        while self.at < limit {
            let end = limit.min(self.at + SPAN);
            let outgrown = self.next_outgrown(end, effort);
            let bound = outgrown.map_or(end, |start| start.at + 1);
            let found = self.next_match(bound, effort);
            let hit = match (found, outgrown) {
                (Some(hit), None) => Some(hit),
                (Some(hit), Some(grown))
                    if (hit.start, hit.pattern) < (grown.at, grown.pattern) =>
                {
                    Some(hit)
                }
                (_, Some(grown)) => Some(self.scanner.outgrown(self.text, grown.pattern, grown.at)),
                (None, None) => None,
            };
            let before = hit.as_ref().map_or(end, |hit| hit.start);
            let Some(hit) = self.scanner.term(self.text, self.at, before).or(hit) else {
                self.at = end;
                continue;
            };
            self.at = hit.end;
            return Some(hit);
        }
        None
    }

    /// The first match before `limit` with a passing check, or what outgrows its reach and is told by its first bytes.
    fn next_match(&mut self, limit: usize, effort: &mut Effort) -> Option<Hit> {
        let mut at = self.at;
        let hit = loop {
            let Some((start, groups)) = self.watch.place(at, limit) else {
                break None;
            };
            let hit = self.scanner.settle(self.text, start, groups, effort);
            let hit = match self.outgrown_at(start, groups, effort) {
                Some(grown) if hit.as_ref().is_none_or(|hit| grown <= hit.pattern) => {
                    Some(self.scanner.outgrown(self.text, grown, start))
                }
                _ => hit,
            };
            if hit.is_some() {
                break hit;
            }
            at = start + 1;
        };
        effort.searched += std::mem::take(&mut self.watch.read);
        hit
    }

    /// The first detector for which the text from here on can still grow after `MAX_REACH` bytes.
    fn outgrown_at(&self, start: usize, groups: Groups, effort: &mut Effort) -> Option<usize> {
        if groups & self.scanner.outgrowing == 0 || start + MAX_REACH > self.text.len() {
            return None;
        }
        let head = &self.text.as_bytes()[..at_most(self.text, start + MAX_REACH)];
        let live = &self.scanner.live;
        live.earliest(head, start, Wanted::Outgrowing, &mut effort.walked)
            .filter(|live| live.at == start)
            .map(|live| live.pattern)
    }

    /// The same for any start before `limit`, where some detectors do not tell by their first bytes where to ask.
    fn next_outgrown(&mut self, limit: usize, effort: &mut Effort) -> Option<Start> {
        if !self.scanner.hidden {
            return None;
        }
        if let Some(start) = self.outgrown.filter(|start| start.at >= self.at) {
            return Some(start).filter(|start| start.at < limit);
        }
        let (text, live) = (self.text, &self.scanner.live);
        self.outgrown = None;
        self.settled = self.settled.max(self.at);
        while self.settled < limit && self.settled + MAX_REACH <= text.len() {
            // Whatever outgrows its reach from a start in this window is live at the window's end.
            let window = at_most(text, self.settled + MAX_REACH);
            let head = &text.as_bytes()[..window];
            match live.earliest(head, self.settled, Wanted::Outgrowing, &mut effort.walked) {
                Some(start) if start.at == self.settled => {
                    self.outgrown = Some(start);
                    return self.outgrown;
                }
                Some(start) => self.settled = start.at,
                None => self.settled = window,
            }
        }
        None
    }
}

impl Scanner {
    /// The first detector in order, of these groups, whose match at `start` passes its check.
    fn settle(&self, text: &str, start: usize, groups: Groups, effort: &mut Effort) -> Option<Hit> {
        let mut left = groups;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            left &= left - 1;
            let hit = (first..self.patterns.len())
                .take_while(|&pattern| group(pattern) == first)
                .find_map(|pattern| self.value_at(text, start, pattern, effort));
            if hit.is_some() {
                return hit;
            }
        }
        None
    }

    /// The first term of any dictionary that starts in `text[from..limit]`; of several there, the first dictionary's.
    fn term(&self, text: &str, from: usize, limit: usize) -> Option<Hit> {
        let mut found: Option<Hit> = None;
        let (from, limit) = (at_least(text, from), at_least(text, limit));
        for (number, (_, terms)) in self.dictionaries.iter().enumerate() {
            let limit = found.as_ref().map_or(limit, |hit| hit.start);
            if let Some(place) = terms.next(text, from, limit) {
                found = Some(Hit {
                    pattern: self.patterns.len() + number,
                    start: place.start,
                    end: place.end,
                    growth: None,
                });
            }
        }
        found
    }

    /// The value of one detector at `start`.
    fn value_at(
        &self,
        text: &str,
        start: usize,
        number: usize,
        effort: &mut Effort,
    ) -> Option<Hit> {
        let pattern = &self.patterns[number];
        let window = text.len().min(start + pattern.reach);
        let end = self.machines[number].end(text, start, window, &mut effort.searched)?;
        effort.checked += 1;
        let keep = pattern.check.keep(before(text, start), &text[start..end])?;
        Some(Hit {
            pattern: number,
            start,
            end: start + keep,
            growth: None,
        })
    }

    fn outgrown(&self, text: &str, pattern: usize, start: usize) -> Hit {
        let before = start.checked_sub(1).map(|at| text.as_bytes()[at]);
        let mut growth = Growth::new(self.nfa.clone(), pattern, before);
        let end = start + growth.take(&text[start..]);
        Hit {
            pattern,
            start,
            end,
            growth: Some(growth),
        }
    }
}

/// The last place between two characters that is not behind `at`.
fn at_most(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The first place between two characters that is not before `at`.
pub(crate) fn at_least(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// What a check may read before a match.
fn before(text: &str, start: usize) -> &str {
    &text[at_least(text, start.saturating_sub(LOOK_BEHIND))..start]
}
