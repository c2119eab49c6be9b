//! The strict front: what is let into the parser at all, and what of its tree is used.
//!
//! Promises: a [`Document`] is well-formed XML 1.0 with namespaces in UTF-8, of at most [`MAX_ELEMENTS`] elements nested at
//! most [`MAX_DEPTH`] deep, without document type declaration (so without entities of its own), comment, CDATA section and
//! processing instruction, and no two of its elements have the same id. So the text of an element is one piece, and there is
//! nothing two parsers could read differently.
//!
//! The bounds are checked on the bytes before the parser runs, because its work grows with the square of the attributes of
//! one element and of the namespaces in scope.

use std::collections::BTreeSet;

use roxmltree::{Document, Node, ParsingOptions};

use super::SamlError;

/// Deepest nesting of elements. Assertions nest about 8 deep.
const MAX_DEPTH: usize = 32;
/// Most elements: [`MAX_GROUPS`](super::super::claims::MAX_GROUPS) values of an attribute and much besides.
const MAX_ELEMENTS: usize = 4096;
/// Most attributes of one element, namespace declarations included.
const MAX_ATTRIBUTES: usize = 64;
/// Most namespace declarations in scope.
const MAX_NAMESPACES: usize = 64;
/// Longest start tag, in bytes.
const MAX_TAG_BYTES: usize = 16 * 1024;

/// Parses what somebody sent.
///
/// # Errors
/// [`SamlError`], one variant per cause, up to [`SamlError::DuplicateId`].
pub(super) fn parse(document: &[u8], most: usize) -> Result<Document<'_>, SamlError> {
    let_in(document, most, false)
}

/// As [`parse`], but comments may stand in it, as they do in metadata that somebody edits.
///
/// # Errors
/// As for [`parse`].
pub(super) fn parse_with_comments(document: &[u8], most: usize) -> Result<Document<'_>, SamlError> {
    let_in(document, most, true)
}

fn let_in(document: &[u8], most: usize, comments: bool) -> Result<Document<'_>, SamlError> {
    if document.len() > most {
        return Err(SamlError::TooLarge);
    }
    let text = std::str::from_utf8(document).map_err(|_| SamlError::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    survey(after_declaration(text)?, comments)?;
    let document = parse_text(text)?;
    let mut ids = BTreeSet::new();
    for element in document.root().descendants().filter(Node::is_element) {
        // Namespaces in XML 1.0, 3: a prefix cannot be undeclared.
        let undeclared = |namespace: &roxmltree::Namespace<'_>| {
            namespace.name().is_some() && namespace.uri().is_empty()
        };
        if element.namespaces().any(undeclared) {
            return Err(SamlError::NotXml);
        }
        for attribute in element.attributes() {
            // Without a DTD nothing says which attributes are ids; these are the names that anybody takes for one.
            if attribute.name().eq_ignore_ascii_case("id") && !ids.insert(attribute.value()) {
                return Err(SamlError::DuplicateId);
            }
        }
    }
    Ok(document)
}

/// Parses a canonical form of ours.
pub(super) fn parse_text(text: &str) -> Result<Document<'_>, SamlError> {
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: 3 * MAX_ELEMENTS as u32,
        entity_resolver: None,
    };
    Document::parse_with_options(text, options).map_err(|_| SamlError::NotXml)
}

/// What follows the XML declaration, which may only say what is so: 1.0, and UTF-8.
fn after_declaration(text: &str) -> Result<&str, SamlError> {
    let declaration = text
        .strip_prefix("<?xml")
        .filter(|rest| rest.starts_with([' ', '\t', '\r', '\n']));
    let Some(declaration) = declaration else {
        return Ok(text);
    };
    let (declaration, rest) = declaration.split_once("?>").ok_or(SamlError::NotXml)?;
    let said: String = declaration
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| {
            if c == '\'' {
                '"'
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect();
    let said = said
        .strip_prefix("version=\"1.0\"")
        .ok_or(SamlError::NotUtf8)?;
    let said = said.strip_prefix("encoding=\"utf-8\"").unwrap_or(said);
    let good = ["", "standalone=\"yes\"", "standalone=\"no\""].contains(&said);
    good.then_some(rest).ok_or(SamlError::NotUtf8)
}

/// Goes through the tags. `<` stands nowhere else once comments, CDATA sections and processing instructions are refused, and
/// the first of those is seen before anything inside it is.
fn survey(text: &str, comments: bool) -> Result<(), SamlError> {
    let mut elements = 0;
    // Namespace declarations in scope, of each open element.
    let mut open: Vec<usize> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = rest.get(at + 1..).unwrap_or_default();
        match rest.as_bytes().first() {
            Some(b'!') if comments && rest.starts_with("!--") => {
                // Past the opening first: `<!-->` does not close what it opens.
                let inside = rest.get(3..).unwrap_or_default();
                let (_, after) = inside.split_once("-->").ok_or(SamlError::NotXml)?;
                rest = after;
            }
            Some(b'!') => return Err(declaration(rest)),
            Some(b'?') => return Err(SamlError::ProcessingInstruction),
            Some(b'/') => {
                open.pop();
            }
            _ => {
                let tag = start_tag(rest)?;
                elements += 1;
                let namespaces = open.last().copied().unwrap_or(0) + tag.namespaces;
                if elements > MAX_ELEMENTS
                    || tag.attributes > MAX_ATTRIBUTES
                    || namespaces > MAX_NAMESPACES
                {
                    return Err(SamlError::TooComplex);
                }
                if open.len() >= MAX_DEPTH {
                    return Err(SamlError::TooDeep);
                }
                if !tag.empty {
                    open.push(namespaces);
                }
                rest = rest.get(tag.bytes..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

fn declaration(rest: &str) -> SamlError {
    if rest.starts_with("!--") {
        SamlError::Comment
    } else if rest.starts_with("![CDATA[") {
        SamlError::Cdata
    } else {
        SamlError::Doctype
    }
}

struct Tag {
    bytes: usize,
    attributes: usize,
    namespaces: usize,
    empty: bool,
}

/// The start tag that `rest` begins inside of.
fn start_tag(rest: &str) -> Result<Tag, SamlError> {
    let (mut attributes, mut namespaces, mut quote, mut name) = (0, 0, None, 0);
    for (at, byte) in rest.bytes().enumerate() {
        if at > MAX_TAG_BYTES {
            return Err(SamlError::TooComplex);
        }
        match (quote, byte) {
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'<') => return Err(SamlError::NotXml),
            (None, b'=') => {
                attributes += 1;
                let written = rest.get(name..at).unwrap_or_default();
                namespaces += usize::from(written.starts_with("xmlns"));
            }
            (None, b'>') => {
                let empty = rest.get(..at).is_some_and(|tag| tag.ends_with('/'));
                let bytes = at + 1;
                return Ok(Tag {
                    bytes,
                    attributes,
                    namespaces,
                    empty,
                });
            }
            (None, byte) if byte.is_ascii_whitespace() => {
                // Blanks may stand before the `=` too.
                let next = rest.as_bytes().get(at + 1);
                if next.is_some_and(|next| *next != b'=' && !next.is_ascii_whitespace()) {
                    name = at + 1;
                }
            }
            (None, _) => {}
        }
    }
    Err(SamlError::NotXml)
}

/// Whether `node` is the element `name` of `namespace`.
pub(super) fn is(node: Node<'_, '_>, namespace: &str, name: &str) -> bool {
    node.is_element()
        && node.tag_name().namespace() == Some(namespace)
        && node.tag_name().name() == name
}

/// The child elements, in order.
pub(super) fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

/// The child elements of that name.
pub(super) fn named<'a, 'i>(
    node: Node<'a, 'i>,
    namespace: &'static str,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    elements(node).filter(move |child| is(*child, namespace, name))
}

/// The text of an element that holds nothing but text. With comments, CDATA sections and the rest refused it is one piece.
pub(super) fn text<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let mut children = node.children();
    match (children.next(), children.next()) {
        (None, _) => Some(""),
        (Some(only), None) if only.is_text() => only.text(),
        _ => None,
    }
}

/// The value of an attribute without a namespace.
pub(super) fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    // Not by the parser's own look-up, which takes an attribute of any namespace for one without.
    node.attributes()
        .find(|attribute| attribute.namespace().is_none() && attribute.name() == name)
        .map(|attribute| attribute.value())
}

/// Whether there are no attributes without a namespace but these.
pub(super) fn only_attributes(node: Node<'_, '_>, names: &[&str]) -> bool {
    node.attributes()
        .all(|attribute| attribute.namespace().is_none() && names.contains(&attribute.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<SamlError> {
        parse(text.as_bytes(), 1 << 20).err()
    }

    #[test]
    fn only_plain_elements_and_text_get_in() {
        let good = [
            "<a/>",
            "\u{feff}<a>&lt;&#x41;</a>",
            "<?xml version='1.0' encoding='UTF-8' standalone=\"no\"?>\n<a b='>' c=\"'/>\"></a>",
            "<p:a xmlns:p='u' p:b='1' b='2'/>",
        ];
        for text in good {
            assert_eq!(refusal(text), None, "{text}");
        }
        let cases = [
            ("<!DOCTYPE a><a/>", SamlError::Doctype),
            ("<!DOCTYPE a []><a/>", SamlError::Doctype),
            ("<a><!ENTITY b 'c'></a>", SamlError::Doctype),
            ("<a><!--c--></a>", SamlError::Comment),
            ("<a/><!---->", SamlError::Comment),
            ("<a><![CDATA[b]]></a>", SamlError::Cdata),
            ("<a><?b c?></a>", SamlError::ProcessingInstruction),
            (
                "<?xml-stylesheet href='x'?><a/>",
                SamlError::ProcessingInstruction,
            ),
            (
                " <?xml version='1.0'?><a/>",
                SamlError::ProcessingInstruction,
            ),
            ("<?xml version='1.1'?><a/>", SamlError::NotUtf8),
            (
                "<?xml version='1.0' encoding='UTF-16'?><a/>",
                SamlError::NotUtf8,
            ),
            (
                "<?xml version='1.0' encoding='UTF-7'?><a/>",
                SamlError::NotUtf8,
            ),
            ("<a>&b;</a>", SamlError::NotXml),
            ("<a b='&c;'/>", SamlError::NotXml),
            ("<a>", SamlError::NotXml),
            ("<a></b>", SamlError::NotXml),
            ("<a/><b/>", SamlError::NotXml),
            ("<a b='1' b='2'/>", SamlError::NotXml),
            ("<a b='<'/>", SamlError::NotXml),
            ("<p:a/>", SamlError::NotXml),
            ("<a xmlns:p=''/>", SamlError::NotXml),
            (
                "<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>",
                SamlError::NotXml,
            ),
            ("<a>\u{1}</a>", SamlError::NotXml),
            ("<a>&#0;</a>", SamlError::NotXml),
            ("", SamlError::NotXml),
            ("a", SamlError::NotXml),
            ("<a ID='x'><b ID='x'/></a>", SamlError::DuplicateId),
            ("<a ID='x'><b Id='x'/></a>", SamlError::DuplicateId),
            ("<a ID='x'><b xml:id='x'/></a>", SamlError::DuplicateId),
        ];
        for (text, expected) in cases {
            assert_eq!(refusal(text), Some(expected), "{text}");
        }
        assert!(matches!(parse(b"<a>\xff</a>", 99), Err(SamlError::NotUtf8)));
        assert!(matches!(
            parse(b"\xff\xfe<\0a\0/\0>\0", 99),
            Err(SamlError::NotUtf8)
        ));
        assert!(matches!(parse(b"<a/>", 3), Err(SamlError::TooLarge)));
    }

    #[test]
    fn comments_are_skipped_where_they_may_be_and_hide_nothing() {
        let refusal = |text: &str| parse_with_comments(text.as_bytes(), 1 << 20).err();
        assert_eq!(
            refusal("<!-- <a> <![CDATA[ --><a><!--<?b?>--><!--> <b> --></a>"),
            None
        );
        for (text, expected) in [
            ("<a><!-- --><![CDATA[ ]]></a>", SamlError::Cdata),
            ("<a><!-- --", SamlError::NotXml),
            ("<!----><!DOCTYPE a><a/>", SamlError::Doctype),
            ("<a><!--> --><?b?></a>", SamlError::ProcessingInstruction),
            ("<a><!-- -- --></a>", SamlError::NotXml),
        ] {
            assert_eq!(refusal(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_would_be_dear_to_parse_is_not_parsed() {
        let deep = |depth: usize| "<a>".repeat(depth) + &"</a>".repeat(depth);
        assert_eq!(refusal(&deep(MAX_DEPTH)), None);
        assert_eq!(refusal(&deep(MAX_DEPTH + 1)), Some(SamlError::TooDeep));
        assert_eq!(refusal(&deep(80_000)), Some(SamlError::TooDeep));
        let wide = |elements: usize| format!("<a>{}</a>", "<b/>".repeat(elements - 1));
        assert_eq!(refusal(&wide(MAX_ELEMENTS)), None);
        assert_eq!(
            refusal(&wide(MAX_ELEMENTS + 1)),
            Some(SamlError::TooComplex)
        );
        let attributes = |count: usize| {
            let all: String = (0..count).map(|n| format!(" a{n} = '='")).collect();
            format!("<a{all}/>")
        };
        assert_eq!(refusal(&attributes(MAX_ATTRIBUTES)), None);
        assert_eq!(
            refusal(&attributes(MAX_ATTRIBUTES + 1)),
            Some(SamlError::TooComplex)
        );
        let declared = |outer: usize, inner: usize| {
            let all = |from: usize, to: usize| -> String {
                (from..to).map(|n| format!("\nxmlns:a{n}\t= 'u'")).collect()
            };
            format!("<a{}><b{}/></a>", all(0, outer), all(outer, outer + inner))
        };
        assert_eq!(refusal(&declared(32, 32)), None);
        assert_eq!(refusal(&declared(32, 33)), Some(SamlError::TooComplex));
        let long = format!("<a b='{}'/>", "c".repeat(MAX_TAG_BYTES));
        assert_eq!(refusal(&long), Some(SamlError::TooComplex));
    }
}
