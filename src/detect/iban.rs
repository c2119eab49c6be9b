//! `IBAN_CODE`. Country, two check digits and the country's number, in all as long as the SWIFT IBAN registry
//! (release 99, 2024) says, and right by ISO 7064 MOD 97-10 (ISO 13616-1). Groups may be parted by single spaces.

/// Letters and digits with single spaces. The standard has capitals only, people write either. The check finds where
/// the code ends.
pub(crate) const SHAPE: &str = r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9])+\b";

/// The longest code is 34 characters (ISO 13616-1); with a space before each but the first, 67 bytes.
pub(crate) const REACH: usize = 67;

/// Country and length of its code.
const LENGTHS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

/// Keeps as many characters as the country's code has, if a group ends there.
pub(crate) fn check(_before: &str, found: &str) -> Option<usize> {
    let country = found.get(..2)?;
    let (_, length) = LENGTHS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(country))?;
    let (last, _) = found
        .bytes()
        .enumerate()
        .filter(|(_, b)| *b != b' ')
        .nth(length - 1)?;
    let group_ends = found.as_bytes().get(last + 1).is_none_or(|b| *b == b' ');
    (group_ends && remainder(&found[..=last]) == 1).then_some(last + 1)
}

/// ISO 7064 MOD 97-10 over the code with its first four characters moved to the end.
fn remainder(code: &str) -> u32 {
    let characters: Vec<u32> = code.chars().filter_map(|c| c.to_digit(36)).collect();
    let (front, rest) = characters.split_at(4);
    rest.iter().chain(front).fold(0, |r, &value| {
        (r * if value < 10 { 10 } else { 100 } + value) % 97
    })
}
