//! `DATE_OF_BIRTH`: a calendar date behind a word that says somebody was born then; other dates are not looked for.
//! `MEDICAL_RECORD`: a number behind words that say a hospital gave it to a patient.

use super::context;

/// Letters and digits with single dashes, a digit early. The check counts.
pub(crate) const LABELLED: &str = r"\b(?:[A-Za-z]{1,4}-?)?\d(?:-?[A-Za-z0-9])*\b";
/// Longer than any label: 25 characters.
pub(crate) const LABELLED_REACH: usize = 25;

/// Each hospital numbers as it likes (HL7 v2.5.1, field PID-3, identifier type `MR`, sets no form): a token with five
/// digits.
pub(crate) fn medical_record(before: &str, found: &str) -> Option<usize> {
    let words = &[
        "mrn",
        "medical record",
        "medical records",
        "medical record number",
        "health record",
        "patient id",
        "patient number",
        "patient no",
        "patient identifier",
        "hospital number",
        "chart number",
    ];
    let count = found.bytes().filter(u8::is_ascii_digit).count();
    (count >= 5 && !begins_with_date(found) && context::precedes(before, words))
        .then_some(found.len())
}

/// `1985-03-12`, `12/03/1985`, `3.12.85`.
pub(crate) const NUMBERS: &str = concat!(r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", edge!());
/// `12 March 1985`, `12th of March, 1985`, `12-Mar-85`, `12. März 1985`.
pub(crate) const DAY_FIRST: &str = concat!(
    r"\b\d{1,2}(?:st|nd|rd|th|er|\.)?[ -](?:of |de )?",
    r"(?u:[A-Za-z]|[^\x00-\x7F])+[.,]?[ -](?:de )?\d{2,4}\b"
);
/// The longest: `12th of September, 1985` and room for other languages.
pub(crate) const DAY_FIRST_REACH: usize = 32;
/// `March 12, 1985`, `Mar. 12th 1985`.
pub(crate) const MONTH_FIRST: &str = concat!(
    r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?",
    r" \d{1,2}(?:st|nd|rd|th)?,? \d{4}\b"
);
/// `September 12th, 1985`.
pub(crate) const MONTH_FIRST_REACH: usize = 24;

/// In English, German, French, Spanish, Italian, Portuguese and Dutch.
const WORDS: &[&str] = &[
    "dob",
    "d o b",
    "date of birth",
    "birth date",
    "birthdate",
    "birthday",
    "birth",
    "born",
    "geboren",
    "geburtsdatum",
    "geb",
    "né",
    "née",
    "naissance",
    "nacido",
    "nacida",
    "nacimiento",
    "nato",
    "nata",
    "nascita",
    "nascimento",
    "geboortedatum",
];

/// The months as those languages begin to write them, in lower case, by number.
const MONTHS: [&[&str]; 12] = [
    &["jan", "jän", "ene", "gen"],
    &["feb", "fév", "fev"],
    &["mar", "mär", "mrt", "maa"],
    &["apr", "avr", "abr"],
    &["may", "mai", "mag", "mei"],
    &["jun", "juin", "giu"],
    &["jul", "juil", "lug"],
    &["aug", "août", "aou", "ago"],
    &["sep", "set"],
    &["oct", "okt", "ott", "out"],
    &["nov"],
    &["dec", "dez", "déc", "dic"],
];

pub(crate) fn numbers(before: &str, found: &str) -> Option<usize> {
    let date = found.split(['-', '/', '.']).count() == 3 && begins_with_date(found);
    (date && context::precedes(before, WORDS)).then_some(found.len())
}

/// Whether the first three groups of digits are year, month and day, or day and month and year.
pub(crate) fn begins_with_date(found: &str) -> bool {
    let mut parts = found.split([' ', '-', '/', '.']);
    let parts: [&str; 3] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let [Ok(first), Ok(second), Ok(third)] = parts.map(str::parse) else {
        return false;
    };
    match (parts[0].len(), parts[2].len()) {
        (4, 1..=2) => is_year(parts[0]) && is_day(third, second),
        (1..=2, 2 | 4) => is_year(parts[2]) && (is_day(first, second) || is_day(second, first)),
        _ => false,
    }
}

/// A day, a month's name and a year, in either order of the first two.
pub(crate) fn words(before: &str, found: &str) -> Option<usize> {
    let lower = found.to_lowercase();
    let is_month = |word: &str| {
        MONTHS
            .iter()
            .flat_map(|names| names.iter())
            .any(|name| word.starts_with(name))
    };
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    let month = words.any(|word| word.chars().count() >= 3 && is_month(word));
    let mut numbers = lower
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    let day: u32 = numbers.next()?.parse().ok()?;
    let year = numbers.next()?;
    (month && (1..=31).contains(&day) && is_year(year) && context::precedes(before, WORDS))
        .then_some(found.len())
}

fn is_day(day: u32, month: u32) -> bool {
    (1..=31).contains(&day) && (1..=12).contains(&month)
}

/// Two digits, or four of the last two hundred years and this century.
fn is_year(year: &str) -> bool {
    match year.len() {
        2 => true,
        4 => ("1850".."2100").contains(&year),
        _ => false,
    }
}
