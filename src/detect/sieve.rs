//! Where a value can begin: passes over text in which nothing can, many bytes at a time.
//!
//! ```text
//!   text     Your order 4711 was sent to jane@example.com. Bye
//!   rare                ^                                        a digit that begins a number
//!   inner                                ^^^^                    in front of an `@`
//!   places              |                |                       handed to the automata of the detectors
//! ```
//!
//! Nothing here knows a detector. From the automaton of each shape it is read how its matches show: by a literal that
//! they begin with, by a rare byte at a known place, by being a long word from the start, or by a byte that none of them
//! lacks. What shows in none of these ways is left to a general search. All of them name places where a match *may* begin and never miss one; a table of
//! the first bytes that each shape can have then drops most of the places.

use aho_corasick::{AhoCorasick, packed};
use regex_automata::{meta, nfa::thompson::NFA};

use super::{
    DetectorError,
    block::{BLOCK, Block, ByteSet, Finder, block},
    facts::{FRONT, Facts, KNOWN, Needed, needed},
    machine::{regex, too_large},
    pattern::Pattern,
};

/// A set of groups of detectors.
pub(crate) type Groups = u128;

/// The most literals that are looked for at once.
const LITERALS: usize = 64;
/// How common the bytes may be together that are looked for at a place.
const COMMON: u32 = 140;
/// The least number of places at which it is worth asking for bytes that most text does not have.
const RUN: usize = 3;
/// How common a byte may be that no match lacks.
const COMMON_NEEDED: u32 = 8;
/// The most kinds of such bytes.
pub(super) const INNER: usize = 8;
/// How many of a block's bytes are decided in it: matches that begin in the others are decided in the next one.
pub(super) const STEP: usize = BLOCK - FRONT;
const DECIDED: u64 = (1 << STEP) - 1;

/// The detectors of a scanner by where their matches can begin.
pub(crate) struct Sieve {
    pub(super) table: Table,
    pub(super) literals: Option<Literals>,
    rare: Vec<Rare>,
    pub(super) rare_groups: Groups,
    digits: Finder,
    pub(super) inner: Vec<Inner>,
    /// By byte: which of these cannot do without it.
    needed: [u8; 256],
    all_needed: u8,
    pub(super) general: Option<General>,
}

/// By the byte at each of the first places, and by what is before them: the groups that have matches with it. Bytes that
/// no place tells apart are of one class, and the end of the text is one more.
pub(super) struct Table {
    classes: [u8; 256],
    end: usize,
    /// By class; behind anything but a word character, and behind one.
    first: [Vec<Groups>; 2],
    /// The second place by class, the third, …
    rest: Vec<Groups>,
}

/// What a [`Table`] is made of: by byte and place, and the end of the text last.
struct Columns {
    first: [[Groups; 256]; 2],
    rest: [[Groups; 257]; KNOWN - 1],
}

/// Literals that matches begin with.
pub(super) struct Literals {
    search: Literal,
    pub(super) longest: usize,
    pub(super) groups: Groups,
}

enum Literal {
    Packed(packed::Searcher),
    /// Where the processor has no vectors that the former could use.
    Plain(AhoCorasick),
}

/// Detectors whose matches have a rare byte at the same place.
struct Rare {
    place: usize,
    /// The bytes that are no digits, and whether digits are among them.
    set: ByteSet,
    finder: Option<Finder>,
    digits: bool,
    /// Whether each match has a digit in front.
    needs_digit: bool,
    /// Places where there is always, or never, a digit.
    digit: Vec<(usize, bool)>,
    /// Whether none of them begins with a digit behind a digit.
    number: bool,
    run: Run,
    runner: Option<Finder>,
}

/// Bytes that matches have at each place from the second on.
#[derive(Clone, Copy)]
struct Run {
    set: ByteSet,
    /// At how many places.
    len: usize,
    telling: Telling,
}

/// What a run says of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    Nothing,
    /// Most text has other bytes.
    Rare,
    /// Most words are shorter, and a match begins with a word.
    LongWord,
}

/// Detectors whose matches never lack one of some bytes.
pub(super) struct Inner {
    pub(super) needed: Needed,
    search: Bytes,
    pub(super) reach: usize,
    pub(super) groups: Groups,
}

enum Bytes {
    One(u8),
    Any(Finder),
}

/// Detectors whose matches show in no way.
pub(super) struct General {
    pub(super) regex: meta::Regex,
    pub(super) reach: usize,
    pub(super) groups: Groups,
}

/// How the matches of one shape show.
enum Sign {
    Literals(Vec<Vec<u8>>),
    Rare(usize),
    Inner(Needed),
    None,
}

/// The group of a detector. Those behind the last group of their own share it.
pub(crate) fn group(pattern: usize) -> usize {
    pattern.min(Groups::BITS as usize - 1)
}

impl Sieve {
    /// The automata are those of the patterns, each alone.
    pub(crate) fn new(patterns: &[Pattern], automata: &[NFA]) -> Result<Self, DetectorError> {
        let mut sieve = Self {
            table: Table::new(&Columns::default()),
            literals: None,
            rare: Vec::new(),
            rare_groups: 0,
            digits: Finder::new(ByteSet::DIGITS),
            inner: Vec::new(),
            needed: [0; 256],
            all_needed: 0,
            general: None,
        };
        let mut literals = (Vec::new(), 0);
        let mut general = (Vec::new(), 0, 0);
        let mut columns = Box::<Columns>::default();
        for (i, (pattern, nfa)) in patterns.iter().zip(automata).enumerate() {
            let facts = Facts::of(pattern, nfa)?;
            let groups = 1 << group(i);
            columns.add(&facts, groups);
            match sieve.sign(&facts, nfa, LITERALS - literals.0.len()) {
                Sign::Literals(found) => {
                    literals.0.extend(found);
                    literals.1 |= groups;
                }
                Sign::Rare(place) => sieve.add_rare(&facts, place, groups),
                Sign::Inner(needed) => sieve.add_inner(needed, pattern.reach, groups),
                Sign::None => {
                    general.0.push(&pattern.shape);
                    general.1 |= groups;
                    general.2 = pattern.reach.max(general.2);
                }
            }
        }
        sieve.table = Table::new(&columns);
        for rare in &mut sieve.rare {
            rare.finder = (rare.set != ByteSet::default()).then(|| Finder::new(rare.set));
            let telling = rare.run.telling != Telling::Nothing;
            rare.runner = telling.then(|| Finder::new(rare.run.set));
        }
        if !literals.0.is_empty() {
            sieve.literals = Some(Literals::new(&literals.0, literals.1)?);
        }
        if !general.0.is_empty() {
            sieve.general = Some(General {
                regex: regex(&general.0)?,
                groups: general.1,
                reach: general.2,
            });
        }
        Ok(sieve)
    }

    /// The groups whose values are told by their first bytes: none of them begins where [`Watch`](super::watch::Watch)
    /// names no place, however long it is and whether or not it comes to an end.
    pub(crate) fn told_by_their_front(&self) -> Groups {
        let literals = self.literals.as_ref().map_or(0, |literals| literals.groups);
        // The last group has detectors of all kinds.
        (literals | self.rare_groups) & !(1 << (Groups::BITS - 1))
    }

    /// How to look for matches with these facts.
    fn sign(&self, facts: &Facts, nfa: &NFA, literals: usize) -> Sign {
        if let Some(found) = &facts.literals
            && found.len() <= literals
        {
            return Sign::Literals(found.clone());
        }
        let common = |place: &usize| facts.at[*place].bytes().map(commonness).sum::<u32>();
        // Where a match may be over there may be no byte at all.
        let sure = facts.over[..FRONT].iter().take_while(|over| !**over);
        if let Some(place) = (0..sure.count()).min_by_key(common)
            && common(&place) <= COMMON
        {
            return Sign::Rare(place);
        }
        if Run::of(facts).telling == Telling::LongWord {
            return Sign::Rare(0);
        }
        let mut bytes: Vec<u8> = (0..=u8::MAX)
            .filter(|&byte| commonness(byte) <= COMMON_NEEDED)
            .collect();
        bytes.sort_by_key(|&byte| commonness(byte));
        bytes
            .into_iter()
            .map(|byte| ByteSet::from_iter([byte]))
            .chain([ByteSet::DIGITS])
            .filter(|&bytes| self.inner.len() < INNER || self.inner_with(bytes).is_some())
            .find_map(|bytes| needed(nfa, bytes))
            .map_or(Sign::None, Sign::Inner)
    }

    fn inner_with(&self, bytes: ByteSet) -> Option<usize> {
        let mut inner = self.inner.iter();
        inner.position(|inner| inner.needed.bytes == bytes)
    }

    fn add_inner(&mut self, needed: Needed, reach: usize, groups: Groups) {
        if let Some(known) = self.inner_with(needed.bytes) {
            return self.inner[known].add(needed, reach, groups);
        }
        let bit = 1 << self.inner.len();
        for byte in needed.bytes.bytes() {
            self.needed[usize::from(byte)] |= bit;
        }
        self.all_needed |= bit;
        self.inner.push(Inner::new(needed, reach, groups));
    }

    fn add_rare(&mut self, facts: &Facts, place: usize, groups: Groups) {
        let digits = ByteSet::DIGITS;
        let digit: Vec<(usize, bool)> = (0..FRONT)
            .filter_map(|i| match facts.at[i] {
                set if !facts.over[i] && set.is_within(digits) => Some((i, true)),
                set if set.is_apart(digits) => Some((i, false)),
                _ => None,
            })
            .collect();
        let number = facts.behind_word.is_apart(digits);
        let set: ByteSet = facts.at[place]
            .bytes()
            .filter(|b| !digits.contains(*b))
            .collect();
        let has_digits = !facts.at[place].is_apart(digits);
        let run = Run::of(facts);
        self.rare_groups |= groups;
        let mut known = self.rare.iter_mut();
        match known.find(|rare| rare.place == place && rare.run.telling == run.telling) {
            Some(rare) => {
                rare.run = rare.run.and(run);
                rare.set = rare.set.union(set);
                rare.digits |= has_digits;
                rare.needs_digit &= facts.digit;
                rare.digit.retain(|known| digit.contains(known));
                rare.number &= number;
            }
            None => self.rare.push(Rare {
                place,
                set,
                finder: None,
                digits: has_digits,
                needs_digit: facts.digit,
                digit,
                number,
                run,
                runner: None,
            }),
        }
    }

    /// Where in the block at `base` a match with a rare byte may begin.
    #[inline]
    pub(super) fn rare_starts(&self, text: &[u8], base: usize) -> u64 {
        let mut room = [0; BLOCK];
        let block = block(text, base, &mut room);
        let digits = self.digits.find(block);
        let behind_digit = base > 0 && text.get(base - 1).is_some_and(u8::is_ascii_digit);
        let starts = |rare: &Rare| rare.starts(block, digits, behind_digit);
        DECIDED & self.rare.iter().fold(0, |all, rare| all | starts(rare))
    }

    /// The groups that can have a match in this text, judged by the bytes that some cannot do without.
    pub(super) fn possible(&self, text: &[u8]) -> Groups {
        let met = text
            .iter()
            .fold(0, |met, &byte| met | self.needed[usize::from(byte)]);
        if met == self.all_needed {
            return Groups::MAX;
        }
        let lacking = self
            .inner
            .iter()
            .enumerate()
            .filter(|(i, _)| met >> i & 1 == 0);
        lacking.fold(Groups::MAX, |possible, (_, inner)| possible & !inner.groups)
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            first: [[0; 256]; 2],
            rest: [[0; 257]; KNOWN - 1],
        }
    }
}

impl Columns {
    fn add(&mut self, facts: &Facts, groups: Groups) {
        for byte in 0..=u8::MAX {
            let at = usize::from(byte);
            for (column, set) in self
                .first
                .iter_mut()
                .zip([facts.behind_other, facts.behind_word])
            {
                let fits = set.contains(byte) && facts.at[0].contains(byte);
                column[at] |= if fits { groups } else { 0 };
            }
            for (column, set) in self.rest.iter_mut().zip(&facts.at[1..]) {
                column[at] |= if set.contains(byte) { groups } else { 0 };
            }
        }
        for (column, &over) in self.rest.iter_mut().zip(&facts.over[1..]) {
            column[256] |= if over { groups } else { 0 };
        }
    }

    fn is_alike(&self, one: usize, other: usize) -> bool {
        let first = self.first.iter().all(|column| column[one] == column[other]);
        first && self.rest.iter().all(|column| column[one] == column[other])
    }
}

impl Table {
    fn new(columns: &Columns) -> Self {
        let mut classes = [0; 256];
        // A byte of each class.
        let mut known: Vec<usize> = Vec::new();
        for (byte, class) in classes.iter_mut().enumerate() {
            let like = known
                .iter()
                .position(|&other| columns.is_alike(byte, other));
            *class = like.unwrap_or(known.len()) as u8;
            if like.is_none() {
                known.push(byte);
            }
        }
        let rest = columns.rest.iter().flat_map(|column| {
            let classes = known.iter().map(|&byte| column[byte]);
            classes.chain([column[256]])
        });
        Self {
            classes,
            end: known.len(),
            rest: rest.collect(),
            first: columns
                .first
                .each_ref()
                .map(|column| known.iter().map(|&byte| column[byte]).collect()),
        }
    }

    #[inline]
    fn first(&self, behind_word: bool, byte: u8) -> Groups {
        self.first[usize::from(behind_word)][usize::from(self.classes[usize::from(byte)])]
    }

    /// Those of the groups that may have a match at this place.
    #[inline]
    pub(super) fn groups(&self, text: &[u8], at: usize, of: Groups) -> Groups {
        let behind_word = at
            .checked_sub(1)
            .is_some_and(|before| is_word(text[before]));
        let Some(&byte) = text.get(at) else { return 0 };
        let groups = of & self.first(behind_word, byte);
        if groups == 0 {
            return 0;
        }
        self.narrow(text, at, groups)
    }

    /// Those of the groups that may have a match here by the bytes behind the first.
    #[inline]
    fn narrow(&self, text: &[u8], at: usize, mut groups: Groups) -> Groups {
        for (i, classes) in self.rest.chunks_exact(self.end + 1).enumerate() {
            let byte = text.get(at + 1 + i);
            groups &=
                classes[byte.map_or(self.end, |&byte| self.classes[usize::from(byte)].into())];
            if groups == 0 {
                break;
            }
        }
        groups
    }

    /// The first place from `at` on and before `limit` where one of the groups may have a match, and which of them.
    pub(super) fn place(
        &self,
        text: &[u8],
        at: usize,
        limit: usize,
        of: Groups,
    ) -> Option<(usize, Groups)> {
        let mut behind_word = at
            .checked_sub(1)
            .is_some_and(|before| is_word(text[before]));
        for (place, &byte) in (at..limit).zip(&text[at..limit]) {
            let groups = of & self.first(behind_word, byte);
            behind_word = is_word(byte);
            if groups != 0 {
                let groups = self.narrow(text, place, groups);
                if groups != 0 {
                    return Some((place, groups));
                }
            }
        }
        None
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl Literals {
    fn new(literals: &[Vec<u8>], groups: Groups) -> Result<Self, DetectorError> {
        let search = match packed::Searcher::new(literals) {
            Some(search) => Literal::Packed(search),
            None => AhoCorasick::new(literals)
                .map(Literal::Plain)
                .map_err(|_| too_large())?,
        };
        Ok(Self {
            search,
            longest: literals.iter().map(Vec::len).max().unwrap_or(1),
            groups,
        })
    }

    /// Where the first literal in this part of the text begins.
    pub(super) fn find(&self, text: &[u8], from: usize, end: usize) -> Option<usize> {
        match &self.search {
            Literal::Packed(search) => search
                .find_in(text, (from..end).into())
                .map(|found| found.start()),
            Literal::Plain(search) => search
                .find(aho_corasick::Input::new(text).span(from..end))
                .map(|found| found.start()),
        }
    }
}

impl Run {
    fn of(facts: &Facts) -> Self {
        let sure = facts.over[..FRONT]
            .iter()
            .take_while(|&&over| !over)
            .count();
        let places = facts.at.get(1..sure).unwrap_or_default();
        let set = places
            .iter()
            .fold(ByteSet::default(), |all, &set| all.union(set));
        let common = set.bytes().map(commonness).sum::<u32>();
        let begins_a_word = facts.behind_word == ByteSet::default();
        let words: ByteSet = (0..=u8::MAX).filter(|&byte| is_word(byte)).collect();
        Self {
            set,
            len: places.len(),
            telling: if places.len() >= RUN && common <= COMMON {
                Telling::Rare
            } else if sure == FRONT && begins_a_word && set.is_within(words) {
                Telling::LongWord
            } else {
                Telling::Nothing
            },
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            set: self.set.union(other.set),
            len: self.len.min(other.len),
            telling: self.telling,
        }
    }

    /// Behind which places the run is, given where its bytes are; of words, only where they begin.
    #[inline]
    fn behind(self, bytes: u64) -> u64 {
        let (mut starts, mut len) = (bytes, 1);
        while len < self.len {
            let more = len.min(self.len - len);
            starts &= starts >> more;
            len += more;
        }
        match self.telling {
            Telling::LongWord => starts >> 1 & !(bytes << 1),
            _ => starts >> 1,
        }
    }
}

impl Rare {
    /// Where in the block a match may begin, given where in it digits are.
    #[inline]
    fn starts(&self, block: &Block, digits: u64, behind_digit: bool) -> u64 {
        if digits == 0 && self.needs_digit {
            return 0;
        }
        let mut starts = if self.digits { digits } else { 0 };
        if let Some(finder) = &self.finder {
            starts |= finder.find(block);
        }
        if starts == 0 {
            return 0;
        }
        starts >>= self.place;
        for &(place, always) in &self.digit {
            let there = digits >> place;
            starts &= if always { there } else { !there };
        }
        if self.number {
            starts &= !(digits & (digits << 1 | u64::from(behind_digit)));
        }
        if let Some(runner) = &self.runner
            && starts != 0
        {
            starts &= self.run.behind(runner.find(block));
        }
        starts
    }
}

impl Inner {
    fn new(needed: Needed, reach: usize, groups: Groups) -> Self {
        let mut bytes = needed.bytes.bytes();
        let search = match (bytes.next(), bytes.next()) {
            (Some(byte), None) => Bytes::One(byte),
            _ => Bytes::Any(Finder::new(needed.bytes)),
        };
        Self {
            needed,
            search,
            reach,
            groups,
        }
    }

    /// Another detector that cannot do without the same bytes.
    fn add(&mut self, needed: Needed, reach: usize, groups: Groups) {
        self.needed.before = self.needed.before.union(needed.before);
        self.needed.behind = self.needed.behind.union(needed.behind);
        self.reach = self.reach.max(reach);
        self.groups |= groups;
    }

    /// The first place in this part of the text with one of the bytes, and one behind it that may be.
    pub(super) fn find(&self, text: &[u8], mut from: usize, end: usize) -> Option<usize> {
        while let Some(place) = self.search.find(text, from, end) {
            // Nothing behind it is behind the end: then it may be the last.
            if text
                .get(place + 1)
                .is_none_or(|&byte| self.needed.behind.contains(byte))
            {
                return Some(place);
            }
            from = place + 1;
        }
        None
    }
}

impl Bytes {
    fn find(&self, text: &[u8], from: usize, end: usize) -> Option<usize> {
        let finder = match self {
            Self::One(byte) => {
                let found = memchr::memchr(*byte, text.get(from..end)?);
                return found.map(|at| from + at);
            }
            Self::Any(finder) => finder,
        };
        let mut room = [0; BLOCK];
        (from..end).step_by(BLOCK).find_map(|base| {
            let found = finder.find(block(text, base, &mut room));
            let place = base + found.trailing_zeros() as usize;
            (found != 0 && place < end).then_some(place)
        })
    }
}

/// How common a byte is in what people and programs write, very roughly.
fn commonness(byte: u8) -> u32 {
    match byte {
        b'a'..=b'z' | b' ' => 30,
        b'A'..=b'Z' => 4,
        b'"' | b',' | b'.' | b':' | b'\\' | b'{' | b'}' => 8,
        b'0'..=b'9' | b'\n' | b'-' | b'_' | b'/' | b'\'' => 3,
        0x80.. => 20,
        _ => 1,
    }
}
