//! Secrets without a shape of their own, told by what they are assigned to: `GENERIC_SECRET` and `AWS_SECRET_KEY`.
//!
//! A value counts as secret if the name before it says so, it mixes letters and digits, and its Shannon entropy is
//! high: at least [`PASSWORD_BITS`] a character behind a word for passwords, [`KEY_BITS`] behind a word for keys and
//! tokens ([`HEX_BITS`] in hexadecimal). The bounds for keys are those of two scanners of repositories, gitleaks (rule
//! `generic-api-key`) and detect-secrets (`HexHighEntropyString`).
//!
//! Let pass: placeholders ([`PLACEHOLDERS`]), calls, variables of a shell, paths of names (`settings.db1.password`),
//! and values without a digit.

use super::{BEHIND_LABEL, context};

/// A token with a digit in it.
pub(crate) const SHAPE: &str = concat!(
    r"(?:\b\d|(?:\b[A-Za-z_]|[!#$%&()*+?@^~])[!#$%&()*+./=?@A-Z^_a-z~-]*\d)",
    r"[!#$%&()*+./0-9=?@A-Z^_a-z~-]*"
);
/// Of a longer value the first 128 bytes are found.
pub(crate) const REACH: usize = 128;

/// Bits a character, for what a person may have thought out; at least six characters.
const PASSWORD_BITS: f64 = 2.5;
/// Bits a character, for what a machine made; at least ten characters.
const KEY_BITS: f64 = 3.5;
/// The same in hexadecimal, where four bits are the most there can be.
const HEX_BITS: f64 = 3.0;

/// Parts, in lower case, of values that stand for a value.
const PLACEHOLDERS: &[&str] = &[
    "example",
    "changeme",
    "change_me",
    "placeholder",
    "your_",
    "your-",
    "dummy",
    "redacted",
    "xxxx",
    "****",
    "....",
    "0000000",
    "1234567890",
    "abcdef123",
    "test_",
    "fake",
];

/// What a name says of the value assigned to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Password,
    Key,
}

/// `GENERIC_SECRET`.
pub(crate) fn generic(before: &str, found: &str) -> Option<usize> {
    let value = without_end(found);
    let kind = kind(before)?;
    let (long, bits) = match kind {
        Kind::Password => (6, PASSWORD_BITS),
        Kind::Key if value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => (10, HEX_BITS),
        Kind::Key => (10, KEY_BITS),
    };
    let letter = value.contains(|c: char| c.is_ascii_alphabetic());
    (letter && value.len() >= long && entropy(value) >= bits && !stands_for_another(before, found))
        .then_some(value.len())
}

/// Without the marks of the sentence or the call around it: `hunter2.`, `(password=hunter2)`.
fn without_end(found: &str) -> &str {
    let mut value = found.trim_end_matches(['.', '?']);
    while let Some(shorter) = value.strip_suffix(')')
        && !shorter.contains('(')
    {
        value = shorter;
    }
    value
}

/// `AWS_SECRET_KEY`: 40 characters of base64 behind words that say so (AWS IAM User Guide, "Manage access keys for IAM
/// users"). A `/` before the first letter or digit of it is not covered.
pub(crate) fn aws(before: &str, found: &str) -> Option<usize> {
    let words = &[
        "secret access key",
        "secretaccesskey",
        "aws secret",
        "aws secret key",
    ];
    let led = before.len() - before.trim_end_matches(['/', '+']).len();
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+');
    let mixed = found.contains(|c: char| c.is_ascii_lowercase())
        && found.contains(|c: char| c.is_ascii_uppercase());
    (found.len() + led == 40
        && found.len() >= 16
        && mixed
        && found.bytes().all(base64)
        && context::precedes(before, words))
    .then_some(found.len())
}

/// What the text before a value assigns it to: `name = `, `"name": "`, `name: type = `, `name => `, `… password … is
/// `, `Bearer `; or a label does, or a line that ends in a colon.
fn kind(before: &str) -> Option<Kind> {
    // What `%22` and its kin are seen as is one more quote.
    let blank = [' ', '\t', '"', '\'', '`', '\\', '%'];
    let left = before.trim_end_matches(blank);
    let left = if left.ends_with(BEHIND_LABEL) {
        left.trim_end_matches('\n')
    } else {
        left
    };
    // `Secret::new(`, a path of names.
    if left.ends_with("::") {
        return None;
    }
    if ends_with_word(left, "bearer") {
        return Some(Kind::Key);
    }
    if ends_with_word(left, "is") {
        let words = &["password", "passphrase", "passcode", "pwd"];
        return context::precedes(left, words).then_some(Kind::Password);
    }
    let left = left
        .strip_suffix("=>")
        .or_else(|| left.strip_suffix(":="))
        .or_else(|| left.strip_suffix(['=', ':']))?;
    let (left, name) = split_name(left);
    kind_of(name).or_else(|| {
        // `name: type = value`
        let left = left.trim_end_matches(['&', '*', ' ']).strip_suffix(':')?;
        kind_of(split_name(left).1)
    })
}

/// The last name in `text`, and what stands before it.
fn split_name(text: &str) -> (&str, &str) {
    let text = text.trim_end_matches([' ', '\t', '"', '\'', '`', '\\', ']', '?', '%']);
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.split_at(text.trim_end_matches(part).len())
}

fn ends_with_word(text: &str, word: &str) -> bool {
    let start = text.len().checked_sub(word.len());
    start
        .and_then(|at| text.split_at_checked(at))
        .is_some_and(|(before, end)| {
            end.eq_ignore_ascii_case(word) && !before.ends_with(|c: char| c.is_alphanumeric())
        })
}

/// By its last words: `client_secret`, `accessToken`, `X-Api-Key`, but not `key_id`, `token_type`, `public_key`.
fn kind_of(name: &str) -> Option<Kind> {
    let words = words(name);
    let mut ends = words.iter().rev().map(String::as_str);
    let (last, previous) = (ends.next()?, ends.next().unwrap_or_default());
    match last {
        "password" | "passwd" | "passphrase" | "passcode" | "pwd" | "pass" | "pw" => {
            Some(Kind::Password)
        }
        _ if matches!(previous, "public" | "csrf" | "xsrf" | "page" | "next") => None,
        "secret" | "token" | "apikey" | "credential" | "credentials" | "secretkey"
        | "accesskey" => Some(Kind::Key),
        "key" => matches!(
            previous,
            "api"
                | "access"
                | "secret"
                | "private"
                | "auth"
                | "signing"
                | "encryption"
                | "account"
                | "service"
                | "master"
                | "session"
                | "shared"
                | "license"
        )
        .then_some(Kind::Key),
        _ => None,
    }
}

/// The words of a name, in lower case, however it is written.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (small && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphabetic()) {
            word.push(c.to_ascii_lowercase());
        }
        small = c.is_ascii_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A placeholder, or, where it is not in quotes, an expression of a program.
fn stands_for_another(before: &str, found: &str) -> bool {
    let lower = found.to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|part| lower.contains(part))
        || (!is_quoted(before) && is_expression(found))
        || is_name_of_secret(found)
}

/// In quotes, or all that stands under a label.
fn is_quoted(before: &str) -> bool {
    before.ends_with(['"', '\'', '`']) || before.ends_with(BEHIND_LABEL)
}

/// A call, a path of names, a variable of a shell.
fn is_expression(found: &str) -> bool {
    let path = |text: &str| text.split('.').all(is_name);
    let call = found.split_once('(').is_some_and(|(callee, arguments)| {
        path(callee)
            && (arguments.is_empty()
                || arguments.ends_with(')')
                || path(arguments.trim_start_matches('&')))
    });
    let variable = found.strip_prefix('$').is_some_and(is_name);
    call || variable || (found.contains('.') && path(found))
}

/// `new_password_2`: what is assigned is the value of another name.
fn is_name_of_secret(found: &str) -> bool {
    let stem = found.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    is_name(found) && found.contains('_') && kind_of(stem).is_some()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Shannon entropy of the distribution of bytes in `text`, in bits a byte.
fn entropy(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    text.bytes().for_each(|b| counts[usize::from(b)] += 1);
    let len = text.len() as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) / len)
        .map(|p| -p * p.log2())
        .sum()
}
