//! `URL`: looked for only where a policy names it, as most addresses of pages are nobody's, and one would hide an
//! address of mail inside it.

/// A scheme and `//`, or `www.`, and the characters of a URI (RFC 3986, appendix A; those of RFC 3987 end it).
pub(crate) const SHAPE: &str =
    r"(?i)\b(?:(?:https?|ftps?|wss?)://|www\.)[A-Z0-9\[][A-Z0-9._~:/?#\[\]@!$&'()*+,;=%-]*";

/// Without the marks that end the sentence around it (RFC 3986, appendix C).
pub(crate) fn check(_before: &str, found: &str) -> Option<usize> {
    let mut kept = found;
    loop {
        let shorter = kept.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*']);
        let shorter = match shorter.strip_suffix([')', ']']) {
            Some(inner) if !inner.contains(['(', '[']) => inner,
            _ => shorter,
        };
        if shorter.len() == kept.len() {
            break;
        }
        kept = shorter;
    }
    let (_, host) = kept.split_once("//").or_else(|| kept.split_once('.'))?;
    let named = host.contains(['.', ':']) || host.to_ascii_lowercase().starts_with("localhost");
    named.then_some(kept.len())
}
