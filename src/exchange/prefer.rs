//! How the caller would like to wait (RFC 7240).

use std::time::Duration;

use super::headers::Headers;

/// What a caller prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    /// `wait=N`: at most so long.
    pub(super) wait: Option<Duration>,
    /// `respond-async`: a 202 rather than an error where it takes longer.
    pub(super) respond_async: bool,
}

impl Prefer {
    /// Reads every `Prefer` field; what is not understood is no preference (section 2). Of one that is repeated the first
    /// counts.
    pub(super) fn read(headers: &Headers) -> Self {
        let mut prefer = Self::default();
        let fields = headers.iter().filter(|(name, _)| *name == "prefer");
        for (_, value) in fields {
            let text = std::str::from_utf8(value).unwrap_or_default();
            for preference in text.split(',') {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = match preference.split_once('=') {
                    Some((name, value)) => (name.trim(), value.trim().trim_matches('"')),
                    None => (preference.trim(), ""),
                };
                if name.eq_ignore_ascii_case("respond-async") {
                    prefer.respond_async = true;
                } else if name.eq_ignore_ascii_case("wait") && prefer.wait.is_none() {
                    prefer.wait = value.parse().ok().map(Duration::from_secs);
                }
            }
        }
        prefer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> (Option<u64>, bool) {
        let headers = fields.iter().map(|value| ("Prefer", *value)).collect();
        let prefer = Prefer::read(&headers);
        (prefer.wait.map(|wait| wait.as_secs()), prefer.respond_async)
    }

    #[test]
    fn a_preference_is_read_wherever_it_stands() {
        assert_eq!(read(&[]), (None, false));
        assert_eq!(read(&["respond-async"]), (None, true));
        assert_eq!(read(&["Respond-Async, WAIT=10"]), (Some(10), true));
        assert_eq!(
            read(&["handling=lenient; x=1", "wait = \"20\" ; y"]),
            (Some(20), false)
        );
        assert_eq!(read(&["wait=5, wait=50"]), (Some(5), false));
        for nonsense in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "waits=3"] {
            assert_eq!(read(&[nonsense]), (None, false), "{nonsense}");
        }
    }
}
