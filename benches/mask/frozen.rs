//! What is measured, for this bench and that of Hyperscan.

/// What is looked for in the rows that are compared. It does not change when detectors are added.
pub(crate) const FROZEN: [&str; 15] = [
    "US_SSN",
    "CREDIT_CARD",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "IBAN_CODE",
    "IP_ADDRESS",
    "AWS_ACCESS_KEY",
    "GITHUB_TOKEN",
    "OPENAI_KEY",
    "ANTHROPIC_KEY",
    "GOOGLE_API_KEY",
    "SLACK_TOKEN",
    "STRIPE_KEY",
    "JWT",
    "PRIVATE_KEY",
];
