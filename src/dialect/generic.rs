//! Bodies of no provider: any one JSON document (`json`), and plain text (`text`).
//!
//! Promises: in a document every string, key and number is scanned, whatever it is called; in a text everything is.
//! Neither knows of models: policy sees an empty name. Neither knows what is a word of a protocol and what is not, so
//! ids that look like a value are masked as one. A text leaves as it arrives, minus its end that may yet be part of a
//! value.
//!
//! Can miss: a value spread over several strings of a document; text in base64.

use bytes::Bytes;

use super::{
    Channel, Dialect, Endpoint, ErrorShape, Passed, RequestBody, ResponseBody, ResponseFacts,
    ShapeError, TextFilter,
    json::{Document, Value, quoted, utf8},
    media_type::{self, AnswerKind, answer_kind, json_request, unsupported},
    notes::Notes,
    request::{self, Asked, Request},
    texts::{Class, Fields, Path},
    whole::{Answers, Empty, Whole},
};

const ANY: Endpoint = Endpoint {
    name: "any",
    method: "POST",
    path: "*",
};

/// The dialect `json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json;

impl Dialect for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[ANY]
    }

    fn read_request(
        &self,
        _: &Endpoint,
        _: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        json_request(content_type)?;
        Request::read(body, &Values, |_| Ok(Asked::default()))
    }

    fn read_response(
        &self,
        _: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        Ok(match answer_kind(status, content_type, None)? {
            AnswerKind::Json => Box::new(Whole::new(Values, status)),
            _ => Box::new(Empty::default()),
        })
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        let (code, message) = (quoted(error.code), quoted(error.message));
        let body = format!(r#"{{"error":{{"code":{code},"message":{message}}}}}"#);
        ("application/json", Bytes::from(body))
    }

    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        self.error(error).1
    }
}

/// A document of which nothing is known.
#[derive(Debug)]
struct Values;

impl Fields for Values {
    fn names(&self, _: &Path<'_>) -> &'static [&'static str] {
        &[]
    }

    fn class(&self, _: &Path<'_>, _: &Value, _: &Document<'_>) -> Result<Class, ShapeError> {
        Ok(Class::Values)
    }

    fn channel(&self, path: &Path<'_>, _: &Document<'_>) -> Result<Channel, ShapeError> {
        Ok(Channel {
            choice: 0,
            field: path.dotted(),
        })
    }
}

impl Answers for Values {
    fn whole(&self, _: &Document<'_>, _: u16) -> Result<&'static dyn Fields, ShapeError> {
        Ok(&Values)
    }

    fn note(&self, _: &Document<'_>, _: &mut Notes, _: &mut dyn TextFilter) {}
}

/// The dialect `text`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text;

impl Dialect for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &[ANY]
    }

    fn read_request(
        &self,
        _: &Endpoint,
        _: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        match content_type {
            Some(kind) if media_type::is(kind, "text/plain") => {
                Ok(Box::new(Plain(request::utf8(body)?)))
            }
            Some(_) => Err(unsupported(
                "the request's content type is not text/plain in utf-8",
            )),
            None => Err(ShapeError::new(
                "missing_content_type",
                "the request has no content type".to_owned(),
            )),
        }
    }

    fn read_response(
        &self,
        _: &Endpoint,
        _: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError> {
        match content_type {
            None => Ok(Box::new(Empty::default())),
            Some(kind) if media_type::is(kind, "text/plain") => Ok(Box::new(Running::default())),
            Some(_) => Err(unsupported(
                "the answer's content type is not text/plain in utf-8",
            )),
        }
    }

    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes) {
        let body = format!("{} ({})\n", error.message, error.code);
        ("text/plain; charset=utf-8", Bytes::from(body))
    }

    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes {
        let (_, body) = self.error(error);
        Bytes::from([b"\n", &body[..]].concat())
    }
}

/// A request that is text.
struct Plain(String);

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plain").field(&self.0.len()).finish()
    }
}

impl RequestBody for Plain {
    fn model(&self) -> &str {
        ""
    }

    fn stream(&self) -> bool {
        false
    }

    fn tools(&self) -> bool {
        false
    }

    fn texts(&self) -> Vec<super::Text<'_>> {
        vec![super::Text::bare(&self.0)]
    }

    fn unscanned(&self) -> &[&'static str] {
        &[]
    }

    fn strip(&mut self, _: &dyn Fn(&str) -> bool) -> Result<(), &'static str> {
        Ok(())
    }

    fn rewrite(&self, mask: &mut dyn FnMut(super::Text<'_>) -> Option<String>) -> Bytes {
        Bytes::from(mask(super::Text::bare(&self.0)).unwrap_or_else(|| self.0.clone()))
    }
}

/// An answer that is text, as it arrives.
#[derive(Default)]
struct Running {
    /// The beginning of a character whose end has not come: at most three bytes.
    partial: Vec<u8>,
    begun: bool,
    notes: Notes,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

fn text_channel() -> Channel {
    Channel {
        choice: 0,
        field: "text".to_owned(),
    }
}

impl ResponseBody for Running {
    fn incremental(&self) -> bool {
        true
    }

    fn read(
        &mut self,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError> {
        self.partial.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => utf8(&self.partial).map(str::len)?,
        };
        let rest = self.partial.split_off(whole);
        let text = std::mem::replace(&mut self.partial, rest);
        let text = utf8_from(&text, self.begun)?;
        self.begun |= !text.is_empty();
        let mut out = String::with_capacity(text.len());
        filter.push(&text_channel(), text, &mut out);
        passed.now.extend_from_slice(out.as_bytes());
        Ok(())
    }

    fn finish(&mut self, filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        if !self.partial.is_empty() {
            return Err(ShapeError::new(
                "invalid_utf8",
                "the answer ends inside a character".to_owned(),
            ));
        }
        self.notes.complete();
        let mut out = String::new();
        filter.finish(&text_channel(), &mut out);
        Ok(Passed {
            now: Vec::new(),
            terminal: out.into_bytes(),
        })
    }

    fn facts(&self) -> &ResponseFacts {
        self.notes.facts()
    }

    fn held(&self) -> usize {
        self.partial.len()
    }
}

/// The text; a byte order mark may stand at the beginning only, and there it is refused.
fn utf8_from(bytes: &[u8], begun: bool) -> Result<&str, ShapeError> {
    if begun {
        Ok(std::str::from_utf8(bytes).unwrap_or_default())
    } else {
        utf8(bytes)
    }
}
