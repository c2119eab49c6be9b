//! Errors as OpenAI's SDKs expect them: the SDK picks its exception by the status and reads `code` and `param`.

use crate::dialect::{ErrorShape, json::quoted};

/// The error document, on one line.
pub(super) fn document(error: &ErrorShape<'_>) -> String {
    format!(
        r#"{{"error":{{"message":{},"type":"{}","param":null,"code":{}}}}}"#,
        quoted(error.message),
        kind(error.status),
        quoted(error.code),
    )
}

/// The error's `type` for a status, from the errors page of OpenAI's API reference.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}
