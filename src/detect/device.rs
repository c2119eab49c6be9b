//! `MAC_ADDRESS` and `VIN`: numbers of things that lead to their owners.

use super::{context, grouped};

/// Pairs of hexadecimal digits, all parted by `:` or all by `-`. The check counts them.
pub(crate) const MAC: &str = r"\b[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2})+|(?:-[0-9A-Fa-f]{2})+)\b";
/// Three groups of four parted by `.`.
pub(crate) const MAC_DOTTED: &str = r"\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b";
/// Twenty pairs: the fingerprints that have them are no addresses.
pub(crate) const MAC_REACH: usize = 20 * 3;

/// An EUI-48 (IEEE Std 802-2014, clause 8.1), also as Cisco writes it. The address of nobody (all 0) and of everybody
/// (all F) tells nothing.
pub(crate) fn mac(before: &str, found: &str) -> Option<usize> {
    let digits = || found.bytes().filter(u8::is_ascii_hexdigit);
    let all = |digit: u8| digits().all(|d| d.eq_ignore_ascii_case(&digit));
    let piece = before
        .strip_suffix([':', '-', '.'])
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_hexdigit()));
    // `12.3456.7890`-like numbers in groups of four are common; an address has letters, or a word before it.
    let dotted = found.contains('.');
    let letters = digits().any(|d| d.is_ascii_alphabetic());
    let told = letters || !dotted || context::precedes(before, &["mac"]);
    (digits().count() == 12 && !piece && told && !all(b'0') && !all(b'f')).then_some(found.len())
}

/// Capitals but I, O, Q, and digits, a digit last. The check counts them.
pub(crate) const VIN: &str = r"\b[A-HJ-NPR-Z0-9]*\d\b";
/// Seventeen characters.
pub(crate) const VIN_REACH: usize = 17;

/// A vehicle identification number (ISO 3779): seventeen characters, letters and digits, the last four digits, the
/// tenth a model year's. The ninth is the check digit of 49 CFR 565.15(c), mandatory in North America; elsewhere a
/// word must say what it is.
pub(crate) fn vin(before: &str, found: &str) -> Option<usize> {
    let bytes = found.as_bytes();
    let mixed = bytes.iter().any(u8::is_ascii_alphabetic);
    if bytes.len() != 17 || !mixed || grouped::is_piece(before) {
        return None;
    }
    let words = &[
        "vin",
        "vehicle identification",
        "chassis",
        "fahrgestellnummer",
    ];
    let serial = bytes[13..].iter().all(u8::is_ascii_digit);
    let year = !matches!(bytes[9], b'U' | b'Z' | b'0');
    ((serial && year && is_checked(bytes)) || context::precedes(before, words))
        .then_some(found.len())
}

fn is_checked(vin: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    let value = |byte: u8| match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        // The letters count 1 to 9 over and over, as on a keyboard of three rows: A to I, J to R, S to Z from 2.
        b'A'..=b'I' => u32::from(byte - b'A') + 1,
        b'J'..=b'R' => u32::from(byte - b'J') + 1,
        _ => u32::from(byte - b'S') + 2,
    };
    let sum: u32 = vin.iter().zip(WEIGHTS).map(|(&b, w)| value(b) * w).sum();
    let check = match sum % 11 {
        10 => b'X',
        digit => b'0' + digit as u8,
    };
    vin[8] == check
}
