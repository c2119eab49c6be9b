//! A strict RFC 8259 reader that keeps every byte's place, and a splicer that puts new strings in.
//!
//! Promises: what it accepts is read the same way by every conforming parser; each value knows the bytes it came from;
//! [`splice`] changes the given spans and leaves every other byte as received. What parsers are known to disagree
//! about is refused, each with a code of its own: a byte order mark, invalid UTF-8, lone surrogates, duplicate keys,
//! keys that differ only in case (Go's `encoding/json` takes `"Model"` and `"\u017ftream"` for `model` and `stream`),
//! data behind the document, numbers that are none.
//!
//! Never recurses deeper than [`MAX_DEPTH`], never holds more than [`MAX_VALUES`] values, never repeats the body's
//! text in an error. It does not compare keys by Unicode normalisation: no parser known to us does.
//!
//! `serde_json` is not enough: it drops the spans, keeps the last of two equal keys and says nothing of it.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap};

use super::ShapeError;

/// Arrays and objects inside one another: one more is `too_deep`.
pub(crate) const MAX_DEPTH: usize = 64;
/// Values in one document: one more is `too_many_values`.
pub(crate) const MAX_VALUES: usize = 1 << 20;
/// Objects with more members than this are checked for equal keys by sorting instead of pairwise, and not searched twice for one name.
const PAIRWISE: usize = 12;

/// Digits of a number that is written without its exponent; no value that is looked for has more.
const MAX_DECIMAL_DIGITS: usize = 40;
/// The same with zeros that say nothing, in front and behind.
const MAX_NUMBER_DIGITS: usize = 512;

/// A range of bytes of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// First byte.
    pub(crate) start: u32,
    /// One past the last byte.
    pub(crate) end: u32,
}

impl Span {
    /// The bytes of `text` in this span; empty where it is not one of `text`.
    pub(crate) fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// A value and where it stands; a string's span includes its quotes.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a value is. Strings are decoded when asked for, numbers never.
#[derive(Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number,
    String { escaped: bool },
    Array(Vec<Value>),
    Object(Vec<Member>),
}

/// One member of an object.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) key: Key,
    pub(crate) value: Value,
}

/// A member's name; its span includes the quotes.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) span: Span,
    decoded: Option<Box<str>>,
}

impl Key {
    /// The name where it was written with escapes.
    pub(crate) fn decoded(&self) -> Option<&str> {
        self.decoded.as_deref()
    }
}

/// A document that was read, over the text it was read from.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    pub(crate) text: &'t str,
    pub(crate) root: Value,
    /// What was found in large objects: the same few members are asked for with every text.
    found: RefCell<Found>,
}

/// Places of members by where their object begins and the name that was asked for.
type Found = BTreeMap<(u32, Box<str>), Option<usize>>;

impl<'t> Document<'t> {
    /// Reads `text` as one JSON document.
    ///
    /// # Errors
    /// A [`ShapeError`] for anything that is not exactly one document; the module header lists what is refused.
    pub(crate) fn read(text: &'t str) -> Result<Self, ShapeError> {
        let mut reader = Reader {
            text,
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
            values: 0,
        };
        let root = reader.document()?;
        Ok(Self {
            text,
            root,
            found: RefCell::default(),
        })
    }

    /// The decoded text of a string value, `None` for every other kind.
    pub(crate) fn string(&self, value: &Value) -> Option<Cow<'t, str>> {
        match value.kind {
            Kind::String { escaped } => {
                let inner = inner(self.text, value.span);
                Some(if escaped {
                    Cow::Owned(unescape(inner))
                } else {
                    Cow::Borrowed(inner)
                })
            }
            _ => None,
        }
    }

    /// The decoded name of a member.
    pub(crate) fn key<'a>(&self, key: &'a Key) -> &'a str
    where
        't: 'a,
    {
        key.decoded
            .as_deref()
            .unwrap_or_else(|| inner(self.text, key.span))
    }

    /// The member of `object` called `name`; `None` too where `object` is none.
    pub(crate) fn member<'a>(&self, object: &'a Value, name: &str) -> Option<&'a Value>
    where
        't: 'a,
    {
        let Kind::Object(members) = &object.kind else {
            return None;
        };
        let find = || {
            let mut names = members.iter().map(|member| self.key(&member.key));
            names.position(|known| known == name)
        };
        let place = match members.len() > PAIRWISE {
            false => find(),
            true => {
                let mut found = self.found.borrow_mut();
                *found
                    .entry((object.span.start, name.into()))
                    .or_insert_with(find)
            }
        };
        members.get(place?).map(|member| &member.value)
    }

    /// The value as a non-negative integer that fits.
    pub(crate) fn integer(&self, value: &Value) -> Option<u64> {
        match value.kind {
            Kind::Number => value.span.of(self.text).parse().ok(),
            _ => None,
        }
    }
}

/// The body as text.
///
/// # Errors
/// `invalid_utf8` and `byte_order_mark`; RFC 8259 section 8.1 allows ignoring a mark, so parsers differ.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, ShapeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        ShapeError::at("invalid_utf8", "the body is not UTF-8", error.valid_up_to())
    })?;
    if text.starts_with('\u{feff}') {
        return Err(ShapeError::at(
            "byte_order_mark",
            "the body begins with a byte order mark",
            0,
        ));
    }
    Ok(text)
}

/// `text` with each span replaced; every other byte stays. Spans must not overlap; they are sorted here.
pub(crate) fn splice(text: &str, mut edits: Vec<(Span, String)>) -> String {
    edits.sort_by_key(|(span, _)| *span);
    let grown: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut out = String::with_capacity(text.len() + grown);
    let mut at = 0;
    for (span, new) in edits {
        out.push_str(text.get(at..span.start as usize).unwrap_or_default());
        out.push_str(&new);
        at = span.end as usize;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// As [`quoted`], in the same memory where nothing has to be escaped.
pub(crate) fn quote(mut text: String) -> String {
    if plain_end(text.as_bytes(), 0) < text.len() || line_end(&text).is_some() {
        return quoted(&text);
    }
    text.reserve_exact(2);
    text.insert(0, '"');
    text.push('"');
    text
}

/// `text` as a JSON string, quotes included, escaped as [`escape_into`] does.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    escape_into(&mut out, text);
    out.push('"');
    out
}

/// Appends `text` as the inside of a JSON string, escaping what must be, and what some clients take for the end of a
/// line of a stream (httpx splits lines as Python's `str.splitlines` does): U+0085, U+2028, U+2029.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some((at, end, escape)) = line_end(rest) {
        escape_least_into(out, rest.get(..at).unwrap_or_default());
        out.push_str(escape);
        rest = rest.get(end..).unwrap_or_default();
    }
    escape_least_into(out, rest);
}

/// Where the first character that ends a line beyond ASCII begins and ends, and its escape.
fn line_end(text: &str) -> Option<(usize, usize, &'static str)> {
    memchr::memchr2_iter(0xc2, 0xe2, text.as_bytes()).find_map(|at| {
        match text.as_bytes().get(at..)? {
            [0xc2, 0x85, ..] => Some((at, at + 2, "\\u0085")),
            [0xe2, 0x80, 0xa8, ..] => Some((at, at + 3, "\\u2028")),
            [0xe2, 0x80, 0xa9, ..] => Some((at, at + 3, "\\u2029")),
            _ => None,
        }
    })
}

/// Appends `text` as the inside of a JSON string, escaping only what RFC 8259 section 7 requires: for JSON that is
/// itself a text of a document.
pub(crate) fn escape_least_into(out: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let (plain, from) = rest.split_at(plain_end(rest.as_bytes(), 0));
        out.push_str(plain);
        let Some(byte) = from.bytes().next() else {
            return;
        };
        match short_letter(byte) {
            Some(letter) => out.extend(['\\', letter]),
            None => {
                out.push_str("\\u00");
                out.push(if byte < 0x10 { '0' } else { '1' });
                out.push(char::from_digit(u32::from(byte) & 0xf, 16).unwrap_or('0'));
            }
        }
        rest = from.get(1..).unwrap_or_default();
    }
}

/// How many bytes are looked at in one go, so that a compiler makes vectors of them.
const STRIDE: usize = 32;

/// Where the next byte at or behind `at` stands that means something inside a JSON string: a quote, a backslash, or a control
/// character; the length of `bytes` where none does.
fn plain_end(bytes: &[u8], at: usize) -> usize {
    let means = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    let rest = bytes.get(at..).unwrap_or_default();
    let any = |chunk: &&[u8]| chunk.iter().fold(false, |any, &byte| any | means(byte));
    let plain = rest.chunks_exact(STRIDE).take_while(|chunk| !any(chunk));
    let from = at + plain.count() * STRIDE;
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.iter().position(|&byte| means(byte));
    found.map_or(bytes.len(), |found| from + found)
}

/// The letter that stands for a byte that must be escaped, where there is one.
fn short_letter(byte: u8) -> Option<char> {
    Some(match byte {
        b'"' => '"',
        b'\\' => '\\',
        b'\n' => 'n',
        b'\r' => 'r',
        b'\t' => 't',
        0x8 => 'b',
        0xc => 'f',
        _ => return None,
    })
}

/// The text of the JSON string that stands at `span`, quotes included.
pub(crate) fn text_at(text: &str, span: Span) -> Cow<'_, str> {
    let inner = inner(text, span);
    if inner.contains('\\') {
        Cow::Owned(unescape(inner))
    } else {
        Cow::Borrowed(inner)
    }
}

/// Appends what stands inside a JSON string, decoded. `None` where an escape is not one: part of it is appended then.
pub(crate) fn unescape_into(out: &mut String, inner: &str) -> Option<()> {
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let (decoded, length) = escape_at(escape.as_bytes(), 0).ok()?;
        out.push(decoded);
        rest = escape.get(length..)?;
    }
    out.push_str(rest);
    Some(())
}

/// Whether two keys are the same to a parser that ignores case, as Go's `encoding/json` does: ASCII case, and the two
/// characters beyond ASCII that fold into it, U+017F (s) and U+212A (k).
pub(crate) fn same_folded(a: &str, b: &str) -> bool {
    a.chars().map(fold).eq(b.chars().map(fold))
}

/// Whether `text` is exactly a number of RFC 8259 section 6.
pub(crate) fn is_number(text: &str) -> bool {
    let bytes = text.as_bytes();
    number_end(bytes, 0) == Some(bytes.len())
}

/// A number that has an exponent, written without one; `None` where that takes more than [`MAX_DECIMAL_DIGITS`].
pub(crate) fn decimal(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, mantissa) = mantissa.split_at(usize::from(mantissa.starts_with('-')));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let front = usize::try_from(point.min(0).unsigned_abs()).ok()?;
    let point = usize::try_from(point.max(0)).ok()?;
    if front.max(point) > MAX_NUMBER_DIGITS {
        return None;
    }
    let zeros = |count| std::iter::repeat_n('0', count);
    let mut digits: String = zeros(front)
        .chain(whole.chars())
        .chain(fraction.chars())
        .collect();
    digits.extend(zeros(point.saturating_sub(digits.len())));
    let (whole, fraction) = digits.split_at_checked(point)?;
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    if whole.len() + fraction.len() > MAX_DECIMAL_DIGITS {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Some([sign, whole, point, fraction].concat())
}

/// What a character escaped by one letter stands for (RFC 8259 section 7), `u` excepted.
pub(crate) fn short_escape(letter: u8) -> Option<char> {
    Some(match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

/// The character a surrogate pair stands for.
pub(crate) fn pair(high: u32, low: u32) -> Option<char> {
    let both = (0xd800..0xdc00).contains(&high) && (0xdc00..0xe000).contains(&low);
    both.then(|| char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)))
        .flatten()
}

fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    }
}

fn inner(text: &str, span: Span) -> &str {
    text.get(span.start as usize + 1..(span.end as usize).saturating_sub(1))
        .unwrap_or_default()
}

/// Decodes the inside of a string the reader has accepted.
fn unescape(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    // INVARIANT: the reader accepts no string whose escapes are none.
    let _ = unescape_into(&mut out, inner);
    out
}

/// The escape that begins at `at` and its length in bytes, or the code of what is wrong with it.
fn escape_at(bytes: &[u8], at: usize) -> Result<(char, usize), &'static str> {
    match bytes.get(at + 1) {
        None => Err("truncated_json"),
        Some(b'u') => {
            let first = hex4(bytes, at + 2)?;
            if let Some(c) = char::from_u32(first) {
                return Ok((c, 6));
            }
            if bytes.get(at + 6) != Some(&b'\\') || bytes.get(at + 7) != Some(&b'u') {
                return Err("lone_surrogate");
            }
            let second = hex4(bytes, at + 8)?;
            pair(first, second).map(|c| (c, 12)).ok_or("lone_surrogate")
        }
        Some(&letter) => short_escape(letter).map(|c| (c, 2)).ok_or("invalid_escape"),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Result<u32, &'static str> {
    let digits = bytes.get(at..at + 4).ok_or("invalid_escape")?;
    digits.iter().try_fold(0, |value, &digit| {
        char::from(digit)
            .to_digit(16)
            .map(|digit| value * 16 + digit)
            .ok_or("invalid_escape")
    })
}

/// Where the number that begins at `at` ends.
fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = |mut at: usize| -> Option<usize> {
        let begin = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        (at > begin).then_some(at)
    };
    let at = if bytes.get(at) == Some(&b'-') {
        at + 1
    } else {
        at
    };
    let mut end = if bytes.get(at) == Some(&b'0') {
        at + 1
    } else {
        digits(at)?
    };
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits(end + 1 + sign)?;
    }
    Some(end)
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    depth: usize,
    values: usize,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Value, ShapeError> {
        if u32::try_from(self.bytes.len()).is_err() {
            return Err(self.fault("too_large", "the document is over 4 GiB"));
        }
        self.space();
        if self.bytes.len() == self.at {
            return Err(self.fault("empty_body", "the body is empty"));
        }
        let root = self.value()?;
        self.space();
        if self.at < self.bytes.len() {
            return Err(self.fault("trailing_data", "there is more behind the JSON document"));
        }
        Ok(root)
    }

    fn value(&mut self) -> Result<Value, ShapeError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.fault("too_many_values", "the document has too many values"));
        }
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Kind::String {
                escaped: self.string()?,
            },
            Some(b't') => self.word("true", Kind::Bool(true))?,
            Some(b'f') => self.word("false", Kind::Bool(false))?,
            Some(b'n') => self.word("null", Kind::Null)?,
            Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'N' | b'I') => self.number()?,
            Some(_) => return Err(self.fault("invalid_json", "a value was expected")),
            None => return Err(self.cut()),
        };
        Ok(Value {
            span: self.span(start),
            kind,
        })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Kind, ShapeError>,
    ) -> Result<Kind, ShapeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault("too_deep", "arrays and objects are nested too deep"));
        }
        self.at += 1;
        self.space();
        let kind = read(self)?;
        self.depth -= 1;
        Ok(kind)
    }

    fn array(&mut self) -> Result<Kind, ShapeError> {
        let mut values = Vec::new();
        if self.take(b']') {
            return Ok(Kind::Array(values));
        }
        loop {
            values.push(self.value()?);
            self.space();
            if self.take(b']') {
                return Ok(Kind::Array(values));
            }
            self.expect(b',', "a comma or the array's end was expected")?;
            self.space();
        }
    }

    fn object(&mut self) -> Result<Kind, ShapeError> {
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(Kind::Object(members));
        }
        loop {
            members.push(self.member()?);
            self.space();
            if self.take(b'}') {
                self.distinct(&members)?;
                return Ok(Kind::Object(members));
            }
            self.expect(b',', "a comma or the object's end was expected")?;
            self.space();
        }
    }

    fn member(&mut self) -> Result<Member, ShapeError> {
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(self.fault("invalid_json", "a key was expected")),
            None => return Err(self.cut()),
        }
        let start = self.at;
        let escaped = self.string()?;
        let span = self.span(start);
        let decoded = escaped.then(|| unescape(inner(self.text, span)).into_boxed_str());
        self.space();
        self.expect(b':', "a colon was expected")?;
        self.space();
        Ok(Member {
            key: Key { span, decoded },
            value: self.value()?,
        })
    }

    /// Reads a string and says whether it has escapes.
    fn string(&mut self) -> Result<bool, ShapeError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    match escape_at(self.bytes, self.at) {
                        Ok((_, length)) => self.at += length,
                        Err("truncated_json") => return Err(self.cut()),
                        Err("lone_surrogate") => {
                            return Err(self
                                .fault("lone_surrogate", "an escape is half of a surrogate pair"));
                        }
                        Err(code) => {
                            return Err(
                                self.fault(code, "a string has an escape that JSON does not know")
                            );
                        }
                    }
                }
                Some(0..0x20) => {
                    return Err(self.fault(
                        "control_character",
                        "a string has a control character that is not escaped",
                    ));
                }
                Some(_) => self.at = plain_end(self.bytes, self.at),
                None => return Err(self.cut()),
            }
        }
    }

    fn number(&mut self) -> Result<Kind, ShapeError> {
        let end = number_end(self.bytes, self.at);
        // What stands right behind tells `01`, `1.` and `NaN` from a number that was followed by something else.
        match end {
            Some(end)
                if !matches!(
                    self.bytes.get(end),
                    Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.')
                ) =>
            {
                self.at = end;
                Ok(Kind::Number)
            }
            _ => Err(self.fault("invalid_number", "a number is not one that JSON knows")),
        }
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Kind, ShapeError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(kind);
        }
        if word.starts_with(rest) {
            return Err(self.cut());
        }
        Err(self.fault("invalid_json", "a word is neither true, false nor null"))
    }

    /// INVARIANT: no two members of an object that was read have names some parser takes for the same.
    fn distinct(&self, members: &[Member]) -> Result<(), ShapeError> {
        let twins = if members.len() <= PAIRWISE {
            self.pairwise(members)
        } else {
            self.sorted(members)
        };
        let Some((first, second)) = twins else {
            return Ok(());
        };
        let at = second.span.start as usize;
        Err(if self.name(first) == self.name(second) {
            ShapeError::at("duplicate_key", "an object has a key twice", at)
        } else {
            ShapeError::at(
                "case_variant_key",
                "an object has two keys that differ only in case",
                at,
            )
        })
    }

    fn pairwise<'m>(&self, members: &'m [Member]) -> Option<(&'m Key, &'m Key)> {
        members.iter().enumerate().find_map(|(at, second)| {
            let second = &second.key;
            let first = members
                .iter()
                .take(at)
                .find(|first| same_folded(self.name(&first.key), self.name(second)))?;
            Some((&first.key, second))
        })
    }

    /// For large objects, where comparing pairwise would let a caller burn our time.
    fn sorted<'m>(&self, members: &'m [Member]) -> Option<(&'m Key, &'m Key)> {
        let folded = |member: &'m Member| {
            (
                self.name(&member.key).chars().map(fold).collect::<String>(),
                &member.key,
            )
        };
        let mut names: Vec<_> = members.iter().map(folded).collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names.windows(2).find_map(|two| match two {
            [a, b] if a.0 == b.0 => Some((a.1, b.1)),
            _ => None,
        })
    }

    fn name<'a>(&'a self, key: &'a Key) -> &'a str {
        key.decoded
            .as_deref()
            .unwrap_or_else(|| inner(self.text, key.span))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8, reason: &str) -> Result<(), ShapeError> {
        if self.take(byte) {
            return Ok(());
        }
        Err(if self.at == self.bytes.len() {
            self.cut()
        } else {
            self.fault("invalid_json", reason)
        })
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn span(&self, start: usize) -> Span {
        // `document` has refused texts whose offsets would not fit.
        let fit = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span {
            start: fit(start),
            end: fit(self.at),
        }
    }

    fn cut(&self) -> ShapeError {
        self.fault("truncated_json", "the JSON document is cut short")
    }

    fn fault(&self, code: &'static str, reason: &str) -> ShapeError {
        ShapeError::at(code, reason, self.at)
    }
}
