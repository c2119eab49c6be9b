//! Who may do what here: roles, by the groups of a token.

use std::collections::BTreeSet;

/// The groups that have each role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// May read.
    pub auditor: BTreeSet<String>,
    /// May read what is to be decided. Whether somebody may decide is each approval's own rule.
    pub approver: BTreeSet<String>,
    /// May read, and cancel.
    pub admin: BTreeSet<String>,
    /// Issuers whose groups count here; all where it is empty.
    pub issuers: BTreeSet<String>,
    /// Host, port where there is one, and path under which callers reach us: what their proofs of possession must be for.
    /// `None` where that is not known: then no proof counts.
    pub address: Option<String>,
}

/// The roles of one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Reads.
    pub auditor: bool,
    /// Reads what is to be decided.
    pub approver: bool,
    /// Reads, and cancels.
    pub admin: bool,
}

impl Access {
    /// Whether groups of this issuer's tokens count here.
    #[must_use]
    pub fn hears(&self, issuer: &str) -> bool {
        self.issuers.is_empty() || self.issuers.contains(issuer)
    }

    /// The roles of a member of `groups`; none without a group that has one.
    #[must_use]
    pub fn roles(&self, groups: &[String]) -> Roles {
        let any = |having: &BTreeSet<String>| groups.iter().any(|group| having.contains(group));
        Roles {
            auditor: any(&self.auditor),
            approver: any(&self.approver),
            admin: any(&self.admin),
        }
    }
}

impl Roles {
    /// Whether they may see every approval.
    #[must_use]
    pub fn read(self) -> bool {
        self.auditor || self.approver || self.admin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_comes_from_a_group_that_has_it_and_from_nothing_else() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let access = Access {
            auditor: set(&["audit", "both"]),
            approver: set(&["security", "both"]),
            admin: set(&["platform"]),
            ..Access::default()
        };
        let roles = |groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let Roles {
                auditor,
                approver,
                admin,
            } = access.roles(&groups);
            (auditor, approver, admin)
        };
        assert_eq!(roles(&["audit"]), (true, false, false));
        assert_eq!(roles(&["security", "other"]), (false, true, false));
        assert_eq!(roles(&["platform"]), (false, false, true));
        assert_eq!(roles(&["both"]), (true, true, false));
        for none in [&[][..], &["Audit"], &["audit "], &["auditor"], &[""]] {
            assert_eq!(roles(none), (false, false, false), "{none:?}");
        }
        assert_eq!(
            Access::default().roles(&["admin".to_owned()]),
            Roles::default()
        );
    }
}
