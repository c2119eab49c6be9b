//! Signatures of Standard Webhooks 1.0: `v1`, HMAC-SHA-256 over `id.timestamp.body`.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Bytes that a secret has at least, and at most (the specification's own bounds).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A hook's secret.
#[derive(Clone)]
pub struct SigningSecret(Box<hmac::Key>);

/// Why some text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// After `whsec_` there is something else than base64.
    #[error("the webhook secret is not base64 after `whsec_`")]
    NotBase64,
    /// Too short to be one, or too long.
    #[error("the webhook secret must have from 24 to 64 bytes")]
    Length,
}

impl SigningSecret {
    /// The secret `text`: base64 after `whsec_`, otherwise the bytes of the text itself.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn new(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        let bytes = match text.strip_prefix("whsec_") {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| BadSecret::NotBase64)?,
            None => text.as_bytes().to_vec(),
        };
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(BadSecret::Length);
        }
        Ok(Self(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes))))
    }

    /// The value of `webhook-signature` for `body`, sent as message `id` at `seconds` since 1970.
    #[must_use]
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_comes_out() {
        // Of the Standard Webhooks reference implementations.
        let secret = SigningSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "SigningSecret");
    }

    #[test]
    fn a_secret_is_base64_after_its_prefix_or_the_bytes_themselves() {
        let sign =
            |secret: &str| SigningSecret::new(secret).map(|secret| secret.sign("a", 1, b"x"));
        let raw = "0123456789abcdef01234567";
        let encoded = format!("whsec_{}\n", STANDARD.encode(raw));
        assert_eq!(sign(&encoded), sign(raw));
        assert_eq!(sign("whsec_!!"), Err(BadSecret::NotBase64));
        assert_eq!(sign("whsec_"), Err(BadSecret::Length));
        assert_eq!(sign("short"), Err(BadSecret::Length));
        assert_eq!(sign(&"x".repeat(65)), Err(BadSecret::Length));
    }
}
