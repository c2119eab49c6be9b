//! Media types (RFC 9110 section 8.3.1), as far as a governed body may have one: the type itself and `charset=utf-8`.

use super::{
    ResponseBody, ShapeError,
    framing::Framing,
    stream::{Protocol, Stream},
    whole::{Answers, Empty, Whole},
};

/// What an answer's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerKind {
    /// There is none.
    Empty,
    Json,
    /// Of the type that the endpoint's streams have.
    Stream,
}

/// The type of an event stream.
pub(super) const EVENTS: &str = "text/event-stream";
/// The type of NDJSON.
pub(super) const LINES: &str = "application/x-ndjson";

/// What the body of an answer of that status and content type is, where a stream has the type `stream`.
///
/// # Errors
/// `unsupported_content_type`.
pub(super) fn answer_kind(
    status: u16,
    content_type: Option<&str>,
    stream: Option<&str>,
) -> Result<AnswerKind, ShapeError> {
    let bodiless = matches!(status, 100..200 | 204 | 205 | 304);
    match content_type {
        // An answer that says nothing of its body may have none.
        None => Ok(AnswerKind::Empty),
        Some(_) if bodiless => Ok(AnswerKind::Empty),
        Some(kind) if is(kind, "application/json") => Ok(AnswerKind::Json),
        Some(kind) if status < 400 && stream.is_some_and(|stream| is(kind, stream)) => {
            Ok(AnswerKind::Stream)
        }
        Some(_) => Err(unsupported(
            "the answer's content type is none this endpoint answers with, in utf-8",
        )),
    }
}

/// A reader for an answer that may be whole, or a stream in the framing that its dialect has.
pub(super) fn reader(
    kind: AnswerKind,
    status: u16,
    answers: impl Answers + Protocol + 'static,
    framing: Framing,
) -> Box<dyn ResponseBody> {
    match kind {
        AnswerKind::Empty => Box::new(Empty::default()),
        AnswerKind::Json => Box::new(Whole::new(answers, status)),
        AnswerKind::Stream => Box::new(Stream::new(answers, framing)),
    }
}

/// Nothing, where a request of that content type is JSON.
///
/// # Errors
/// `missing_content_type`, `unsupported_content_type`.
pub(super) fn json_request(content_type: Option<&str>) -> Result<(), ShapeError> {
    match content_type {
        None => Err(ShapeError::new(
            "missing_content_type",
            "the request has no content type".to_owned(),
        )),
        Some(kind) if is(kind, "application/json") => Ok(()),
        Some(_) => Err(unsupported(
            "the request's content type is not application/json in utf-8",
        )),
    }
}

pub(super) fn unsupported(reason: &str) -> ShapeError {
    ShapeError::new("unsupported_content_type", reason.to_owned())
}

/// Whether `value` is exactly `expected` (lower case), with no parameter but `charset=utf-8`, quoted or not.
///
/// Any other charset is no: what we read as UTF-8 and the upstream as something else would be two different texts.
/// Any other parameter is no as well: none is defined for the types dialects use, so a parser may take it as it likes.
pub(super) fn is(value: &str, expected: &str) -> bool {
    let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
    let same = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case(expected));
    same && parts.all(|part| {
        let charset = part
            .split_once('=')
            .filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
        charset.is_some_and(|(_, value)| {
            let bare = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or(value);
            bare.eq_ignore_ascii_case("utf-8") || bare.eq_ignore_ascii_case("utf8")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::is;

    #[test]
    fn only_utf8_json_is_json() {
        let table = [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\"", true),
            ("application/json; charset=utf-16", false),
            ("application/json; charset=utf-8; charset=utf-7", false),
            ("application/json; boundary=x", false),
            ("application/json;", false),
            ("application/json, text/plain", false),
            ("application/jsonl", false),
            ("text/plain", false),
            ("", false),
        ];
        for (value, expected) in table {
            assert_eq!(is(value, "application/json"), expected, "{value}");
        }
    }
}
