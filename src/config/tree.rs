//! The file as a tree of values, each with the place it was written at.
//!
//! Read from the parser's events rather than through a loader, so that a key written twice is a fault with both lines,
//! depth and size are bounded while reading, and aliases cannot multiply anything: they are refused.
//! Scalars resolve by the YAML 1.2 core schema: `no` and `on` are strings, not booleans.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::fault::Fault;

/// Largest file, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Deepest nesting of a file.
const MAX_DEPTH: usize = 32;
/// Most values in a file.
const MAX_NODES: usize = 100_000;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    /// Keys in the order they were written, each with its place.
    Map(Vec<(String, Place, Node)>),
}

/// A place in the file: line and column from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    /// How a scalar is written, which decides whether places within its text can be told.
    style: Option<ScalarStyle>,
}

impl Place {
    fn start(span: &Span) -> Self {
        Self {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
            style: None,
        }
    }

    /// Where line `line`, column `column` of the scalar `text` that stands here is in `file`, all from 1; `None` where
    /// escapes or folding have moved them.
    pub(super) fn within(
        &self,
        file: &str,
        text: &str,
        line: usize,
        column: usize,
    ) -> Option<(usize, usize)> {
        let (first, indent) = self.text_start(file, text)?;
        Some((
            first + line.saturating_sub(1),
            indent + column.saturating_sub(1),
        ))
    }

    /// The line a scalar's text starts on and the column its lines start at, if it stands in `file` as it is.
    fn text_start(&self, file: &str, text: &str) -> Option<(usize, usize)> {
        match self.style? {
            ScalarStyle::Plain => stands_at(file, text, self.line, self.column),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                stands_at(file, text, self.line, self.column + 1)
            }
            ScalarStyle::Folded => None,
            ScalarStyle::Literal => {
                // The text begins on the line after the `|`; which of the two the parser names is its affair.
                let first = text.lines().next().filter(|first| !first.is_empty())?;
                let blanks = |line: &str| line.chars().take_while(|c| *c == ' ').count();
                [self.line, self.line + 1].into_iter().find_map(|line| {
                    let written = file.lines().nth(line.checked_sub(1)?)?;
                    stands_at(
                        file,
                        text,
                        line,
                        blanks(written).saturating_sub(blanks(first)) + 1,
                    )
                })
            }
        }
    }
}

/// That line and column, if each line of `text` is found there in `file`.
fn stands_at(file: &str, text: &str, line: usize, column: usize) -> Option<(usize, usize)> {
    let mut written = file.lines().skip(line.checked_sub(1)?);
    let stands = text.lines().all(|expected| {
        let found = written.next().unwrap_or_default();
        expected.chars().eq(found
            .chars()
            .skip(column - 1)
            .take(expected.chars().count()))
    });
    stands.then_some((line, column))
}

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Reads `text` as one document whose top is a mapping.
pub(super) fn read(text: &str) -> Result<Node, Vec<Fault>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Fault::new(
            1,
            "",
            format!("the file is larger than {MAX_BYTES} bytes"),
        )]);
    }
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        faults: Vec::new(),
        nodes: 0,
    };
    let top = match reader.document() {
        Ok(top) => top,
        Err(fault) => {
            reader.faults.push(fault);
            return Err(reader.faults);
        }
    };
    if reader.faults.is_empty() {
        Ok(top)
    } else {
        Err(reader.faults)
    }
}

struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    faults: Vec<Fault>,
    nodes: usize,
}

type Spanned<'t> = (Event<'t>, Span);

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Spanned<'t>, Fault> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let place = error.marker();
                Err(Fault::new(
                    place.line().max(1),
                    "",
                    format!("not valid YAML: {}", error.info()),
                )
                .column(place.col() + 1))
            }
            None => Err(Fault::new(1, "", "the file ends too early".to_owned())),
        }
    }

    fn document(&mut self) -> Result<Node, Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd => return Err(Fault::new(1, "", "the file is empty".to_owned())),
                event => {
                    let top = self.node(event, &span, &mut Vec::new())?;
                    self.end()?;
                    if !matches!(top.kind, Kind::Map(_)) {
                        let message =
                            "the file must be a mapping that starts with keys such as `listen:`";
                        return Err(Fault::new(top.at.line, "", message.to_owned()));
                    }
                    return Ok(top);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentEnd | Event::Nothing => {}
                _ => {
                    let line = Place::start(&span).line;
                    return Err(Fault::new(
                        line,
                        "",
                        "the file holds more than one document".to_owned(),
                    ));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, path: &mut Vec<Step>) -> Result<Node, Fault> {
        let mut at = Place::start(span);
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fault::new(
                at.line,
                "",
                format!("the file holds more than {MAX_NODES} values"),
            ));
        }
        if path.len() > MAX_DEPTH {
            return Err(Fault::new(
                at.line,
                "",
                format!("the file is nested more than {MAX_DEPTH} deep"),
            ));
        }
        let kind = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain(at, anchor, tag.as_deref(), path);
                at.style = Some(style);
                Kind::Scalar(if style == ScalarStyle::Plain {
                    resolve(&text)
                } else {
                    Value::String(text.into())
                })
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain(at, anchor, tag.as_deref(), path);
                Kind::List(self.list(path)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.plain(at, anchor, tag.as_deref(), path);
                Kind::Map(self.mapping(path)?)
            }
            Event::Alias(_) => {
                let message = "aliases (`*name`) are not supported; write the value out".to_owned();
                self.faults.push(Fault::new(at.line, &spell(path), message));
                Kind::Scalar(Value::Null)
            }
            _ => {
                return Err(Fault::new(
                    at.line,
                    &spell(path),
                    "a value is missing".to_owned(),
                ));
            }
        };
        Ok(Node { at, kind })
    }

    /// Anchors and tags change what a value means without showing it; none is needed here.
    fn plain(&mut self, at: Place, anchor: usize, tag: Option<&Tag>, path: &[Step]) {
        if anchor != 0 {
            let message = "anchors (`&name`) are not supported".to_owned();
            self.faults.push(Fault::new(at.line, &spell(path), message));
        }
        if tag.is_some() {
            self.faults.push(Fault::new(
                at.line,
                &spell(path),
                "tags (`!name`) are not supported".to_owned(),
            ));
        }
    }

    fn list(&mut self, path: &mut Vec<Step>) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            path.push(Step::Index(items.len()));
            items.push(self.node(event, &span, path)?);
            path.pop();
        }
    }

    fn mapping(&mut self, path: &mut Vec<Step>) -> Result<Vec<(String, Place, Node)>, Fault> {
        let mut entries: Vec<(String, Place, Node)> = Vec::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            let at = Place::start(&span);
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(key, ..) => key.into_owned(),
                Event::Alias(_) => "*".to_owned(),
                _ => {
                    return Err(Fault::new(
                        at.line,
                        &spell(path),
                        "a key must be a word, not a list or mapping".to_owned(),
                    ));
                }
            };
            path.push(Step::Key(key.clone()));
            let (event, span) = self.next()?;
            let value = self.node(event, &span, path)?;
            if key == "<<" {
                let message = "merge keys (`<<`) are not supported; write the keys out".to_owned();
                self.faults.push(Fault::new(at.line, &spell(path), message));
            } else if let Some(first) = lines.get(&key) {
                let message = format!("`{key}` is written twice, first on line {first}");
                self.faults.push(Fault::new(at.line, &spell(path), message));
            } else {
                lines.insert(key.clone(), at.line);
                entries.push((key, at, value));
            }
            path.pop();
        }
    }
}

/// A plain scalar by the YAML 1.2 core schema (YAML 1.2.2, section 10.3.2).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Number(number.into());
        }
        if let Ok(number) = digits.parse::<u64>()
            && !text.starts_with('-')
        {
            return Value::Number(number.into());
        }
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && let Ok(number) = u64::from_str_radix(digits, radix)
        {
            return Value::Number(number.into());
        }
    }
    let looks_like_a_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if looks_like_a_number && let Some(number) = text.parse().ok().and_then(Number::from_f64) {
        return Value::Number(number);
    }
    Value::String(text.to_owned())
}

impl Node {
    /// The values without their places.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, _, node)| (key.clone(), node.value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The place of the value at `path`, or of the nearest value around it that was written. A mapping or list begins
    /// below its key; its key is what one looks for, so that is its place.
    pub(super) fn place(&self, path: &[Step]) -> Place {
        let (mut node, mut place) = (self, self.at);
        for step in path {
            let next = match (&node.kind, step) {
                (Kind::List(items), Step::Index(index)) => {
                    items.get(*index).map(|item| (item, item.at))
                }
                (Kind::Map(entries), Step::Key(key)) => entries
                    .iter()
                    .find(|(known, ..)| known == key)
                    .map(|(_, at, node)| {
                        (
                            node,
                            if matches!(node.kind, Kind::Scalar(_)) {
                                node.at
                            } else {
                                *at
                            },
                        )
                    }),
                _ => None,
            };
            let Some(next) = next else { break };
            (node, place) = next;
        }
        place
    }

    /// The place of the key at the end of `path`.
    pub(super) fn key_place(&self, path: &[Step]) -> Place {
        let Some((Step::Key(key), parent)) = path.split_last() else {
            return self.place(path);
        };
        match self.at_path(parent).map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries
                .iter()
                .find(|(known, ..)| known == key)
                .map_or_else(|| self.place(parent), |(_, at, _)| *at),
            _ => self.place(parent),
        }
    }

    fn at_path(&self, path: &[Step]) -> Option<&Node> {
        path.iter()
            .try_fold(self, |node, step| match (&node.kind, step) {
                (Kind::List(items), Step::Index(index)) => items.get(*index),
                (Kind::Map(entries), Step::Key(key)) => entries
                    .iter()
                    .find(|(known, ..)| known == key)
                    .map(|(_, _, node)| node),
                _ => None,
            })
    }
}

/// A path as people write it: `connections[0].policies[2]`.
pub(super) fn spell(path: &[Step]) -> String {
    let mut spelled = String::new();
    for step in path {
        match step {
            Step::Key(key) if spelled.is_empty() => spelled.push_str(key),
            Step::Key(key) => {
                spelled.push('.');
                spelled.push_str(key);
            }
            Step::Index(index) => spelled.push_str(&format!("[{index}]")),
        }
    }
    spelled
}
