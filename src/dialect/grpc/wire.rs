//! The wire format of protobuf, as strictly as no two readers could differ about it: what a sane writer never writes is
//! refused (protobuf's "Encoding" page; gRPC's PROTOCOL-HTTP2, "Length-Prefixed-Message").

use std::ops::Range;

use super::super::ShapeError;

/// Bytes before each message: a flag and four bytes of length.
pub(super) const FRAME: usize = 5;
/// The longest message in bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// How a field's value is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Length,
    Fixed32,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) wire: WireType,
    /// The length of what has one, else empty.
    pub(super) prefix: Range<usize>,
    /// The value.
    pub(super) body: Range<usize>,
}

pub(super) fn invalid(reason: &str, at: usize) -> ShapeError {
    ShapeError::at("invalid_protobuf", reason, at)
}

/// Reads the varint at `at` up to `end`: its value and where it ends.
///
/// # Errors
/// `invalid_protobuf` where it is cut off, too large, or, where it must be `minimal`, longer than it need be.
pub(super) fn varint(
    bytes: &[u8],
    at: usize,
    end: usize,
    minimal: bool,
) -> Result<(u64, usize), ShapeError> {
    let mut value = 0_u64;
    for (n, byte) in bytes.get(at..end).unwrap_or_default().iter().enumerate() {
        let low = u64::from(byte & 0x7f);
        if n == 9 && *byte > 1 {
            break;
        }
        value |= low << (7 * n);
        if byte & 0x80 == 0 {
            if minimal && n > 0 && *byte == 0 {
                return Err(invalid("a number is longer than it need be", at));
            }
            return Ok((value, at + n + 1));
        }
    }
    Err(invalid("a number is cut off or too large", at))
}

/// Reads the field at `at` up to `end`.
///
/// # Errors
/// `invalid_protobuf`.
pub(super) fn field(bytes: &[u8], at: usize, end: usize) -> Result<Field, ShapeError> {
    let (tag, value) = varint(bytes, at, end, true)?;
    let number = u32::try_from(tag >> 3).unwrap_or(0);
    if number == 0 || number > 0x1fff_ffff {
        return Err(invalid("a field has a number it cannot have", at));
    }
    let fixed = |length: usize| value..value + length;
    let (wire, prefix, body) = match tag & 7 {
        0 => {
            let (_, end) = varint(bytes, value, end, false)?;
            (WireType::Varint, value..value, value..end)
        }
        1 => (WireType::Fixed64, value..value, fixed(8)),
        2 => {
            let (length, start) = varint(bytes, value, end, true)?;
            let stop = usize::try_from(length)
                .ok()
                .and_then(|length| start.checked_add(length));
            let stop = stop.ok_or_else(|| invalid("a length is too large", at))?;
            (WireType::Length, value..start, start..stop)
        }
        5 => (WireType::Fixed32, value..value, fixed(4)),
        _ => return Err(invalid("a field is a group or of no known type", at)),
    };
    if body.end > end {
        return Err(invalid("a field is cut off", at));
    }
    Ok(Field {
        number,
        wire,
        prefix,
        body,
    })
}

/// Writes `value` as a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The length of the message whose frame begins `bytes`, once its five bytes are there. A bad frame is known as early as
/// it can be.
///
/// # Errors
/// `compressed_message`, `invalid_frame`, `message_too_large`.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<usize>, ShapeError> {
    match bytes.first() {
        None => return Ok(None),
        Some(0) => {}
        Some(1) => {
            let reason = "a message is compressed; send and ask for plain ones (`identity`)";
            return Err(ShapeError::new("compressed_message", reason.to_owned()));
        }
        Some(_) => {
            let reason = "a message's flag is neither 0 nor 1";
            return Err(ShapeError::new("invalid_frame", reason.to_owned()));
        }
    }
    let Some(length) = bytes.get(1..FRAME) else {
        return Ok(None);
    };
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    if length > MAX_MESSAGE_BYTES {
        let reason = format!("a message is over {MAX_MESSAGE_BYTES} bytes");
        return Err(ShapeError::new("message_too_large", reason));
    }
    Ok(Some(length))
}

/// Whether `body` is one or more whole messages and nothing else.
pub(super) fn is_between(body: &[u8]) -> bool {
    let mut rest = body;
    while !rest.is_empty() {
        let Ok(Some(length)) = frame(rest) else {
            return false;
        };
        let Some(next) = rest.get(FRAME + length..) else {
            return false;
        };
        rest = next;
    }
    !body.is_empty()
}

/// Writes a message behind its frame.
pub(super) fn put_frame(message: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    // INVARIANT: messages are bounded far below 4 GiB; masking makes none longer by more than what a finding can be.
    out.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    out.extend_from_slice(message);
}

/// That a body ends inside of a message.
pub(super) fn cut() -> ShapeError {
    let reason = "the body ends inside of a message".to_owned();
    ShapeError::new("cut_message", reason)
}
