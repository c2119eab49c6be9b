//! Sizes and durations as people write them.

use std::time::Duration;

use super::raw::Size;

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The number of bytes meant.
pub(super) fn bytes(size: &Size) -> Result<u64, String> {
    let text = match size {
        Size::Bytes(bytes) => return Ok(*bytes),
        Size::Text(text) => text.trim(),
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let factor = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => {
            return Err(
                "not a size; write a whole number with B, KiB, MiB, GiB or TiB, as in `10MiB`"
                    .to_owned(),
            );
        }
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "not a size; write it as in `10MiB`".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "the size is too large".to_owned())
}

/// `n` bytes in the largest unit that divides it.
pub(super) fn spelled(n: u64) -> String {
    let unit = UNITS
        .iter()
        .find(|(_, factor)| n != 0 && n.is_multiple_of(*factor));
    unit.map_or_else(
        || format!("{n}B"),
        |(name, factor)| format!("{}{name}", n / factor),
    )
}

/// The duration meant by `30s`, `500ms`, `5m`, `24h` or `90d`.
///
/// # Errors
/// What a duration looks like, for whoever wrote something else.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || "not a duration; write a whole number with ms, s, m, h or d, as in `30s`".to_owned();
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit.trim() {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(60 * 60))),
        "d" => Ok(Duration::from_secs(number.saturating_mul(24 * 60 * 60))),
        _ => Err(wrong()),
    }
}
