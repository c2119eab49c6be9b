//! The texts that the Responses API says bit by bit: which event says which, and what begins one.

use super::{super::answer::string, number};
use crate::dialect::{
    Channel, ShapeError,
    json::{Document, Value},
    texts::Path,
};

/// A text, and the events that say it.
struct Spoken {
    /// The type of the event that goes on with it.
    delta: &'static str,
    /// The beginning of its channel's field.
    list: &'static str,
    /// The member that says which one of several it is.
    index: Option<&'static str>,
    /// The end of its channel's field, where there is one.
    member: &'static str,
}

const fn spoken(
    delta: &'static str,
    list: &'static str,
    index: Option<&'static str>,
    member: &'static str,
) -> Spoken {
    Spoken {
        delta,
        list,
        index,
        member,
    }
}

const CONTENT: Option<&str> = Some("content_index");
const SUMMARY: Option<&str> = Some("summary_index");
const COMMAND: Option<&str> = Some("command_index");

/// Every text, the more usual name of its events first.
const SPOKEN: [Spoken; 13] = [
    spoken("response.output_text.delta", "content", CONTENT, "text"),
    spoken("response.refusal.delta", "content", CONTENT, "refusal"),
    spoken(
        "response.reasoning_text.delta",
        "reasoning",
        CONTENT,
        "text",
    ),
    // The name in the Open Responses specification.
    spoken("response.reasoning.delta", "reasoning", CONTENT, ""),
    spoken(
        "response.reasoning_summary_text.delta",
        "summary",
        SUMMARY,
        "text",
    ),
    spoken(
        "response.audio.transcript.delta",
        "audio",
        None,
        "transcript",
    ),
    spoken(
        "response.function_call_arguments.delta",
        "arguments",
        None,
        "",
    ),
    spoken(
        "response.mcp_call_arguments.delta",
        "mcp_arguments",
        None,
        "",
    ),
    spoken("response.custom_tool_call_input.delta", "input", None, ""),
    spoken(
        "response.code_interpreter_call_code.delta",
        "code",
        None,
        "",
    ),
    spoken(
        "response.apply_patch_call_operation_diff.delta",
        "operation",
        None,
        "diff",
    ),
    spoken("response.shell_call_command.delta", "command", COMMAND, ""),
    // Two texts: `stdout` and `stderr`.
    spoken(
        "response.shell_call_output_content.delta",
        "output",
        COMMAND,
        "*",
    ),
];

/// The parts that texts are said in.
const PARTS: [(&str, &str, &str); 3] = [
    ("content_part", "content", "content_index"),
    ("reasoning_part", "reasoning", "content_index"),
    ("reasoning_summary_part", "summary", "summary_index"),
];

impl Spoken {
    /// Whether the name of its events, without `response.` and the last step, is `subject`.
    fn is(&self, subject: &str) -> bool {
        let name = self.delta.strip_prefix("response.");
        name.and_then(|name| name.strip_suffix(".delta")) == Some(subject)
    }
}

/// Whether events of that name say a text or tell of a part.
pub(super) fn is_subject(name: &str) -> bool {
    SPOKEN.iter().any(|spoken| spoken.is(name)) || PARTS.iter().any(|(part, ..)| *part == name)
}

/// The text that an event goes on with or repeats, or the part it tells of: `None` where it is of neither.
///
/// # Errors
/// `unknown_shape`, `too_many_channels` where it does not say which one.
pub(super) fn channel_of(document: &Document<'_>) -> Result<Option<Channel>, ShapeError> {
    let kind = string(document, "type").unwrap_or_default();
    let name = kind.strip_prefix("response.").unwrap_or_default();
    let (subject, _) = name.rsplit_once('.').unwrap_or((name, ""));
    let spoken = SPOKEN.iter().find(|spoken| spoken.is(subject));
    let part = PARTS.iter().find(|(part, ..)| *part == subject);
    let (list, index, member) = match (spoken, part) {
        (Some(spoken), _) => (spoken.list, spoken.index, spoken.member),
        (None, Some((_, list, index))) => (*list, Some(*index), ""),
        (None, None) => return Ok(None),
    };
    let index = index.map(|index| number(document, index)).transpose()?;
    Ok(Some(Channel {
        choice: number(document, "output_index")?,
        field: field(list, index, member),
    }))
}

/// The event that goes on with the text of `channel`, and what it says of which one of several it is.
pub(super) fn delta(channel: &Channel) -> (&'static str, Option<(&'static str, u32)>) {
    let mut steps = channel.field.split('.');
    let list = steps.next().unwrap_or_default();
    let rest: Vec<&str> = steps.collect();
    let is = |spoken: &&Spoken| {
        let member = match rest.last() {
            Some(last) if last.parse::<u32>().is_err() => *last,
            _ => "",
        };
        spoken.list == list && (spoken.member == member || spoken.member == "*")
    };
    let spoken = SPOKEN.iter().find(is);
    let index = spoken.and_then(|spoken| spoken.index);
    let event = spoken.map_or("response.function_call_arguments.delta", |spoken| {
        spoken.delta
    });
    let place = rest.first().and_then(|place| place.parse().ok());
    (event, index.zip(place))
}

/// The name under which the text of `channel` stands in a delta that is an object.
pub(super) fn inside_delta(channel: &Channel) -> Option<&str> {
    let (_, name) = channel
        .field
        .strip_prefix("output.")
        .and_then(|rest| rest.split_once('.'))?;
    Some(name)
}

/// The text that the value at `path` begins, in an event that tells of a new item, part or command: what its deltas go
/// on with.
///
/// # Errors
/// As for [`channel_of`].
pub(super) fn begun(
    path: &Path<'_>,
    document: &Document<'_>,
) -> Result<Option<Channel>, ShapeError> {
    let kind = string(document, "type").unwrap_or_default();
    if !kind.ends_with(".added") {
        return Ok(None);
    }
    let place = |at: usize| {
        path.places
            .get(at)
            .and_then(|place| u32::try_from(*place).ok())
    };
    let item = |name: &str| kind_of(document, "item").as_deref() == Some(name);
    let field = match path.keys.as_slice() {
        ["part", member @ ("text" | "refusal")] => {
            let part = kind_of(document, "part");
            let (list, index) = match part.as_deref() {
                Some("summary_text") => ("summary", "summary_index"),
                Some("reasoning_text") => ("reasoning", "content_index"),
                _ => ("content", "content_index"),
            };
            field(list, Some(number(document, index)?), member)
        }
        ["command"] => field("command", Some(number(document, "command_index")?), ""),
        ["item", "content", "*", member @ ("text" | "refusal")] => {
            let list = if item("reasoning") {
                "reasoning"
            } else {
                "content"
            };
            field(list, place(0), member)
        }
        ["item", "summary", "*", "text"] => field("summary", place(0), "text"),
        ["item", "arguments"] if item("function_call") => "arguments".to_owned(),
        ["item", "arguments"] if item("mcp_call") => "mcp_arguments".to_owned(),
        ["item", "input"] if item("custom_tool_call") => "input".to_owned(),
        ["item", "code"] if item("code_interpreter_call") => "code".to_owned(),
        ["item", "operation", "diff"] if item("apply_patch_call") => "operation.diff".to_owned(),
        ["item", "action", "commands", "*"] if item("shell_call") => field("command", place(0), ""),
        _ => return Ok(None),
    };
    Ok(Some(Channel {
        choice: number(document, "output_index")?,
        field,
    }))
}

/// The type of the document's member `name`.
fn kind_of<'d>(document: &Document<'d>, name: &str) -> Option<std::borrow::Cow<'d, str>> {
    let value: &Value = document.member(&document.root, name)?;
    document.string(document.member(value, "type")?)
}

fn field(list: &str, index: Option<u32>, member: &str) -> String {
    let mut field = list.to_owned();
    if let Some(index) = index {
        field.push_str(&format!(".{index}"));
    }
    if !member.is_empty() && member != "*" {
        field.push('.');
        field.push_str(member);
    }
    field
}
