//! Grants: short tokens that we make.

use schemars::JsonSchema;
use serde::Deserialize;

use super::approvals::Approvers;

/// Grants that our token endpoint makes. Needs `approvals`, whose control log counts their uses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Grants {
    /// The `iss` of our grants, and where the token endpoint is reached from outside: an https URL without path, http on loopback only.
    pub(in crate::config) issuer: String,
    /// Key files in PKCS#8 PEM form, as `countersign keygen grants` makes them, mode 0600: the first signs, all are published.
    #[schemars(length(min = 1, max = 16))]
    pub(in crate::config) keys: Vec<String>,
    /// Who may have which grant, in order: the first whose condition holds and that covers what is asked for.
    #[schemars(length(min = 1))]
    pub(in crate::config) rules: Vec<GrantRule>,
}

/// Some grants, for some callers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct GrantRule {
    /// The name, as records show it: letters, digits, `.`, `_`, `-`; at most 64.
    pub(in crate::config) name: String,
    /// A CEL condition over `principal` and `time`.
    pub(in crate::config) when: String,
    /// Names of connections.
    #[schemars(length(min = 1))]
    pub(in crate::config) connections: Vec<String>,
    /// Models, `*` standing for any text. Default: any.
    #[serde(default)]
    pub(in crate::config) models: Vec<String>,
    /// Endpoints by their names in the dialect, such as `chat_completions`. Default: any of the connection's.
    #[serde(default)]
    pub(in crate::config) methods: Vec<String>,
    /// Longest that a grant lasts. Default: 15m; 1s to 24h.
    pub(in crate::config) lifetime: Option<String>,
    /// Most uses of a grant; 1 to 1000000. Default: none, and grants can be had whose uses are not counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) max_uses: Option<u32>,
    /// Who must say yes before a grant is made. Default: nobody.
    pub(in crate::config) require_approval: Option<GrantApproval>,
}

/// Who must say yes before a grant is made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct GrantApproval {
    /// Seats that must all be filled, each by another person, none of them the caller.
    #[schemars(length(min = 1))]
    pub(in crate::config) approvers: Vec<Approvers>,
    /// How long a decision may take, and once it is there, the caller may take to fetch the grant. Default: 10m; 1s to 24h.
    pub(in crate::config) expires: Option<String>,
    /// What the approver is told, each one line of at most 200 characters. Default: the rule's name.
    #[serde(default)]
    pub(in crate::config) reasons: Vec<String>,
    /// Members of these groups may decide alone, loudly and with a reason. Default: nobody.
    #[serde(default)]
    pub(in crate::config) break_glass: Vec<String>,
}
