//! Documents that differ from the one before in one piece of text only: most of a stream is one such after another.

use crate::dialect::{
    Channel,
    texts::{Texts, What},
};

/// A document with one piece of text and nothing else to look at: most of a stream is one such after another.
#[derive(Debug)]
pub(super) struct Like {
    /// The document up to the text, opening quote included.
    pub(super) before: String,
    /// And behind it, from the closing quote on.
    pub(super) behind: String,
    pub(super) channel: Channel,
    /// The text is a piece of JSON.
    pub(super) json: bool,
}

impl Like {
    /// The text of `data`, where that is all it differs in. Text written with escapes is read the long way.
    pub(super) fn text<'d>(&self, data: &'d str) -> Option<&'d str> {
        let text = data
            .strip_prefix(self.before.as_str())?
            .strip_suffix(self.behind.as_str())?;
        let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
        text.bytes().all(plain).then_some(text)
    }
}

/// What the next document may be like, where this one had one piece of text and nothing but words besides.
pub(super) fn like(data: &str, texts: &Texts) -> Option<Like> {
    let mut pieces = texts
        .slots
        .iter()
        .filter(|slot| !matches!(slot.what, What::Word(_)));
    let piece = pieces.next().filter(|_| pieces.next().is_none())?;
    let json = match piece.what {
        What::Piece(_) => false,
        What::ArgumentsPiece(_) => true,
        _ => return None,
    };
    Some(Like {
        before: data.get(..piece.span.start as usize + 1)?.to_owned(),
        behind: data.get(piece.span.end as usize - 1..)?.to_owned(),
        channel: piece.channel.clone(),
        json,
    })
}
