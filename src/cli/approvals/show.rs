//! Approvals on a terminal. Everything that others wrote is shown so that it can neither drive the terminal nor pass for ours.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::{
    approval::{Given, State},
    cli::terminal::{Paint, lines, one_line},
    http::wire::{Account, Full, Listed, Status},
};

/// Most characters of text on one line: longer lines are broken here, because a terminal would break them without the bar in front
/// that says whose text it is.
const WIDTH: usize = 96;

/// One line of a list; the first with the names of its columns.
pub(super) fn listed(approval: &Listed, first: bool) -> String {
    let mut text = String::new();
    if first {
        text.push_str("ID                                    STATE      EXPIRES               RISK  CALLER · CONNECTION · MODEL · WHY\n");
    }
    let seconds = approval.expires_at.split('.').next().unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<36}  {:<9}  {:<20}  {:>4}  {} · {} · {} · {}",
        approval.id.as_str(),
        approval.state.name(),
        one_line(seconds),
        approval.risk,
        one_line(&approval.caller.subject),
        one_line(&approval.connection),
        one_line(&approval.model),
        one_line(&approval.reasons.join("; ")),
    );
    text
}

/// Where an approval stands.
pub(super) fn status(status: &Status) -> String {
    let words = match (status.state, status.decision) {
        (State::Pending, _) => "pending: others still have to decide",
        (State::Approved, Some(Given::BreakGlass)) => "approved, by breaking the glass",
        (state, _) => state.name(),
    };
    format!(
        "{} is {words}; until {}\n",
        status.id,
        one_line(&status.expires_at)
    )
}

/// All of an approval, as at `now`.
pub(super) fn full(full: &Full, paint: Paint, now: Timestamp) -> String {
    let view = &full.view;
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {value}", paint.dim(&format!("{name:<12}")));
    };
    fact("approval", full.id.as_str());
    fact("state", &paint.bold(full.state.name()));
    fact("expires", &expires(&full.expires_at, now));
    fact("asked", &one_line(&full.asked_at));
    fact("caller", &account(&full.caller));
    let endpoint = format!(
        "{}, {}",
        one_line(&view.connection),
        one_line(&view.endpoint)
    );
    fact("connection", &endpoint);
    fact("asks for", &one_line(&view.target));
    for header in &view.headers {
        fact("header", &one_line(header));
    }
    fact("model", &one_line(&view.model));
    for reason in &full.requirement.reasons {
        fact("why", &paint.bold(&one_line(reason)));
    }
    fact("risk", &view.risk.to_string());
    let found: Vec<_> = view
        .findings
        .iter()
        .map(|(entity, n)| format!("{} × {n}", one_line(entity)))
        .collect();
    if !found.is_empty() {
        fact("found", &found.join(", "));
    }
    if view.tools {
        fact("tools", "the model is offered tools");
    }
    for mutable in &view.mutable {
        let refers = format!("{} {}", one_line(&mutable.kind), one_line(&mutable.name));
        fact(
            "refers to",
            &paint.bad(&format!(
                "{refers} (what it is may change after you decide)"
            )),
        );
    }
    let seats: Vec<_> = full
        .requirement
        .slots
        .iter()
        .map(|slot| format!("{} of {}", slot.distinct, one_line(&slot.group)))
        .collect();
    fact("takes", &seats.join(" and "));
    for decision in &full.decisions {
        let given = match decision.decision {
            Given::Approve => "approve",
            Given::BreakGlass => "approve alone",
            Given::Deny => "deny",
        };
        let said = format!(
            "{given}, {}: {}",
            account(&decision.by),
            one_line(&decision.reason)
        );
        fact("decided", &said);
    }
    fact("size", &format!("{} bytes", view.bytes));
    fact("request", &full.request.to_string());
    fact("binding", &full.binding.to_string());
    excerpt(&mut text, full, paint);
    text
}

fn excerpt(text: &mut String, full: &Full, paint: Paint) {
    let bar = paint.dim("│");
    for (n, part) in full.view.excerpt.iter().enumerate() {
        let _ = writeln!(text, "{}", if n == 0 { "" } else { "  …" });
        for line in lines(part).split('\n') {
            let characters: Vec<char> = line.chars().collect();
            for piece in characters.chunks(WIDTH) {
                let _ = writeln!(text, "  {bar} {}", piece.iter().collect::<String>());
            }
            if characters.is_empty() {
                let _ = writeln!(text, "  {bar}");
            }
        }
    }
    let not_shown = match (full.view.excerpt.is_empty(), full.view.not_shown) {
        (true, _) => "no text is shown: the connection keeps it out of records".to_owned(),
        (false, 0) => "nothing else was sent".to_owned(),
        (false, n) => format!("{n} bytes not shown"),
    };
    let _ = writeln!(text, "  {}", paint.dim(&format!("({not_shown})")));
}

fn account(account: &Account) -> String {
    format!(
        "{} at {}",
        one_line(&account.subject),
        one_line(&account.issuer)
    )
}

fn expires(at: &str, now: Timestamp) -> String {
    let shown = one_line(at);
    let Ok(until) = at.parse::<Timestamp>() else {
        return shown;
    };
    match until.duration_since(now).as_secs() {
        left @ 0..=99 => format!("{shown} (in {left} s)"),
        left if left > 0 => format!("{shown} (in {} min)", left / 60),
        _ => format!("{shown} (over)"),
    }
}
