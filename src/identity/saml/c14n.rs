//! Exclusive XML Canonicalization 1.0 without comments (W3C, 18 July 2002) of one element.
//!
//! Needs the prefixes as they were written, which the parser's tree does not keep: they are read at each name's place in the
//! text. Comments and processing instructions cannot occur ([`super::xml`]).

use std::collections::BTreeMap;

use roxmltree::Node;

use super::SamlError;

/// The longest canonical form that is written: a namespace that is declared once may have to be written at each element that uses it.
const MAX_BYTES: usize = 2 * super::MAX_ASSERTION_BYTES;

/// The canonical form of `apex`, without the element `without` below it. Prefixes in `inclusive` (`#default` for none) are
/// declared wherever they are in scope, as an `InclusiveNamespaces` element asks for.
pub(super) fn exclusive(
    apex: Node<'_, '_>,
    without: Option<Node<'_, '_>>,
    inclusive: &[&str],
) -> Result<String, SamlError> {
    let mut writer = Writer {
        out: String::with_capacity(apex.range().len()),
        rendered: Vec::new(),
        without,
        inclusive,
    };
    writer.element(apex);
    match writer.out.len() > MAX_BYTES {
        true => Err(SamlError::TooComplex),
        false => Ok(writer.out),
    }
}

struct Writer<'a, 'i, 'p> {
    out: String,
    /// Namespaces that the elements written and still open have declared, the innermost last.
    rendered: Vec<(&'a str, &'a str)>,
    without: Option<Node<'a, 'i>>,
    inclusive: &'p [&'p str],
}

impl<'a> Writer<'a, '_, '_> {
    /// Recursion is bounded by the depth that [`super::xml`] lets in.
    fn element(&mut self, node: Node<'a, '_>) {
        if self.out.len() > MAX_BYTES {
            return;
        }
        let name = written_name(node);
        let outer = self.rendered.len();
        self.out.push('<');
        self.out.push_str(name);
        for (prefix, uri) in self.visible(node, name) {
            let declared = self.rendered.iter().rfind(|(known, _)| *known == prefix);
            // What nothing has declared is the empty default namespace.
            if declared.map_or("", |(_, uri)| uri) == uri {
                continue;
            }
            self.out.push_str(if prefix.is_empty() {
                " xmlns"
            } else {
                " xmlns:"
            });
            self.out.push_str(prefix);
            self.value(uri);
            self.rendered.push((prefix, uri));
        }
        let mut attributes: Vec<_> = node.attributes().collect();
        attributes.sort_by_key(|attribute| (attribute.namespace().unwrap_or(""), attribute.name()));
        for attribute in attributes {
            self.out.push(' ');
            self.out.push_str(slice(node, attribute.range_qname()));
            self.value(attribute.value());
        }
        self.out.push('>');
        for child in node.children() {
            if child.is_element()
                && self
                    .without
                    .is_none_or(|without| without.id() != child.id())
            {
                self.element(child);
            } else if let Some(text) = child.text().filter(|_| child.is_text()) {
                self.text(text);
            }
        }
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
        self.rendered.truncate(outer);
    }

    /// The namespaces that the names of the element and its attributes use, and those asked for, by prefix.
    fn visible(&self, node: Node<'a, '_>, name: &'a str) -> BTreeMap<&'a str, &'a str> {
        let mut visible = BTreeMap::new();
        let uri = node.tag_name().namespace().unwrap_or("");
        visible.insert(prefix(name), uri);
        for attribute in node.attributes() {
            let prefix = prefix(slice(node, attribute.range_qname()));
            if !prefix.is_empty() {
                visible.insert(prefix, attribute.namespace().unwrap_or(""));
            }
        }
        for namespace in node.namespaces() {
            let prefix = namespace.name().unwrap_or("");
            let asked = if prefix.is_empty() {
                "#default"
            } else {
                prefix
            };
            if self.inclusive.contains(&asked) {
                // The innermost declaration is the one in scope, and the tree tells only that.
                visible.insert(prefix, uri_of(node, prefix));
            }
        }
        // Bound by definition, and never declared.
        visible.remove("xml");
        visible
    }

    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '\r' => self.out.push_str("&#xD;"),
                c => self.out.push(c),
            }
        }
    }

    fn value(&mut self, value: &str) {
        self.out.push_str("=\"");
        for c in value.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '"' => self.out.push_str("&quot;"),
                '\t' => self.out.push_str("&#x9;"),
                '\n' => self.out.push_str("&#xA;"),
                '\r' => self.out.push_str("&#xD;"),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn uri_of<'a>(node: Node<'a, '_>, prefix: &str) -> &'a str {
    let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
    node.lookup_namespace_uri(prefix).unwrap_or("")
}

/// The element's name as it is written in its start tag.
fn written_name<'a>(node: Node<'a, '_>) -> &'a str {
    let range = node.range();
    let tag = slice(node, range.start + 1..range.end);
    let end = tag.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>');
    tag.get(..end.unwrap_or(tag.len())).unwrap_or_default()
}

fn prefix(name: &str) -> &str {
    name.split_once(':').map_or("", |(prefix, _)| prefix)
}

fn slice<'a>(node: Node<'a, '_>, range: std::ops::Range<usize>) -> &'a str {
    // The parser's ranges are of this text, and its names end at character boundaries.
    node.document().input_text().get(range).unwrap_or_default()
}
