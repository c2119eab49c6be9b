//! Answers in one document, whatever the dialect. Nothing leaves before all of it was seen.

use std::sync::Arc;

use super::{
    Passed, ResponseBody, ResponseFacts, Selection, ShapeError, TextFilter,
    json::{self, Document},
    notes::Notes,
    texts::{Fields, Said, Texts},
};

/// The largest document in bytes; a larger one is `answer_too_large`.
pub(super) const MAX_DOCUMENT_BYTES: usize = 32 << 20;

/// What a dialect knows of its answers that are one document.
pub(super) trait Answers: Send + std::fmt::Debug {
    /// What the document is, an answer or an error.
    ///
    /// # Errors
    /// `unknown_shape` where it is neither.
    fn whole(
        &self,
        document: &Document<'_>,
        status: u16,
    ) -> Result<&'static dyn Fields, ShapeError>;

    /// Takes over what the document says of itself.
    fn note(&self, document: &Document<'_>, notes: &mut Notes, filter: &mut dyn TextFilter);
}

/// An answer that has no body.
#[derive(Debug, Default)]
pub(super) struct Empty {
    facts: ResponseFacts,
}

impl ResponseBody for Empty {
    fn incremental(&self) -> bool {
        false
    }

    fn read(
        &mut self,
        bytes: &[u8],
        _: &mut dyn TextFilter,
        _: &mut Passed,
    ) -> Result<(), ShapeError> {
        if bytes.is_empty() {
            return Ok(());
        }
        Err(ShapeError::new(
            "unexpected_body",
            "the answer has a body where it may have none".to_owned(),
        ))
    }

    fn finish(&mut self, _: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        self.facts.complete = true;
        Ok(Passed::default())
    }

    fn facts(&self) -> &ResponseFacts {
        &self.facts
    }

    fn held(&self) -> usize {
        0
    }
}

/// Bytes gathered up to the cap.
#[derive(Default)]
pub(super) struct Gathered(Vec<u8>);

impl Gathered {
    /// # Errors
    /// `answer_too_large`.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ShapeError> {
        if self.0.len() + bytes.len() > MAX_DOCUMENT_BYTES {
            let reason = format!("the answer is over {MAX_DOCUMENT_BYTES} bytes");
            return Err(ShapeError::new("answer_too_large", reason));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A JSON document.
pub(super) struct Whole<A> {
    answers: A,
    status: u16,
    body: Gathered,
    notes: Notes,
    selection: Arc<Selection>,
}

impl<A: Answers> Whole<A> {
    pub(super) fn new(answers: A, status: u16) -> Self {
        Self {
            answers,
            status,
            body: Gathered::default(),
            notes: Notes::default(),
            selection: Arc::default(),
        }
    }

    fn masked(&mut self, text: &str, filter: &mut dyn TextFilter) -> Result<String, ShapeError> {
        let document = Document::read(text)?;
        let mut texts = Texts::find(&document, self.answers.whole(&document, self.status)?)?;
        self.selection.admit(text, &mut texts)?;
        texts.select(&document, &self.selection);
        let edits = texts.edits(text, filter, &mut Said::default())?;
        self.answers.note(&document, &mut self.notes, filter);
        self.notes.unscanned(&texts.unscanned);
        self.notes
            .stripped(&self.selection.stripped(&texts.unscanned));
        self.notes.complete();
        Ok(json::splice(text, edits))
    }
}

impl<A> std::fmt::Debug for Whole<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whole")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl<A: Answers> ResponseBody for Whole<A> {
    fn incremental(&self) -> bool {
        false
    }

    fn select(&mut self, selection: &Arc<Selection>) {
        self.selection = selection.clone();
    }

    fn read(
        &mut self,
        bytes: &[u8],
        _: &mut dyn TextFilter,
        _: &mut Passed,
    ) -> Result<(), ShapeError> {
        self.body.push(bytes)
    }

    fn finish(&mut self, filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        let body = self.body.take();
        let masked = self.masked(json::utf8(&body)?, filter)?;
        // A document's last byte tells the client that it is whole, so all of it is held for the record.
        Ok(Passed {
            now: Vec::new(),
            terminal: masked.into_bytes(),
        })
    }

    fn facts(&self) -> &ResponseFacts {
        self.notes.facts()
    }

    fn held(&self) -> usize {
        self.body.len()
    }
}
