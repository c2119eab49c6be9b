//! Where text lives: how each provider's requests, answers and errors are shaped.
//!
//! ```text
//! request  -> json -> texts  -> texts masked, the rest as received            request
//! document -> json -> texts  -> the same                                      whole
//! stream   -> framing (sse, lines, elements) -> json -> texts by channel      stream
//!             -> the same event with the text that may leave
//! ```
//!
//! A dialect says what its documents look like ([`texts::Fields`]), what its events are ([`stream::Protocol`]) and what
//! answers say of themselves; how text is found, held, masked and put back is the same for all.
//!
//! A dialect reads a request so that what policy decides on is what the upstream will read, and rewrites only the
//! text that changed: every other byte is forwarded as received. Shapes it does not know are errors, never passed.

use std::{fmt, sync::Arc};

use bytes::Bytes;

mod anthropic;
mod arguments;
mod elements;
mod framing;
mod gemini;
mod generic;
mod grpc;
mod json;
mod json_path;
mod lines;
mod media_type;
mod notes;
mod ollama;
mod openai;
mod references;
pub(crate) use references::MOST as MOST_REFERENCES;
mod request;
mod selection;
mod sse;
mod stream;
mod texts;
mod whole;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests;

pub use grpc::{
    Asked as AskedOfSchema, MAX_SCHEMA_BYTES, SchemaFault, SchemaPart, by_schema,
    is_path as is_field_path, method as grpc_method,
};
pub use json_path::JsonPath;
pub use selection::{NOT_SELECTED, SIGNED, Selection, SignedAnswers};

/// Every dialect there is.
#[must_use]
pub fn all() -> &'static [&'static dyn Dialect] {
    &[
        &openai::OpenAi,
        &anthropic::Anthropic,
        &gemini::Gemini,
        &ollama::Ollama,
        &grpc::Grpc::Kserve,
        &grpc::Grpc::Own(None),
        &generic::Json,
        &generic::Text,
    ]
}

/// The dialect of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Dialect> {
    all().iter().copied().find(|dialect| dialect.name() == name)
}

/// The dialect that a connection speaks.
#[derive(Clone, Debug)]
pub enum Spoken {
    /// One of the program's own.
    BuiltIn(&'static dyn Dialect),
    /// One by a schema of the user's own.
    Own(Arc<dyn Dialect>),
}

impl std::ops::Deref for Spoken {
    type Target = dyn Dialect;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::BuiltIn(dialect) => *dialect,
            Self::Own(dialect) => &**dialect,
        }
    }
}

/// A provider's wire format. One value per provider, shared by all streams.
pub trait Dialect: Send + Sync + fmt::Debug {
    /// The name used in the configuration and in records, such as `openai`.
    fn name(&self) -> &'static str;

    /// Every endpoint this dialect understands.
    fn endpoints(&self) -> &'static [Endpoint];

    /// Reads a whole request body. `path` is the request's, without query: some dialects name the model there.
    ///
    /// # Errors
    /// [`ShapeError`] where the body is not exactly what the upstream would read: malformed, duplicate or case-variant
    /// keys, an unknown shape, a content type that is not the endpoint's.
    fn read_request(
        &self,
        endpoint: &Endpoint,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Box<dyn RequestBody>, ShapeError>;

    /// A reader for the answer to `endpoint`, by the answer's status and content type.
    ///
    /// # Errors
    /// [`ShapeError`] where the content type is none the endpoint answers with.
    fn read_response(
        &self,
        endpoint: &Endpoint,
        status: u16,
        content_type: Option<&str>,
    ) -> Result<Box<dyn ResponseBody>, ShapeError>;

    /// The body and content type with which this dialect reports an error, so that its SDK raises its own typed error.
    fn error(&self, error: &ErrorShape<'_>) -> (&'static str, Bytes);

    /// The same error as an event in a stream that has already begun, framing included.
    fn error_event(&self, error: &ErrorShape<'_>) -> Bytes;

    /// Whether answers end in trailers that tell how it went.
    fn is_told_in_trailers(&self) -> bool {
        false
    }

    /// Whether who sent `begun`, and has not ended the request, may be waiting for an answer to it before saying more.
    fn may_wait(&self, _endpoint: &Endpoint, _begun: &[u8]) -> bool {
        false
    }

    /// What becomes of a field behind an answer's body, or of its head where an answer has no body. Nothing is told there
    /// in most dialects, and then nothing in it is worth the risk of passing it unread.
    fn trailer(&self, _name: &str, _value: &[u8], _filter: &mut dyn TextFilter) -> Trailer {
        Trailer::Dropped
    }
}

/// What becomes of a trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// It does not leave.
    Dropped,
    /// It leaves as it came.
    Kept,
    /// It leaves with this value.
    Changed(String),
}

/// One endpoint of a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name used in the configuration, such as `chat_completions`.
    pub name: &'static str,
    /// HTTP method, upper case.
    pub method: &'static str,
    /// The path's end, such as `/chat/completions`, matched after the connection's path prefix. `{model}` in it stands
    /// for the name of a model, `*` for any path.
    pub path: &'static str,
}

impl Endpoint {
    /// Whether `path`, without the connection's path prefix and without query, is this endpoint's.
    #[must_use]
    pub fn is_at(&self, path: &str) -> bool {
        match self.path.split_once("{model}") {
            None => self.path == path || self.path == "*",
            Some((before, behind)) => path
                .strip_prefix(before)
                .and_then(|rest| rest.strip_suffix(behind))
                .is_some_and(is_model),
        }
    }

    /// The model that `path`, without query, names where this endpoint's path has one.
    #[must_use]
    pub fn model<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (before, behind) = self.path.split_once("{model}")?;
        let (_, model) = path.strip_suffix(behind)?.rsplit_once(before)?;
        is_model(model).then_some(model)
    }
}

/// Whether a model may have that name in a path: nothing in it can be read as more than a name.
fn is_model(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !name.is_empty() && name.len() <= 256 && name.chars().all(plain)
}

/// A request body that was read whole.
pub trait RequestBody: Send + fmt::Debug {
    /// The model asked for, exactly as written; empty where the dialect knows of none.
    fn model(&self) -> &str;
    /// Whether a streamed answer is asked for.
    fn stream(&self) -> bool;
    /// Whether tools are offered to the model.
    fn tools(&self) -> bool;
    /// Every text of the request in document order, decoded: string values, unknown keys, and the strings, keys and
    /// numbers inside tool call arguments.
    ///
    /// Adjacent text parts of one message come twice, each for itself and then all joined: the model may be shown
    /// either, and a value can be whole in one reading only (`["4111 1111", " 1111 1111"]`, `["is", "078-05-1120"]`).
    /// So a value in such a message is counted twice: counts are upper bounds.
    fn texts(&self) -> Vec<Text<'_>>;
    /// Why parts of the body could not be scanned, such as `image_url`, each once; empty when all of it was.
    fn unscanned(&self) -> &[&'static str];
    /// What the body refers to and does not hold, so that it could change later: kind and name.
    fn references(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Says which of the body's fields are what. To be said before anything else is asked.
    fn select(&mut self, _selection: &Selection) {}
    /// Takes out of what [`rewrite`](Self::rewrite) returns each part that cannot be scanned for one of `these` reasons.
    ///
    /// # Errors
    /// Why one cannot be scanned that cannot be taken out: the body would not be a request without it.
    fn strip(&mut self, these: &dyn Fn(&str) -> bool) -> Result<(), &'static str>;
    /// Bytes in memory besides the body's own, where that may be many times those.
    fn memory(&self) -> usize {
        0
    }
    /// The body with each text replaced by what `mask` returns for it, where that is `Some`; all else byte for byte as
    /// received. Joined text parts are asked for after each part was masked for itself; where the joined text changes
    /// too it is put into the first part and the others become empty.
    fn rewrite(&self, mask: &mut dyn FnMut(Text<'_>) -> Option<String>) -> Bytes;
    /// The same for people to read: on record, and where somebody must approve it.
    fn shown(&self, mask: &mut dyn FnMut(Text<'_>) -> Option<String>) -> String {
        String::from_utf8(self.rewrite(mask).into())
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// One text of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// The keys it stands under where a user or a model chose them, parted by spaces; empty where there are none.
    pub label: &'a str,
    /// The text.
    pub text: &'a str,
    /// What it is a value of, where the configuration says so of the field it stands in. What else is in the field
    /// comes behind it, as texts of their own.
    pub entity: Option<&'a str>,
}

impl fmt::Debug for Text<'_> {
    /// Never the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Text").field(&self.text.len()).finish()
    }
}

impl<'a> Text<'a> {
    /// A text that stands under no key.
    fn bare(text: &'a str) -> Self {
        Self::under("", text)
    }

    fn under(label: &'a str, text: &'a str) -> Self {
        let entity = None;
        Self {
            label,
            text,
            entity,
        }
    }
}

/// Which text of an answer a piece belongs to: pieces of one channel, in order, make one text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The choice (candidate, output) the text belongs to.
    pub choice: u32,
    /// The field, such as `content`, `refusal` or `tool_calls.0.arguments`.
    pub field: String,
}

impl Channel {
    /// Whether the text is one that a person reads: each step of its field is one of those the dialects have such texts
    /// in. Not a tool's arguments or a program, nor a field of no known meaning.
    #[must_use]
    pub fn is_prose(&self) -> bool {
        const PROSE: [&str; 13] = [
            "audio",
            "content",
            "reasoning",
            "reasoning_content",
            "reasoning_details",
            "refusal",
            "response",
            "summary",
            "text",
            "thinking",
            "thought",
            "transcript",
            "output_text",
        ];
        let place = |step: &str| step.parse::<u32>().is_ok();
        self.field
            .split('.')
            .all(|step| place(step) || PROSE.contains(&step))
    }
}

/// What a dialect hands each piece of an answer's text to. The exchange implements it with one masker per channel.
pub trait TextFilter {
    /// Takes the next piece of `channel` and appends to `out` what may leave now; the rest is held back.
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String);
    /// The channel's text is over: appends everything still held back, and forgets the channel. A later push to the
    /// same channel begins a new text: each string inside tool call arguments is one.
    fn finish(&mut self, channel: &Channel, out: &mut String);
    /// A text that is known whole: what comes of it pushed and finished at once.
    fn whole(&mut self, channel: &Channel, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        self.push(channel, text, &mut out);
        self.finish(channel, &mut out);
        out
    }
    /// The next text, pushed to `channel` or said again, stands under these keys, which tell what it is as words
    /// before it would: in `{"ssn": "536228145"}` nothing else does.
    fn label(&mut self, _channel: &Channel, _label: &str) {}
    /// A field that is a value of `entity`, whole: what takes its place, `None` where it stays, and what is in it is
    /// filtered as any other text until [`named_over`](Self::named_over).
    fn named(&mut self, _entity: &str, _channel: &Channel, _text: &str) -> Option<String> {
        None
    }
    /// The field that stayed is over.
    fn named_over(&mut self) {}
    /// A part of a text that is also read by itself: masked as a text of its own. It is not what leaves: the text it
    /// is part of is pushed behind it, with what came back in the part's place.
    fn part(&mut self, text: &str) -> String;
    /// A text that is whole by itself, and that a client may string together with those that came before it in the same
    /// channel: what may leave of it, `None` where there is something to mask that is whole only when they are strung
    /// together. What is recorded of the channel goes on from text to text.
    fn message(&mut self, channel: &Channel, text: &str) -> Option<String> {
        Some(self.whole(channel, text))
    }
    /// A text that was pushed before, repeated whole: what came of it then, and not to be shown or counted again.
    fn again(&mut self, channel: &Channel, text: &str) -> String;
    /// A word of the protocol, such as an id: what must take its place, if anything. Always the same for the same word.
    /// A word is no text of the answer, and masking what only looks like a value would break clients; what may stand
    /// nowhere, such as the lent credential, may not stand here either.
    fn word(&mut self, _word: &str) -> Option<String> {
        None
    }
    /// Whether what comes back may differ from what was pushed. Then what repeats the text in another form (`logprobs`,
    /// token ids) is blanked and annotations of a changed text are dropped.
    fn masks(&self) -> bool {
        true
    }
}

/// An answer body being read as it arrives.
pub trait ResponseBody: Send + fmt::Debug {
    /// Whether text may leave before the whole body was seen (an event stream), or only at the end (one document).
    fn incremental(&self) -> bool;
    /// Says which fields of the answer's documents are what. To be said before the first bytes come.
    fn select(&mut self, _selection: &Arc<Selection>) {}
    /// Takes the next bytes and adds to `passed` what may leave.
    ///
    /// # Errors
    /// [`ShapeError`] where the answer is not of a shape the dialect knows; nothing of the failing event has been let
    /// out. Events before it in the same bytes are passed first: the error is then that of the next call.
    fn read(
        &mut self,
        bytes: &[u8],
        filter: &mut dyn TextFilter,
        passed: &mut Passed,
    ) -> Result<(), ShapeError>;
    /// Takes the next bytes: what may leave.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    fn push(&mut self, bytes: &[u8], filter: &mut dyn TextFilter) -> Result<Passed, ShapeError> {
        let mut passed = Passed::default();
        self.read(bytes, filter, &mut passed).map(|()| passed)
    }
    /// The body is over: everything left, flushed.
    ///
    /// # Errors
    /// [`ShapeError`] as for [`push`](Self::push), and where the body was cut short of a whole document.
    fn finish(&mut self, filter: &mut dyn TextFilter) -> Result<Passed, ShapeError>;
    /// What the answer has said of itself so far.
    fn facts(&self) -> &ResponseFacts;
    /// Bytes held in memory, for the byte budget.
    fn held(&self) -> usize;
}

/// Bytes that passed a reader, split at the event that tells the client the answer is whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// May leave at once.
    pub now: Vec<u8>,
    /// The terminal event (`data: [DONE]`) and all after it: leaves only once the session's `closed` record is durable.
    pub terminal: Vec<u8>,
}

/// What an answer says of itself, for the record. Names are OpenTelemetry's where it has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResponseFacts {
    /// The answer's id.
    pub id: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// Provider's version mark of the model.
    pub system_fingerprint: Option<String>,
    /// Why each choice ended, by choice.
    pub finish_reasons: Vec<String>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Why parts of the answer could not be scanned, each once; empty when all of it was.
    pub unscanned: Vec<&'static str>,
    /// What of these was taken out of the answer, each once.
    pub stripped: Vec<&'static str>,
    /// The answer said that it is whole: a document was read to its end, or the terminal event came.
    pub complete: bool,
}

/// An error to be told to a caller.
#[derive(Clone, Copy, Debug)]
pub struct ErrorShape<'a> {
    /// HTTP status.
    pub status: u16,
    /// Stable machine-readable code.
    pub code: &'a str,
    /// One sentence for a person, without secrets.
    pub message: &'a str,
}

/// The body and content type of an error where no connection, and so no dialect, is known: the OpenAI shape, which most
/// clients understand.
#[must_use]
pub fn plain_error(error: &ErrorShape<'_>) -> (&'static str, Bytes) {
    openai::OpenAi.error(error)
}

/// Whether a request or an answer of that content type is gRPC's.
#[must_use]
pub fn is_grpc(content_type: &str) -> bool {
    grpc::is_grpc(content_type)
}

/// An error as gRPC has it, whatever the dialect: its status code, and what it says.
#[must_use]
pub fn grpc_error(error: &ErrorShape<'_>) -> (u8, Bytes) {
    (grpc::status(error.status), grpc::sentence(error))
}

/// The HTTP status that stands in records for a `grpc-status`; `None` where that is OK.
#[must_use]
pub fn http_status(grpc_status: &str) -> Option<u16> {
    grpc::http_status(grpc_status)
}

/// A body that is not what its dialect says it should be. Never carries any of the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ShapeError {
    /// Stable machine-readable code, such as `invalid_json` or `duplicate_key`.
    pub code: &'static str,
    /// One sentence that says what is wrong and where, lower case, without any of the caller's text.
    pub reason: String,
}

impl ShapeError {
    fn new(code: &'static str, reason: String) -> Self {
        Self { code, reason }
    }

    fn at(code: &'static str, reason: &str, byte: usize) -> Self {
        Self {
            code,
            reason: format!("{reason}, at byte {byte}"),
        }
    }
}

fn unknown_endpoint() -> ShapeError {
    ShapeError::new(
        "unknown_endpoint",
        "the dialect does not know the endpoint".to_owned(),
    )
}
