//! The definition in [`super`], written so plainly that it can be believed, and a forward view of what is undecided.
//! Nothing here is shared with the scanner but the detectors themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{cell::RefCell, collections::HashMap, sync::LazyLock};

use regex_automata::{
    Anchored, Input, MatchKind,
    hybrid::{
        LazyStateID,
        dfa::{Cache, DFA},
    },
    meta,
    nfa::thompson,
};

use super::{
    Finding, LOOK_BEHIND, MAX_REACH, Scanner,
    pattern::{Beyond, Check, Pattern},
};

/// A text as it is seen, and by byte of it where its character stands in the text as it came.
struct Seen {
    text: String,
    places: Vec<(usize, usize)>,
    len: usize,
}

/// Every decimal digit, in order: tens from 0 to 9.
static DIGITS: LazyLock<Vec<char>> = LazyLock::new(|| {
    let digit = meta::Regex::new(r"\p{Nd}").unwrap();
    let is_digit = |c: &char| digit.is_match(c.encode_utf8(&mut [0; 4]).as_bytes());
    ('\0'..=char::MAX).filter(is_digit).collect()
});

/// Escapes that are a whole, and the front of one at the end of a text.
static WHOLE: LazyLock<meta::Regex> =
    LazyLock::new(|| meta::Regex::new(r"^(?:\\{1,2}(?:/|u[0-9A-Fa-f]{4}))").unwrap());
static FRONT: LazyLock<meta::Regex> = LazyLock::new(|| {
    meta::Regex::new(concat!(
        r"(?:\\{1,2}(?:u[0-9A-Fa-f]{0,3}|x1?|03?)?",
        r"|(?:\x1B|\\{1,2}(?:u001[Bb]|x1[Bb]|033|e))(?:\[[0-9;:]{0,16})?)$",
    ))
    .unwrap()
});
static PERCENT_FRONT: LazyLock<meta::Regex> =
    LazyLock::new(|| meta::Regex::new(r"^(?:[0-7]?|40(?:[0-9][-. ]?){0,5}|2[01346]|60)$").unwrap());
/// Numbers in groups, a `d` for each digit.
static GROUPED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let written = [
        "ddd-ddd-dddd",
        "ddd-dd-dddd",
        "dddd-dddd-dddd-dddd",
        "dddd-dddddd-ddddd",
        "dddd-dddddd-dddd",
    ];
    let mut all: Vec<String> = ["-", " ", "."]
        .iter()
        .flat_map(|part| written.map(|w| w.replace('-', part)))
        .collect();
    let octets = ["d", "dd", "ddd"];
    for (one, two, three) in octets
        .iter()
        .flat_map(|a| octets.iter().flat_map(move |b| octets.map(|c| (*a, *b, c))))
    {
        all.push(format!("dd.{one}.{two}.{three}"));
    }
    all
});
static PERCENT: LazyLock<meta::Regex> =
    LazyLock::new(|| meta::Regex::new(r"^%[0-7][0-9A-Fa-f]").unwrap());
static NUMBER: LazyLock<meta::Regex> =
    LazyLock::new(|| meta::Regex::new(r"^(?:[0-9][-. ]?){5}[0-9]").unwrap());
static COLOURS: LazyLock<meta::Regex> = LazyLock::new(|| {
    meta::Regex::new(r"^((?:\x1B|\\{1,2}(?:u001[Bb]|x1[Bb]|033|e)))\[[0-9;:]{0,16}[mK]").unwrap()
});

/// The same with a `d` for each digit.
fn shape(text: &str) -> String {
    text.replace('d', "D")
        .replace(|c: char| c.is_ascii_digit(), "d")
}

/// What parts the groups.
fn parts(number: &str) -> &str {
    &number[number.rfind(|c| c != 'd').unwrap()..][..1]
}

/// Whether digits behind a percent sign are a number in groups that ends there.
fn grouped(behind: &str) -> bool {
    let shape = shape(behind);
    GROUPED.iter().any(|number| {
        let part = parts(number);
        let rest = shape.strip_prefix(number.as_str());
        rest.is_some_and(|rest| !rest.starts_with('d') && !rest.starts_with(&format!("{part}d")))
    })
}

/// How much at the end of a text a percent sign begins that more text may change.
fn percent_front(raw: &str) -> usize {
    let Some(at) = raw.rfind('%') else { return 0 };
    let is_front = |behind: &str| {
        let shape = shape(behind);
        let waits = |number: &String| format!("{number}{}", parts(number)).starts_with(&shape);
        let (digits, rest) = behind.split_at_checked(2).unwrap_or_default();
        PERCENT_FRONT.is_match(behind)
            || match digits {
                "21" | "23" | "24" | "26" | "60" if shape[2..].starts_with('d') => false,
                "40" if NUMBER.is_match(rest) => false,
                "09" | "40" | "60" => GROUPED.iter().any(waits),
                _ if digits.starts_with('2') && shape.starts_with("dd") => {
                    GROUPED.iter().any(waits)
                }
                _ => false,
            }
    };
    let behind = &raw[at + 1..];
    let twice = behind.strip_prefix("25");
    let front = is_front(behind) || twice.is_some_and(is_front);
    if front { raw.len() - at } else { 0 }
}

/// What `%XX` at `at` is seen as, `skip` bytes between `%` and the digits, and where it ends.
fn percent(raw: &str, at: usize, skip: usize) -> Option<(char, usize)> {
    let one = format!("%{}", raw.get(at + 1 + skip..)?);
    PERCENT.find(&one)?;
    if grouped(&one[1..]) {
        return None;
    }
    let c = char::from(u8::from_str_radix(&one[1..3], 16).unwrap());
    let behind = &one[3..];
    let c = match c {
        c if c.is_ascii_alphanumeric() => return None,
        '\t' | '\n' | '\r' => '%',
        c if c.is_ascii_control() => return None,
        '@' if NUMBER.is_match(behind) => return None,
        '!' | '#' | '$' | '&' | '`' if behind.starts_with(|c: char| c.is_ascii_digit()) => {
            return None;
        }
        ' ' if raw[..at].ends_with(|c: char| c == ')' || c.is_ascii_digit())
            && behind.starts_with(|c: char| c == '(' || c.is_ascii_digit()) =>
        {
            ' '
        }
        ':' | '!' | '#' | '$' | '&' | '(' | ')' | '*' | '+' | '.' | '/' | '=' | '?' | '@' | '^'
        | '_' | '~' | '-' => c,
        _ => '%',
    };
    Some((c, at + 3 + skip))
}

impl Seen {
    fn of(raw: &str) -> Self {
        let (mut text, mut places, mut credit) = (String::new(), Vec::new(), 256);
        let mut at = 0;
        while let Some(first) = raw[at..].chars().next() {
            let (mut c, mut end, mut worth) = (first, at + first.len_utf8(), first.len_utf8());
            if let Some(escape) = WHOLE.find(&raw[at..]) {
                end = at + escape.end();
                worth = 1;
                let escape = raw[at..end].trim_start_matches('\\');
                c = match escape.strip_prefix('u') {
                    Some(digits) => u32::from_str_radix(digits, 16)
                        .ok()
                        .and_then(char::from_u32)
                        .filter(|c| !c.is_ascii_control() || *c == '\u{7F}')
                        .unwrap_or('\u{B}'),
                    None => '/',
                };
            }
            let twice = raw[at..].starts_with("%25") && !grouped(&raw[at + 1..]);
            let twice = twice.then(|| percent(raw, at, 2));
            if let Some(found) = twice.flatten().or_else(|| {
                let once = first == '%';
                once.then(|| percent(raw, at, 0)).flatten()
            }) {
                (c, end) = found;
                worth = 1;
            }
            let mut hidden = false;
            if let Some(colours) = COLOURS.find(&raw[at..]) {
                let front = raw[at..].find('[').unwrap();
                hidden = credit >= colours.len();
                (c, worth) = ('\u{B}', 1);
                end = at
                    + if hidden || colours.len() <= 7 {
                        colours.len()
                    } else {
                        front
                    };
            } else if raw[..at].ends_with('\\') && "bfnrt".contains(first) {
                (c, worth) = ('\u{B}', 1);
            }
            let start = std::mem::replace(&mut at, end);
            hidden |= "\u{AD}\u{200B}\u{200D}\u{FEFF}\u{FE0F}\u{202A}".contains(c)
                && credit >= end - start;
            if hidden {
                credit -= end - start;
                continue;
            }
            credit = 256.min(credit + worth);
            let seen = match c {
                '\u{A0}' | '\u{3000}' => ' ',
                '‑' | '–' | '—' => '-',
                '！'..='～' => char::from_u32(c as u32 - '！' as u32 + '!' as u32).unwrap(),
                _ => match DIGITS.iter().position(|&digit| digit == c) {
                    Some(at) if !c.is_ascii() => char::from(b'0' + (at % 10) as u8),
                    _ => c,
                },
            };
            text.push(seen);
            places.resize(text.len(), (start, end));
        }
        Self {
            text,
            places,
            len: raw.len(),
        }
    }

    fn start(&self, at: usize) -> usize {
        self.places.get(at).map_or(self.len, |&(start, _)| start)
    }

    fn end(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |last| self.places[last].1)
    }
}

/// One machine per detector.
pub(crate) struct Oracle {
    machines: Vec<Machine>,
}

struct Machine {
    pattern: Pattern,
    regex: meta::Regex,
    forward: DFA,
    cache: RefCell<Cache>,
    seen: RefCell<HashMap<LazyStateID, Outlook>>,
}

/// What a text that led to a state can still become.
#[derive(Clone, Copy)]
struct Outlook {
    /// Something longer, or a match that the next byte decides.
    live: bool,
    /// It is, or could be, a match.
    fits: bool,
}

impl Oracle {
    pub(crate) fn new(scanner: &Scanner) -> Self {
        Self {
            machines: scanner
                .patterns()
                .iter()
                .cloned()
                .map(Machine::new)
                .collect(),
        }
    }

    /// Every value in a text, in places of the text as it came.
    pub(crate) fn find(&self, raw: &str) -> Vec<Finding> {
        let seen = Seen::of(raw);
        let text = &*seen.text;
        let mut at = 0;
        std::iter::from_fn(|| {
            let (found, _, machine) = self.next(text, at, text.len())?;
            at = found.end;
            let joined = matches!(machine.pattern.check, Check::Joined(_));
            let joint = usize::from(joined && text[found.start..].starts_with('_'));
            Some(Finding {
                start: seen.start(found.start + joint),
                end: seen.end(found.end),
                entity: found.entity,
            })
        })
        .collect()
    }

    /// At each start, each detector in order; and whether it outgrew its reach.
    fn next(&self, text: &str, from: usize, limit: usize) -> Option<(Finding, bool, &Machine)> {
        (from..limit)
            .filter(|&start| text.is_char_boundary(start))
            .find_map(|start| {
                let (machine, (end, grown)) = self
                    .machines
                    .iter()
                    .find_map(|m| m.at(text, start).map(|end| (m, end)))?;
                let entity = machine.pattern.entity.clone();
                Some((Finding { entity, start, end }, grown, machine))
            })
    }

    /// How much of a text, of which more may follow, must be held back.
    pub(crate) fn held(&self, raw: &str) -> usize {
        let front = FRONT
            .find(raw)
            .map_or_else(|| percent_front(raw), |front| front.len());
        let seen = Seen::of(&raw[..raw.len() - front]);
        let text = &*seen.text;
        let mut at = 0;
        loop {
            let decided = self.undecided(text, at);
            match self.next(text, at, decided) {
                Some((found, true, _)) if found.end == text.len() => {
                    // What is unseen behind it is a part of it if it goes on.
                    return raw.len() - seen.end(found.end);
                }
                Some((found, ..)) => at = found.end,
                None => return raw.len() - seen.start(decided.max(at)),
            }
        }
    }

    /// The earliest start from `from` on that a continuation of `text` could bear on.
    pub(crate) fn undecided(&self, text: &str, from: usize) -> usize {
        (from..text.len())
            .find(|&start| {
                self.machines.iter().any(|m| {
                    text.len() - start <= m.pattern.reach && m.outlook(text, start, text.len()).live
                })
            })
            .unwrap_or(text.len())
    }
}

impl Machine {
    fn new(pattern: Pattern) -> Self {
        let config = meta::Config::new().utf8_empty(false);
        let regex = meta::Builder::new()
            .configure(config)
            .build_from_hir(&pattern.shape)
            .unwrap();
        let nfa = thompson::Compiler::new()
            .configure(thompson::Config::new().utf8(false))
            .build_from_hir(&pattern.shape)
            .unwrap();
        // The cache is never cleared, so that states can be remembered by their number.
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .cache_capacity(1 << 30);
        let forward = DFA::builder()
            .configure(config)
            .build_from_nfa(nfa)
            .unwrap();
        Self {
            cache: RefCell::new(forward.create_cache()),
            forward,
            regex,
            pattern,
            seen: RefCell::default(),
        }
    }

    /// Where this detector's value at `start` ends, and whether it outgrew its reach.
    fn at(&self, text: &str, start: usize) -> Option<(usize, bool)> {
        let outgrows = || {
            let grown = (0..=start + MAX_REACH)
                .rev()
                .find(|&at| text.is_char_boundary(at))
                .unwrap();
            start + MAX_REACH <= text.len() && self.outlook(text, start, grown).live
        };
        if self.pattern.beyond == Beyond::Found && outgrows() {
            let ends = text[start..]
                .char_indices()
                .map(|(i, c)| start + i + c.len_utf8());
            return ends
                .take_while(|&end| self.outlook(text, start, end).fits)
                .last()
                .map(|end| (end, true));
        }
        let window = text.len().min(start + self.pattern.reach);
        let found = self
            .regex
            .search(&Input::new(text).span(start..window).anchored(Anchored::Yes))?;
        let mut from = start.saturating_sub(LOOK_BEHIND);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        self.pattern
            .check
            .keep(&text[from..start], &text[start..found.end()])
            .map(|keep| (start + keep, false))
    }

    fn outlook(&self, text: &str, start: usize, end: usize) -> Outlook {
        let (dfa, cache) = (&self.forward, &mut *self.cache.borrow_mut());
        let input = Input::new(text).span(start..end).anchored(Anchored::Yes);
        let mut state = dfa.start_state_forward(cache, &input).unwrap();
        for &byte in &text.as_bytes()[start..end] {
            state = dfa.next_state(cache, state, byte).unwrap();
            if state.is_dead() {
                return Outlook {
                    live: false,
                    fits: false,
                };
            }
        }
        *self
            .seen
            .borrow_mut()
            .entry(state)
            .or_insert_with(|| outlook(dfa, cache, state))
    }
}

fn outlook(dfa: &DFA, cache: &mut Cache, state: LazyStateID) -> Outlook {
    let mut next: Vec<LazyStateID> = (0..=u8::MAX)
        .map(|b| dfa.next_state(cache, state, b).unwrap())
        .collect();
    let end = dfa.next_eoi_state(cache, state).unwrap();
    let matches = next.iter().filter(|s| s.is_match()).count() + usize::from(end.is_match());
    next.sort_unstable();
    next.dedup();
    // A match is reported one byte late, so a state after which all is over is not dead yet.
    let longer = next
        .iter()
        .any(|&s| (0..=u8::MAX).any(|b| !dfa.next_state(cache, s, b).unwrap().is_dead()));
    Outlook {
        live: longer || (1..257).contains(&matches),
        fits: longer || matches > 0,
    }
}
