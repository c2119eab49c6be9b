//! What an approval is bound to: two digests over fields written so that no two lists of fields read the same.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::Sha256;

use super::{Asked, Party};

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(D::Error::custom)?;
        Ok(Self(digest))
    }
}

/// The digest of `bytes`.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    Digest(Sha256::digest(bytes).into())
}

/// What a request is known again by: everything that decides what the upstream will do with it and for whom.
#[derive(Clone, Copy, Debug)]
pub struct RequestDigest<'a> {
    /// The caller.
    pub caller: &'a Party,
    /// Name of the connection.
    pub connection: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// Path and query, as received.
    pub target: &'a str,
    /// Fields of the head that are forwarded and mean something, names in lower case, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The model.
    pub model: &'a str,
    /// SHA-256 of the body as received.
    pub received: Digest,
    /// SHA-256 of the body as it would be forwarded.
    pub forwarded: Digest,
    /// Where the credential to be lent comes from and which header it goes in; its value may be renewed meanwhile.
    pub credential: (&'a str, &'a str),
    /// The cluster that Envoy chose.
    pub cluster: &'a str,
    /// The connection's own policy chain. Not the whole configuration, or any reload would undo every approval.
    pub chain: Digest,
}

impl RequestDigest<'_> {
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut fields = Fields::new(b"countersign/request/v1\0");
        for text in [
            &*self.caller.issuer,
            &self.caller.subject,
            self.connection,
            self.method,
            self.authority,
            self.target,
            self.model,
            self.credential.0,
            self.credential.1,
            self.cluster,
        ] {
            fields.field(text.as_bytes());
        }
        for digest in [self.received, self.forwarded, self.chain] {
            fields.field(&digest.0);
        }
        // Also who is behind the account: several people may share one, and nobody joins what another asked for.
        fields.count(self.caller.also.len());
        for name in &self.caller.also {
            fields.field(name.as_bytes());
        }
        fields.count(self.headers.len());
        for (name, value) in self.headers {
            fields.field(name.as_bytes());
            fields.field(value);
        }
        fields.finish()
    }
}

/// What an approver decides on: this approval of this request, for these reasons, seen like this, within this time.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a>(pub &'a Asked);

impl Binding<'_> {
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let asked = self.0;
        let mut fields = Fields::new(b"countersign/approval/v1\0");
        fields.field(asked.id.as_str().as_bytes());
        fields.field(&asked.request.0);
        let requirement = &asked.requirement;
        fields.field(&requirement.expires_ms.to_be_bytes());
        fields.count(requirement.reasons.len());
        for reason in &requirement.reasons {
            fields.field(reason.as_bytes());
        }
        fields.count(requirement.slots.len());
        for slot in &requirement.slots {
            fields.field(slot.group.as_bytes());
            fields.field(&[slot.distinct]);
        }
        fields.count(requirement.break_glass.len());
        for group in &requirement.break_glass {
            fields.field(group.as_bytes());
        }
        // What the approver is shown. Its serialised form is the one that travels.
        fields.field(&serde_json::to_vec(&asked.view).unwrap_or_default());
        fields.finish()
    }
}

/// Fields, each with its length (64 bits, big-endian) before it.
struct Fields(Sha256);

impl Fields {
    fn new(domain: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(Sha256::new_with_prefix(domain))
    }

    fn field(&mut self, bytes: &[u8]) {
        use sha2::Digest as _;
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, n: usize) {
        use sha2::Digest as _;
        self.0.update((n as u64).to_be_bytes());
    }

    fn finish(self) -> Digest {
        use sha2::Digest as _;
        Digest(self.0.finalize().into())
    }
}
