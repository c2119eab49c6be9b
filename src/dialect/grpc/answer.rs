//! An answer: one message, or messages as they arrive, each masked by itself.

use super::{
    super::{
        Channel, Passed, ResponseBody, ResponseFacts, ShapeError, TextFilter, notes::Notes, whole,
    },
    kserve::Method,
    message::{self, Part, Reader, What},
    wire::{self, FRAME},
};

/// An answer being read.
pub(super) struct Answer {
    method: Method,
    /// What has come of a message that is not whole yet.
    begun: Vec<u8>,
    /// The one message of an answer that has no more, as it will leave.
    only: Option<Vec<u8>>,
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
        let parts = message::read(bytes, range.clone(), &self.method.output)?;
        self.note(bytes, &parts, filter)?;
        let mut edit = |part: &Part, text: &str| match part.what {
            What::Word => filter.word(text),
            _ => Some(masked(part, text, filter)),
        };
        let mut out = Vec::with_capacity(bytes.len());
        message::write(bytes, range, &parts, &mut edit, &mut out);
        Ok(out)
    }

    fn note(
        &mut self,
        bytes: &[u8],
        parts: &[Part],
        filter: &mut dyn TextFilter,
    ) -> Result<(), ShapeError> {
        let mut unscanned = Vec::new();
        let see = &mut |part: &Part| {
            if let What::Unscanned(why) = part.what {
                unscanned.push(why);
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
            let word = matches!(part.what, What::Word).then(|| Reader::new(bytes).own(part));
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
        Ok(())
    }
}

fn masked(part: &Part, text: &str, filter: &mut dyn TextFilter) -> String {
    let channel = Channel {
        choice: 0,
        field: part.path.clone(),
    };
    filter.label(&channel, &part.label);
    whole(filter, &channel, text)
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
        self.fault = Some(fault.clone());
        // What was whole before it leaves first; the error is that of the next call.
        match passed.now.is_empty() {
            true => Err(fault),
            false => Ok(()),
        }
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
        self.begun.len() + self.only.as_ref().map_or(0, Vec::len)
    }
}
