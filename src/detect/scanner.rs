//! Finding values in a text, by the definition in [`super`].

use std::{collections::BTreeSet, fmt, ops::DerefMut, sync::Arc};

use regex_automata::{
    Anchored, Input, PatternID, meta,
    nfa::thompson::{self, NFA, WhichCaptures},
    util::pool::Pool,
};

use super::{
    DetectorError, Entity, Finding, LOOK_BEHIND, MAX_REACH,
    fold::{Folding, View},
    growth::Growth,
    live::{Live, Wanted},
    pattern::{Beyond, Pattern},
};

/// Bytes of lazily built automaton that each thread keeps for the forward search.
const CACHE_BYTES: usize = 4 << 20;
/// How much text one search looks at. It bounds what a search that runs ahead can cost.
const SPAN: usize = 8 * MAX_REACH;

/// Some detectors, compiled together.
pub struct Scanner {
    patterns: Vec<Pattern>,
    entities: BTreeSet<Entity>,
    search: meta::Regex,
    nfa: Arc<NFA>,
    live: Live,
    longest: usize,
    outgrowing: bool,
    /// To fold text in: about one per thread, never one per stream, each as large as one slice of it.
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
    pub(crate) fn new(patterns: Vec<Pattern>) -> Result<Self, DetectorError> {
        let too_large = || DetectorError::TooLarge(CACHE_BYTES >> 10);
        let shapes: Vec<_> = patterns.iter().map(|pattern| &pattern.shape).collect();
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .which_captures(WhichCaptures::None)
                    .utf8(false),
            )
            .build_many_from_hir(&shapes)
            .map_err(|_| too_large())?;
        let search = meta::Builder::new()
            .configure(
                meta::Config::new()
                    .utf8_empty(false)
                    .which_captures(WhichCaptures::Implicit)
                    .nfa_size_limit(None)
                    .hybrid_cache_capacity(CACHE_BYTES),
            )
            .build_many_from_hir(&shapes)
            .map_err(|_| too_large())?;
        Ok(Self {
            live: Live::new(&patterns)?,
            nfa: Arc::new(nfa),
            search,
            entities: patterns
                .iter()
                .map(|pattern| pattern.entity.clone())
                .collect(),
            longest: patterns
                .iter()
                .map(|pattern| pattern.reach)
                .max()
                .unwrap_or(0),
            outgrowing: patterns
                .iter()
                .any(|pattern| pattern.beyond == Beyond::Found),
            patterns,
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

    /// Every value in a whole text, in order and without overlap.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let (mut effort, mut room) = (Effort::default(), Folding::default());
        let view = View::of(text, &mut room);
        self.hits(view.text, &mut effort)
            .map(|hit| Finding {
                entity: self.entity(hit.pattern).clone(),
                start: view.start(hit.start),
                end: view.end(hit.end),
            })
            .collect()
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
        let mut at = 0;
        std::iter::from_fn(move || {
            let hit = self.next(text, at, text.len(), effort)?;
            at = hit.end;
            Some(hit)
        })
    }

    #[cfg(test)]
    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    pub(crate) fn len(&self) -> usize {
        self.patterns.len()
    }

    pub(crate) fn entity(&self, pattern: usize) -> &Entity {
        &self.patterns[pattern].entity
    }

    /// Where the undecided part of `text[from..]` begins, given that more may follow; the length of `text` where all
    /// is decided.
    pub(crate) fn undecided(&self, text: &str, from: usize, effort: &mut Effort) -> usize {
        let start = self
            .live
            .earliest(text.as_bytes(), from, Wanted::All, &mut effort.walked);
        let mut at = start.map_or(text.len(), |start| start.at);
        // INVARIANT: a live start is a character's start already, as shapes match whole characters.
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    /// The first value that starts in `text[from..limit]`.
    ///
    /// The answer for a start depends on the text up to `reach` bytes and one more behind it, no further.
    pub(crate) fn next(
        &self,
        text: &str,
        from: usize,
        limit: usize,
        effort: &mut Effort,
    ) -> Option<Hit> {
        let hit = self.next_match(text, from, limit, effort);
        let bound = hit.as_ref().map_or(limit, |hit| hit.start + 1);
        match self.next_outgrown(text, from, bound, effort) {
            Some(grown)
                if hit
                    .as_ref()
                    .is_none_or(|hit| (grown.start, grown.pattern) <= (hit.start, hit.pattern)) =>
            {
                Some(grown)
            }
            _ => hit,
        }
    }

    /// The first match with a passing check. After a check has failed the search goes on one byte further, and looks
    /// no further ahead than it has to, so that a text full of near misses costs its length times the reach at most.
    fn next_match(
        &self,
        text: &str,
        from: usize,
        limit: usize,
        effort: &mut Effort,
    ) -> Option<Hit> {
        let (mut at, mut span) = (from, SPAN);
        while at < limit {
            let end = text.len().min(at + span);
            // Starts before this see all the text that their match may need.
            let sure = if end == text.len() {
                limit
            } else {
                limit.min(end - self.longest)
            };
            let found = self.search.search(&Input::new(text).span(at..end));
            effort.searched += (end - at) as u64;
            match found {
                Some(found) if found.start() < sure => {
                    let hit =
                        self.settle(text, found.pattern(), found.start(), found.end(), effort);
                    if hit.is_some() {
                        return hit;
                    }
                    (at, span) = (found.start() + 1, 2 * self.longest);
                }
                _ => {
                    (at, span) = (sure, SPAN);
                }
            }
        }
        None
    }

    /// The first detector in order whose match at `start` passes its check. `first` is the lowest that matches there
    /// at all, and `end` where.
    fn settle(
        &self,
        text: &str,
        first: PatternID,
        start: usize,
        end: usize,
        effort: &mut Effort,
    ) -> Option<Hit> {
        (first.as_usize()..self.len()).find_map(|pattern| {
            let known = (pattern == first.as_usize()).then_some(end);
            let end = self.match_at(text, pattern, start, known, effort)?;
            effort.checked += 1;
            let keep = self.patterns[pattern]
                .check
                .keep(before(text, start), &text[start..end])?;
            Some(Hit {
                pattern,
                start,
                end: start + keep,
                growth: None,
            })
        })
    }

    /// Where the leftmost-first match of one detector at `start` ends, within its reach.
    fn match_at(
        &self,
        text: &str,
        pattern: usize,
        start: usize,
        known: Option<usize>,
        effort: &mut Effort,
    ) -> Option<usize> {
        let window = text.len().min(start + self.patterns[pattern].reach);
        if let Some(end) = known.filter(|&end| end <= window) {
            return Some(end);
        }
        effort.searched += (window - start) as u64;
        let input = Input::new(text)
            .span(start..window)
            .anchored(Anchored::Pattern(PatternID::must(pattern)));
        self.search.search(&input).map(|found| found.end())
    }

    /// The first start in `text[from..bound]` from which the text can still grow after `MAX_REACH` bytes.
    fn next_outgrown(
        &self,
        text: &str,
        from: usize,
        bound: usize,
        effort: &mut Effort,
    ) -> Option<Hit> {
        let mut from = from;
        while self.outgrowing && from < bound && from + MAX_REACH <= text.len() {
            // Whatever outgrows its reach from a start in this window is live at the window's end.
            let window = at_most(text, from + MAX_REACH);
            let head = &text.as_bytes()[..window];
            match self
                .live
                .earliest(head, from, Wanted::Outgrowing, &mut effort.walked)
            {
                Some(start) if start.at == from => {
                    return Some(self.outgrown(text, start.pattern, from));
                }
                Some(start) => from = start.at,
                None => from = window,
            }
        }
        None
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
