//! How a call went (gRPC's PROTOCOL-HTTP2, "Responses", and doc/statuscodes.md), both ways.

use bytes::Bytes;

use super::super::{Channel, ErrorShape, TextFilter, Trailer};

/// gRPC's status code of a refusal that is `http` elsewhere.
pub(in crate::dialect) fn status(http: u16) -> u8 {
    match http {
        400 => 3,              // INVALID_ARGUMENT
        401 => 16,             // UNAUTHENTICATED
        202 | 403 => 7,        // PERMISSION_DENIED
        404 | 405 | 415 => 12, // UNIMPLEMENTED
        408 | 504 => 4,        // DEADLINE_EXCEEDED
        409 => 10,             // ABORTED
        413 | 429 => 8,        // RESOURCE_EXHAUSTED
        499 => 1,              // CANCELLED
        500 | 502 => 13,       // INTERNAL
        503 => 14,             // UNAVAILABLE
        _ => 2,                // UNKNOWN
    }
}

/// The HTTP status that stands in records for gRPC's `grpc-status`: google.rpc.Code says which is which. `None` for OK.
pub(in crate::dialect) fn http_status(grpc: &str) -> Option<u16> {
    Some(match grpc {
        "0" => return None,
        "1" => 499,
        "3" | "9" | "11" => 400,
        "4" => 504,
        "5" => 404,
        "6" | "10" => 409,
        "7" => 403,
        "8" => 429,
        "12" => 501,
        "14" => 503,
        "16" => 401,
        _ => 500,
    })
}

/// What a caller is told of a refusal: the stable code, then the sentence.
pub(in crate::dialect) fn sentence(error: &ErrorShape<'_>) -> Bytes {
    Bytes::from(format!("{}: {}", error.code, error.message))
}

/// What becomes of a trailer: how it went passes; what is said in words is masked; bytes pass only where nothing is.
pub(super) fn trailer(name: &str, value: &[u8], filter: &mut dyn TextFilter) -> Trailer {
    let Ok(text) = std::str::from_utf8(value) else {
        return Trailer::Dropped;
    };
    if name == "grpc-status" {
        return match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Trailer::Kept,
            false => Trailer::Dropped,
        };
    }
    if name.ends_with("-bin") {
        return match filter.masks() {
            true => Trailer::Dropped,
            false => Trailer::Kept,
        };
    }
    let escaped = name == "grpc-message";
    let said = match escaped {
        true => unescaped(text),
        false => text.to_owned(),
    };
    let channel = Channel {
        choice: 0,
        field: "trailers".to_owned(),
    };
    let masked = filter.whole(&channel, &said);
    match (masked == said, escaped) {
        (true, _) => Trailer::Kept,
        (false, true) => Trailer::Changed(percent_escaped(&masked)),
        (false, false) if masked.bytes().all(is_plain) => Trailer::Changed(masked),
        (false, false) => Trailer::Dropped,
    }
}

/// A message without its percent escapes, as a client reads it: what is no escape stands for itself.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn percent_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => out.push_str("%25"),
            b if is_plain(b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}
