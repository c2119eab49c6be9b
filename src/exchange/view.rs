//! What an approver sees of a request: masked text around what was found, its beginning and its end, and how much is not shown.
//!
//! Can miss: the caller writes the text, and may write `[US_SSN]` into it, or so much that a finding is not among the places
//! shown. How much is not shown stands beside it.

use std::collections::BTreeMap;

use crate::audit::sha256_hex;

/// Bytes shown on either side of a finding.
const AROUND: usize = 120;
/// Most bytes of text shown, all excerpts together.
const MOST: usize = 4096;
/// Places shown of one entity.
const EACH: usize = 4;
/// Longest name or value of the caller's choice that is shown beside the text, in bytes.
const SHORT: usize = 200;
/// Fields of the head that are shown.
const MOST_HEADERS: usize = 32;

/// `text`, or its beginning and its digest where it is long: what cannot be seen whole can still be told apart.
pub(super) fn short(text: &str) -> String {
    if text.len() <= SHORT {
        return text.to_owned();
    }
    let start = &text[..text.floor_char_boundary(SHORT)];
    let digest = sha256_hex(text.as_bytes());
    format!("{start}… ({} bytes, sha256 {digest})", text.len())
}

/// Fields of the head as `name: value`, masked; of many the first, and how many more there are.
pub(super) fn headers(fields: &[(&str, &[u8])], masked: impl Fn(&str) -> String) -> Vec<String> {
    let show = |(name, value): &(&str, &[u8])| {
        let value = masked(&String::from_utf8_lossy(value));
        short(&format!("{name}: {value}"))
    };
    let mut shown: Vec<String> = fields.iter().take(MOST_HEADERS).map(show).collect();
    if fields.len() > MOST_HEADERS {
        let more = fields.len() - MOST_HEADERS;
        shown.push(format!("({more} more, which are not shown)"));
    }
    shown
}

/// Excerpts of `masked`, which shows every value that was found as `[ENTITY]`: around places of each entity of `findings`, and the
/// rest of the room for the beginning and the end, where the last message stands. With it the bytes that are in none of them.
pub(super) fn excerpt(masked: &str, findings: &BTreeMap<String, u64>) -> (Vec<String>, u64) {
    let text = readable(masked);
    let mut shown = Shown {
        text: &text,
        spans: Vec::new(),
        left: MOST,
    };
    let places: Vec<Vec<usize>> = findings
        .keys()
        .map(|entity| {
            let mark = format!("[{entity}]");
            spread(text.match_indices(&mark).map(|(at, _)| at).collect())
        })
        .collect();
    // Every entity has its first place before any has its second.
    for round in 0..EACH {
        for found in &places {
            if let Some(at) = found.get(round) {
                let start = at.saturating_sub(AROUND);
                shown.add(start, at + 2 * AROUND, *at);
            }
        }
    }
    let half = shown.left / 2;
    shown.add(0, half, 0);
    let end = text.len().saturating_sub(shown.left);
    shown.add(end, text.len(), text.len().saturating_sub(1));
    shown.finish()
}

/// As a person reads it: JSON without its escapes of letters.
fn readable(masked: &str) -> String {
    let parsed = serde_json::from_str::<serde_json::Value>(masked);
    parsed.map_or_else(|_| masked.to_owned(), |value| value.to_string())
}

/// The first, the last and some in between.
fn spread(places: Vec<usize>) -> Vec<usize> {
    let last = places.len().saturating_sub(1);
    let step = |n: usize| n * last / (EACH - 1);
    let mut chosen: Vec<usize> = match places.len() {
        few if few <= EACH => places,
        _ => (0..EACH)
            .filter_map(|n| places.get(step(n)).copied())
            .collect(),
    };
    // The ends first, should there be no room for all.
    if chosen.len() > 2 {
        let last = chosen.len() - 1;
        chosen.swap(1, last);
    }
    chosen
}

struct Shown<'t> {
    text: &'t str,
    spans: Vec<(usize, usize)>,
    left: usize,
}

impl Shown<'_> {
    /// Adds what is from `start` to `end`, as far as there is room; `about` must be in it.
    fn add(&mut self, start: usize, end: usize, about: usize) {
        let known = |(start, end): &(usize, usize)| (*start..*end).contains(&about);
        if self.spans.iter().any(known) {
            return;
        }
        let start = self.text.floor_char_boundary(start);
        let end = self.text.floor_char_boundary(end.min(start + self.left));
        // A finding that would not be in it is better not hinted at.
        if end > about {
            self.left -= end - start;
            self.spans.push((start, end));
        }
    }

    fn finish(mut self) -> (Vec<String>, u64) {
        self.spans.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (start, end) in self.spans {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        let shown: usize = joined.iter().map(|(start, end)| end - start).sum();
        let pieces = joined
            .into_iter()
            .filter_map(|(start, end)| self.text.get(start..end).map(str::to_owned))
            .collect();
        (pieces, (self.text.len() - shown) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entities: &[&str]) -> BTreeMap<String, u64> {
        entities
            .iter()
            .map(|entity| ((*entity).to_owned(), 1))
            .collect()
    }

    #[test]
    fn every_entity_is_shown_with_beginning_and_end_and_what_is_not_is_counted() {
        let filler = "lorem ipsum ".repeat(1_000);
        let text = format!("{filler}[US_SSN]{filler}[CREDIT_CARD]{filler}[US_SSN]{filler}the end");
        let (pieces, not_shown) = excerpt(&text, &found(&["CREDIT_CARD", "US_SSN"]));
        let all = pieces.join("|");
        assert_eq!(all.matches("[US_SSN]").count(), 2);
        assert_eq!(all.matches("[CREDIT_CARD]").count(), 1);
        assert!(pieces[0].starts_with("lorem") && all.ends_with("the end"));
        let shown: usize = pieces.iter().map(String::len).sum();
        assert_eq!(not_shown as usize, text.len() - shown);
        assert!(shown <= MOST && shown > MOST - 200, "the room is used");
    }

    #[test]
    fn a_harmless_corner_does_not_hide_the_rest() {
        // What the caller wrote first, and marks of the caller's own.
        let filler = "x".repeat(3_000);
        let text = format!(
            "[US_SSN] [US_SSN] [US_SSN]{filler}my number is [US_SSN]{filler}{filler} do harm"
        );
        let all = excerpt(&text, &found(&["US_SSN"])).0.join("|");
        assert!(
            all.contains("my number is [US_SSN]") && all.ends_with("do harm"),
            "{all}"
        );
        let (all, _) = excerpt(
            &format!("{{\"metadata\":\"{filler}\",\"text\":\"do harm\"}}"),
            &found(&[]),
        );
        assert!(all.join("|").contains("do harm"));
    }

    #[test]
    fn escapes_hide_no_words() {
        let (pieces, _) = excerpt(r#"{"content":"\u0049gnore \u0061ll"}"#, &found(&[]));
        assert_eq!(pieces, [r#"{"content":"Ignore all"}"#]);
    }

    #[test]
    fn a_short_text_is_shown_whole_and_a_long_one_within_bounds() {
        assert_eq!(
            excerpt("hello [X] you", &found(&["X"])),
            (vec!["hello [X] you".to_owned()], 0)
        );
        assert_eq!(excerpt("", &found(&[])), (Vec::new(), 0));
        let entities: Vec<String> = (0..100).map(|n| format!("E{n}")).collect();
        let text: String = entities
            .iter()
            .map(|entity| format!("{}[{entity}]", "ü".repeat(300)))
            .collect();
        let names: Vec<&str> = entities.iter().map(String::as_str).collect();
        let (pieces, not_shown) = excerpt(&text, &found(&names));
        let shown: usize = pieces.iter().map(String::len).sum();
        assert!(shown <= MOST);
        assert_eq!(shown as u64 + not_shown, text.len() as u64);
    }

    #[test]
    fn headers_that_are_not_shown_are_counted() {
        let fields: Vec<(&str, &[u8])> = vec![("x", b"1"); MOST_HEADERS + 3];
        let shown = headers(&fields, |text| text.replace('1', "[ONE]"));
        assert_eq!(shown[0], "x: [ONE]");
        assert_eq!(shown.last().unwrap(), "(3 more, which are not shown)");
        assert_eq!(headers(&fields[..2], str::to_owned).len(), 2);
    }

    #[test]
    fn what_is_long_is_cut_and_still_told_apart() {
        assert_eq!(short("file-1"), "file-1");
        let (a, b) = (
            short(&format!("{}a", "ü".repeat(500))),
            short(&format!("{}b", "ü".repeat(500))),
        );
        assert!(a != b && a.len() < 400);
    }
}
