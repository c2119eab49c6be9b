//! What is written as an escape, and what may become one when more text comes. The table is in [`super`].

use super::percent;

/// What a letter behind a backslash is seen as: white space that no text is likely to have, and that `.` passes.
pub(crate) const ESCAPE: char = '\u{B}';
/// Of how many backslashes before it an escape that is a whole may consist.
pub(super) const RUN: usize = 2;
/// The longest escape in bytes that is seen as one character: `\\u00e9`.
pub(super) const LONGEST: usize = RUN + 5;
/// The most bytes between `ESC [` and the end of a sequence.
const PARAMETERS: usize = 16;
/// What is held of a text at most because it may become an escape: `\\u001b[`, parameters, and their end missing.
pub(crate) const UNFINISHED: usize = RUN + 6 + PARAMETERS;
/// What introduces a sequence of a terminal.
pub(super) const ESC: u8 = 0x1B;
/// How it is written behind a backslash.
const INTRODUCERS: [&[u8]; 6] = [b"u001b", b"u001B", b"x1b", b"x1B", b"033", b"e"];

/// How many bytes at the end of a text may be the front of an escape that is a whole: at most [`UNFINISHED`].
pub(crate) fn unfinished(text: &str) -> usize {
    let bytes = text.as_bytes();
    let may_be = |b: &u8| b.is_ascii_hexdigit() || b"%\\\x1B[;:ux-. ".contains(b);
    if !bytes.last().is_some_and(may_be) {
        return 0;
    }
    let tail = bytes.len().saturating_sub(UNFINISHED);
    let begins = |&b: &u8| matches!(b, b'%' | b'\\' | ESC);
    let Some(at) = bytes[tail..].iter().rposition(begins).map(|at| tail + at) else {
        return 0;
    };
    let behind = &bytes[at + 1..];
    let (unfinished, start) = match bytes[at] {
        b'%' => (percent::is_front(behind), at),
        ESC => (is_sequence_front(behind), at),
        _ => {
            let run = bytes[..=at].iter().rev().take_while(|&&b| b == b'\\');
            (is_escape_front(behind), at + 1 - run.take(RUN).count())
        }
    };
    if unfinished { bytes.len() - start } else { 0 }
}

/// Whether this behind a backslash, at the end of a text, may be the front of an escape.
fn is_escape_front(behind: &[u8]) -> bool {
    let number = |digits: &[u8]| digits.len() < 4 && digits.iter().all(u8::is_ascii_hexdigit);
    behind.is_empty()
        || behind.strip_prefix(b"u").is_some_and(number)
        || INTRODUCERS.iter().any(|introducer| {
            introducer.starts_with(behind)
                || behind
                    .strip_prefix(*introducer)
                    .is_some_and(is_sequence_front)
        })
}

/// The same behind an `ESC`.
fn is_sequence_front(behind: &[u8]) -> bool {
    match behind {
        [] => true,
        [b'[', parameters @ ..] => {
            parameters.len() <= PARAMETERS && parameters.iter().all(is_parameter)
        }
        _ => false,
    }
}

fn is_parameter(byte: &u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b';' | b':')
}

/// The length of what makes a sequence of colours of the `ESC` before it.
pub(super) fn sequence(behind: &[u8]) -> Option<usize> {
    let parameters = behind.strip_prefix(b"[")?;
    let len = parameters.iter().take_while(|b| is_parameter(b)).count();
    let ends = matches!(parameters.get(len), Some(b'm' | b'K'));
    (len <= PARAMETERS && ends).then_some(len + 2)
}

/// How long the introducer and the rest of a sequence of colours are, if `bytes` begin with both behind a backslash.
pub(super) fn written_sequence(bytes: &[u8]) -> Option<(usize, usize)> {
    INTRODUCERS.iter().find_map(|introducer| {
        let rest = bytes.strip_prefix(*introducer)?;
        Some((introducer.len(), sequence(rest)?))
    })
}

/// Whether the byte behind a backslash makes an escape of one letter of it.
pub(super) fn is_letter(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'b' | b'f' | b'n' | b'r' | b't'))
}

/// What an escape that is a whole stands for, and its length without backslashes, if `bytes` begin with one behind them.
pub(super) fn escaped(bytes: &[u8]) -> Option<(usize, char)> {
    match bytes {
        [b'/', ..] => Some((1, '/')),
        [b'u', digits @ ..] => {
            let code = digits.first_chunk::<4>()?.iter().try_fold(0, |code, &b| {
                char::from(b).to_digit(16).map(|digit| code * 16 + digit)
            })?;
            let c = char::from_u32(code).filter(|c| *c >= ' ');
            Some((5, c.unwrap_or(ESCAPE)))
        }
        _ => None,
    }
}
