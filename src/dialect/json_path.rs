//! Places in a JSON document, as RFC 9535 (JSONPath) writes them.
//!
//! Promises: names, wildcards, indices, slices, several of them in one segment, and descendants mean what the RFC says;
//! each value is found once, in document order. Names are compared as they are decoded, by their code points.
//!
//! Never runs longer than values times their depth times selectors, of which a segment has at most 16, for each of at most 16
//! segments. Filters (`?`) and functions are no part of
//! this: what a field is must not hang on what stands in others, which a caller writes.

use super::{
    ShapeError,
    json::{Document, Kind, Value},
};

/// The most segments of a path.
const MAX_SEGMENTS: usize = 16;
/// The most selectors in one of them.
const MAX_SELECTORS: usize = 16;
/// The longest path in bytes.
const MAX_BYTES: usize = 1024;
/// Integers of a path are those that every implementation has (RFC 9535 section 2.1, I-JSON).
const MAX_INTEGER: i64 = (1 << 53) - 1;

/// A path that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    /// Of the value and of all that is in it, not of the value only.
    descendants: bool,
    selectors: Vec<Selector>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Selector {
    Name(String),
    All,
    Index(i64),
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        step: i64,
    },
}

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    /// One sentence for the author of the path: what is wrong and where, counted in characters from 1.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("a path has at most {MAX_BYTES} bytes"));
        }
        let mut reader = Reader { text, at: 0 };
        reader.expect('$', "a path begins with `$`")?;
        let mut segments = Vec::new();
        while reader.at < text.len() {
            segments.push(reader.segment()?);
        }
        match segments.len() {
            0 => Err(
                "`$` is the whole document: name a field of it, as in `$.customer.id`".to_owned(),
            ),
            1..=MAX_SEGMENTS => Ok(Self { segments }),
            _ => Err(format!("a path has at most {MAX_SEGMENTS} segments")),
        }
    }

    /// The values it leads to in `document`, each once, in document order.
    pub(super) fn find<'v>(&self, document: &'v Document<'_>) -> Vec<&'v Value> {
        let mut found = vec![&document.root];
        for segment in &self.segments {
            let mut next = Vec::new();
            for value in found {
                segment.select(document, value, &mut next);
            }
            next.sort_by_key(|value| value.span);
            next.dedup_by_key(|value| value.span);
            found = next;
        }
        found
    }
}

impl Segment {
    fn select<'v>(&self, document: &Document<'_>, value: &'v Value, out: &mut Vec<&'v Value>) {
        for selector in &self.selectors {
            selector.select(document, value, out);
        }
        if self.descendants {
            // The document's depth is bounded, and so is this.
            match &value.kind {
                Kind::Array(values) => {
                    values
                        .iter()
                        .for_each(|value| self.select(document, value, out));
                }
                Kind::Object(members) => members
                    .iter()
                    .for_each(|member| self.select(document, &member.value, out)),
                Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String { .. } => {}
            }
        }
    }
}

impl Selector {
    fn select<'v>(&self, document: &Document<'_>, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, &value.kind) {
            (Self::Name(name), Kind::Object(members)) => out.extend(
                members
                    .iter()
                    .filter(|member| document.key(&member.key) == name)
                    .map(|member| &member.value),
            ),
            (Self::All, Kind::Object(members)) => {
                out.extend(members.iter().map(|member| &member.value));
            }
            (Self::All, Kind::Array(values)) => out.extend(values),
            (Self::Index(index), Kind::Array(values)) => {
                out.extend(place(*index, values.len()).and_then(|place| values.get(place)));
            }
            (Self::Slice { start, end, step }, Kind::Array(values)) => {
                let places = slice(*start, *end, *step, values.len());
                out.extend(places.filter_map(|place| values.get(place)));
            }
            _ => {}
        }
    }
}

/// The place that an index means, which counts from the end where it is negative.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { length + index } else { index };
    usize::try_from(index).ok()
}

/// The places of a slice (RFC 9535 section 2.3.4.2.2), in order. What is found is sorted, so that only which ones they
/// are counts, not in which direction they are gone through.
fn slice(
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
    length: usize,
) -> impl Iterator<Item = usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let normal = |at: i64| if at < 0 { length + at } else { at };
    let (lower, upper, first) = if step >= 0 {
        let start = normal(start.unwrap_or(0)).clamp(0, length);
        let end = normal(end.unwrap_or(length)).clamp(0, length);
        (start, end, start)
    } else {
        let start = start.map_or(length - 1, normal).clamp(-1, length - 1);
        let end = end.map_or(-1, normal).clamp(-1, length - 1);
        (end + 1, start + 1, start)
    };
    let every = step.unsigned_abs();
    (lower..upper)
        .filter(move |at| every > 0 && at.abs_diff(first) % every == 0)
        .filter_map(|at| usize::try_from(at).ok())
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn segment(&mut self) -> Result<Segment, String> {
        self.space();
        let descendants = self.rest().starts_with("..");
        if descendants {
            self.at += 2;
        } else if self.take('.') {
            let selector = self.shorthand()?;
            return Ok(Segment {
                descendants,
                selectors: vec![selector],
            });
        }
        let selectors = if self.take('[') {
            self.bracketed()?
        } else if descendants {
            vec![self.shorthand()?]
        } else {
            return Err(self.fault("`.` or `[` was expected"));
        };
        Ok(Segment {
            descendants,
            selectors,
        })
    }

    /// What may stand behind a dot: `*` or a name without quotes.
    fn shorthand(&mut self) -> Result<Selector, String> {
        if self.take('*') {
            return Ok(Selector::All);
        }
        let first = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
        let any = |c: char| first(c) || c.is_ascii_digit();
        let length = match self.rest().find(|c| !any(c)) {
            Some(length) => length,
            None => self.rest().len(),
        };
        let name = self.rest().get(..length).unwrap_or_default().to_owned();
        if !name.starts_with(first) {
            return Err(self.fault(
                "a name was expected: write it in brackets and quotes where it is no plain word",
            ));
        }
        self.at += length;
        Ok(Selector::Name(name))
    }

    fn bracketed(&mut self) -> Result<Vec<Selector>, String> {
        let mut selectors = Vec::new();
        loop {
            self.space();
            selectors.push(self.selector()?);
            if selectors.len() > MAX_SELECTORS {
                return Err(self.fault("a segment has at most 16 selectors"));
            }
            self.space();
            if self.take(']') {
                return Ok(selectors);
            }
            self.expect(',', "`,` or `]` was expected")?;
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        match self.rest().chars().next() {
            Some('*') => {
                self.at += 1;
                Ok(Selector::All)
            }
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(Selector::Name),
            Some('?') => Err(self.fault("filters are not supported")),
            _ => self.numbers(),
        }
    }

    fn numbers(&mut self) -> Result<Selector, String> {
        let start = self.integer()?;
        self.space();
        if !self.take(':') {
            let index = start.ok_or_else(|| {
                self.fault("a name in quotes, an index, a slice or `*` was expected")
            })?;
            return Ok(Selector::Index(index));
        }
        self.space();
        let end = self.integer()?;
        self.space();
        let mut step = None;
        if self.take(':') {
            self.space();
            step = self.integer()?;
        }
        Ok(Selector::Slice {
            start,
            end,
            step: step.unwrap_or(1),
        })
    }

    fn integer(&mut self) -> Result<Option<i64>, String> {
        let sign = usize::from(self.rest().starts_with('-'));
        let digits = self.rest().get(sign..).unwrap_or_default();
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length + sign == 0 {
            return Ok(None);
        }
        let written = self.rest().get(..sign + length).unwrap_or_default();
        let plain = written == "0" || !(written.starts_with("-0") || digits.starts_with('0'));
        let number = written.parse::<i64>().ok().filter(|_| plain);
        let number = number.filter(|number| number.abs() <= MAX_INTEGER);
        let number =
            number.ok_or_else(|| self.fault("an integer is not one that JSONPath knows"))?;
        self.at += written.len();
        Ok(Some(number))
    }

    /// A name in quotes (RFC 9535 section 2.3.1.2): JSON's escapes, and that of the single quote.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let begin = self.at;
        self.at += 1;
        let mut json = String::from("\"");
        loop {
            let Some(c) = self.rest().chars().next() else {
                self.at = begin;
                return Err(self.fault("a name's closing quote is missing"));
            };
            self.at += c.len_utf8();
            match c {
                c if c == quote => break,
                '"' => json.push_str("\\\""),
                '\\' => {
                    let escaped = self.rest().chars().next();
                    self.at += escaped.map_or(0, char::len_utf8);
                    match escaped {
                        Some('\'') if quote == '\'' => json.push('\''),
                        Some('"') if quote == '\'' => {
                            return Err(self.fault("an escape is none that JSONPath knows"));
                        }
                        Some(letter) => json.extend(['\\', letter]),
                        None => {}
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
        let read = |text| -> Result<String, ShapeError> {
            let document = Document::read(text)?;
            Ok(document
                .string(&document.root)
                .unwrap_or_default()
                .into_owned())
        };
        read(&json).map_err(|_| self.fault("a name in quotes is not one that JSON knows"))
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn take(&mut self, c: char) -> bool {
        let is = self.rest().starts_with(c);
        self.at += if is { c.len_utf8() } else { 0 };
        is
    }

    fn expect(&mut self, c: char, reason: &str) -> Result<(), String> {
        if self.take(c) {
            return Ok(());
        }
        Err(self.fault(reason))
    }

    fn fault(&self, reason: &str) -> String {
        let before = self.text.get(..self.at).unwrap_or_default();
        format!("{reason}, at character {}", before.chars().count() + 1)
    }
}
