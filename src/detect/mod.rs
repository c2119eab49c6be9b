//! What sensitive data looks like: detectors, their validators, and the scanner that finds them in text.

use std::sync::Arc;

/// The name of a kind of sensitive data, such as `US_SSN`. Presidio's name where it has one.
pub type Entity = Arc<str>;
