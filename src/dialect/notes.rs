//! What an answer says of itself, put together as it arrives.

use std::collections::BTreeMap;

use super::{
    ResponseFacts, TextFilter,
    json::{Document, Value},
    texts::is_token,
};

/// The facts, and the reasons they are put together from.
#[derive(Debug, Default)]
pub(super) struct Notes {
    facts: ResponseFacts,
    reasons: BTreeMap<u32, String>,
}

/// A string that looks like a word of the protocol, as it leaves. What does not look like one is left out: facts go
/// into the record unmasked.
pub(super) fn word(
    document: &Document<'_>,
    value: Option<&Value>,
    filter: &mut dyn TextFilter,
) -> Option<String> {
    let word = document.string(value?).filter(|word| is_token(word))?;
    Some(filter.word(&word).unwrap_or_else(|| word.into_owned()))
}

impl Notes {
    /// The facts so far.
    pub(super) fn facts(&self) -> &ResponseFacts {
        &self.facts
    }

    /// The first id is the answer's.
    pub(super) fn id(&mut self, id: Option<String>) {
        self.facts.id = self.facts.id.take().or(id);
    }

    /// The first model is the answer's.
    pub(super) fn model(&mut self, model: Option<String>) {
        self.facts.model = self.facts.model.take().or(model);
    }

    /// The first mark is the answer's.
    pub(super) fn fingerprint(&mut self, mark: Option<String>) {
        self.facts.system_fingerprint = self.facts.system_fingerprint.take().or(mark);
    }

    /// The last count is the one that holds.
    pub(super) fn input_tokens(&mut self, tokens: Option<u64>) {
        self.facts.input_tokens = tokens.or(self.facts.input_tokens);
    }

    /// The last count is the one that holds.
    pub(super) fn output_tokens(&mut self, tokens: Option<u64>) {
        self.facts.output_tokens = tokens.or(self.facts.output_tokens);
    }

    /// A choice ended, and why; `None` where the reason is no word of the protocol.
    pub(super) fn reason(&mut self, choice: u32, reason: Option<String>) {
        self.reasons
            .insert(choice, reason.unwrap_or_else(|| "other".to_owned()));
        self.facts.finish_reasons = self.reasons.values().cloned().collect();
    }

    /// Parts that could not be scanned.
    pub(super) fn unscanned(&mut self, kinds: &[&'static str]) {
        for kind in kinds {
            if !self.facts.unscanned.contains(kind) {
                self.facts.unscanned.push(kind);
            }
        }
    }

    /// What of these was taken out.
    pub(super) fn stripped(&mut self, kinds: &[&'static str]) {
        for kind in kinds {
            if !self.facts.stripped.contains(kind) {
                self.facts.stripped.push(kind);
            }
        }
    }

    /// The answer said that it is whole.
    pub(super) fn complete(&mut self) {
        self.facts.complete = true;
    }
}
