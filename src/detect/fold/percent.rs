//! What a percent sign begins: an escape of a link (RFC 3986 section 2.1), or a number behind a literal `%`.

use std::ops::RangeInclusive;

/// How many digits behind `%40` say that it is no `@`: no domain that people have begins with as many.
const NO_DOMAIN: usize = 6;

/// What parts the groups of a number.
const PARTS: &[u8] = b"-. ";

/// How a number is written in groups: what may part them, the same everywhere, and how many digits each has.
struct Grouping {
    parts: &'static [u8],
    groups: &'static [RangeInclusive<usize>],
}

/// Groupings that say that the two digits behind a `%` are a number's: telephone numbers, social security numbers, cards,
/// addresses. None of them is one without its first two digits.
const GROUPINGS: [Grouping; 6] = [
    digits(&[3..=3, 3..=3, 4..=4]),
    digits(&[3..=3, 2..=2, 4..=4]),
    digits(&[4..=4, 4..=4, 4..=4, 4..=4]),
    digits(&[4..=4, 6..=6, 5..=5]),
    digits(&[4..=4, 6..=6, 4..=4]),
    Grouping {
        parts: b".",
        groups: &[2..=2, 1..=3, 1..=3, 1..=3],
    },
];

const fn digits(groups: &'static [RangeInclusive<usize>]) -> Grouping {
    Grouping {
        parts: PARTS,
        groups,
    }
}

/// How far a text goes with a grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It does not.
    None,
    /// It begins with it.
    Whole,
    /// It ends before that is told. Where nothing follows, the flag says whether it is whole.
    Unfinished(bool),
}

impl Grouping {
    /// How the text goes with it: the number must end where the last group does.
    fn fit(&self, text: &[u8]) -> Fit {
        let (mut at, mut part) = (0, None);
        for (i, digits) in self.groups.iter().enumerate() {
            if i > 0 {
                match text.get(at) {
                    None => return Fit::Unfinished(false),
                    Some(b) if part.map_or(self.parts.contains(b), |part| part == *b) => {
                        part = Some(*b);
                        at += 1;
                    }
                    Some(_) => return Fit::None,
                }
            }
            let most = digits.end() + 1;
            let run = text.iter().skip(at).take(most);
            let count = run.take_while(|b| b.is_ascii_digit()).count();
            at += count;
            if count < *digits.start() && at == text.len() {
                return Fit::Unfinished(false);
            }
            if !digits.contains(&count) {
                return Fit::None;
            }
        }
        match (text.get(at), text.get(at + 1)) {
            (None, _) => Fit::Unfinished(true),
            (Some(b), None) if part == Some(*b) => Fit::Unfinished(true),
            (Some(b), Some(next)) if part == Some(*b) && next.is_ascii_digit() => Fit::None,
            _ => Fit::Whole,
        }
    }
}

/// Whether a number begins here, at the two digits behind a percent sign, as nothing but a number is grouped.
fn is_grouped(text: &[u8]) -> bool {
    let fits =
        |grouping: &Grouping| matches!(grouping.fit(text), Fit::Whole | Fit::Unfinished(true));
    GROUPINGS.iter().any(fits)
}

/// Whether more text may make or unmake such a number of this, which ends the text.
fn may_be_grouped(text: &[u8]) -> bool {
    let waits = |grouping: &Grouping| matches!(grouping.fit(text), Fit::Unfinished(_));
    GROUPINGS.iter().any(waits)
}

/// How what `%` and two digits stand for is seen, and the length of the whole, if `bytes` begin with that. `before` is the
/// byte before them.
pub(super) fn percent(before: u8, bytes: &[u8]) -> Option<(usize, char)> {
    let once = bytes.strip_prefix(b"%").filter(|once| !is_grouped(once))?;
    let twice = once.strip_prefix(b"25").filter(|twice| !is_grouped(twice));
    let twice = twice.and_then(|behind| Some((5, seen(before, behind)?)));
    twice.or_else(|| Some((3, seen(before, once)?)))
}

/// How what the digits here stand for is seen, if that is an escape.
fn seen(before: u8, text: &[u8]) -> Option<char> {
    let (digits, behind) = text.split_first_chunk::<2>()?;
    Some(match escaped(*digits)? {
        b'@' if number(behind).1 >= NO_DOMAIN => return None,
        // Behind none of these a link has a number; behind a percent sign `LIKE '%212-555-0100%'` has one.
        c if NO_NUMBER.contains(&c) && starts_with_digit(behind) => return None,
        b' ' => {
            let grouped = before.is_ascii_digit() || before == b')';
            let goes_on = starts_with_digit(behind) || behind.first() == Some(&b'(');
            if grouped && goes_on { ' ' } else { '%' }
        }
        c if b":!#$&()*+./=?@^_~-".contains(&c) => char::from(c),
        _ => '%',
    })
}

/// Before a number, these are none in a link.
const NO_NUMBER: &[u8] = b"!#$&`";

/// What two digits stand for, where a link would have it as an escape.
fn escaped(digits: [u8; 2]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let c = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?;
    // No link has other control characters: what is behind a percent sign is a number.
    let is_control = c < b' ' && !b"\t\n\r".contains(&c);
    (c < 0x7F && !is_control && !c.is_ascii_alphanumeric()).then_some(c)
}

/// Whether this behind a `%`, at the end of a text, may be the front of an escape, or one that more text may yet change.
pub(super) fn is_front(behind: &[u8]) -> bool {
    let is_front = |text: &[u8]| {
        let Some((digits, behind)) = text.split_first_chunk::<2>() else {
            return matches!(text, [] | [b'0'..=b'7']);
        };
        match escaped(*digits) {
            None => false,
            Some(c) if NO_NUMBER.contains(&c) && starts_with_digit(behind) => false,
            Some(c) if behind.is_empty() && (NO_NUMBER.contains(&c) || c == b' ') => true,
            Some(b'@') => {
                let (len, digits) = number(behind);
                // A blank, dot or dash at the very end may yet part digits.
                let parts = |rest: &[u8]| matches!(rest, [b] if len > 0 && PARTS.contains(b));
                let open = behind.len() == len || behind.get(len..).is_some_and(parts);
                digits < NO_DOMAIN && (open || may_be_grouped(text))
            }
            Some(_) => may_be_grouped(text),
        }
    };
    is_front(behind) || behind.strip_prefix(b"25").is_some_and(is_front)
}

fn starts_with_digit(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}

/// How many bytes of a number this begins with, and how many digits are in it: single blanks, dots and dashes may part them.
fn number(bytes: &[u8]) -> (usize, usize) {
    let (mut len, mut digits) = (0, 0);
    for (i, b) in bytes.iter().enumerate() {
        let parts = PARTS.contains(b) && len == i && digits > 0;
        if b.is_ascii_digit() {
            (len, digits) = (i + 1, digits + 1);
        } else if !parts {
            break;
        }
        if digits == NO_DOMAIN {
            break;
        }
    }
    (len, digits)
}
