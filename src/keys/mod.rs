//! Keys from outside: issuers' public keys over HTTP or from files, and the secrets lent to upstreams.

pub mod jwks;
pub mod secret;

mod fetch;
