//! From when to when a certificate is good: two members of it, read and nothing else (RFC 5280, 4.1).
//!
//! Never: says that a certificate is well made. Can miss: authorities on the way to it, whose own time is not looked at.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Validity {
    /// Reads `validity` of a certificate in DER (RFC 5280, 4.1).
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, signed, _) = element(certificate)?;
        let (tag, _, after_version) = element(signed)?;
        // The version is the one member that may be missing.
        let mut rest = if tag == 0xa0 { after_version } else { signed };
        for _serial_algorithm_issuer in 0..3 {
            rest = element(rest)?.2;
        }
        let (_, validity, _) = element(rest)?;
        let (tag, from, rest) = element(validity)?;
        let from = time(tag, from)?;
        let (tag, until, _) = element(rest)?;
        let until = time(tag, until)?;
        Some(Self { from, until })
    }

    /// Whether less than a tenth of its time is left: certificates of an hour and of a year are both renewed earlier than that.
    pub(super) fn runs_out(&self, now: Timestamp) -> bool {
        let whole = self.until.as_second().saturating_sub(self.from.as_second());
        let left = self.until.as_second().saturating_sub(now.as_second());
        left < whole / 10
    }
}

/// The first element of `der`: its tag, what it holds, and what follows it. Lengths of up to three bytes (X.690, 8.1.3).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |sum, &b| sum << 8 | usize::from(b));
            (length, rest)
        }
        _ => return None,
    };
    let (held, rest) = rest.split_at_checked(length)?;
    Some((tag, held, rest))
}

/// A UTCTime or a GeneralizedTime as RFC 5280, 4.1.2.5 restricts them.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let read = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(read.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_standard_has_them() {
        for (tag, text, told) in [
            (0x17, "491231235959Z", Some("2049-12-31T23:59:59Z")),
            (0x17, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (0x18, "20500101000000Z", Some("2050-01-01T00:00:00Z")),
            (0x18, "20501301000000Z", None),
            (0x18, "205001010000Z", None),
            (0x02, "20500101000000Z", None),
        ] {
            let read = time(tag, text.as_bytes()).map(|at| at.to_string());
            assert_eq!(read.as_deref(), told, "{text}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_element() {
        let whole = [0x30, 0x82, 0, 2, 1, 2];
        assert_eq!(element(&whole), Some((0x30, &whole[4..], &[][..])));
        for length in 0..whole.len() {
            assert_eq!(element(&whole[..length]), None, "{length}");
        }
        assert_eq!(element(&[0x30, 0x80, 0, 0]), None, "no end said");
    }

    #[test]
    fn a_certificate_runs_out_in_the_last_tenth_of_its_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let validity = Validity {
            from: at(0),
            until: at(1000),
        };
        assert!(!validity.runs_out(at(900)));
        assert!(validity.runs_out(at(901)) && validity.runs_out(at(2000)));
    }
}
