//! The way of a whole answer: a stream of chat completions taken apart, its text masked, and the events put together again.

use std::{fmt::Write as _, sync::Arc};

use countersign::{
    dialect::{self, Channel, Passed, TextFilter},
    mask::{Masker, Plan, mask},
};

use crate::corpus::Dice;

/// `text` as a model's server deals it out: about four characters an event, padded as OpenAI pads.
pub(crate) fn wire(text: &str) -> Vec<String> {
    let dice = &mut Dice::new(3);
    let mut events = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut cut = rest.len().min(2 + dice.below(5));
        while !rest.is_char_boundary(cut) {
            cut += 1;
        }
        let (piece, behind) = rest.split_at(cut);
        rest = behind;
        let mut event = String::from(
            "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\
             \"created\":1741570283,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
             \"system_fingerprint\":\"fp_fc9f1d7035\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
        );
        for c in piece.chars() {
            match c {
                '"' | '\\' => event.extend(['\\', c]),
                '\n' => event.push_str("\\n"),
                c => event.push(c),
            }
        }
        let padding = "aB3dE5gH7jK9".get(..dice.below(12)).unwrap_or_default();
        let _ = write!(
            event,
            "\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null,\"obfuscation\":\"{padding}\"}}\n\n"
        );
        events.push(event);
    }
    events
}

/// One masker: the stream has one text.
struct Lane<'p>(&'p Arc<Plan>, Option<Masker>);

impl TextFilter for Lane<'_> {
    fn push(&mut self, _: &Channel, text: &str, out: &mut String) {
        let new = || Masker::new(self.0.clone());
        self.1.get_or_insert_with(new).push(text, out);
    }
    fn finish(&mut self, _: &Channel, out: &mut String) {
        if let Some(mut masker) = self.1.take() {
            masker.finish(out);
        }
    }
    fn part(&mut self, text: &str) -> String {
        mask(self.0, text).0
    }
    fn again(&mut self, _: &Channel, text: &str) -> String {
        mask(self.0, text).0
    }
}

/// Reads `wire`, which comes in pieces, and returns how much leaves.
pub(crate) fn read<'w>(plan: &Arc<Plan>, wire: impl Iterator<Item = &'w [u8]>) -> usize {
    let openai = dialect::by_name("openai").expect("there is one");
    let chat = openai.endpoints().first().expect("it has endpoints");
    let mut reader = openai
        .read_response(chat, 200, Some("text/event-stream"))
        .expect("it has streams");
    let (mut lane, mut passed, mut left) = (Lane(plan, None), Passed::default(), 0);
    for piece in wire {
        passed.now.clear();
        reader
            .read(piece, &mut lane, &mut passed)
            .expect("it is a stream of chat completions");
        left += passed.now.len();
    }
    left
}
