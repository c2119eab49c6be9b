//! A request that is one JSON document, whatever its dialect.

use bytes::Bytes;

use super::{
    RequestBody, Selection, ShapeError, Text,
    json::{self, Document, Kind},
    references::references,
    texts::{Fields, Mask, Said, Texts},
};

/// The longest model name in characters.
const MAX_MODEL_CHARS: usize = 256;

/// What a dialect reads of a request besides its texts.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The model, as written; empty where the dialect has none.
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) tools: bool,
}

/// A request that was read whole.
pub(super) struct Request {
    text: String,
    asked: Asked,
    texts: Texts,
}

impl Request {
    /// Reads a body: its texts by `fields`, then what is asked for by `asked`.
    ///
    /// # Errors
    /// What [`Document::read`] refuses, and what `fields` and `asked` do.
    pub(super) fn read(
        body: Bytes,
        fields: &dyn Fields,
        asked: impl FnOnce(&Document<'_>) -> Result<Asked, ShapeError>,
    ) -> Result<Box<dyn RequestBody>, ShapeError> {
        let text = utf8(body)?;
        let document = Document::read(&text)?;
        // Case variants first: a body with `Model` must not be told that it has no model.
        let texts = Texts::find(&document, fields)?;
        let asked = asked(&document)?;
        Ok(Box::new(Self { asked, texts, text }))
    }
}

/// The body as text.
///
/// # Errors
/// As for [`json::utf8`].
pub(super) fn utf8(body: Bytes) -> Result<String, ShapeError> {
    json::utf8(&body)?;
    String::from_utf8(body.into())
        .map_err(|_| ShapeError::new("invalid_utf8", "the body is not UTF-8".to_owned()))
}

/// The member `model` of the document.
///
/// # Errors
/// `missing_model`, `invalid_model`.
pub(super) fn model(document: &Document<'_>) -> Result<String, ShapeError> {
    let invalid = |reason: &str| ShapeError::new("invalid_model", reason.to_owned());
    let Some(value) = document.member(&document.root, "model") else {
        return Err(ShapeError::new(
            "missing_model",
            "the request has no `model`".to_owned(),
        ));
    };
    let Some(model) = document.string(value) else {
        return Err(invalid("`model` is not a string"));
    };
    if !valid_model(&model) {
        return Err(invalid(
            "`model` is empty, too long, or has control characters",
        ));
    }
    Ok(model.into_owned())
}

/// Whether a model may have that name.
pub(super) fn valid_model(name: &str) -> bool {
    !name.is_empty()
        && name.chars().count() <= MAX_MODEL_CHARS
        && !name.chars().any(char::is_control)
}

/// The member `stream`, and what its absence means.
///
/// # Errors
/// `invalid_stream`.
pub(super) fn stream(document: &Document<'_>, absent: bool) -> Result<bool, ShapeError> {
    let stream = document.member(&document.root, "stream");
    match stream.map(|value| &value.kind) {
        None | Some(Kind::Null) => Ok(absent),
        Some(Kind::Bool(stream)) => Ok(*stream),
        Some(_) => Err(ShapeError::new(
            "invalid_stream",
            "`stream` is neither true nor false".to_owned(),
        )),
    }
}

/// Whether the document's member `name` is an array with something in it.
pub(super) fn lists(document: &Document<'_>, name: &str) -> bool {
    let member = document.member(&document.root, name);
    matches!(member.map(|value| &value.kind), Some(Kind::Array(items)) if !items.is_empty())
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("model", &self.asked.model)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

impl RequestBody for Request {
    fn model(&self) -> &str {
        &self.asked.model
    }

    fn stream(&self) -> bool {
        self.asked.stream
    }

    fn tools(&self) -> bool {
        self.asked.tools
    }

    fn texts(&self) -> Vec<Text<'_>> {
        self.texts.all(&self.text)
    }

    fn unscanned(&self) -> &[&'static str] {
        &self.texts.unscanned
    }

    fn references(&self) -> Vec<(&'static str, String)> {
        // Read again rather than kept: few requests are ever asked.
        Document::read(&self.text).map_or_else(|_| Vec::new(), |document| references(&document))
    }

    fn select(&mut self, selection: &Selection) {
        if selection.is_empty() {
            return;
        }
        // INVARIANT: it was read before.
        if let Ok(document) = Document::read(&self.text) {
            self.texts.select(&document, selection);
        }
    }

    fn memory(&self) -> usize {
        self.texts.memory()
    }

    fn strip(&mut self, these: &dyn Fn(&str) -> bool) -> Result<(), &'static str> {
        self.texts.strip(&self.text, these)
    }

    fn rewrite(&self, mask: &mut dyn FnMut(Text<'_>) -> Option<String>) -> Bytes {
        let mut filter = Mask::new(mask);
        // INVARIANT: arguments that are nested too deep were refused when the request was read.
        let mut edits = self
            .texts
            .edits(&self.text, &mut filter, &mut Said::default())
            .unwrap_or_default();
        // A dialect that knows of no models knows of no messages.
        if !self.asked.model.is_empty() {
            self.texts.mark_emptied(&mut edits);
        }
        if edits.is_empty() {
            Bytes::from(self.text.clone())
        } else {
            Bytes::from(json::splice(&self.text, edits))
        }
    }
}
