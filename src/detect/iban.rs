//! `IBAN_CODE`. Country, two check digits and the country's number, as the SWIFT IBAN registry (release 101) says how
//! long it is and where it has digits and letters, right by ISO/IEC 7064 MOD 97-10 (ISO 13616-1). Groups may be parted
//! by single spaces or dashes, and in a link or a form by `%20` or `+`.

/// Letters and digits with single spaces, dashes, or what a link has for spaces: `%20` beside a letter is seen as `%`. The
/// standard has capitals only, people write either. The check finds where the code ends.
pub(crate) const SHAPE: &str = concat!(r"\b[A-Za-z]{2}\d{2}(?:[ +%-]?[A-Za-z0-9])+", edge!());

/// The longest code is 34 characters (ISO 13616-1); with a separator before each but the first, 67 bytes.
pub(crate) const REACH: usize = 67;

/// Country and structure of its number, in the registry's notation: so many digits (`n`), letters (`a`) or both (`c`).
#[rustfmt::skip]
const STRUCTURES: &[(&str, &str)] = &[
    ("AD", "8n12c"), ("AE", "19n"), ("AL", "8n16c"), ("AT", "16n"), ("AZ", "4a20c"),
    ("BA", "16n"), ("BE", "12n"), ("BG", "4a6n8c"), ("BH", "4a14c"), ("BI", "23n"),
    ("BR", "23n1a1c"), ("BY", "4c4n16c"), ("CH", "5n12c"), ("CR", "18n"), ("CY", "8n16c"),
    ("CZ", "20n"), ("DE", "18n"), ("DJ", "23n"), ("DK", "14n"), ("DO", "4c20n"), ("EE", "16n"),
    ("EG", "25n"), ("ES", "20n"), ("FI", "14n"), ("FK", "2a12n"), ("FO", "14n"),
    ("FR", "10n11c2n"), ("GB", "4a14n"), ("GE", "2a16n"), ("GI", "4a15c"), ("GL", "14n"),
    ("GR", "7n16c"), ("GT", "24c"), ("HN", "4a20n"), ("HR", "17n"), ("HU", "24n"),
    ("IE", "4a14n"), ("IL", "19n"), ("IQ", "4a15n"), ("IS", "22n"), ("IT", "1a10n12c"),
    ("JO", "4a4n18c"), ("KW", "4a22c"), ("KZ", "3n13c"), ("LB", "4n20c"), ("LC", "4a24c"),
    ("LI", "5n12c"), ("LT", "16n"), ("LU", "3n13c"), ("LV", "4a13c"), ("LY", "21n"),
    ("MC", "10n11c2n"), ("MD", "20c"), ("ME", "18n"), ("MK", "3n10c2n"), ("MN", "16n"),
    ("MR", "23n"), ("MT", "4a5n18c"), ("MU", "4a19n3a"), ("NI", "4a20n"), ("NL", "4a10n"),
    ("NO", "11n"), ("OM", "3n16c"), ("PK", "4a16c"), ("PL", "24n"), ("PS", "4a21c"),
    ("PT", "21n"), ("QA", "4a21c"), ("RO", "4a16c"), ("RS", "18n"), ("RU", "14n15c"),
    ("SA", "2n18c"), ("SC", "4a20n3a"), ("SD", "14n"), ("SE", "20n"), ("SI", "15n"),
    ("SK", "20n"), ("SM", "1a10n12c"), ("SO", "19n"), ("ST", "21n"), ("SV", "4a20n"),
    ("TL", "19n"), ("TN", "20n"), ("TR", "6n16c"), ("UA", "6n19c"), ("VA", "18n"),
    ("VG", "4a16n"), ("XK", "16n"), ("YE", "4a4n18c"),
];

/// Keeps as many characters as the country's code has, if they are of its kinds and a group ends there.
pub(crate) fn check(_before: &str, found: &str) -> Option<usize> {
    let country = found.get(..2)?;
    let (_, structure) = STRUCTURES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(country))?;
    let mut characters = found
        .bytes()
        .enumerate()
        .filter(|(_, b)| b.is_ascii_alphanumeric())
        .skip(4);
    let mut end = 0;
    for part in structure.split_inclusive(|c: char| c.is_ascii_lowercase()) {
        let (count, kind) = part.split_at(part.len() - 1);
        for _ in 0..count.parse().ok()? {
            let (at, byte) = characters.next()?;
            let fits = match kind {
                "n" => byte.is_ascii_digit(),
                "a" => byte.is_ascii_alphabetic(),
                _ => true,
            };
            end = if fits { at + 1 } else { return None };
        }
    }
    let group_ends = found
        .as_bytes()
        .get(end)
        .is_none_or(|b| !b.is_ascii_alphanumeric());
    // Check digits are 98 minus a remainder: never 00, 01 or 99.
    let digits = (2..=98).contains(&found.get(2..4)?.parse::<u32>().ok()?);
    (group_ends && digits && remainder(&found[..end]) == 1).then_some(end)
}

/// ISO 7064 MOD 97-10 over the code with its first four characters moved to the end.
fn remainder(code: &str) -> u32 {
    let characters: Vec<u32> = code.chars().filter_map(|c| c.to_digit(36)).collect();
    let (front, rest) = characters.split_at(4);
    rest.iter().chain(front).fold(0, |r, &value| {
        (r * if value < 10 { 10 } else { 100 } + value) % 97
    })
}

/// A code of each country: ones for digits, `A` for letters, and the check digits that ISO 13616-1 gives them.
#[cfg(test)]
pub(crate) fn examples() -> Vec<String> {
    let number = |structure: &str| -> String {
        let parts = structure.split_inclusive(|c: char| c.is_ascii_lowercase());
        parts
            .map(|part| {
                let (count, kind) = part.split_at(part.len() - 1);
                let count = count.parse().unwrap_or(0);
                if kind == "n" { "1" } else { "A" }.repeat(count)
            })
            .collect()
    };
    let codes = STRUCTURES.iter().map(|(country, structure)| {
        let number = number(structure);
        let digits = 98 - remainder(&format!("{country}00{number}"));
        format!("{country}{digits:02}{number}")
    });
    codes.collect()
}
