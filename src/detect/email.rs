//! `EMAIL_ADDRESS`. Local part at most 64 bytes, domain at most 255, each label at most 63 (RFC 5321 section 4.5.3.1,
//! RFC 1035 section 2.3.4); letters outside ASCII as in RFC 6531 and IDNA. Quoted local parts and address literals
//! (`"a b"@x.org`, `a@[10.0.0.1]`) are not looked for, and `icon@2x.png` is a file.

use std::sync::LazyLock;

use super::fold;

/// The lengths and the kinds of characters outside ASCII are left to the check: counted repetitions and Unicode classes
/// would explode the automaton.
pub(crate) const SHAPE: &str = concat!(
    r"(?:\b[A-Za-z0-9_]|(?u:[^\x00-\x7F]))(?u:[A-Za-z0-9._%+'-]|[^\x00-\x7F])*@",
    r"(?u:[A-Za-z0-9-]|[^\x00-\x7F])+(?:\.(?u:[A-Za-z0-9-]|[^\x00-\x7F])+)+"
);

/// The longest address: local part, `@`, domain.
pub(crate) const REACH: usize = 64 + 1 + 255;

/// Keeps the address up to the last label that can be a top-level domain.
pub(crate) fn check(_before: &str, found: &str) -> Option<usize> {
    let (local, domain) = found.split_once('@')?;
    if !is_local(local) {
        return None;
    }
    domain_len(domain).map(|len| local.len() + 1 + len)
}

fn is_local(local: &str) -> bool {
    let fits = |c: char| c.is_ascii() || is_letter(c);
    local.len() <= 64
        && local.chars().all(fits)
        && !local.starts_with(is_mark)
        && !local.ends_with('.')
        && !local.contains("..")
        && !runs_on(local)
}

/// A letter or digit of any script, or a part of one that is written as several characters (Unicode normalisation form
/// D, and the vowels of many scripts).
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || is_mark(c)
}

/// General category M of Unicode.
fn is_mark(c: char) -> bool {
    static MARKS: LazyLock<Vec<(u32, u32)>> = LazyLock::new(|| fold::ranges(r"\p{M}"));
    let c = u32::from(c);
    let behind = MARKS.partition_point(|&(start, _)| start <= c);
    behind.checked_sub(1).is_some_and(|at| c <= MARKS[at].1)
}

/// Text in a script that puts no space between words, directly followed by an ASCII address: the address starts at
/// its first ASCII letter, where the scan looks next.
fn runs_on(local: &str) -> bool {
    local.starts_with(is_unspaced) && local.contains(|c: char| c.is_ascii_alphanumeric())
}

/// A character of a script that puts no space between words.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{2E80}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7FF}' | '\u{F900}'..='\u{FAFF}' | '\u{FF10}'..='\u{FFEF}' | '\u{20000}'..='\u{3FFFF}')
}

/// Bytes of the longest front of `domain` that is a host name with a plausible top-level domain.
fn domain_len(domain: &str) -> Option<usize> {
    if domain.len() > 255 {
        return None;
    }
    let mut best = None;
    let mut at = 0;
    for (i, label) in domain.split('.').enumerate() {
        let top = i.checked_sub(1).and_then(|_| top_level_len(label));
        best = top.map(|len| at + len).or(best);
        if !is_label(label) {
            break;
        }
        at += label.len() + 1;
    }
    best
}

fn is_label(label: &str) -> bool {
    let fits = |c: char| c == '-' || is_letter(c);
    label.len() <= 63 && label.chars().all(fits) && !label.starts_with('-') && !label.ends_with('-')
}

/// Endings of files, and of systemd's units, which IANA's root zone does not have as domains.
#[rustfmt::skip]
const FILES: &[&str] = &[
    "avif", "bak", "bmp", "cfg", "cjs", "conf", "css", "csv", "dll", "doc", "docx", "exe", "gif", "gz", "heic", "htm",
    "html", "ico", "ini", "jar", "jpeg", "jpg", "js", "json", "jsx", "lock", "log", "mjs", "mount", "pdf", "php", "png",
    "ppt", "pptx", "scss", "service", "slice", "socket", "svg", "tar", "tgz", "tiff", "timer", "tmp", "toml", "ts",
    "tsv", "tsx", "ttf", "txt", "wasm", "webp", "woff", "xls", "xlsx", "xml", "yaml", "yml",
];

/// Bytes of the front of `label` that can be a top-level domain: at least two letters of one kind, or Punycode.
fn top_level_len(label: &str) -> Option<usize> {
    if label
        .get(..4)
        .is_some_and(|p| p.eq_ignore_ascii_case("xn--"))
    {
        let name = &label[..label
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .unwrap_or(label.len())];
        let name = name.trim_end_matches('-');
        return (name.len() > 4 && is_label(name)).then_some(name.len());
    }
    let ascii = label.starts_with(|c: char| c.is_ascii());
    let other = |c: char| {
        if ascii {
            !c.is_ascii_alphabetic()
        } else {
            c.is_ascii()
        }
    };
    let end = label.find(other).unwrap_or(label.len());
    // `com` in `com谢谢` or `com-` is a domain with text behind it; `c0m` is a name of something else.
    let cut = label[end..].starts_with(|c: char| c.is_ascii_alphanumeric());
    let long = label[..end].chars().nth(1).is_some();
    let file = FILES.iter().any(|f| f.eq_ignore_ascii_case(&label[..end]));
    (long && !cut && !file && end <= 63).then_some(end)
}
