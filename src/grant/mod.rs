//! Grants as they are asked for and made: who may have which, what the token endpoint reads and answers, and our own keys.
//!
//! ```text
//! form -> TokenRequest (whose token, what for) -> Rules::decide -> Terms -> [approved] -> KeyRing::sign -> token
//! ```
//!
//! Promises: a grant is for no more than a rule of the operator's gives, and for no longer; a rule that cannot be evaluated gives
//! nothing, nor does any behind it; what an approval was asked for is what is made under it. Never: reads a clock, does IO.
//! Can miss: that the issuer has locked its holder out since: a grant is good until it expires or is revoked here.

mod keys;
mod request;
mod rules;
#[cfg(test)]
mod tests;

pub use self::{
    keys::{GrantKey, KeyRing, NotAKey},
    request::{Ask, GRANT_TYPES, OAuthError, SAML_BEARER, Subject, TOKEN_TYPE, TokenRequest, form},
    rules::{NotGiven, Rule, Rules, Terms},
};
