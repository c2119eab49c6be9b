//! Who may have which grant.

use std::time::Duration;

use jiff::Timestamp;

use super::Ask;
use crate::{
    approval::{Digest, LONGEST_GRANT, Party, RequestDigest, Requirement, View, digest_of},
    identity::{Principal, Scope},
    policy::{Expression, LocalTime, ModelPattern},
};

/// How long a grant lasts where nobody says.
const USUAL: Duration = Duration::from_secs(15 * 60);
/// How far ahead a grant may begin.
const AHEAD: u64 = 24 * 60 * 60;

/// Which grants the gateway makes, and in whose name.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `iss` and `aud` of grants.
    pub issuer: String,
    /// In order: the first whose condition holds and that covers all that is asked for.
    pub rules: Vec<Rule>,
}

/// Some grants, for some callers.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// For whom: a condition over `principal` and `time`.
    pub when: Expression,
    /// Connections.
    pub connections: Vec<String>,
    /// Models, `*` standing for any text; any where it is empty.
    pub models: Vec<String>,
    /// Endpoints; any of the connection's where it is empty.
    pub methods: Vec<String>,
    /// Longest that a grant lasts, at most [`LONGEST_GRANT`](crate::approval::LONGEST_GRANT).
    pub lifetime: Duration,
    /// Most uses; a grant whose uses are not counted can be had where it is `None`.
    pub max_uses: Option<u32>,
    /// Who must say yes first.
    pub approval: Option<Requirement>,
}

/// What a rule gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The rule's name.
    pub rule: String,
    /// What it is for.
    pub scope: Scope,
    /// When it begins, in seconds since 1970; when it is made where it is `None`.
    pub not_before: Option<i64>,
    /// How long it lasts from then, in seconds.
    pub lifetime: i64,
    /// Why, as the caller says.
    pub reason: String,
    /// Thumbprint of the key it is bound to.
    pub jkt: Option<String>,
    /// Who must say yes first.
    pub approval: Option<Requirement>,
}

/// Why a caller does not get what they ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotGiven {
    /// No rule gives it.
    NoRule,
    /// A rule could not be evaluated: why, for the log.
    CannotEvaluate(String),
    /// It would begin too late, or is over already.
    BadWindow,
    /// Somebody must approve it, and the token does not say which person asks.
    PersonUnknown,
}

impl NotGiven {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRule => "grant_not_allowed",
            Self::CannotEvaluate(_) => "policy_error",
            Self::BadWindow => "grant_bad_window",
            Self::PersonUnknown => "person_unknown",
        }
    }

    /// One sentence for the caller.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            Self::NoRule => "no rule gives you such a grant",
            Self::CannotEvaluate(_) => "a rule could not be evaluated, so nothing is granted",
            Self::BadWindow => "a grant begins within a day, and must not be over already",
            Self::PersonUnknown => {
                "a person must approve this grant, and your token does not say which person you are"
            }
        }
    }
}

impl Rules {
    /// What `caller` gets when they ask for this at `now`, with the local time `time`.
    ///
    /// # Errors
    /// [`NotGiven`].
    pub fn decide(
        &self,
        caller: &Principal,
        ask: &Ask,
        jkt: Option<String>,
        now: Timestamp,
        time: LocalTime,
    ) -> Result<Terms, NotGiven> {
        // One that has begun is fine: it may have had to be approved first.
        if ask
            .not_before
            .is_some_and(|at| at.abs_diff(now.as_second()) > AHEAD)
        {
            return Err(NotGiven::BadWindow);
        }
        for rule in &self.rules {
            // A rule that would have asked for an approval must not be passed by because it could not be read.
            let holds = rule
                .when
                .holds_for(caller, time)
                .map_err(|why| NotGiven::CannotEvaluate(format!("rule `{}`: {why}", rule.name)))?;
            if !holds {
                continue;
            }
            if let Some(terms) = rule.terms(ask, jkt.clone(), now) {
                if terms.approval.is_some() && caller.person_missing {
                    return Err(NotGiven::PersonUnknown);
                }
                if terms.ends(now) <= now.as_second() {
                    return Err(NotGiven::BadWindow);
                }
                return Ok(terms);
            }
        }
        Err(NotGiven::NoRule)
    }
}

impl Rule {
    /// What it gives of what is asked for; `None` where it does not give all of it.
    fn terms(&self, ask: &Ask, jkt: Option<String>, now: Timestamp) -> Option<Terms> {
        if !self.connections.contains(&ask.connection) {
            return None;
        }
        let models = within(&ask.models, &self.models, |asked, given| {
            // A `*` that is asked for is a letter here: so what it stands for is within what the rule's own `*` stands for.
            ModelPattern::new(given).is_some_and(|given| given.matches(asked))
        })?;
        let methods = within(&ask.methods, &self.methods, |asked, given| asked == given)?;
        let max_uses = match (ask.max_uses, self.max_uses) {
            (Some(asked), Some(most)) if asked > most => return None,
            (asked, most) => asked.or(most),
        };
        let most = seconds(self.lifetime);
        let lifetime = match ask.expires_in {
            Some(asked) => i64::from(asked),
            None => most.min(seconds(USUAL)),
        };
        // Of a grant that begins later, what is before it counts too: nothing is remembered for longer than a day.
        let ahead = ask.not_before.map_or(0, |at| at - now.as_second());
        if lifetime > most || lifetime + ahead > seconds(LONGEST_GRANT) {
            return None;
        }
        Some(Terms {
            rule: self.name.clone(),
            scope: Scope {
                models,
                methods,
                max_uses,
                ..ask.scope()
            },
            not_before: ask.not_before,
            lifetime,
            reason: ask.reason.clone(),
            jkt,
            approval: self.approval.clone(),
        })
    }
}

/// What is asked for, if all of it is given; all that is given where nothing is asked for by name.
fn within(
    asked: &[String],
    given: &[String],
    fits: impl Fn(&str, &str) -> bool,
) -> Option<Vec<String>> {
    if asked.is_empty() {
        return Some(given.to_vec());
    }
    let covered = |one: &String| given.is_empty() || given.iter().any(|given| fits(one, given));
    asked.iter().all(covered).then(|| asked.to_vec())
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl Terms {
    /// When a grant made at `now` begins, in seconds since 1970.
    #[must_use]
    pub fn begins(&self, now: Timestamp) -> i64 {
        self.not_before.unwrap_or(now.as_second())
    }

    /// When a grant made at `now` is over, in seconds since 1970.
    #[must_use]
    pub fn ends(&self, now: Timestamp) -> i64 {
        self.begins(now) + self.lifetime
    }

    /// What the same request is known again by, while somebody has to approve it. `text` is the terms as the approver sees them.
    #[must_use]
    pub fn digest(&self, caller: &Party, issuer: &str, text: &str) -> Digest {
        let text = digest_of(text.as_bytes());
        RequestDigest {
            caller,
            connection: &self.scope.connection,
            method: "POST",
            authority: issuer,
            target: "/oauth2/token",
            headers: &[],
            model: "",
            received: text,
            forwarded: text,
            credential: ("", self.jkt.as_deref().unwrap_or_default()),
            cluster: "",
            chain: digest_of(self.rule.as_bytes()),
        }
        .digest()
    }

    /// The terms in words, one line each, for whoever approves them and for [`digest`](Self::digest). What is the caller's text in them should be masked by then.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let listed = |list: &[String], all: &str| match list {
            [] => all.to_owned(),
            list => list.join(", "),
        };
        let scope = &self.scope;
        let mut lines = vec![
            format!("a grant for the connection {}", scope.connection),
            format!("models: {}", listed(&scope.models, "any")),
            format!(
                "methods: {}",
                listed(&scope.methods, "any of the connection's")
            ),
            match scope.max_uses {
                Some(uses) => format!("uses: {uses}"),
                None => "uses: not counted".to_owned(),
            },
            format!(
                "for {} seconds from {}",
                self.lifetime,
                match self.not_before {
                    Some(at) => Timestamp::from_second(at)
                        .map_or_else(|_| at.to_string(), |at| at.to_string()),
                    None => "when it is made".to_owned(),
                }
            ),
            match &self.jkt {
                Some(jkt) => format!("bound to the key {jkt}"),
                None => "bound to no key: whoever has it can use it".to_owned(),
            },
        ];
        if !self.reason.is_empty() {
            lines.push(format!("reason given: {}", self.reason));
        }
        lines
    }

    /// What an approver sees.
    #[must_use]
    pub fn view(&self, lines: Vec<String>, issuer: &str) -> View {
        View {
            connection: self.scope.connection.clone(),
            endpoint: "grant".to_owned(),
            target: format!("POST {issuer}/oauth2/token"),
            model: match self.scope.models.as_slice() {
                [] => "*".to_owned(),
                models => models.join(", "),
            },
            excerpt: lines,
            ..View::default()
        }
    }
}
