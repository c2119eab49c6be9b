//! The token in an `Authorization` header (RFC 6750, 2.1; RFC 9449, 7.1).

use super::{Scheme, Token, TokenError};

/// The one token in the request's `Authorization` headers.
///
/// The scheme is compared without case (RFC 9110, 11.1); the token must be of RFC 6750's `b64token` characters.
///
/// # Errors
/// [`TokenError::Missing`] without a header, [`TokenError::Repeated`] with several (or several joined by a comma),
/// [`TokenError::NotBearer`] with anything but `Bearer` or `DPoP` and one token.
pub fn from_authorization<'h>(
    headers: impl IntoIterator<Item = &'h [u8]>,
) -> Result<Token, TokenError> {
    let mut headers = headers.into_iter();
    let header = headers.next().ok_or(TokenError::Missing)?;
    if headers.next().is_some() {
        return Err(TokenError::Repeated);
    }
    let space = header.iter().position(|b| *b == b' ');
    let (scheme, token) = header.split_at(space.ok_or(TokenError::NotBearer)?);
    let scheme = match scheme {
        bearer if bearer.eq_ignore_ascii_case(b"bearer") => Scheme::Bearer,
        dpop if dpop.eq_ignore_ascii_case(b"dpop") => Scheme::Dpop,
        _ => return Err(TokenError::NotBearer),
    };
    let token = token.strip_prefix(b" ").unwrap_or_default();
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
    Ok(Token {
        scheme,
        text: text.into(),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    type Case = (
        &'static [&'static [u8]],
        Result<(Scheme, &'static str), TokenError>,
    );

    #[test]
    fn exactly_one_token_is_read_and_how_it_is_carried() {
        let cases: [Case; 18] = [
            (&[b"Bearer a.b.c"], Ok((Scheme::Bearer, "a.b.c"))),
            (&[b"bEARER a.b.c"], Ok((Scheme::Bearer, "a.b.c"))),
            (&[b"DPoP a.b.c"], Ok((Scheme::Dpop, "a.b.c"))),
            (&[b"dpop a.b.c"], Ok((Scheme::Dpop, "a.b.c"))),
            (&[b"DPoP a, Bearer b"], Err(TokenError::Repeated)),
            (&[b"DPoP"], Err(TokenError::NotBearer)),
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
            let read = from_authorization(headers.iter().copied());
            let read = read.as_ref().map_err(|error| *error);
            let read = read.map(|token| (token.scheme, token.text.expose_secret()));
            assert_eq!(read, expected, "{headers:?}");
        }
    }
}
