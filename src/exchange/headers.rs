//! Header fields as Envoy hands them over: lower-case names, pseudo-headers included, values as bytes.

/// The fields of a message head or trailer section, in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

/// Names only: a value may be a credential.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A field that may stand once stood several times, or is not readable text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl Headers {
    /// Every name, in order, repeated where the field is.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The single value of `name`, or `None` where the field is absent.
    ///
    /// # Errors
    /// [`Ambiguous`] where the field stands more than once or is not visible ASCII: two readers could take it differently.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Ambiguous> {
        let mut values = self
            .0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() || !value.iter().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
            return Err(Ambiguous);
        }
        std::str::from_utf8(value).map(Some).map_err(|_| Ambiguous)
    }

    /// The single value of `name` where that is beyond doubt, else the empty string. For what is only recorded.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.one(name).ok().flatten().unwrap_or_default()
    }

    /// Whether the body that follows is sent as it is: no content encoding, or `identity` (RFC 9110, section 8.4), and the
    /// same of the encoding of gRPC's messages.
    #[must_use]
    pub fn is_unencoded(&self) -> bool {
        let plain = |name| matches!(self.one(name), Ok(None | Some("identity")));
        plain("content-encoding") && plain("grpc-encoding")
    }

    /// Whether the field is there at all.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(
            fields
                .into_iter()
                .map(|(name, value)| {
                    // As HTTP/2 has it (RFC 9113, section 8.2.1): no spelling of a name escapes a comparison.
                    let mut name = name.into();
                    name.make_ascii_lowercase();
                    (name, value.into())
                })
                .collect(),
        )
    }
}
