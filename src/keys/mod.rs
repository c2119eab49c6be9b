//! Keys from outside: issuers' public keys over HTTP or from files, and the secrets lent to upstreams.

pub mod jwks;
pub mod secret;

mod fetch;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
