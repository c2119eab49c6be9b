//! What an approver sees of a request: masked text around everything that was found, and how much is not shown.

use std::collections::BTreeMap;

/// Characters shown on either side of a finding.
const AROUND: usize = 120;
/// Most bytes of text shown, all excerpts together.
const MOST: usize = 2048;
/// Places shown of one entity.
const EACH: usize = 2;

/// Excerpts of `masked`, which shows every value that was found as `[ENTITY]`: the beginning, and around the first places of
/// each entity of `findings`. With it the bytes that are in none of them.
pub(super) fn excerpt(masked: &str, findings: &BTreeMap<String, u64>) -> (Vec<String>, u64) {
    // Every entity has its first place before any has its second.
    let mut places: Vec<Vec<usize>> = Vec::new();
    for entity in findings.keys() {
        let mark = format!("[{entity}]");
        let found = masked.match_indices(&mark).map(|(at, _)| at);
        places.push(found.take(EACH).collect());
    }
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut left = MOST;
    for round in 0..EACH {
        for found in &places {
            if let Some(at) = found.get(round) {
                show(masked, *at, &mut spans, &mut left);
            }
        }
    }
    show(masked, 0, &mut spans, &mut left);
    spans.sort_unstable();
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for (start, end) in spans {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    let shown: usize = joined.iter().map(|(start, end)| end - start).sum();
    let pieces = joined
        .into_iter()
        .filter_map(|(start, end)| masked.get(start..end).map(str::to_owned))
        .collect();
    (pieces, (masked.len() - shown) as u64)
}

/// Adds the surroundings of `at`, as far as there is room.
fn show(text: &str, at: usize, spans: &mut Vec<(usize, usize)>, left: &mut usize) {
    if spans
        .iter()
        .any(|(start, end)| (*start..*end).contains(&at))
    {
        return;
    }
    let start = text.floor_char_boundary(at.saturating_sub(AROUND));
    let end = text.floor_char_boundary((at + 2 * AROUND).min(text.len()));
    let (start, end) = (start, end.min(text.floor_char_boundary(start + *left)));
    // A finding that would not be in it is better not hinted at.
    if end > at {
        *left -= end - start;
        spans.push((start, end));
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
    fn every_entity_is_shown_and_what_is_not_is_counted() {
        let filler = "lorem ipsum ".repeat(1_000);
        let text = format!("{filler}[US_SSN]{filler}[CREDIT_CARD]{filler}[US_SSN]{filler}");
        let (pieces, not_shown) = excerpt(&text, &found(&["CREDIT_CARD", "US_SSN"]));
        let all = pieces.join("|");
        assert_eq!(all.matches("[US_SSN]").count(), 2);
        assert_eq!(all.matches("[CREDIT_CARD]").count(), 1);
        assert!(pieces[0].starts_with("lorem"), "the beginning is shown");
        let shown: usize = pieces.iter().map(String::len).sum();
        assert_eq!(not_shown as usize, text.len() - shown);
        assert!(shown <= MOST);
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
}
