//! The token in an `Authorization` header (RFC 6750, section 2.1).

use super::TokenError;

/// The one token in the request's `Authorization` headers.
///
/// The scheme is compared without case (RFC 9110, 11.1); the token must be of RFC 6750's `b64token` characters.
///
/// # Errors
/// [`TokenError::Missing`] without a header, [`TokenError::Repeated`] with several (or several joined by a comma),
/// [`TokenError::NotBearer`] with anything but `Bearer` and one token.
pub fn from_authorization<'h>(
    headers: impl IntoIterator<Item = &'h [u8]>,
) -> Result<&'h str, TokenError> {
    let mut headers = headers.into_iter();
    let header = headers.next().ok_or(TokenError::Missing)?;
    if headers.next().is_some() {
        return Err(TokenError::Repeated);
    }
    let (scheme, token) = header
        .split_at_checked(b"bearer ".len())
        .ok_or(TokenError::NotBearer)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(TokenError::NotBearer);
    }
    if token.contains(&b',') {
        return Err(TokenError::Repeated);
    }
    let text = std::str::from_utf8(token).map_err(|_| TokenError::NotBearer)?;
    if text.is_empty()
        || !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b))
    {
        return Err(TokenError::NotBearer);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (&'static [&'static [u8]], Result<&'static str, TokenError>);

    #[test]
    fn exactly_one_bearer_token_is_read() {
        let cases: [Case; 14] = [
            (&[b"Bearer a.b.c"], Ok("a.b.c")),
            (&[b"bEARER a.b.c"], Ok("a.b.c")),
            (&[], Err(TokenError::Missing)),
            (&[b"Bearer a", b"Bearer a"], Err(TokenError::Repeated)),
            (&[b"Bearer a", b"Basic b"], Err(TokenError::Repeated)),
            (&[b"Bearer a, Bearer b"], Err(TokenError::Repeated)),
            (&[b"Bearer"], Err(TokenError::NotBearer)),
            (&[b"Bearer "], Err(TokenError::NotBearer)),
            (&[b"Bearer  a"], Err(TokenError::NotBearer)),
            (&[b"Bearer a "], Err(TokenError::NotBearer)),
            (&[b"Bearer\ta"], Err(TokenError::NotBearer)),
            (&[b"Basic dXNlcjpwYXNz"], Err(TokenError::NotBearer)),
            (&[b"Bearer a\xff"], Err(TokenError::NotBearer)),
            (&[b""], Err(TokenError::NotBearer)),
        ];
        for (headers, expected) in cases {
            assert_eq!(
                from_authorization(headers.iter().copied()),
                expected,
                "{headers:?}"
            );
        }
    }
}
