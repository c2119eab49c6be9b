//! `CREDIT_CARD`. A number of 12 to 19 digits (ISO/IEC 7812-1) whose issuer range and length are listed below and
//! whose last digit is right by the Luhn formula (ISO/IEC 7812-1, annex B). Digits are in a row or in groups as on a card
//! ([`GROUPINGS`]), all parted by single spaces or all by single dashes.
//!
//! In a row of numbers that goes on before or behind (a table of readings, say) four of four digits are no card, unless
//! what it goes on with is one too.

use super::checksum::luhn;

/// Digits with single separators; no issuer below starts with 0, 7 or 9. The check counts them.
pub(crate) const SHAPE: &str = concat!(r"\b[1-68](?:[ -]?\d)+", edge!());

/// A card in five groups, an expiry and another card, in bytes.
pub(crate) const REACH: usize = 23 + 5 + 20;

/// Lengths of the groups that numbers are printed and typed in, longest numbers first.
///
/// Source: the `gaps` of Braintree's `credit-card-type`, behind the 4th, 8th and 12th digit, for American Express and
/// Diners Club behind the 4th and 10th; UnionPay's 19 digits in two groups, Maestro's 13 in 4-4-5. People type fours
/// where a card has others, so a last group may have one to four digits.
const GROUPINGS: &[&[usize]] = &[
    &[4, 4, 4, 4, 3],
    &[6, 13],
    &[4, 4, 4, 4, 2],
    &[4, 4, 4, 4, 1],
    &[4, 4, 4, 4],
    &[4, 6, 5],
    &[4, 4, 4, 3],
    &[4, 6, 4],
    &[4, 4, 4, 2],
    &[4, 4, 5],
    &[4, 4, 4, 1],
    &[4, 4, 4],
];

/// Issuer ranges: first and last prefix of equal length, shortest and longest number.
///
/// Sources: what the networks publish (Visa; Mastercard 2-series, 2017; American Express; Discover Global Network IIN
/// ranges with Diners Club, JCB and UnionPay; Maestro; NSPK Mir; NPCI RuPay), compared with the table of Braintree's
/// `credit-card-type`, which agrees but for Maestro: there every number from 50, 56 to 59 or 6 is one. Here only the
/// prefixes in use are, or one random number in fifty would be a card. Of JCB the whole block 35 is read at its usual
/// length, as nobody else has it. Visa's 13 digits and JCB's 15 are history and still in every set of examples.
const ISSUERS: &[(u32, u32, usize, usize)] = &[
    (4, 4, 13, 13), // Visa
    (4, 4, 16, 16),
    (4, 4, 19, 19),
    (51, 55, 16, 16), // Mastercard
    (2221, 2720, 16, 16),
    (34, 34, 15, 15), // American Express
    (37, 37, 15, 15),
    (6011, 6011, 16, 19), // Discover
    (644, 649, 16, 19),
    (65, 65, 16, 19),
    (3528, 3589, 16, 19), // JCB
    (35, 35, 16, 16),
    (1800, 1800, 15, 15),
    (2131, 2131, 15, 15),
    (300, 305, 14, 19), // Diners Club
    (3095, 3095, 14, 19),
    (36, 36, 14, 19),
    (38, 39, 14, 19),
    (62, 62, 16, 19), // UnionPay
    (810, 817, 16, 19),
    (2200, 2204, 16, 19), // Mir
    (508, 508, 16, 16),   // RuPay
    (60, 60, 16, 16),
    (82, 82, 16, 16),
    (5018, 5018, 12, 19), // Maestro
    (5020, 5020, 12, 19),
    (5038, 5038, 12, 19),
    (56, 58, 12, 19),
    (6304, 6304, 12, 19),
    (6759, 6759, 12, 19),
    (6761, 6763, 12, 19),
];

/// The longest front of the match that is a card number and ends where a group of digits ends. A number that follows
/// a card (an expiry, a code) is so not taken for a part of it, nor does it hide the card.
pub(crate) fn check(before: &str, found: &str) -> Option<usize> {
    // The digits behind a decimal point are a fraction.
    if before
        .strip_suffix('.')
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_digit()))
    {
        return None;
    }
    match found.find(SEPARATORS) {
        Some(first) if first < 12 => {
            printed(found).filter(|&end| !comes_from_row(before) && !goes_on_as_row(&found[end..]))
        }
        first => {
            Some(first.unwrap_or(found.len())).filter(|&end| is_card(&found.as_bytes()[..end]))
        }
    }
}

const SEPARATORS: [char; 2] = [' ', '-'];

/// The end of the longest front in groups that is a card number.
fn printed(found: &str) -> Option<usize> {
    let ends = GROUPINGS
        .iter()
        .filter_map(|lengths| grouped(found, lengths));
    ends.into_iter()
        .find(|&end| is_card(&found.as_bytes()[..end]))
}

/// The end of the front with groups of these lengths, all parted by the same.
fn grouped(found: &str, lengths: &[usize]) -> Option<usize> {
    let separator = found.chars().find(|c| SEPARATORS.contains(c))?;
    let mut rest = found;
    for (i, &len) in lengths.iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix(separator)?;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest = rest.get(len..).filter(|_| digits == len)?;
    }
    Some(found.len() - rest.len())
}

/// Two groups of digits or more are before, and no card among them.
fn comes_from_row(before: &str) -> bool {
    let front = before.trim_end_matches(|c: char| c.is_ascii_digit() || SEPARATORS.contains(&c));
    let row = before[front.len()..].trim_start_matches(SEPARATORS);
    row.strip_suffix(SEPARATORS)
        .is_some_and(|row| row.contains(SEPARATORS) && !row.ends_with(SEPARATORS) && !has_card(row))
}

/// Two groups of four digits or more are behind, and no card among them.
fn goes_on_as_row(behind: &str) -> bool {
    let row = behind.strip_prefix(SEPARATORS).unwrap_or_default();
    grouped(row, &[4, 4]).is_some() && !has_card(row)
}

fn has_card(row: &str) -> bool {
    let starts = row.match_indices(SEPARATORS).map(|(at, _)| at + 1);
    [0].into_iter()
        .chain(starts)
        .any(|at| printed(&row[at..]).is_some())
}

fn is_card(text: &[u8]) -> bool {
    let (mut digits, mut count) = ([0; 19], 0);
    for byte in text.iter().filter(|b| b.is_ascii_digit()) {
        let Some(digit) = digits.get_mut(count) else {
            return false;
        };
        *digit = u32::from(byte - b'0');
        count += 1;
    }
    let digits = &digits[..count];
    is_issued(digits) && luhn(digits)
}

fn is_issued(digits: &[u32]) -> bool {
    ISSUERS.iter().any(|&(first, last, shortest, longest)| {
        let width = first.ilog10() as usize + 1;
        (shortest..=longest).contains(&digits.len())
            && (first..=last).contains(&digits[..width].iter().fold(0, |n, d| n * 10 + d))
    })
}
