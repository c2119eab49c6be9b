//! One detector, ready to be compiled: its shape, how far it reaches, and its check.

use std::sync::Arc;

use regex_automata::{nfa::thompson, util::syntax};
use regex_syntax::{
    ParserBuilder,
    hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition},
};

use super::{DetectorError, Entity, MAX_REACH, context, fold};

/// The compiled size that each custom expression may have, in KiB: some 10,000 characters of a class such as `[a-z]`,
/// some 60 of `\w`. The compiler stops there, so that an expression costs no more than this before it is refused.
const BUDGET_KIB: usize = 1024;
/// How deeply a custom expression may nest. It bounds the recursion below.
const NEST_LIMIT: u32 = 64;
/// The most characters that a class lists one by one, rather than saying what it leaves out.
const LISTED: u32 = 256;
/// The letters of escapes of one letter: see [`fold`].
const LETTERS: [char; 5] = ['b', 'f', 'n', 'r', 't'];

/// A detector.
#[derive(Clone)]
pub(crate) struct Pattern {
    pub(crate) entity: Entity,
    pub(crate) shape: Hir,
    /// What each value that passes the check begins with, where the shape alone says less. It is used to pass over
    /// text, never to find a value.
    pub(crate) front: Option<Hir>,
    /// The longest match in bytes.
    pub(crate) reach: usize,
    /// What a text that could still grow after `reach` bytes is.
    pub(crate) beyond: Beyond,
    pub(crate) check: Check,
}

/// What a text is that a shape could still extend after its reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// Nothing: the rule has a length limit, and this is over it.
    Nothing,
    /// Found, up to the first character that no longer fits: releasing it could release the value.
    Found,
}

/// The validator of a match. It is given the text before the match and the match itself, and keeps all of it, the
/// front of it, or nothing.
#[derive(Clone)]
pub(crate) enum Check {
    Always,
    Rule(Rule),
    /// The same of a value without the `_` before and behind it that its shape takes along.
    Joined(Rule),
    /// One of these phrases among the last words before the match.
    Context(Arc<[String]>),
}

/// A validator: text before, match -> bytes of the match to keep, from its front. Never 0.
pub(crate) type Rule = fn(&str, &str) -> Option<usize>;

impl Check {
    pub(crate) fn keep(&self, before: &str, found: &str) -> Option<usize> {
        match self {
            Self::Always => Some(found.len()),
            Self::Rule(rule) => rule(before, found),
            Self::Joined(rule) => {
                let value = found.strip_prefix('_').unwrap_or(found);
                let kept = rule(before, value.trim_end_matches('_'))?;
                Some(kept + found.len() - value.len())
            }
            Self::Context(phrases) => context::precedes(before, phrases).then_some(found.len()),
        }
    }
}

impl Pattern {
    /// A detector of our own. ASCII classes unless the expression says `(?u:..)`; `reach` is given where the rule
    /// has a length limit that the expression does not spell out.
    pub(crate) fn builtin(
        entity: &str,
        regex: &str,
        reach: Option<usize>,
        check: Check,
    ) -> Result<Self, DetectorError> {
        let shape = parse(regex, syntax::Config::new().unicode(false))?;
        let mut pattern = Self::of(entity, shape, check)?;
        if let Some(reach) = reach {
            pattern.reach = reach;
            pattern.beyond = Beyond::Nothing;
        }
        Ok(pattern)
    }

    /// The same with its [`front`](Self::front). What begins otherwise is then missed, whatever the check says of it.
    pub(crate) fn led_by(mut self, front: &str) -> Result<Self, DetectorError> {
        self.front = Some(parse(front, syntax::Config::new().unicode(false))?);
        Ok(self)
    }

    /// A detector from the configuration. Unicode classes; word boundaries are the ASCII ones. Characters that no text
    /// is seen to have (see [`fold`]) stand for those they are seen as; where it speaks of backslashes, the letter of an
    /// escape is seen as [`fold::ESCAPE`] too.
    pub(crate) fn custom(entity: &str, regex: &str, check: Check) -> Result<Self, DetectorError> {
        let shape = parse(regex, syntax::Config::new().nest_limit(NEST_LIMIT))?;
        if has_unbounded_lazy(&shape) {
            return Err(DetectorError::UnboundedLazy);
        }
        let escapes = names_backslash(&shape);
        let pattern = Self::of(entity, as_seen(shape, escapes), check)?;
        thompson::Compiler::new()
            .configure(thompson::Config::new().nfa_size_limit(Some(BUDGET_KIB << 10)))
            .build_from_hir(&pattern.shape)
            .map_err(|_| DetectorError::TooLarge(BUDGET_KIB))?;
        Ok(pattern)
    }

    /// A detector of exactly this text, however it is written.
    pub(crate) fn literal(entity: &str, text: &str) -> Result<Self, DetectorError> {
        Self::of(
            entity,
            Hir::literal(fold::seen(text).into_bytes()),
            Check::Always,
        )
    }

    /// Whether its check may read what stands before a match.
    pub(crate) fn looks_back(&self) -> bool {
        !matches!(self.check, Check::Always)
    }

    /// Whether its shape asks for the beginning of the text.
    pub(crate) fn is_anchored(&self) -> bool {
        self.shape.properties().look_set().contains(Look::Start)
    }

    fn of(entity: &str, shape: Hir, check: Check) -> Result<Self, DetectorError> {
        let properties = shape.properties();
        match properties.minimum_len() {
            None => return Err(DetectorError::MatchesNothing),
            Some(0) => return Err(DetectorError::MatchesEmpty),
            Some(_) => {}
        }
        let reach = properties.maximum_len().unwrap_or(usize::MAX);
        Ok(Self {
            entity: entity.into(),
            front: None,
            reach: reach.min(MAX_REACH),
            beyond: if reach > MAX_REACH {
                Beyond::Found
            } else {
                Beyond::Nothing
            },
            shape,
            check,
        })
    }
}

/// INVARIANT: `utf8(true)`, so that the parser refuses whatever could match a part of a character. Every match is then
/// a sequence of whole characters, and in valid UTF-8 it starts and ends between characters.
fn parse(regex: &str, config: syntax::Config) -> Result<Hir, DetectorError> {
    ParserBuilder::new()
        .unicode(config.get_unicode())
        .utf8(true)
        .nest_limit(config.get_nest_limit())
        .build()
        .parse(regex)
        .map_err(|error| DetectorError::Syntax(reason(&error)))
}

/// The parser's reason without its drawing of the expression over several lines.
fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "it is not a regular expression".to_owned(),
    }
}

/// The expression for texts as they are seen.
///
/// Unicode word boundaries become ASCII ones: a lazy DFA cannot decide the former on a non-ASCII byte. Between `é` and
/// `1` there is then a boundary, so this finds more, never less, at the edges of a value.
fn as_seen(shape: Hir, escapes: bool) -> Hir {
    let as_seen = |shape| as_seen(shape, escapes);
    match shape.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => literal_as_seen(&literal.0, escapes),
        HirKind::Class(class) => Hir::class(class_as_seen(class, escapes)),
        HirKind::Look(look) => Hir::look(match look {
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            Look::WordStartUnicode => Look::WordStartAscii,
            Look::WordEndUnicode => Look::WordEndAscii,
            Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
            Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
            other => other,
        }),
        HirKind::Repetition(Repetition {
            min,
            max,
            greedy,
            sub,
        }) => Hir::repetition(Repetition {
            min,
            max,
            greedy,
            sub: Box::new(as_seen(*sub)),
        }),
        HirKind::Capture(Capture { sub, .. }) => as_seen(*sub),
        HirKind::Concat(subs) => Hir::concat(subs.into_iter().map(as_seen).collect()),
        HirKind::Alternation(subs) => Hir::alternation(subs.into_iter().map(as_seen).collect()),
    }
}

/// The text as it is seen, its first letter perhaps that of an escape.
fn literal_as_seen(literal: &[u8], escapes: bool) -> Hir {
    let Ok(text) = str::from_utf8(literal) else {
        return Hir::literal(literal);
    };
    let whole = |text: &str| Hir::literal(fold::seen(text).into_bytes());
    match text.strip_prefix(LETTERS) {
        Some(rest) if escapes => {
            let letters = text.chars().take(1).chain([fold::ESCAPE]);
            let class = letters
                .map(|c| ClassUnicodeRange::new(c, c))
                .collect::<Vec<_>>();
            let first = Hir::class(Class::Unicode(ClassUnicode::new(class)));
            Hir::concat(vec![first, whole(rest)])
        }
        _ => whole(text),
    }
}

/// A class that lists characters also lists those they are seen as. One that says what it leaves out does not: `[^.]`
/// has the full-width stop but is not meant to have what that is seen as.
fn class_as_seen(class: Class, escapes: bool) -> Class {
    let mut class = match class {
        Class::Unicode(class) => class,
        Class::Bytes(class) => match class.to_unicode_class() {
            Some(class) => class,
            None => return Class::Bytes(class),
        },
    };
    let has = |letter: &char| class.iter().any(|r| (r.start()..=r.end()).contains(letter));
    if escapes && LETTERS.iter().any(has) {
        class.push(ClassUnicodeRange::new(fold::ESCAPE, fold::ESCAPE));
    }
    let characters = class
        .iter()
        .map(|range| u32::from(range.end()) - u32::from(range.start()) + 1)
        .sum::<u32>();
    if characters <= LISTED {
        let listed = class.iter().flat_map(|range| range.start()..=range.end());
        let seen: Vec<ClassUnicodeRange> = listed
            .flat_map(|c| fold::seen(c.encode_utf8(&mut [0; 4])).chars().next())
            .map(|c| ClassUnicodeRange::new(c, c))
            .collect();
        class.union(&ClassUnicode::new(seen));
    }
    Class::Unicode(class)
}

/// Whether the expression names a backslash: in a text, or in a class that lists characters.
fn names_backslash(shape: &Hir) -> bool {
    let listed = |class: &Class| match class {
        Class::Unicode(class) => class
            .iter()
            .any(|r| r.len() <= LISTED as usize && (r.start()..=r.end()).contains(&'\\')),
        Class::Bytes(class) => class.iter().any(|r| (r.start()..=r.end()).contains(&b'\\')),
    };
    match shape.kind() {
        HirKind::Literal(literal) => literal.0.contains(&b'\\'),
        HirKind::Class(class) => listed(class),
        HirKind::Repetition(Repetition { sub, .. }) | HirKind::Capture(Capture { sub, .. }) => {
            names_backslash(sub)
        }
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().any(names_backslash),
        HirKind::Empty | HirKind::Look(_) => false,
    }
}

fn has_unbounded_lazy(shape: &Hir) -> bool {
    match shape.kind() {
        HirKind::Repetition(repetition) => {
            (!repetition.greedy && repetition.max.is_none()) || has_unbounded_lazy(&repetition.sub)
        }
        HirKind::Capture(capture) => has_unbounded_lazy(&capture.sub),
        HirKind::Concat(subs) | HirKind::Alternation(subs) => subs.iter().any(has_unbounded_lazy),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => false,
    }
}
