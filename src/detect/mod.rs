//! What sensitive data looks like: detectors, their validators, and the scanner that finds them in text.
//!
//! # What counts as found
//!
//! Detectors stand in priority order, each a *shape* (a regular expression) and a *check* (a validator). Text is read
//! left to right. At a start `s` the first detector in order whose leftmost-first match at `s`, at most [`Pattern::reach`]
//! bytes long, passes its check wins; the check may keep only the front of the match. Reading goes on behind what was
//! found, or at the next character where nothing was. A check sees the match and at most [`LOOK_BEHIND`] bytes before
//! it, never anything behind it: this is what lets [`crate::mask`] give the same answer however a text is cut.
//!
//! All of this is said of the text as it is *seen*: full-width forms, digits of other scripts, odd spaces and dashes are
//! the plain ones, what has no width and the colours of a terminal are not there at all, and the escapes of JSON inside a text and
//! those of a link are what they stand for (the table is in `fold.rs`). A value is told in places of the text as it came, from its first seen
//! character to its last. Lengths and reaches are those of the text as seen.
//!
//! A shape without a useful bound (a private key, a token, a custom `\d+`) that could still grow after as many whole
//! characters as fit in [`MAX_REACH`] bytes counts as found there and then, without a check, up to the first character
//! that no longer fits it.
//!
//! # What it never does
//!
//! No IO, no clock. It never splits a character: every shape is parsed so that it can only match whole UTF-8
//! sequences. It never shows the text or a lent credential in an error or in `Debug`.
//!
//! # What it can miss
//!
//! Values written in words or in letters that only look like others, encoded (base64, HTML entities, percent where letters and
//! digits are, line breaks and blanks between letters as in a key of PEM), a number in a row behind `%` that with its first two
//! digits is an escape of a link (`%2221000000000009`), or in a notation that no rule in [`builtin`](Catalog::builtin) describes. Behind a backslash that is none
//! of an escape, the first letter of a value if it is one of `bfnrt`.

use std::sync::Arc;

use thiserror::Error;

/// Where a number ends: in front of whatever is no letter or digit. An `_` there is taken along by the shape, and no part
/// of the value: see [`builtin`].
macro_rules! edge {
    () => {
        r"(?:\b|_)"
    };
}

mod assigned;
mod block;
mod builtin;
mod card;
mod catalog;
mod checksum;
mod context;
mod crypto;
mod device;
mod dictionary;
mod email;
mod facts;
mod fold;
mod grouped;
mod growth;
mod iban;
mod ip;
mod live;
mod machine;
mod national;
mod numbering;
#[cfg(test)]
pub(crate) mod oracle;
mod pattern;
mod personal;
mod phone;
mod scanner;
mod secrets;
mod sieve;
mod ssn;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod tests;
mod url;
mod us;
mod watch;

pub use catalog::{Catalog, Custom, Terms, UPSTREAM_CREDENTIAL};
pub use dictionary::MAX_BYTES as MAX_TERM_BYTES;
pub(crate) use fold::{Past, UNFINISHED, View, characters, unfinished};
pub(crate) use growth::Growth;
pub use scanner::Scanner;
pub(crate) use scanner::{Effort, Hit, at_least};

/// The name of a kind of sensitive data, such as `US_SSN`. Presidio's name where it has one.
pub type Entity = Arc<str>;

/// How many bytes before a match its check may read. Five words of context fit in it.
pub const LOOK_BEHIND: usize = 128;
/// What parts a label, such as the key of a value, from its text: to an expression, the text begins a line.
pub(crate) const BEHIND_LABEL: &str = ":\n";

/// The longest match in bytes, and so the longest text, as it is seen, that a masker ever holds back.
pub const MAX_REACH: usize = 1024;

/// One value found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub entity: Entity,
    /// Byte offset of its first character.
    pub start: usize,
    /// Byte offset behind its last character.
    pub end: usize,
}

/// Why a detector cannot be used. The author of the configuration reads it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DetectorError {
    /// The name is not `[A-Z][A-Z0-9_]*`, at most 64 characters.
    #[error(
        "`{0}` is not an entity name: write capital letters, digits and `_`, starting with a letter, at most 64"
    )]
    Name(String),
    /// A built-in detector has this name.
    #[error("`{0}` is the name of a built-in detector: choose another")]
    Taken(String),
    /// The expression does not parse.
    #[error("the expression does not parse: {0}")]
    Syntax(String),
    /// The expression matches the empty text.
    #[error("the expression matches the empty text, so it would match everywhere")]
    MatchesEmpty,
    /// The expression cannot match any text.
    #[error("the expression cannot match any text")]
    MatchesNothing,
    /// A lazy repetition with no bound: where such a match ends cannot be told from a bounded piece of text.
    #[error(
        "a lazy repetition without a bound (`*?`, `+?`, `{{n,}}?`): bound it, or name the characters it may pass"
    )]
    UnboundedLazy,
    /// The compiled expression, or all of them together, is over the size budget.
    #[error("the expression compiles to more than {0} KiB: use smaller counts or narrower classes")]
    TooLarge(usize),
    /// A context word is empty or has no letter or digit.
    #[error("`{0}` is not a context word: it needs a letter or a digit, and at most 5 words")]
    Context(String),
    /// A term of a dictionary, counted from 0, is empty or too long.
    #[error("term {0} is empty, or longer than {MAX_REACH} bytes")]
    Term(usize),
    /// A dictionary has too many terms, or too much text.
    #[error("a dictionary holds at most 1000000 terms and 64 MiB")]
    Terms,
    /// No detector has this name.
    #[error("no detector is named `{0}`")]
    Unknown(String),
    /// The credential to look for is empty or longer than 16 KiB. Its text is not shown.
    #[error("a credential to look for must have between 1 and 16384 bytes")]
    Credential,
}
