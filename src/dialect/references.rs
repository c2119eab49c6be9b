//! What a request only refers to: things kept elsewhere, which whoever keeps them may change after the request was looked at.
//!
//! Promises: an id or an address under any of the names that the providers' APIs give them is found, wherever it stands.
//! Can miss: names that no provider we know of uses, and what a text asks the model to fetch.

use super::json::{Document, Kind, Value};

/// Names of members whose strings (or lists of them, or `id`s of objects) name something kept by the provider.
const KEPT: [&str; 22] = [
    "assistant_id",
    "cached_content",
    "cachedContent",
    "connector_id",
    "container",
    "container_id",
    "conversation",
    "conversation_id",
    "file_id",
    "file_ids",
    "fileUri",
    "file_uri",
    "memory_store_id",
    "previous_interaction_id",
    "previous_response_id",
    "prompt_id",
    "skill_id",
    "thread_id",
    "vector_store_id",
    "vector_store_ids",
    "corpus",
    "rag_corpus",
];

/// Names of members that may hold an address.
const ADDRESSES: [&str; 9] = [
    "file_url",
    "image_url",
    "server_url",
    "uri",
    "url",
    "video_url",
    "audio_url",
    "mcp_server_url",
    "endpoint",
];

/// Most references that are told; where there are as many there may be more.
pub(crate) const MOST: usize = 64;

/// Every reference in the document: under which name, and what it names.
pub(super) fn references(document: &Document<'_>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    walk(document, &document.root, &mut found);
    found
}

// Bounded by the reader's depth.
fn walk(document: &Document<'_>, value: &Value, found: &mut Vec<(&'static str, String)>) {
    if found.len() >= MOST {
        return;
    }
    match &value.kind {
        Kind::Array(items) => items.iter().for_each(|item| walk(document, item, found)),
        Kind::Object(members) => {
            let kind = document.member(value, "type");
            if kind.and_then(|kind| document.string(kind)).as_deref() == Some("item_reference")
                && let Some(id) = document.member(value, "id")
            {
                named(document, "item_reference", id, found);
            }
            for member in members {
                let name = document.key(&member.key);
                let known = |names: &'static [&'static str]| {
                    names.iter().find(|known| **known == name).copied()
                };
                if let Some(kind) = known(&KEPT) {
                    named(document, kind, &member.value, found);
                } else if name == "prompt" && document.member(&member.value, "id").is_some() {
                    named(document, "stored_prompt", &member.value, found);
                } else if let Some(kind) = known(&ADDRESSES)
                    && let Some(text) = document.string(&member.value)
                    && is_remote(&text)
                {
                    note(found, kind, text.into_owned());
                }
                walk(document, &member.value, found);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Number | Kind::String { .. } => {}
    }
}

/// The strings that name something: the value, its items, or its `id`.
fn named(
    document: &Document<'_>,
    kind: &'static str,
    value: &Value,
    found: &mut Vec<(&'static str, String)>,
) {
    if let Some(text) = document.string(value) {
        if !text.is_empty() {
            note(found, kind, text.into_owned());
        }
    } else if let Kind::Array(items) = &value.kind {
        for text in items.iter().filter_map(|item| document.string(item)) {
            note(found, kind, text.into_owned());
        }
    } else if let Some(text) = document
        .member(value, "id")
        .and_then(|id| document.string(id))
    {
        note(found, kind, text.into_owned());
    }
}

/// Once each: many of the same leave room for the others.
fn note(found: &mut Vec<(&'static str, String)>, kind: &'static str, name: String) {
    let one = (kind, name);
    if found.len() < MOST && !found.contains(&one) {
        found.push(one);
    }
}

/// Whether it is fetched from elsewhere, rather than being the thing itself.
fn is_remote(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.trim());
    text.trim_start().starts_with("//")
        || scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case("data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, String)> {
        references(&Document::read(text).unwrap())
    }

    #[test]
    fn what_is_kept_elsewhere_is_found_wherever_it_stands() {
        for (text, kind, name) in [
            (
                r#"{"previous_response_id":"resp_1"}"#,
                "previous_response_id",
                "resp_1",
            ),
            (r#"{"conversation":{"id":"c1"}}"#, "conversation", "c1"),
            (r#"{"conversation":"c1"}"#, "conversation", "c1"),
            (
                r#"{"prompt":{"id":"pmpt_1","version":"2"}}"#,
                "stored_prompt",
                "pmpt_1",
            ),
            (
                r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}"#,
                "url",
                "https://x/y.png",
            ),
            (
                r#"{"input":[{"content":[{"type":"input_image","image_url":"HTTP://x"}]}]}"#,
                "image_url",
                "HTTP://x",
            ),
            (
                r#"{"input":[{"content":[{"type":"input_file","file_id":"file-1"}]}]}"#,
                "file_id",
                "file-1",
            ),
            (
                r#"{"tools":[{"type":"mcp","server_url":"https://mcp"}]}"#,
                "server_url",
                "https://mcp",
            ),
            (
                r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}"#,
                "vector_store_ids",
                "vs_1",
            ),
            (
                r#"{"contents":[{"parts":[{"fileData":{"fileUri":"gs://b/o"}}]}]}"#,
                "fileUri",
                "gs://b/o",
            ),
            (
                r#"{"cachedContent":"cachedContents/1"}"#,
                "cachedContent",
                "cachedContents/1",
            ),
            (
                r#"{"mcp_servers":[{"type":"url","url":"https://m"}]}"#,
                "url",
                "https://m",
            ),
            (
                r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#,
                "item_reference",
                "msg_1",
            ),
            (r#"{"url":"//host/x.png"}"#, "url", "//host/x.png"),
            (r#"{"container":"container_1"}"#, "container", "container_1"),
            (
                r#"{"im\u0061ge_url":"https://x"}"#,
                "image_url",
                "https://x",
            ),
        ] {
            assert_eq!(found(text), [(kind, name.to_owned())], "{text}");
        }
    }

    #[test]
    fn what_is_in_the_request_itself_is_no_reference() {
        for text in [
            r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AA"}}]}]}"#,
            r#"{"messages":[{"content":"see https://example.com"}],"prompt":"hello"}"#,
            r#"{"previous_response_id":null,"file_ids":[],"container":{"type":"auto"}}"#,
            r#"{"model":"m"}"#,
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn a_flood_of_them_is_bounded() {
        let many: Vec<_> = (0..10_000)
            .map(|n| format!(r#"{{"file_id":"f{n}"}}"#))
            .collect();
        assert_eq!(found(&format!("[{}]", many.join(","))).len(), MOST);
        // Many of the same hide none.
        let same = vec![r#"{"file_id":"f"}"#; 10_000].join(",");
        let told = found(&format!(r#"[{same},{{"previous_response_id":"r"}}]"#));
        assert_eq!(told.last().unwrap().1, "r");
    }
}
