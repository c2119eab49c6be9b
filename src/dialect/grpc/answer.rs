//! An answer: one message, or messages as they arrive, each masked by itself.

use std::collections::BTreeMap;

use super::{
    super::{
        Channel, NOT_SELECTED, Passed, ResponseBody, ResponseFacts, ShapeError, TextFilter,
        notes::Notes,
        stream::{MAX_CHANNELS, too_many_channels},
    },
    message::{self, Part, What},
    schema::{Meaning, Method},
    wire::{self, FRAME},
};

/// An answer being read.
pub(super) struct Answer {
    method: Method,
    /// What has come of a message that is not whole yet.
    begun: Vec<u8>,
    /// The one message of an answer that has no more, as it will leave.
    only: Option<Vec<u8>>,
    /// The ids of the requests that were answered so far, and the choice that stands for each.
    ids: BTreeMap<String, u32>,
    /// Why no more is read.
    fault: Option<ShapeError>,
    notes: Notes,
}

impl Answer {
    pub(super) fn new(method: Method) -> Self {
        Self {
            method,
            begun: Vec::new(),
            only: None,
            ids: BTreeMap::new(),
            fault: None,
            notes: Notes::default(),
        }
    }

    fn messages(
        &mut self,
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        let begun = std::mem::take(&mut self.begun);
        let mut at = 0;
        loop {
            let rest = begun.get(at..).unwrap_or_default();
            let Some(length) = wire::frame(rest)? else {
                break;
            };
            let Some(message) = rest.get(FRAME..FRAME + length) else {
                break;
            };
            let masked = self.message(message, filter)?;
            at += FRAME + length;
            if self.method.answers_often {
                wire::put_frame(&masked, &mut passed.now);
            } else if self.only.is_some() {
                let reason = "the answer has more messages than the method has".to_owned();
                return Err(ShapeError::new("too_many_messages", reason));
            } else {
                let mut only = Vec::with_capacity(masked.len() + FRAME);
                wire::put_frame(&masked, &mut only);
                self.only = Some(only);
            }
        }
        self.begun = begun;
        self.begun.drain(..at);
        Ok(())
    }

    /// The message with its texts as they may leave.
    fn message(
        &mut self,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
    ) -> Result<Vec<u8>, ShapeError> {
        let range = 0..bytes.len();
        let Method {
            output, meaning, ..
        } = &self.method;
        let parts = message::read(bytes, range.clone(), output, (meaning, ""), &mut 0)?;
        self.note(bytes, &parts, filter)?;
        let choice = self.choice(bytes, &parts)?;
        let mut spread = false;
        let mut edit = |part: &Part, text: &str| {
            if matches!(part.what, What::Word | What::Unchosen) {
                return filter.word(text);
            }
            let field = part.path.clone();
            let channel = Channel { choice, field };
            filter.label(&channel, &part.label);
            let masked = filter.message(&channel, text);
            spread |= masked.is_none();
            masked
        };
        let mut out = Vec::with_capacity(bytes.len());
        message::write(bytes, range, &parts, &mut edit, &mut out);
        if spread {
            let reason = "a value that must be masked is spread over several messages".to_owned();
            return Err(ShapeError::new("value_across_messages", reason));
        }
        Ok(out)
    }

    /// Which request's answer the message is part of: texts of one are strung together, those of several are not. All are one's
    /// where the protocol is not known to say.
    fn choice(&mut self, bytes: &[u8], parts: &[Part]) -> Result<u32, ShapeError> {
        let mut id = "";
        let see = &mut |part: &Part| {
            if matches!(&*part.path, "id" | "infer_response.id") {
                id = message::own(bytes, part);
            }
        };
        if let Meaning::Kserve = self.method.meaning {
            parts.iter().for_each(|part| part.each(see));
        }
        if let Some(choice) = self.ids.get(id) {
            return Ok(*choice);
        }
        let choice = self.ids.len();
        if choice >= MAX_CHANNELS {
            return Err(too_many_channels("the stream answers too many requests"));
        }
        let choice = u32::try_from(choice).unwrap_or(u32::MAX);
        self.ids.insert(id.to_owned(), choice);
        Ok(choice)
    }

    fn note(
        &mut self,
        bytes: &[u8],
        parts: &[Part],
        filter: &mut dyn TextFilter,
    ) -> Result<(), ShapeError> {
        let mut unscanned = Vec::new();
        let mut unchosen = false;
        let kserve = matches!(self.method.meaning, Meaning::Kserve);
        let see = &mut |part: &Part| {
            match part.what {
                What::Unscanned(why) => unscanned.push(why),
                What::Unchosen => unchosen = true,
                _ => {}
            }
            if !kserve {
                return;
            }
            let fact = match part
                .path
                .rsplit_once('.')
                .map_or(&*part.path, |(_, name)| name)
            {
                "model_name" => Notes::model,
                "id" => Notes::id,
                _ => return,
            };
            let word = matches!(part.what, What::Word).then(|| message::own(bytes, part));
            let word = word.filter(|word| !word.is_empty());
            let word = word.map(|word| filter.word(word).unwrap_or_else(|| word.to_owned()));
            fact(&mut self.notes, word);
        };
        parts.iter().for_each(|part| part.each(see));
        if !unscanned.is_empty() && filter.masks() {
            let reason = "an element that must be masked is not UTF-8".to_owned();
            return Err(ShapeError::new("invalid_utf8", reason));
        }
        self.notes.unscanned(&unscanned);
        if unchosen {
            self.notes.unscanned(&[NOT_SELECTED]);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

impl ResponseBody for Answer {
    fn incremental(&self) -> bool {
        self.method.answers_often
    }

    fn read(
        &mut self,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        self.fault.clone().map_or(Ok(()), Err)?;
        self.begun.extend_from_slice(bytes);
        let Err(fault) = self.messages(filter, passed) else {
            return Ok(());
        };
        // With what came before it in the same bytes: texts of the message that may not leave would be told of as if they had.
        passed.now.clear();
        self.fault = Some(fault.clone());
        Err(fault)
    }

    fn finish(&mut self, _: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        self.fault.clone().map_or(Ok(()), Err)?;
        if !self.begun.is_empty() {
            return Err(wire::cut());
        }
        self.notes.complete();
        // Trailers, which end an answer, leave once it is on record; so the one message of an answer does too.
        Ok(Passed {
            now: Vec::new(),
            terminal: self.only.take().unwrap_or_default(),
        })
    }

    fn facts(&self) -> &ResponseFacts {
        self.notes.facts()
    }

    fn held(&self) -> usize {
        let ids: usize = self.ids.keys().map(String::len).sum();
        self.begun.len() + self.only.as_ref().map_or(0, Vec::len) + ids
    }
}
