//! `PHONE_NUMBER`. A candidate in one of four shapes that libphonenumber's metadata calls valid: international with
//! `+` (ITU-T E.164, at most 15 digits), national as written in the North American Numbering Plan, and, with a word
//! such as `phone` before it, ten digits in a row or the national notation of one of the [`PLANS`].

use super::{context, numbering};

/// `+` or `00` and digits, at most two separators between any two, and an extension. The check counts them.
pub(crate) const INTERNATIONAL: &str =
    r"(?:\+|\b00)\d?(?:[ ()./-]{0,2}\d)+(?: ?(?:x|ext\.?) ?\d+)?\b";
/// `00` and 15 digits, two separators before each but the first, and an extension of 6 digits, in bytes.
pub(crate) const INTERNATIONAL_REACH: usize = 2 + 15 + 28 + 12;
/// `(212) 555-0123`, `212-555-0123`, `212.555.0123`, `212 555 0123`, with or without `1` before.
pub(crate) const NANP: &str = r"(?:\b1[ .-]?)?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ ./-])[2-9]\d{2}[ .-]\d{4}(?: ?(?:x|ext\.?) ?\d{1,6})?\b";
/// Two or more groups of digits, the first perhaps in parentheses. The check counts them.
pub(crate) const NATIONAL: &str = r"(?:\(\d+\)[ -]?|\b\d+[ .-])\d+(?:[ .-]\d+)*\b";
/// 15 digits, a separator before each but the first, and parentheses, in bytes.
pub(crate) const NATIONAL_REACH: usize = 15 + 14 + 2;
/// Ten digits in a row, or eleven.
pub(crate) const BARE: &str = r"\b\d{10,11}\b";
/// Ten digits, or eleven from 1.
pub(crate) const BARE_REACH: usize = 11;

/// Calling codes of the plans whose national notation is looked for: those of the G20 and of Europe's larger countries.
const PLANS: &[u16] = &[
    1, 7, 27, 30, 31, 32, 33, 34, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 52, 54, 55, 61, 62, 81,
    82, 86, 90, 91, 351, 353, 358, 380, 420, 966, 972,
];

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
    let number = without_extension(found);
    let parted = number.contains([' ', '.', '-', '/', '(']);
    // Without `+` and separators it is an id that starts with zeros.
    if !number.starts_with('+') && !parted {
        return None;
    }
    let end = fronts(number).find(|&end| {
        let digits = digits(&number[..end]);
        numbering::is_assigned(if number.starts_with('+') {
            &digits
        } else {
            &digits[2..]
        })
    })?;
    Some(if end == number.len() {
        found.len()
    } else {
        end
    })
}

/// The same for a number without its country, if a word before it says what it is.
pub(crate) fn national(before: &str, found: &str) -> Option<usize> {
    let mut fronts = fronts(found).peekable();
    if fronts.peek().is_none() || is_date(found) || !context::precedes(before, CONTEXT) {
        return None;
    }
    fronts.find(|&end| {
        let digits = digits(&found[..end]);
        let significant = digits.strip_prefix('0').unwrap_or(&digits);
        PLANS
            .iter()
            .any(|&code| numbering::is_national(code, significant))
    })
}

/// Where groups of digits end, from the last to the one with the seventh digit.
fn fronts(found: &str) -> impl Iterator<Item = usize> {
    let bytes = found.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let ends = (1..=bytes.len())
        .rev()
        .filter(move |&end| is_digit(end - 1) && !is_digit(end));
    ends.take_while(|&end| bytes[..end].iter().filter(|b| b.is_ascii_digit()).count() >= 7)
}

/// `2024-05-06`, `06.05.2024`, also with more behind it.
fn is_date(found: &str) -> bool {
    let groups: Vec<usize> = found.split([' ', '.', '-']).take(3).map(str::len).collect();
    (groups == [4, 2, 2] && found.starts_with(['1', '2'])) || groups == [2, 2, 4]
}

fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
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
    let digits = digits(without_extension(number));
    numbering::is_national(1, digits.strip_prefix('1').unwrap_or(&digits))
}

fn without_extension(number: &str) -> &str {
    let end = number.find(['x', 'e']).unwrap_or(number.len());
    number[..end].trim_end()
}
