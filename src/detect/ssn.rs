//! `US_SSN`. The rule is the Social Security Administration's: area 001-665 or 667-899, group 01-99, serial
//! 0001-9999 (ssa.gov, "Social Security Number Randomization", in force since 2011-06-25).
//!
//! The dummies that were printed in public (078-05-1120, 219-09-9999) have the shape and are found like any other.

use super::context;

/// `ddd-dd-dddd` or `ddd dd dddd`, and the start of a longer dashed number so that the check can turn it down.
pub(crate) const PARTED: &str = concat!(
    r"\b\d{3}(?:-\d{2}-\d{4}(?:\b-\d|\b|_)| \d{2} \d{4}",
    edge!(),
    ")"
);
/// Nine digits in a row.
pub(crate) const BARE: &str = concat!(r"\b\d{9}", edge!());
/// Nine digits.
pub(crate) const BARE_REACH: usize = 9;

const CONTEXT: &[&str] = &[
    "ssn",
    "ssns",
    "social security",
    "soc sec",
    "social sec",
    "ss number",
    "ss no",
];

/// Parted by `-`, not a piece of a longer dashed number; or by ` `, as any three numbers in a row may be, behind a word.
pub(crate) fn parted(before: &str, found: &str) -> Option<usize> {
    let piece = before
        .strip_suffix('-')
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_digit()));
    let told = !found.contains(' ') || context::precedes(before, CONTEXT);
    (found.len() == 11 && !piece && told && issued(found)).then_some(found.len())
}

/// Nine digits in a row are an id like any other, unless a word before them says what they are.
pub(crate) fn bare(before: &str, found: &str) -> Option<usize> {
    (found.len() == 9 && issued(found) && context::precedes(before, CONTEXT)).then_some(found.len())
}

fn issued(found: &str) -> bool {
    let number = found
        .bytes()
        .filter(u8::is_ascii_digit)
        .fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    let (area, group, serial) = (number / 1_000_000, number / 10_000 % 100, number % 10_000);
    (1..900).contains(&area) && area != 666 && group != 0 && serial != 0
}
