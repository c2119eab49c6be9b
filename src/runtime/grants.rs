//! Our own grants, live: made and signed here, and checked against the control log at every use.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;

use super::control::Control;
use crate::{
    grant::KeyRing,
    identity::{GrantClaims, GrantRules, Principal, TokenError, Unverified},
};

/// What is needed to sign grants and to believe them.
pub struct Grants {
    /// Our own keys.
    pub keys: KeyRing,
    /// Issuers that may vouch for holders now: a grant whose holder came from another counts no more.
    pub vouching: BTreeSet<String>,
    /// Where uses and revocations are.
    pub control: Control,
    believed: GrantRules,
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants")
            .field("issuer", &self.believed.issuer)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Grants {
    /// Grants of this `issuer`, signed with `keys`, for callers of the issuers in `vouching`.
    #[must_use]
    pub fn new(
        issuer: String,
        keys: KeyRing,
        vouching: BTreeSet<String>,
        control: Control,
    ) -> Self {
        let believed = GrantRules { issuer };
        Self {
            keys,
            vouching,
            control,
            believed,
        }
    }

    /// The `iss` of grants.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.believed.issuer
    }

    /// The holder of `token`, if it is a grant of ours that counts at `now`; what the control log says of it is asked apart.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &Unverified<'_>, now: Timestamp) -> Result<Principal, TokenError> {
        let holder = token.verify_grant(&self.believed, self.keys.public(), now)?;
        if !self.vouching.contains(&holder.issuer) {
            return Err(TokenError::UnknownIssuer);
        }
        Ok(holder)
    }

    /// What a grant of ours says, whether it counts now or not.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(&self, token: &Unverified<'_>) -> Result<GrantClaims, TokenError> {
        token.read_grant(&self.believed, self.keys.public())
    }

    /// Whether the grant of `holder` was not revoked, as far as the control log is known here.
    ///
    /// # Errors
    /// [`TokenError::GrantRevoked`]; [`TokenError::GrantsUnavailable`] while the log cannot be followed.
    pub fn check(&self, holder: &Principal) -> Result<(), TokenError> {
        let Some(grant) = &holder.grant else {
            return Ok(());
        };
        match self.control.is_revoked(&grant.id) {
            Ok(false) => Ok(()),
            Ok(true) => Err(TokenError::GrantRevoked),
            Err(_) => Err(TokenError::GrantsUnavailable),
        }
    }
}
