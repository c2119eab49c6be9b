//! Credentials that their issuers gave a shape nobody else uses. No check is needed beyond the shape.

/// AWS access key id: four letters that say what it is, then 16 of A-Z and 0-9 (AWS IAM user guide, "unique
/// identifiers"). The secret key has no shape of its own and is not looked for.
pub(crate) const AWS_ACCESS_KEY: &str = r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b";
/// GitHub tokens (docs.github.com, "GitHub's token formats").
pub(crate) const GITHUB_TOKEN: &str =
    r"\b(?:gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,244})\b";
/// Anthropic API keys.
pub(crate) const ANTHROPIC_KEY: &str = r"\bsk-ant-[A-Za-z0-9_-]{20,}";
/// OpenAI API keys: legacy, project, service account, admin.
pub(crate) const OPENAI_KEY: &str =
    r"\bsk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20,}\b)";
/// Google API keys: `AIza` and 35 characters.
pub(crate) const GOOGLE_API_KEY: &str = r"\bAIza[0-9A-Za-z_-]{35}";
/// Slack tokens (api.slack.com, "token types").
pub(crate) const SLACK_TOKEN: &str = r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}";
/// Stripe secret and restricted keys (docs.stripe.com, "API keys").
pub(crate) const STRIPE_KEY: &str = r"\b[sr]k_(?:live|test)_[0-9a-zA-Z]{16,}\b";
/// A signed JSON Web Token in compact form (RFC 7515 section 7.1): both objects start with `{"`, in base64url `eyJ`.
pub(crate) const JWT: &str = r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}";
/// A private key in textual encoding (RFC 7468; RFC 1421 headers; OpenPGP RFC 9580 section 6.2), its line ends real or
/// written `\n`, whole or cut short: from its first line on, as long as lines of base64 or headers follow.
pub(crate) const PRIVATE_KEY: &str = concat!(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    r"(?:(?:[\r\n]|\\[rn])[ \t]*(?:[A-Za-z][A-Za-z-]*: [A-Za-z0-9,. -]*|[A-Za-z0-9+/=]*))*",
    r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?"
);
