//! What a message says: which approval, of whom, and where to look. No text of a request, and nothing that decides.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

use crate::approval::{Approval, Given, State};

/// Longest value that a caller chose, in Unicode scalar values.
const MAX_SHOWN: usize = 200;
/// A character without width (ZERO WIDTH SPACE).
const PARTED: char = '\u{200b}';

/// A message, as it goes to every hook.
#[derive(Clone, Debug)]
pub struct Message {
    id: String,
    kind: &'static str,
    at: Timestamp,
    data: Value,
    /// A sentence for people, and facts below it; values as they are, which [`slack_text`] makes harmless.
    title: String,
    facts: Vec<(&'static str, String)>,
    link: Option<String>,
}

impl Message {
    /// Somebody is asked for an approval. `base` is where our API is reached from outside, if it is.
    #[must_use]
    pub fn asked(approval: &Approval, at: Timestamp, base: Option<&Url>) -> Self {
        Self::of(
            approval,
            "approval.asked",
            "An approval is asked for",
            at,
            base,
        )
    }

    /// An approval was decided: approved by everyone it takes, or denied.
    #[must_use]
    pub fn decided(approval: &Approval, at: Timestamp, base: Option<&Url>) -> Self {
        let title = match approval.votes.last().map(|vote| vote.given) {
            Some(Given::BreakGlass) => "A request was approved by breaking the glass",
            _ if approval.state == State::Denied => "A request was denied",
            _ => "A request was approved",
        };
        let mut message = Self::of(approval, "approval.decided", title, at, base);
        if let Some(vote) = approval.votes.last() {
            message.data["decision"] = json!(vote.given);
            message.data["decided_by"] =
                json!({"issuer": vote.by.who.issuer, "subject": vote.by.who.subject});
            message
                .facts
                .push(("Decided by", vote.by.who.subject.clone()));
        }
        message
    }

    /// Nobody decided in time, or the approved request did not come.
    #[must_use]
    pub fn expired(approval: &Approval, at: Timestamp, base: Option<&Url>) -> Self {
        Self::of(
            approval,
            "approval.expired",
            "An approval has expired",
            at,
            base,
        )
    }

    fn of(
        approval: &Approval,
        kind: &'static str,
        title: &str,
        at: Timestamp,
        base: Option<&Url>,
    ) -> Self {
        let asked = &approval.asked;
        let link = |base: &Url| {
            let base = base.as_str().trim_end_matches('/');
            format!("{base}/api/v1/approvals/{}", asked.id)
        };
        let link = base.map(link);
        let groups: Vec<_> = asked.requirement.seats().collect();
        let state = approval.state_at(at).name();
        let reasons = &asked.requirement.reasons;
        let data = json!({
            "approval": asked.id,
            "state": state,
            "caller": {"issuer": asked.caller.issuer, "subject": asked.caller.subject},
            "connection": asked.view.connection,
            "endpoint": asked.view.endpoint,
            "model": asked.view.model.chars().take(MAX_SHOWN).collect::<String>(),
            "risk": asked.view.risk,
            "reasons": reasons,
            "seats": groups,
            "asked_at": approval.asked_at.to_string(),
            "expires_at": approval.until.to_string(),
            "url": link,
        });
        let facts = vec![
            ("Approval", asked.id.to_string()),
            ("Caller", asked.caller.subject.clone()),
            ("Connection", asked.view.connection.clone()),
            ("Model", asked.view.model.clone()),
            ("Why", reasons.join("; ")),
            ("Asked of", groups.join(", ")),
            ("Until", approval.until.to_string()),
        ];
        Self {
            // The same for every attempt and every hook, and for every replica that tells of the same.
            id: format!("msg_{}_{}_{state}", asked.id, approval.votes.len()),
            kind,
            at,
            data,
            title: title.to_owned(),
            facts,
            link,
        }
    }

    /// An alert: `data` as it is, `title` and `facts` for people.
    #[must_use]
    pub(crate) fn of_alert(
        id: &str,
        at: Timestamp,
        data: Value,
        title: String,
        facts: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            id: format!("msg_{id}"),
            kind: "alert",
            at,
            data,
            title,
            facts,
            link: None,
        }
    }

    /// What it is known by, also when it comes twice.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As Standard Webhooks has it: `{"type", "timestamp", "data"}`.
    pub(super) fn standard(&self) -> String {
        let at = self.at.to_string();
        json!({"type": self.kind, "timestamp": at, "data": self.data}).to_string()
    }

    /// As Slack has it.
    pub(super) fn slack(&self) -> String {
        let mut text = slack_text(&self.title);
        for (name, value) in &self.facts {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{name}: {}", slack_text(value));
        }
        if let Some(link) = &self.link {
            // The only address that is written so that it can be followed: it is the operator's own.
            let _ = write!(text, "\n{link}");
        }
        json!({"text": text, "mrkdwn": false, "link_names": false, "unfurl_links": false})
            .to_string()
    }
}

/// `text` of others as it may stand in a chat message: on one line, at most 200 characters, without markup, mentions or addresses.
///
/// `&`, `<` and `>` are escaped, which is all of Slack's own markup; other systems also read `@channel`, a bare address and
/// backquotes, so what makes them that is parted by a character without width.
#[must_use]
pub fn slack_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (n, c) in text.chars().enumerate() {
        if n == MAX_SHOWN {
            shown.push('…');
            break;
        }
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '@' | '#' | '*' | '_' | '~' | '`' | '[' => shown.extend([c, PARTED]),
            '/' if shown.ends_with(':') => shown.extend([PARTED, c]),
            c if is_obeyed(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Whether what shows text obeys `c` rather than showing it: control characters, those that change the order of what is shown
/// (Unicode UAX #9), line separators, and tags, which nobody sees.
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_no_markup_in_a_chat() {
        for (text, shown) in [
            ("gpt-4o", "gpt-4o"),
            (
                "<!channel> & <@U1>",
                "&lt;!channel&gt; &amp; &lt;@\u{200b}U1&gt;",
            ),
            ("a\nUntil: forged", "a\\nUntil: forged"),
            ("https://evil.example", "https:\u{200b}//evil.example"),
            ("\u{202e}drow\u{1b}[31m", "\\u{202e}drow\\u{1b}[\u{200b}31m"),
            ("hid\u{e0041}den", "hid\\u{e0041}den"),
        ] {
            assert_eq!(slack_text(text), shown);
        }
        assert_eq!(
            slack_text(&"x".repeat(1_000)).chars().count(),
            MAX_SHOWN + 1
        );
    }
}
