//! The trace that a request belongs to, as W3C Trace Context says it.
//!
//! Envoy's own word, which comes with its stream, counts before the request's header: that is the caller's.

use super::{Attributes, headers::Headers};

/// Where a request's spans belong (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace_id: u128,
    /// The span that ours are children of; never zero.
    pub span_id: u64,
    /// Whether whoever made that span records it.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the value of a `traceparent`; `None` where it is not of the right form. Of a later version that part is read which version 00 has
    /// too (section 4.2).
    #[must_use]
    pub fn read(value: &str) -> Option<Self> {
        let mut fields = value.trim().splitn(5, '-');
        let version = hex(fields.next()?, 2)?;
        let trace_id = hex(fields.next()?, 32)?;
        let span_id = u64::try_from(hex(fields.next()?, 16)?).ok()?;
        let flags = hex(fields.next()?, 2)?;
        let more = fields.next().is_some();
        if version == 0xff || (version == 0 && more) || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// Of a request with `headers`, as Envoy sends it.
    pub(super) fn of(headers: &Headers, attributes: &Attributes) -> Option<Self> {
        Self::read(&attributes.traceparent).or_else(|| Self::read(headers.text("traceparent")))
    }
}

/// So many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let right = text.len() == digits
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    if right {
        u128::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = TraceParent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0xb7ad_6b71_6920_3331,
            sampled: true,
        };
        assert_eq!(TraceParent::read(good), Some(parent));
        let unsampled = TraceParent {
            sampled: false,
            ..parent
        };
        assert_eq!(
            TraceParent::read(&good.replace("-01", "-02")),
            Some(unsampled)
        );
        let later = good.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        assert_eq!(TraceParent::read(&later), Some(parent));
        for bad in [
            "",
            "00",
            "0af7651916cd43dd8448eb211c80319c",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319-+b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::read(bad), None, "{bad}");
        }
    }
}
