//! Keys from outside: issuers' public keys over HTTP or from files, and the secrets lent to upstreams.

pub mod jwks;
pub mod secret;

mod fetch;
pub(crate) use fetch::in_words;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
