//! What takes the place of a found value.
//!
//! Every stand-in is written in letters and brackets, so that no detector takes it for a value, wherever the text goes
//! next.

use std::fmt;

use super::{Plan, keys::Keys};
use crate::detect::{self, Entity, Hit};

/// What takes the place of a found value.
///
/// A value too long to be held (see [`MAX_REACH`](crate::detect::MAX_REACH)) is replaced, whatever the operator but
/// [`Redact`](Self::Redact): its end is not known when its stand-in is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Operator {
    /// `[US_SSN]`: the entity's name in brackets.
    #[default]
    Replace,
    /// Nothing: the value is removed.
    Redact,
    /// Asterisks but for the last `n` letters and digits; separators stay. An escape, such as `\u00e9`, counts as what it
    /// stands for and stays whole. A value with `n` of them or fewer is all asterisks.
    KeepLast(u8),
    /// `[US_SSN:` and 16 letters `]`: the first 64 bits of a keyed hash (HMAC-SHA-256, RFC 2104) of the entity and the
    /// value. Equal values can be told from others; nobody can tell which they are.
    Hash,
    /// `[US_SSN~` and letters `]`: the value, encrypted so that equal values become equal (AES-256-GCM-SIV under a fixed
    /// nonce, RFC 8452). Whoever holds the key has it back with [`unmask`](super::unmask).
    Tokenize,
    /// `[US_SSN_1_` and letters `]`: a placeholder that stands for the value in this request, and is put back where the
    /// answer repeats it. For prompts only.
    Vault(Restore),
}

/// Where in an answer a placeholder is put back, beside plain text. Both let whoever can steer the model, as by text it
/// was given to read, carry the value out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Restore {
    /// In arguments of tool calls.
    pub tool_arguments: bool,
    /// In what looks like a link.
    pub links: bool,
}

impl Operator {
    /// Whether it needs a [`MaskingKey`](super::MaskingKey).
    #[must_use]
    pub fn is_keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Tokenize | Self::Vault(_))
    }
}

/// As records name it: `replace`, `redact`, `keep_last:4`, `hash`, `tokenize`, `vault`.
impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace => f.write_str("replace"),
            Self::Redact => f.write_str("redact"),
            Self::KeepLast(n) => write!(f, "keep_last:{n}"),
            Self::Hash => f.write_str("hash"),
            Self::Tokenize => f.write_str("tokenize"),
            Self::Vault(_) => f.write_str("vault"),
        }
    }
}

impl Plan {
    /// Writes what takes the place of `value`. Without the key or the vault an operator asks for, it is replaced.
    pub(super) fn put(&self, hit: &Hit, value: &str, out: &mut String) {
        let entity = self.scanner.entity(hit.pattern);
        // Where it is the front of a finding, it only joins the value to a name: `card_4111…`.
        let value = value
            .strip_prefix('_')
            .inspect(|_| out.push('_'))
            .unwrap_or(value);
        match self.operators[hit.pattern] {
            Operator::Redact => {}
            _ if hit.growth.is_some() => replace(entity, out),
            operator => self.stand_in(operator, entity, value, out),
        }
    }

    /// Writes what `operator` puts in the place of a value of `entity`.
    pub(super) fn stand_in(
        &self,
        operator: Operator,
        entity: &Entity,
        value: &str,
        out: &mut String,
    ) {
        match (operator, &self.keys, &self.vault) {
            (Operator::Redact, ..) => {}
            (Operator::KeepLast(n), ..) => keep_last(value, usize::from(n), out),
            (Operator::Hash, Some(keys), _) => hash(keys, entity, value, out),
            (Operator::Tokenize, Some(keys), _) => match keys.token(entity, value) {
                Some(token) => out.push_str(&token),
                None => replace(entity, out),
            },
            (Operator::Vault(restore), _, Some(vault)) => {
                out.push_str(&vault.keep(entity, value, restore));
            }
            (Operator::Replace | Operator::Hash | Operator::Tokenize | Operator::Vault(_), ..) => {
                replace(entity, out);
            }
        }
    }
}

fn replace(entity: &str, out: &mut String) {
    out.push('[');
    out.push_str(entity);
    out.push(']');
}

fn hash(keys: &Keys, entity: &str, value: &str, out: &mut String) {
    out.push('[');
    out.push_str(entity);
    out.push(':');
    out.push_str(&keys.hash(entity, value));
    out.push(']');
}

fn keep_last(value: &str, keep: usize, out: &mut String) {
    let characters = detect::characters(value)
        .filter(|(_, c)| c.is_alphanumeric())
        .count();
    let mut hide = if characters > keep {
        characters - keep
    } else {
        characters
    };
    out.extend(detect::characters(value).map(|(came, c)| {
        if !c.is_alphanumeric() || hide == 0 {
            return came;
        }
        hide -= 1;
        "*"
    }));
}
