//! Numbers of the United States without or beside a Social Security number: `US_ITIN`, `US_PASSPORT`,
//! `US_DRIVER_LICENSE`, `US_BANK_NUMBER`, `ABA_ROUTING_NUMBER`.

use super::{
    checksum::{digits, weighted},
    context, grouped,
    grouped::Number,
    personal::begins_with_date,
};

/// `9dd-dd-dddd`, see [`ssn::PARTED`].
pub(crate) const ITIN_PARTED: &str = concat!(
    r"\b9\d{2}(?:-\d{2}-\d{4}(?:\b-\d|\b|_)| \d{2} \d{4}",
    edge!(),
    ")"
);

/// An individual taxpayer identification number begins with 9, its fourth and fifth digit are 50 to 65, 70 to 88, 90
/// to 92 or 94 to 99 (IRS, Publication 4757 and "ITIN reference guide").
///
/// Parted by spaces, as any three numbers in a row may be, only behind a word that says what it is.
pub(crate) fn itin_parted(before: &str, found: &str) -> Option<usize> {
    let told = !found.contains(' ') || context::precedes(before, ITIN_WORDS);
    (found.len() == 11 && !grouped::is_piece(before) && told && is_itin(&digits(found)))
        .then_some(found.len())
}

const ITIN_WORDS: &[&str] = &["itin", "itins", "taxpayer identification", "tax id", "tin"];

/// Nine digits in a row, behind a word that says what they are.
pub(crate) fn itin_bare(before: &str, found: &str) -> Option<usize> {
    (found.len() == 9 && is_itin(&digits(found)) && context::precedes(before, ITIN_WORDS))
        .then_some(found.len())
}

fn is_itin(digits: &[u32]) -> bool {
    let group = digits[3] * 10 + digits[4];
    digits[0] == 9 && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99)
}

/// A passport book or card: nine digits, or a letter and eight (Department of State, "Next Generation U.S. Passport").
pub(crate) const PASSPORT: &str = r"\b[A-Za-z]?\d+\b";
/// Nine characters.
pub(crate) const PASSPORT_REACH: usize = 9;

pub(crate) fn passport(before: &str, found: &str) -> Option<usize> {
    let words = &["passport", "passports", "travel document"];
    (found.len() == 9 && context::precedes(before, words)).then_some(found.len())
}

/// Every state numbers as it likes, in letters and digits, some with dashes (`A123-456-78-901-0`); the longest has 25
/// characters (AAMVA DL/ID Card Design Standard 2020, element DAQ). So it is any
/// [`LABELLED`](super::personal::LABELLED) token with five digits, behind words that say what it is.
pub(crate) fn driver_license(before: &str, found: &str) -> Option<usize> {
    let words = &[
        "driver license",
        "drivers license",
        "driver s license",
        "driver licence",
        "driving licence",
        "driving license",
        "drivers licence",
        "driver s licence",
        "license number",
        "licence number",
        "license no",
        "dl",
        "dln",
    ];
    let told = !begins_with_date(found) && context::precedes(before, words);
    (digits(found).len() >= 5 && told).then_some(found.len())
}

/// An account number has 4 to 17 digits; below eight they are too many other things (Nacha Operating Rules, entry
/// detail record, field "DFI Account Number", 17 positions).
const ACCOUNT: &[&str] = &["account", "accounts", "acct", "checking", "a c"];

/// Digits in groups: 8 to 17 of them behind such words, and no date.
pub(crate) fn bank_number(before: &str, found: &str) -> Option<usize> {
    let count = digits(found).len();
    let told = !begins_with_date(found) && context::precedes(before, ACCOUNT);
    ((8..=17).contains(&count) && told).then_some(found.len())
}

/// A routing number: nine digits whose first two name a Federal Reserve district, a thrift, an electronic or a
/// government one (00-12, 21-32, 61-72, 80), the sum by the weights 3, 7, 1 a multiple of ten (ABA Routing Number
/// Policy; ANSI X9.100-160). One random number in 26 is such, so a word must say it.
const ROUTING: Number = Number {
    digits: 9,
    issued: |digits| {
        let district = digits[0] * 10 + digits[1];
        matches!(district, 0..=12 | 21..=32 | 61..=72 | 80)
            && weighted(digits, &[3, 7, 1, 3, 7, 1, 3, 7, 1]).is_multiple_of(10)
            && digits.iter().any(|&digit| digit > 0)
    },
    words: &["routing", "aba", "rtn", "routing number", "routing transit"],
    notations: &[],
};

pub(crate) fn aba_routing_number(before: &str, found: &str) -> Option<usize> {
    ROUTING.keep(before, found)
}
