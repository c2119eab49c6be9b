//! How single characters look: which are seen as a plain one, and which not at all.

use std::sync::LazyLock;

use regex_syntax::{
    Parser,
    hir::{Class, HirKind},
};

/// How a character is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    AsIs,
    /// As this ASCII character.
    Like(u8),
    /// Not at all, as far as the credit goes.
    Unseen,
}

/// How a character is seen.
pub(super) fn seen_as(c: char) -> Seen {
    match c {
        ..='\u{9F}' => Seen::AsIs,
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => {
            Seen::Like(b' ')
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' => Seen::Like(b'-'),
        // Half-width and full-width forms: the same order as ASCII.
        '\u{FF01}'..='\u{FF5E}' => Seen::Like((c as u32 - 0xFF01) as u8 + b'!'),
        // Soft hyphen, joiners, marks of direction, variation selectors, tags: those of Unicode's
        // Default_Ignorable_Code_Point that are not letters.
        '\u{AD}'
        | '\u{34F}'
        | '\u{61C}'
        | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}'
        | '\u{E0000}'..='\u{E0FFF}' => Seen::Unseen,
        // Where most text outside ASCII is, and no digit.
        '\u{A1}'..='\u{65F}' | '\u{1E00}'..='\u{A61F}' | '\u{AC00}'..='\u{D7FF}' => Seen::AsIs,
        _ => digit(c).map_or(Seen::AsIs, Seen::Like),
    }
}

/// A decimal digit of any script, as the ASCII one. Their code points are in order from 0 to 9 and stand in tens
/// (Unicode Standard, section 4.6).
fn digit(c: char) -> Option<u8> {
    static TENS: LazyLock<Vec<(u32, u32)>> = LazyLock::new(|| ranges(r"\p{Nd}"));
    let c = u32::from(c);
    let behind = TENS.partition_point(|&(start, _)| start <= c);
    let (start, end) = *TENS.get(behind.checked_sub(1)?)?;
    (c <= end).then(|| b'0' + ((c - start) % 10) as u8)
}

/// The code points of a class, first and last of each range, in order. None, where it is no class.
pub(crate) fn ranges(class: &str) -> Vec<(u32, u32)> {
    match Parser::new().parse(class).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class
            .iter()
            .map(|range| (u32::from(range.start()), u32::from(range.end())))
            .collect(),
        _ => Vec::new(),
    }
}
