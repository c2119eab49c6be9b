//! `IP_ADDRESS`. Version 4 in dotted decimal, four octets without leading zeros (RFC 6943 section 3.1.1 on why other
//! notations are not safe to guess); version 6 in the text forms of RFC 4291 section 2.2, compressed and with an
//! embedded version 4. Version numbers and product tokens (`Chrome/120.0.0.0`, RFC 9110 section 10.1.5) are not
//! addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::context;

/// Four numbers, and the start of more so that the check can turn a longer number down.
pub(crate) const V4: &str = r"\b\d{1,3}(?:\.\d{1,3}){3}(?:\.?\d|\b|_)";
/// Groups and colons; whatever has too many or too few does not parse, nor does a path such as `f64::from`.
pub(crate) const V6: &str =
    r"(?:\b[0-9A-Fa-f]+:|::)[0-9A-Fa-f:]*(?:[0-9A-Fa-f]\b(?:(?:\.\d{1,3}){3}\b)?|:\w*)";
/// Six groups of four digits, each with its colon, and a version 4 address.
pub(crate) const V6_REACH: usize = 6 * 5 + 15;

/// Words after which four numbers are a version, or a place in a document.
const VERSION: &[&str] = &[
    "version",
    "versions",
    "ver",
    "v",
    "release",
    "build",
    "rev",
    "revision",
    "section",
    "sections",
    "sec",
    "clause",
    "chapter",
    "appendix",
    "annex",
    "paragraph",
    "figure",
    "table",
];

/// Four octets that are no part of a longer dotted number, a version or a product token.
pub(crate) fn v4(before: &str, found: &str) -> Option<usize> {
    let part_of_more = before
        .strip_suffix('.')
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_alphanumeric()));
    let address = found.parse::<Ipv4Addr>().is_ok();
    (address && !part_of_more && !is_version(before)).then_some(found.len())
}

/// An address with at least one digit, not joined to a word on its left (`Foo::bad`) or a colon on either side.
pub(crate) fn v6(before: &str, found: &str) -> Option<usize> {
    let joined = before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ':' | '_'));
    // The last colon may be that of the sentence, or stand before a port.
    let end = match found.strip_suffix(':') {
        Some(shorter) if !shorter.ends_with(':') => shorter,
        _ => found,
    };
    let digit = end.contains(|c: char| c.is_ascii_digit());
    (digit && !joined && end.parse::<Ipv6Addr>().is_ok()).then_some(end.len())
}

fn is_version(before: &str) -> bool {
    let nearest = before.trim_end_matches(|c: char| !c.is_alphanumeric());
    let start = nearest
        .rfind(|c: char| !c.is_alphanumeric())
        .map_or(0, |at| at + 1);
    let start = (start..nearest.len())
        .find(|&i| nearest.is_char_boundary(i))
        .unwrap_or(nearest.len());
    let word = &nearest[start..];
    let product = before
        .strip_suffix('/')
        .is_some_and(|b| b.ends_with(|c: char| c.is_ascii_alphabetic()))
        && word.starts_with(|c: char| c.is_ascii_uppercase());
    let cited =
        word.get(..3).is_some_and(|w| w.eq_ignore_ascii_case("rfc")) || before.ends_with('§');
    product || cited || context::precedes(word, VERSION)
}
