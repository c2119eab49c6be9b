//! A session's records put together again: what was asked, and the answer piece by piece, each at its time.
//!
//! Promises: every byte of recorded text comes out once, in the order of its channel; a piece comes at the time its record
//! says it became known, the rest at the last time there is. Cannot tell: how pieces of several channels were interleaved
//! within one record (250 ms or 16 KiB of an answer at most): they follow one another there.

use std::{collections::VecDeque, fmt::Write as _};

use super::record::{Delivered, RequestRecord};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Milliseconds since the request's headers arrived.
    pub at_ms: u32,
    /// Where it belongs, as in `delivered.text`.
    pub channel: String,
    /// The text as recorded.
    pub text: String,
}

/// Gives an answer's text out by its times. Memory: the times not used up yet, and one record's text.
#[derive(Debug, Default)]
pub struct Timeline {
    times: VecDeque<(u32, usize)>,
    last: u32,
}

impl Timeline {
    /// The pieces that the next `delivered` record of the answer adds.
    pub fn pieces(&mut self, delivered: &Delivered) -> Vec<Piece> {
        for timing in &delivered.timing {
            self.times.push_back((timing.at_ms, timing.text as usize));
        }
        let mut pieces = Vec::new();
        for (channel, text) in &delivered.text {
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (at_ms, now) = self.next(rest);
                let channel = channel.clone();
                let text = now.to_owned();
                pieces.push(Piece {
                    at_ms,
                    channel,
                    text,
                });
                rest = &rest[now.len()..];
            }
        }
        pieces
    }

    /// The time of `rest`'s first piece, and that piece.
    fn next<'t>(&mut self, rest: &'t str) -> (u32, &'t str) {
        while let Some((at_ms, bytes)) = self.times.front_mut() {
            self.last = *at_ms;
            if *bytes == 0 {
                self.times.pop_front();
                continue;
            }
            // A character is not torn: its first byte's time is all of its.
            let now = &rest[..rest.ceil_char_boundary((*bytes).min(rest.len()))];
            *bytes = bytes.saturating_sub(now.len());
            return (*at_ms, now);
        }
        (self.last, rest)
    }
}

/// A prompt over all its records: the first, then every `delivered` of the request's body.
#[derive(Debug, Default)]
pub struct Prompt {
    body: String,
    cut: bool,
}

impl Prompt {
    /// Longest prompt put together, in bytes; of a longer one the beginning is kept.
    pub const MAX: usize = 4 << 20;

    /// Takes the first part.
    pub fn begin(&mut self, request: &RequestRecord) {
        self.add(&request.body);
    }

    /// Takes a further part.
    pub fn go_on(&mut self, delivered: &Delivered) {
        for text in delivered.text.values() {
            self.add(text);
        }
    }

    fn add(&mut self, text: &str) {
        let room = text.floor_char_boundary(Self::MAX.saturating_sub(self.body.len()));
        self.cut |= room < text.len();
        self.body.push_str(&text[..room]);
    }

    /// The body as recorded, and whether more of it is on record.
    #[must_use]
    pub fn body(&self) -> (&str, bool) {
        (&self.body, self.cut)
    }

    /// What stands in it, for a person or a search: of JSON every value with its place, of anything else the text.
    #[must_use]
    pub fn values(&self) -> Vec<(String, String)> {
        match serde_json::from_str(&self.body) {
            Ok(value) => {
                let mut values = Vec::new();
                walk(String::new(), &value, &mut values);
                values
            }
            Err(_) if self.body.is_empty() => Vec::new(),
            Err(_) => vec![(String::new(), self.body.clone())],
        }
    }
}

/// Depth is bounded by the parser.
fn walk(at: String, value: &serde_json::Value, into: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                let mut at = at.clone();
                if !at.is_empty() {
                    at.push('.');
                }
                at.push_str(name);
                walk(at, member, into);
            }
        }
        serde_json::Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let mut at = at.clone();
                let _ = write!(at, "[{n}]");
                walk(at, item, into);
            }
        }
        serde_json::Value::String(text) => into.push((at, text.clone())),
        other => into.push((at, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::audit::record::Timing;

    fn delivered(text: &[(&str, &str)], timing: &[(u32, u32)]) -> Delivered {
        Delivered {
            text: text
                .iter()
                .map(|(channel, text)| ((*channel).to_owned(), (*text).to_owned()))
                .collect(),
            timing: timing
                .iter()
                .map(|(at_ms, text)| Timing {
                    at_ms: *at_ms,
                    bytes: 100,
                    text: *text,
                })
                .collect(),
            ..Delivered::default()
        }
    }

    fn told(pieces: &[Piece]) -> Vec<(u32, &str)> {
        pieces
            .iter()
            .map(|piece| (piece.at_ms, piece.text.as_str()))
            .collect()
    }

    #[test]
    fn every_piece_comes_at_its_time() {
        let mut timeline = Timeline::default();
        let first = delivered(
            &[("0.content", "Hello there")],
            &[(10, 5), (15, 0), (20, 6)],
        );
        assert_eq!(
            told(&timeline.pieces(&first)),
            [(10, "Hello"), (20, " there")]
        );
        // What the record's masker still held has no time of its own.
        let last = delivered(&[("0.content", ", Alice")], &[(40, 1)]);
        assert_eq!(told(&timeline.pieces(&last)), [(40, ","), (40, " Alice")]);
    }

    #[test]
    fn a_document_over_several_records_has_the_time_of_the_first() {
        let mut timeline = Timeline::default();
        assert_eq!(
            told(&timeline.pieces(&delivered(&[("0.content", "one")], &[(7, 6)]))),
            [(7, "one")]
        );
        assert_eq!(
            told(&timeline.pieces(&delivered(&[("0.content", "two")], &[]))),
            [(7, "two")]
        );
    }

    #[test]
    fn a_prompt_is_told_value_by_value_and_over_the_bound_only_begun() {
        let mut prompt = Prompt::default();
        prompt.begin(&RequestRecord {
            body: r#"{"model":"m","messages":[{"role":"user","#.into(),
            ..RequestRecord::default()
        });
        prompt.go_on(&delivered(
            &[("body", r#""content":"caf\u00e9"}],"n":2}"#)],
            &[],
        ));
        let values = prompt.values();
        let values: BTreeMap<&str, &str> = values
            .iter()
            .map(|(at, text)| (at.as_str(), text.as_str()))
            .collect();
        assert_eq!(values["messages[0].content"], "café");
        assert_eq!((values["model"], values["n"]), ("m", "2"));
        prompt.go_on(&delivered(&[("body", &"é".repeat(Prompt::MAX))], &[]));
        let (body, cut) = prompt.body();
        assert!(cut && body.len() <= Prompt::MAX && body.ends_with('é'));
    }

    proptest! {
        /// However times and texts are cut, all of the text comes out, in order, and time never goes back.
        #[test]
        fn all_text_comes_out_once(
            texts in prop::collection::vec("[aé€😀]{0,12}", 1..6),
            times in prop::collection::vec(prop::collection::vec(0_u32..20, 0..5), 6),
        ) {
            let mut timeline = Timeline::default();
            let (mut out, mut at, mut clock) = (String::new(), 0, 0);
            for (text, times) in texts.iter().zip(&times) {
                let timing: Vec<_> = times.iter().map(|bytes| { clock += 3; (clock, *bytes) }).collect();
                for piece in timeline.pieces(&delivered(&[("0.content", text)], &timing)) {
                    prop_assert!(piece.at_ms >= at && !piece.text.is_empty());
                    at = piece.at_ms;
                    out.push_str(&piece.text);
                }
            }
            prop_assert_eq!(out, texts.concat());
        }
    }
}
