//! Keys from outside: issuers' public keys over HTTP or from files, what issuers say of opaque tokens, and the secrets lent to
//! upstreams.

pub mod credential;
pub mod introspect;
pub mod jwks;
pub mod secret;
pub mod source;

mod ask;
mod fetch;
mod oauth2;
mod vault;
pub(crate) use fetch::in_words;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
