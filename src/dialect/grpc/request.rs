//! A request: one message, or all that a caller streams, read before anything goes upstream.

use std::ops::Range;

use bytes::Bytes;

use super::{
    super::{NOT_SELECTED, RequestBody, ShapeError, Text, json::quoted, texts::is_token},
    message::{self, Part, What},
    schema::Method,
    wire::{self, FRAME},
};

/// Most messages of one request.
const MAX_MESSAGES: usize = 1024;

/// A request that was read whole.
pub(super) struct Request {
    body: Bytes,
    messages: Vec<Message>,
    /// Fields of all of them.
    fields: usize,
    model: String,
    stream: bool,
    unscanned: Vec<&'static str>,
}

struct Message {
    range: Range<usize>,
    parts: Vec<Part>,
}

impl Request {
    /// # Errors
    /// What [`message::read`] and [`wire::frame`] refuse; `cut_message`; `no_message`, `too_many_messages` where the method
    /// takes another number of them; `missing_model`, `invalid_model`; `conflicting_model` where not all name the same.
    pub(super) fn read(body: Bytes, method: &Method) -> Result<Self, ShapeError> {
        let mut request = Self {
            messages: Vec::new(),
            fields: 0,
            model: String::new(),
            stream: method.answers_often,
            unscanned: Vec::new(),
            body,
        };
        let mut at = 0;
        while at < request.body.len() {
            let begun = request.body.get(at..).unwrap_or_default();
            let length = wire::frame(begun)?.ok_or_else(wire::cut)?;
            let range = at + FRAME..at + FRAME + length;
            at = range.end;
            if at > request.body.len() {
                return Err(wire::cut());
            }
            request.take(range, method)?;
        }
        match request.messages.is_empty() {
            true => Err(wrong("no_message", "the request has no message")),
            false => Ok(request),
        }
    }

    fn take(&mut self, range: Range<usize>, method: &Method) -> Result<(), ShapeError> {
        let most = if method.asks_often { MAX_MESSAGES } else { 1 };
        if self.messages.len() == most {
            let reason = "the request has more messages than the method or the dialect takes";
            return Err(wrong("too_many_messages", reason));
        }
        let means = (&method.meaning, &*method.model);
        let (body, fields) = (&self.body, &mut self.fields);
        let parts = message::read(body, range.clone(), &method.input, means, fields)?;
        if !method.model.is_empty() {
            let model = message::at(&self.body, &parts, &method.model);
            if model.is_empty() {
                return Err(wrong("missing_model", "a message names no model"));
            }
            // What is no word of the protocol may be masked, and the upstream then reads another name than policy did.
            if !is_token(model) {
                let reason = "the model's name is too long, or has other characters than letters, digits and `_-.:/+`";
                return Err(wrong("invalid_model", reason));
            }
            if self.messages.is_empty() {
                self.model = model.to_owned();
            } else if model != self.model {
                let reason = "the messages of one request name different models";
                return Err(wrong("conflicting_model", reason));
            }
        }
        for part in &parts {
            part.each(&mut |part| {
                let why = match part.what {
                    What::Unscanned(why) => why,
                    What::Unchosen => NOT_SELECTED,
                    _ => return,
                };
                if !self.unscanned.contains(&why) {
                    self.unscanned.push(why);
                }
            });
        }
        self.messages.push(Message { range, parts });
        Ok(())
    }

    /// The text of `part`.
    fn text<'r>(&'r self, part: &'r Part) -> Text<'r> {
        let bytes = self.body.get(part.body.clone()).unwrap_or_default();
        Text::under(&part.label, std::str::from_utf8(bytes).unwrap_or_default())
    }

    fn each<'r>(&'r self, message: &'r Message, see: &mut dyn FnMut(&'r Part)) {
        message.parts.iter().for_each(|part| part.each(see));
    }
}

fn wrong(code: &'static str, reason: &str) -> ShapeError {
    ShapeError::new(code, reason.to_owned())
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("model", &self.model)
            .field("messages", &self.messages.len())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl RequestBody for Request {
    fn model(&self) -> &str {
        &self.model
    }

    fn stream(&self) -> bool {
        self.stream
    }

    fn tools(&self) -> bool {
        false
    }

    fn texts(&self) -> Vec<Text<'_>> {
        let mut texts = Vec::new();
        for message in &self.messages {
            self.each(message, &mut |part| {
                if matches!(part.what, What::Text) {
                    texts.push(self.text(part));
                }
            });
        }
        texts
    }

    fn unscanned(&self) -> &[&'static str] {
        &self.unscanned
    }

    /// A tensor without some of its elements is another tensor, so nothing is taken out.
    fn strip(&mut self, these: &dyn Fn(&str) -> bool) -> Result<(), &'static str> {
        let mut kinds = self.unscanned.iter();
        kinds
            .find(|kind| these(kind))
            .map_or(Ok(()), |kind| Err(*kind))
    }

    fn memory(&self) -> usize {
        let parts = self.messages.iter().map(|one| message::memory(&one.parts));
        self.messages.capacity() * size_of::<Message>() + parts.sum::<usize>()
    }

    fn rewrite(&self, mask: &mut dyn FnMut(Text<'_>) -> Option<String>) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len());
        for Message { range, parts } in &self.messages {
            let mut message = Vec::with_capacity(range.len());
            let mut edit = |part: &Part, text: &str| match part.what {
                What::Text => mask(Text::under(&part.label, text)),
                _ => None,
            };
            message::write(&self.body, range.clone(), parts, &mut edit, &mut message);
            wire::put_frame(&message, &mut out);
        }
        Bytes::from(out)
    }

    /// Each message as one JSON object, its fields by where they stand.
    fn shown(&self, mask: &mut dyn FnMut(Text<'_>) -> Option<String>) -> String {
        let mut messages = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            let mut fields = Vec::new();
            self.each(message, &mut |part| {
                let text = self.text(part);
                let value = match &part.what {
                    What::Text => quoted(&mask(text).unwrap_or_else(|| text.text.to_owned())),
                    What::Word => quoted(text.text),
                    What::Value(json) => json.clone(),
                    What::Unscanned(_) | What::Unchosen | What::Raw | What::Inner(_) => {
                        message::numbers(part.body.len())
                    }
                };
                fields.push(format!("{}:{value}", quoted(&part.path)));
            });
            messages.push(format!("{{{}}}", fields.join(",")));
        }
        match messages.len() {
            1 => messages.concat(),
            _ => format!("[{}]", messages.join(",")),
        }
    }
}
