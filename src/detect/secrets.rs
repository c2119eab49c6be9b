//! Credentials that their issuers gave a shape nobody else uses. The checks only count: counted repetitions in the
//! shapes would explode the automaton.

/// AWS access key id: four letters that say what it is, then 16 of A-Z and 0-9 (AWS IAM user guide, "unique
/// identifiers"). The secret key has no shape of its own, see [`assigned`](super::assigned).
pub(crate) const AWS_ACCESS_KEY: &str = r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]+\b";
/// Four letters and 16 more.
pub(crate) const AWS_REACH: usize = 20;
/// GitHub tokens (docs.github.com, "GitHub's token formats"); those of Apps (`ghs_`) may be a JSON Web Token with its
/// two dots since 2026.
pub(crate) const GITHUB_TOKEN: &str = concat!(
    r"\bghs_[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)?",
    r"|\b(?:gh[pour]_|github_pat_)[A-Za-z0-9_]+"
);
/// Anthropic API keys (`sk-ant-api03-`), those of administrators (`admin01`) and of sessions (`oat01`, `sid01`).
pub(crate) const ANTHROPIC_KEY: &str = r"\bsk-ant-[A-Za-z0-9_-]+";
/// OpenAI API keys: legacy, project, service account, admin, and of gateways that took over their form.
pub(crate) const OPENAI_KEY: &str = r"\bsk-[A-Za-z0-9_-]+";
/// Google API keys: `AIza` and 35 characters (cloud.google.com, "Manage API keys").
pub(crate) const GOOGLE_API_KEY: &str = r"\bAIza[0-9A-Za-z_-]+";
/// Slack tokens (api.slack.com, "token types"): bot, user, app-level, and the rotating ones.
pub(crate) const SLACK_TOKEN: &str = r"\b(?:xox[abeoprs]-|xoxe\.xox[bp]-|xapp-)[A-Za-z0-9-]+";
/// Stripe secret and restricted keys (docs.stripe.com, "API keys"), and what signs its webhooks.
pub(crate) const STRIPE_KEY: &str = r"\b(?:[sr]k_(?:live|test)_|whsec_)[0-9a-zA-Z]+";
/// A signed JSON Web Token in compact form (RFC 7515 section 7.1): both objects start with `{"`, in base64url `eyJ`.
pub(crate) const JWT: &str = r"\beyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+";
/// A private key in textual encoding (RFC 7468; RFC 1421 headers; OpenPGP RFC 9580 section 6.2), its line ends real or
/// written `\n` (which is seen as [`ESCAPE`](super::fold::ESCAPE)), whole or cut short: from its first line on, as long
/// as lines of base64 or headers follow. In a link or a form `%20` and `%0A` are seen as `%`, and a blank may be `+`.
pub(crate) const PRIVATE_KEY: &str = concat!(
    r"-----BEGIN[ +%](?:[A-Z0-9]+[ +%])*PRIVATE[ +%]KEY(?:[ +%]BLOCK)?-----",
    r"(?:(?:[\r\n%]|\\{0,8}\x0B)[ \t]*(?:[A-Za-z][A-Za-z-]*:[ +%][A-Za-z0-9,. -]*|[A-Za-z0-9+/=]*))*",
    r"(?:-----END[ +%](?:[A-Z0-9]+[ +%])*PRIVATE[ +%]KEY(?:[ +%]BLOCK)?-----)?"
);

pub(crate) fn private_key(_before: &str, found: &str) -> Option<usize> {
    Some(found.len())
}

pub(crate) fn aws(_before: &str, found: &str) -> Option<usize> {
    at_least(20, found)
}

/// A prefix and 36 characters, or `github_pat_` and more; the shortest there was has 40.
pub(crate) fn github(_before: &str, found: &str) -> Option<usize> {
    at_least(
        if found.starts_with("github_pat_") {
            33
        } else {
            40
        },
        found,
    )
}

pub(crate) fn anthropic(_before: &str, found: &str) -> Option<usize> {
    at_least(27, found)
}

/// `sk-` and 20 letters and digits, or with one of the words for the newer kinds: `sk-learn-…` is a name.
pub(crate) fn openai(_before: &str, found: &str) -> Option<usize> {
    let rest = &found[3..];
    let newer = ["proj-", "svcacct-", "admin-", "None-", "or-v1-"]
        .iter()
        .any(|kind| rest.starts_with(kind));
    let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric());
    at_least(23, found).filter(|_| newer || plain)
}

pub(crate) fn google(_before: &str, found: &str) -> Option<usize> {
    at_least(39, found)
}

pub(crate) fn slack(_before: &str, found: &str) -> Option<usize> {
    at_least(15, found)
}

pub(crate) fn stripe(_before: &str, found: &str) -> Option<usize> {
    at_least(24, found)
}

pub(crate) fn jwt(_before: &str, found: &str) -> Option<usize> {
    found
        .split('.')
        .all(|part| part.len() >= 8)
        .then_some(found.len())
}

fn at_least(bytes: usize, found: &str) -> Option<usize> {
    (found.len() >= bytes).then_some(found.len())
}
