//! JSON inside a JSON string: the arguments of a tool call, masked as they arrive.
//!
//! A model writes arguments as JSON text, and a stream cuts that text anywhere, inside an escape or a surrogate pair
//! too. This codec follows the JSON, hands the *decoded* contents of each string to the filter as a text of its own
//! (keys too), and encodes what comes back, so that the result is valid JSON whenever the arguments were. Numbers are
//! texts as well, with an exponent and without: a card number need not be quoted; one that the filter changes becomes a
//! string.
//!
//! Promises: the same output for every way of cutting the input. Where the filter masks nothing, the bytes pass as
//! they came; where it masks, strings are written with the fewest escapes. Keys of one object that the filter makes the same are numbered.
//!
//! Arguments that are not JSON (models do that) are plain text from the token on that is not, and the filter sees that
//! text as it stands, under the keys around it: it misses what is escaped there. It misses too a value spread over
//! several strings. A key that came as another leaves is not told from it.
//! Holds no more than half an escape, one number, [`MAX_NAMES`] numbers of changed keys and what the filter holds.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
};

use super::{Channel, ShapeError, TextFilter, json, texts::MAX_LABEL_BYTES};

/// The longest number; what is longer is no number and makes the rest plain text.
const MAX_NUMBER_BYTES: usize = 512;

/// The most bytes of the keys around a text that are told of as its label.
const MAX_LABELS_BYTES: usize = 3 * MAX_LABEL_BYTES;

/// Changed keys that are remembered of all objects that are open; behind those, keys may leave the same.
const MAX_NAMES: usize = 256;

/// One arguments text being read.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    state: State,
    /// What is open.
    open: Vec<Open>,
    /// Bytes of an escape, or of a number or word, whose end has not come.
    held: String,
    /// Decoded text of the string being read that was not handed to the filter yet.
    text: String,
    /// A part of the string being read was handed to the filter.
    begun: bool,
    /// The keys under which what is read stands, the outermost first.
    keys: String,
    /// What the filter let go last.
    released: String,
    /// The key being read, as it came and as it leaves.
    key: (DefaultHasher, DefaultHasher),
    /// How often each changed key left, by how many objects and arrays were open and the key's digest.
    names: BTreeMap<(usize, u64), u32>,
}

/// An array, or an object and how long `keys` was before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    Object(usize),
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A value; behind the document too, where another may follow.
    #[default]
    Value,
    /// A value or `]`.
    FirstValue,
    /// A key or `}`.
    FirstKey,
    Key,
    Colon,
    /// A comma or the end of what is open.
    Comma,
    /// Inside a string, a key or not.
    InString {
        key: bool,
    },
    /// Inside a number, `true`, `false` or `null`, and the space behind it.
    InWord,
    /// Not JSON: everything is text.
    Plain,
}

impl Arguments {
    /// Arguments that are known whole.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub(crate) fn whole(
        text: &str,
        channel: &Channel,
        filter: &mut dyn TextFilter,
    ) -> Result<String, ShapeError> {
        let (mut arguments, mut out) = (Self::default(), String::with_capacity(text.len()));
        arguments.push(text, channel, filter, &mut out)?;
        arguments.finish(channel, filter, &mut out);
        Ok(out)
    }

    /// Takes the next piece and appends what may leave.
    ///
    /// # Errors
    /// `too_deep` where arrays and objects nest deeper than [`json::MAX_DEPTH`].
    pub(crate) fn push(
        &mut self,
        piece: &str,
        channel: &Channel,
        filter: &mut dyn TextFilter,
        out: &mut String,
    ) -> Result<(), ShapeError> {
        let before = out.len();
        for (at, c) in piece.char_indices() {
            if self.state == State::Plain {
                filter.push(channel, piece.get(at..).unwrap_or_default(), out);
                break;
            }
            self.step(c, out, channel, filter)?;
        }
        self.hand_over(out, channel, filter);
        if !filter.masks() {
            out.truncate(before);
            out.push_str(piece);
        }
        Ok(())
    }

    /// The arguments are over: appends everything still held, masked.
    pub(crate) fn finish(
        &mut self,
        channel: &Channel,
        filter: &mut dyn TextFilter,
        out: &mut String,
    ) {
        let before = out.len();
        match self.state {
            State::InWord => self.end_word(out, channel, filter),
            State::InString { .. } => {
                self.end_string(out, channel, filter);
                // Half an escape: fewer characters than any text.
                out.push_str(&self.held);
            }
            State::Plain => filter.finish(channel, out),
            _ => {}
        }
        *self = Self::default();
        if !filter.masks() {
            out.truncate(before);
        }
    }

    fn step(
        &mut self,
        c: char,
        out: &mut String,
        channel: &Channel,
        filter: &mut dyn TextFilter,
    ) -> Result<(), ShapeError> {
        match self.state {
            State::InString { key } => self.in_string(c, key, out, channel, filter),
            State::InWord => {
                if matches!(c, ',' | ']' | '}') {
                    self.end_word(out, channel, filter);
                    return self.between(c, out, channel, filter);
                }
                self.held.push(c);
                if self.held.len() > MAX_NUMBER_BYTES || !word_so_far(&self.held) {
                    self.plain(out, channel, filter);
                }
            }
            _ => return self.between(c, out, channel, filter),
        }
        Ok(())
    }

    /// A character outside strings and words.
    fn between(
        &mut self,
        c: char,
        out: &mut String,
        channel: &Channel,
        filter: &mut dyn TextFilter,
    ) -> Result<(), ShapeError> {
        let value = matches!(self.state, State::Value | State::FirstValue);
        let key = matches!(self.state, State::Key | State::FirstKey);
        self.state = match (c, self.state) {
            (' ' | '\t' | '\n' | '\r', state) if state != State::Plain => state,
            ('{', _) if value => self.opened(true)?,
            ('[', _) if value => self.opened(false)?,
            ('"', _) if value || key => {
                if key {
                    self.next_key();
                }
                State::InString { key }
            }
            (':', State::Colon) => State::Value,
            (',', State::Comma) if self.in_object() => State::Key,
            (',', State::Comma) => State::Value,
            ('}', State::Comma | State::FirstKey) if self.in_object() => self.closed(),
            (']', State::Comma | State::FirstValue) if !self.in_object() => self.closed(),
            ('-' | '0'..='9' | 't' | 'f' | 'n', _) if value => {
                self.held.push(c);
                self.state = State::InWord;
                return Ok(());
            }
            _ => {
                self.held.push(c);
                self.plain(out, channel, filter);
                return Ok(());
            }
        };
        out.push(c);
        Ok(())
    }

    fn opened(&mut self, object: bool) -> Result<State, ShapeError> {
        if self.open.len() == json::MAX_DEPTH {
            return Err(ShapeError::new(
                "too_deep",
                "tool call arguments are nested too deep".to_owned(),
            ));
        }
        Ok(if object {
            self.open.push(Open::Object(self.keys.len()));
            State::FirstKey
        } else {
            self.open.push(Open::Array);
            State::FirstValue
        })
    }

    fn closed(&mut self) -> State {
        let depth = self.open.len();
        if let Some(Open::Object(keys)) = self.open.pop() {
            self.keys.truncate(keys);
            let of_it = self
                .names
                .last_key_value()
                .is_some_and(|((of, _), _)| *of == depth);
            if of_it {
                self.names.split_off(&(depth, 0));
            }
        }
        self.behind_value()
    }

    /// Not an array, if anything.
    fn in_object(&self) -> bool {
        matches!(self.open.last(), Some(Open::Object(_)))
    }

    /// A key begins: the one before says nothing of what stands under it.
    fn next_key(&mut self) {
        if let Some(Open::Object(keys)) = self.open.last() {
            self.keys.truncate(*keys);
            self.keys.push(' ');
        }
    }

    /// A character of a key.
    fn label(&mut self, c: char) {
        if let Some(Open::Object(keys)) = self.open.last() {
            self.keys.push(c);
            // Its last words say the most. Before it is a blank.
            while self.keys.len() > keys + 1 + MAX_LABEL_BYTES {
                self.keys.remove(keys + 1);
            }
        }
    }

    /// Behind a whole document another may follow, so that it is read as JSON too.
    fn behind_value(&self) -> State {
        if self.open.is_empty() {
            State::Value
        } else {
            State::Comma
        }
    }

    fn in_string(
        &mut self,
        c: char,
        key: bool,
        out: &mut String,
        channel: &Channel,
        filter: &mut dyn TextFilter,
    ) {
        if self.held.is_empty() {
            match c {
                '"' => {
                    self.hand_over(out, channel, filter);
                    self.end_string(out, channel, filter);
                    if key {
                        self.number(out);
                    }
                    out.push('"');
                    self.state = if key {
                        State::Colon
                    } else {
                        self.behind_value()
                    };
                }
                '\\' => self.held.push(c),
                c if c < ' ' => {
                    self.held.push(c);
                    self.plain(out, channel, filter);
                }
                c => self.take(c, key),
            }
            return;
        }
        self.held.push(c);
        match escape(&self.held) {
            Escape::Partial => {}
            Escape::Whole(c) => {
                self.held.clear();
                self.take(c, key);
            }
            Escape::Invalid => self.plain(out, channel, filter),
        }
    }

    /// Takes a character of a string.
    fn take(&mut self, c: char, key: bool) {
        self.text.push(c);
        if key {
            self.label(c);
            self.key.0.write_u32(c.into());
        }
    }

    /// A key is over that may have left before.
    fn number(&mut self, out: &mut String) {
        let (came, left) = std::mem::take(&mut self.key);
        let left = left.finish();
        if came.finish() == left {
            return;
        }
        let name = (self.open.len(), left);
        if self.names.len() < MAX_NAMES || self.names.contains_key(&name) {
            let times = self.names.entry(name).or_default();
            *times += 1;
            if *times > 1 {
                out.push_str(&format!("_{times}"));
            }
        }
    }

    /// What the filter let go leaves.
    fn release(&mut self, out: &mut String) {
        if self.state == (State::InString { key: true }) {
            for c in self.released.chars() {
                self.key.1.write_u32(c.into());
            }
        }
        json::escape_least_into(out, &self.released);
    }

    /// Hands the decoded text read so far to the filter and encodes what it lets go.
    fn hand_over(&mut self, out: &mut String, channel: &Channel, filter: &mut dyn TextFilter) {
        if self.text.is_empty() {
            return;
        }
        self.tell_label(channel, filter);
        self.released.clear();
        filter.push(channel, &self.text, &mut self.released);
        self.release(out);
        self.text.clear();
    }

    /// The keys under which what is read stands, as far as they are told of.
    fn nearest_keys(&self) -> &str {
        let mut start = self.keys.len().saturating_sub(MAX_LABELS_BYTES);
        while !self.keys.is_char_boundary(start) {
            start += 1;
        }
        self.keys[start..].trim_start()
    }

    /// Tells the filter under which keys the text stands that begins: a key stands under those around it only.
    fn tell_label(&mut self, channel: &Channel, filter: &mut dyn TextFilter) {
        if !std::mem::replace(&mut self.begun, true)
            && self.state != (State::InString { key: true })
        {
            filter.label(channel, self.nearest_keys());
        }
    }

    fn end_string(&mut self, out: &mut String, channel: &Channel, filter: &mut dyn TextFilter) {
        self.released.clear();
        filter.finish(channel, &mut self.released);
        self.release(out);
        self.begun = false;
    }

    /// A number is a text of its own, and so is what it is without an exponent; words carry nothing.
    fn end_word(&mut self, out: &mut String, channel: &Channel, filter: &mut dyn TextFilter) {
        let held = std::mem::take(&mut self.held);
        let word = held.trim_end_matches([' ', '\t', '\n', '\r']);
        let space = held.get(word.len()..).unwrap_or_default();
        let number = !matches!(word, "true" | "false" | "null");
        let decimal = json::decimal(word);
        let readings = decimal.iter().map(String::as_str).chain([word]);
        let masked = readings.filter(|_| number).find_map(|reading| {
            filter.label(channel, self.nearest_keys());
            let masked = filter.whole(channel, reading);
            (masked != reading).then_some(masked)
        });
        match masked {
            Some(masked) => out.push_str(&json::quoted(&masked)),
            None => out.push_str(word),
        }
        out.push_str(space);
        self.state = self.behind_value();
    }

    /// Not JSON from here on. A text that was open goes on, so that a value in it is still found whole.
    fn plain(&mut self, out: &mut String, channel: &Channel, filter: &mut dyn TextFilter) {
        // What came while it was JSON is encoded, or where the input was cut would show.
        self.hand_over(out, channel, filter);
        self.tell_label(channel, filter);
        self.state = State::Plain;
        filter.push(channel, &std::mem::take(&mut self.held), out);
    }
}

enum Escape {
    Partial,
    Whole(char),
    Invalid,
}

/// Reads an escape from its backslash on.
fn escape(held: &str) -> Escape {
    let bytes = held.as_bytes();
    let Some(&letter) = bytes.get(1) else {
        return Escape::Partial;
    };
    if letter != b'u' {
        return json::short_escape(letter).map_or(Escape::Invalid, Escape::Whole);
    }
    let Some(high) = unit(bytes.get(2..).unwrap_or_default()) else {
        return Escape::Invalid;
    };
    let Some(high) = high else {
        return Escape::Partial;
    };
    if let Some(c) = char::from_u32(high) {
        return Escape::Whole(c);
    }
    match bytes.get(6..) {
        None | Some([] | b"\\" | b"\\u") => Escape::Partial,
        Some([b'\\', b'u', rest @ ..]) => match unit(rest) {
            None => Escape::Invalid,
            Some(None) => Escape::Partial,
            Some(Some(low)) => json::pair(high, low).map_or(Escape::Invalid, Escape::Whole),
        },
        Some(_) => Escape::Invalid,
    }
}

/// Four hexadecimal digits: `None` where there is something else, `Some(None)` where some have yet to come.
fn unit(bytes: &[u8]) -> Option<Option<u32>> {
    let digits = bytes.get(..bytes.len().min(4)).unwrap_or_default();
    let value = digits.iter().try_fold(0, |value, &digit| {
        char::from(digit)
            .to_digit(16)
            .map(|digit| value * 16 + digit)
    })?;
    Some((digits.len() == 4).then_some(value))
}

/// Whether `held` may still become a number or word and the space behind it.
fn word_so_far(held: &str) -> bool {
    let word = held.trim_end_matches([' ', '\t', '\n', '\r']);
    let whole = matches!(word, "true" | "false" | "null") || json::is_number(word);
    if word.len() < held.len() {
        return whole;
    }
    // Every beginning of a number is one with a digit more.
    whole
        || ["true", "false", "null"]
            .iter()
            .any(|known| known.starts_with(word))
        || json::is_number(&format!("{word}0"))
}
