//! `PHONE_NUMBER`. A candidate in one of three shapes that libphonenumber's metadata calls valid: international with
//! `+` (ITU-T E.164, at most 15 digits), national as written in the North American Numbering Plan, and ten digits in
//! a row with a word such as `phone` before them.

use super::{context, numbering};

/// `+` and digits, at most two separators between any two. The check counts them.
pub(crate) const INTERNATIONAL: &str = r"\+\d(?:[ ()./-]{0,2}\d)+\b";
/// `+` and 15 digits, two separators before each but the first, in bytes.
pub(crate) const INTERNATIONAL_REACH: usize = 1 + 15 + 28;
/// `(212) 555-0123`, `212-555-0123`, `212.555.0123`, `212 555 0123`, with or without `1` before.
pub(crate) const NANP: &str =
    r"(?:\b1[ .-]?)?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ ./-])[2-9]\d{2}[ .-]\d{4}\b";
/// Digits in a row; the check counts them.
pub(crate) const BARE: &str = r"\b\d+\b";
/// Ten digits, or eleven from 1.
pub(crate) const BARE_REACH: usize = 11;

const CONTEXT: &[&str] = &[
    "phone",
    "phones",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "call",
    "dial",
    "sms",
    "whatsapp",
];

/// The longest front that is valid in some country and ends where a group of digits ends.
pub(crate) fn international(_before: &str, found: &str) -> Option<usize> {
    let bytes = found.as_bytes();
    let ends = (0..=bytes.len())
        .rev()
        .filter(|&end| end > 0 && bytes.get(end).is_none_or(|b| !b.is_ascii_digit()));
    ends.filter(|&end| bytes[end - 1].is_ascii_digit())
        .take_while(|&end| bytes[..end].iter().filter(|b| b.is_ascii_digit()).count() >= 7)
        .find(|&end| is_valid(&found[..end]))
}

/// Not a piece of a longer number.
pub(crate) fn nanp(before: &str, found: &str) -> Option<usize> {
    let piece = before
        .strip_suffix(['-', '.', '/', '+'])
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_digit()));
    (!piece && is_valid(found)).then_some(found.len())
}

/// Ten digits in a row are an id like any other, unless a word before them says what they are.
pub(crate) fn bare(before: &str, found: &str) -> Option<usize> {
    (found.len() >= 10 && context::precedes(before, CONTEXT) && is_valid(found))
        .then_some(found.len())
}

fn is_valid(number: &str) -> bool {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    if number.starts_with('+') {
        return numbering::is_assigned(&digits);
    }
    numbering::is_national(1, digits.strip_prefix('1').unwrap_or(&digits))
}
