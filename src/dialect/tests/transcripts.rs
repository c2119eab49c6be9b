//! Streams of every dialect, as plain text: what comes and what leaves, side by side.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    super::{ResponseBody, Selection, ShapeError, SignedAnswers},
    Open, Runs, cut, endpoint, read, sides, text_of,
};

/// A stream as a server would send it, and as it leaves.
struct Transcript {
    name: &'static str,
    dialect: &'static str,
    endpoint: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! transcripts {
    ($($dialect:literal $endpoint:literal $content_type:literal: $($name:literal)+;)+) => {
        &[$($(Transcript {
            name: concat!($dialect, "/", $name),
            dialect: $dialect,
            endpoint: $endpoint,
            content_type: $content_type,
            text: include_str!(concat!("../../../tests/transcripts/", $dialect, "/", $name, ".txt")),
        },)+)+]
    };
}

const TRANSCRIPTS: &[Transcript] = transcripts! {
    "openai" "chat_completions" "text/event-stream": "content" "tools" "choices" "odd" "stripped";
    "openai" "completions" "text/event-stream": "completions";
    "openai" "responses" "text/event-stream": "responses" "responses_more" "responses_stripped";
    "anthropic" "messages" "text/event-stream": "message" "thinking" "odd" "stripped";
    "gemini" "stream_generate_content" "text/event-stream": "events" "stripped";
    "gemini" "stream_generate_content" "application/json": "array";
    "ollama" "chat" "application/x-ndjson": "chat";
    "ollama" "generate" "application/x-ndjson": "generate";
};

impl Transcript {
    fn reader(&self) -> Box<dyn ResponseBody> {
        let (dialect, endpoint) = endpoint(self.dialect, self.endpoint);
        let mut reader = dialect
            .read_response(endpoint, 200, Some(self.content_type))
            .unwrap();
        if self.is_stripped() {
            reader.select(&Arc::new(Selection {
                signed_answers: SignedAnswers::Strip,
                ..Selection::default()
            }));
        }
        reader
    }

    /// Whether it is of a connection that has what is signed taken out.
    fn is_stripped(&self) -> bool {
        self.name.ends_with("stripped")
    }

    fn through<'p>(
        &self,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<String, ShapeError> {
        let passed = read(&mut *self.reader(), pieces, &mut Runs::default())?;
        Ok(text_of(&passed))
    }

    /// The ends of line that mean the same in this framing.
    fn line_ends(&self) -> &'static [&'static str] {
        match self.content_type {
            "text/event-stream" => &["\n", "\r\n", "\r"],
            _ => &["\n", "\r\n"],
        }
    }
}

#[test]
fn what_leaves_is_what_is_written_beside_it() {
    for transcript in TRANSCRIPTS {
        let (comes, leaves) = sides(transcript.text);
        let mut reader = transcript.reader();
        let passed = read(&mut *reader, [comes.as_bytes()], &mut Runs::default()).unwrap();
        assert_eq!(text_of(&passed), leaves, "{}", transcript.name);
        assert!(reader.facts().complete, "{}", transcript.name);
        assert!(!passed.terminal.is_empty(), "{}", transcript.name);
    }
}

#[test]
fn every_cut_gives_the_same_bytes() {
    for transcript in TRANSCRIPTS {
        let name = transcript.name;
        for line_end in transcript.line_ends() {
            let comes = sides(transcript.text).0.replace('\n', line_end);
            let whole = transcript.through([comes.as_bytes()]).unwrap();
            // Every place near a line's end, and every third of all others.
            let near = |at: &usize| {
                let around = &comes.as_bytes()[at.saturating_sub(2)..comes.len().min(at + 2)];
                at.is_multiple_of(3) && *line_end == "\n"
                    || around.iter().any(|byte| matches!(byte, b'\r' | b'\n'))
            };
            for at in (0..comes.len()).filter(near) {
                let pieces = [&comes.as_bytes()[..at], &comes.as_bytes()[at..]];
                assert_eq!(transcript.through(pieces).unwrap(), whole, "{name} at {at}");
            }
            let bytes = comes.as_bytes().chunks(1);
            assert_eq!(transcript.through(bytes).unwrap(), whole, "{name}");
        }
    }
}

#[test]
fn where_nothing_is_masked_the_bytes_are_those_that_came() {
    let as_they_are = |transcript: &&Transcript| !transcript.is_stripped();
    for transcript in TRANSCRIPTS.iter().filter(as_they_are) {
        let (comes, _) = sides(transcript.text);
        let pieces = comes.as_bytes().chunks(5);
        let passed = read(&mut *transcript.reader(), pieces, &mut Open).unwrap();
        assert_eq!(text_of(&passed), comes, "{}", transcript.name);
    }
}

#[test]
fn a_stream_cut_off_anywhere_leaks_nothing_and_is_not_called_whole() {
    for transcript in TRANSCRIPTS {
        let (comes, leaves) = sides(transcript.text);
        for at in (0..comes.len()).step_by(7) {
            let mut reader = transcript.reader();
            let mut filter = Runs::default();
            let mut out = reader.push(&comes.as_bytes()[..at], &mut filter).unwrap();
            if let Ok(rest) = reader.finish(&mut filter) {
                out.now.extend(rest.now);
                out.terminal.extend(rest.terminal);
            }
            let terminal = !out.terminal.is_empty();
            assert_eq!(reader.facts().complete, terminal, "{}", transcript.name);
            let out = text_of(&out);
            assert!(!out.contains("4111"), "{} at {at}: {out}", transcript.name);
            assert!(out.len() <= leaves.len() + 2048);
        }
    }
}

proptest! {
    /// For every way of cutting the bytes of every transcript, the same bytes leave.
    #[test]
    fn cuts_anywhere_give_the_same_bytes(
        which in 0..TRANSCRIPTS.len(),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let transcript = &TRANSCRIPTS[which];
        let (comes, leaves) = sides(transcript.text);
        let left = transcript.through(cut(comes.as_bytes(), &cuts)).unwrap();
        prop_assert_eq!(left, leaves);
    }

    /// For every damage to a transcript: an error, or nothing unmasked leaves; never a panic.
    #[test]
    fn damage_does_no_harm(
        which in 0..TRANSCRIPTS.len(),
        place: usize,
        with in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\\n\r0"[..])],
        remove: bool,
    ) {
        let transcript = &TRANSCRIPTS[which];
        let mut comes = sides(transcript.text).0.as_bytes().to_vec();
        let place = place % comes.len();
        if remove { comes.remove(place); } else { comes[place] = with; }
        // What it lets out before it refuses counts too.
        let mut reader = transcript.reader();
        let mut filter = Runs::default();
        let mut out = Vec::new();
        for piece in comes.chunks(16) {
            match reader.push(piece, &mut filter) {
                Ok(passed) => out.extend([passed.now, passed.terminal].concat()),
                Err(_) => break,
            }
        }
        let out = String::from_utf8(out).unwrap();
        prop_assert!(!out.contains("4111-1111"), "{}", out);
    }
}
