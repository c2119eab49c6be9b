//! Having back what [`Operator::Tokenize`](super::Operator::Tokenize) replaced.

use super::Keys;

/// `text` with the value in place of every token that these keys made, how many there were, and how many that look like
/// tokens were made with other keys or are altered: those stay.
#[must_use]
pub fn unmask(keys: &Keys, text: &str) -> (String, usize, usize) {
    let (mut out, mut opened, mut strange) = (String::with_capacity(text.len()), 0, 0);
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some((token, entity, letters)) = token(from) else {
            out.push('[');
            rest = &from[1..];
            continue;
        };
        match keys.value(entity, letters) {
            Some(value) => {
                out.push_str(&value);
                opened += 1;
            }
            None => {
                out.push_str(token);
                strange += 1;
            }
        }
        rest = &from[token.len()..];
    }
    out.push_str(rest);
    (out, opened, strange)
}

/// The token that `text` begins with: all of it, its entity and its letters.
fn token(text: &str) -> Option<(&str, &str, &str)> {
    let ends = |b: &u8| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~'));
    let end = 1 + text.as_bytes().get(1..)?.iter().position(ends)?;
    let inside = text[..end]
        .get(1..)
        .filter(|_| text[end..].starts_with(']'))?;
    let (entity, letters) = inside.split_once('~')?;
    let name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let whole = !entity.is_empty()
        && entity.bytes().all(name)
        && !letters.is_empty()
        && letters.bytes().all(|b| matches!(b, b'a'..=b'p'));
    whole.then(|| (&text[..inside.len() + 2], entity, letters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{MaskingKey, Scope};

    fn keys(secret: &str) -> Keys {
        let key = MaskingKey::new(secret.repeat(32).into()).unwrap();
        key.keys(Scope::Deployment).unwrap()
    }

    #[test]
    fn what_was_tokenized_is_had_back_and_nothing_else_is_touched() {
        let (ours, theirs) = (keys("a"), keys("b"));
        let mine = ours.token("EMAIL", "ada@example.com").unwrap();
        let other = theirs.token("EMAIL", "bob@example.com").unwrap();
        let text = format!("[[{mine}] [EMAIL] [A~] [~a] [a~b] {other} {mine}[");
        let whole = format!("[[ada@example.com] [EMAIL] [A~] [~a] [a~b] {other} ada@example.com[");
        assert_eq!(unmask(&ours, &text), (whole, 2, 1));
        assert_eq!(unmask(&ours, ""), (String::new(), 0, 0));
    }
}
