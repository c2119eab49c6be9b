//! XML signatures of one narrow kind: enveloped in the element they cover, over all of it, by a key that is known already.
//!
//! Promises: what [`proved`] returns is the canonical form whose digest was signed; whoever reads only that reads what was
//! signed, wherever the element stood and whatever else was in the document. The signature is a child of the element, has
//! one reference, to the element's own id, with the transforms enveloped-signature and exclusive C14N and no other; methods
//! are of a fixed list.
//!
//! Never: looks for an element by its id, follows a reference, runs XPath or XSLT, looks at `KeyInfo`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use roxmltree::Node;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{
    super::{Algorithm, KeySet},
    SamlError, c14n,
    xml::{self, attribute, elements, is, only_attributes, text},
};

const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";

/// Signature methods (RFC 9231, 2.3). SHA-1, MD5, HMAC and DSA have no entry.
const METHODS: [(&str, Algorithm); 8] = [
    (
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        Algorithm::Rs256,
    ),
    (
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
        Algorithm::Rs384,
    ),
    (
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
        Algorithm::Rs512,
    ),
    (
        "http://www.w3.org/2007/05/xmldsig-more#sha256-rsa-MGF1",
        Algorithm::Ps256,
    ),
    (
        "http://www.w3.org/2007/05/xmldsig-more#sha384-rsa-MGF1",
        Algorithm::Ps384,
    ),
    (
        "http://www.w3.org/2007/05/xmldsig-more#sha512-rsa-MGF1",
        Algorithm::Ps512,
    ),
    (
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
        Algorithm::Es256,
    ),
    (
        "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
        Algorithm::Es384,
    ),
];

/// Most prefixes that a canonicalization declares: each is looked for at each element, and before anything is proved.
const MAX_PREFIXES: usize = 32;

#[derive(Clone, Copy, Debug)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Digest methods (XML Encryption 1.0, 5.7; RFC 9231, 2.1).
const DIGESTS: [(&str, Hash); 3] = [
    ("http://www.w3.org/2001/04/xmlenc#sha256", Hash::Sha256),
    (
        "http://www.w3.org/2001/04/xmldsig-more#sha384",
        Hash::Sha384,
    ),
    ("http://www.w3.org/2001/04/xmlenc#sha512", Hash::Sha512),
];

impl Hash {
    fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// Proves that a key of `keys` signed `element`, which carries `id`, and returns what was signed: its canonical form without
/// the signature.
///
/// # Errors
/// [`SamlError`] from [`SamlError::Unsigned`] to [`SamlError::BadDigest`].
pub(super) fn proved(element: Node<'_, '_>, id: &str, keys: &KeySet) -> Result<String, SamlError> {
    let mut signatures = xml::named(element, DSIG, "Signature");
    let signature = signatures.next().ok_or(SamlError::Unsigned)?;
    if signatures.next().is_some() {
        return Err(SamlError::SeveralSignatures);
    }
    let (signed_info, value) = parts(signature)?;
    let method = elements(signed_info)
        .next()
        .ok_or(SamlError::SignatureMalformed)?;
    let prefixes = canonicalization(
        method,
        "CanonicalizationMethod",
        SamlError::CanonicalizationRefused,
    )?;
    let signed_info = c14n::exclusive(signed_info, None, &prefixes)?;
    // Read from the very bytes that the signature is over.
    let document = xml::parse_text(&signed_info)?;
    let said = SignedInfo::read(document.root_element(), id)?;
    if !keys.any_verifies(said.algorithm, signed_info.as_bytes(), &value) {
        return Err(SamlError::BadSignature);
    }
    let canonical = c14n::exclusive(element, Some(signature), &said.prefixes)?;
    if said.hash.of(canonical.as_bytes()) != said.digest {
        return Err(SamlError::BadDigest);
    }
    Ok(canonical)
}

/// `SignedInfo` and the value, of a signature that has nothing else but perhaps a `KeyInfo`. An `Object` is where wrapping
/// attacks keep what was really signed.
fn parts<'a, 'i>(signature: Node<'a, 'i>) -> Result<(Node<'a, 'i>, Vec<u8>), SamlError> {
    let mut children = elements(signature);
    let info = children
        .next()
        .filter(|child| is(*child, DSIG, "SignedInfo"));
    let value = children
        .next()
        .filter(|child| is(*child, DSIG, "SignatureValue"));
    let rest_is_good = match children.next() {
        None => true,
        Some(last) => is(last, DSIG, "KeyInfo") && children.next().is_none(),
    };
    match (info, value.and_then(base64)) {
        (Some(info), Some(value)) if rest_is_good => Ok((info, value)),
        _ => Err(SamlError::SignatureMalformed),
    }
}

/// What a `SignedInfo` says, once it is known to be of the one kind.
struct SignedInfo<'a> {
    algorithm: Algorithm,
    hash: Hash,
    digest: Vec<u8>,
    prefixes: Vec<&'a str>,
}

impl<'a> SignedInfo<'a> {
    fn read(info: Node<'a, '_>, id: &str) -> Result<Self, SamlError> {
        let children: Vec<_> = elements(info).collect();
        let [canonicalized, method, reference, more @ ..] = children.as_slice() else {
            return Err(SamlError::SignatureMalformed);
        };
        canonicalization(
            *canonicalized,
            "CanonicalizationMethod",
            SamlError::CanonicalizationRefused,
        )?;
        // A method with parameters (an HMAC's output length, RSA-PSS's own digest) is another method.
        let algorithm = listed(
            *method,
            "SignatureMethod",
            &METHODS,
            SamlError::AlgorithmRefused,
        )?;
        if !is(*reference, DSIG, "Reference") {
            return Err(SamlError::SignatureMalformed);
        }
        if !more.is_empty() {
            return Err(SamlError::SeveralReferences);
        }
        // The empty URI would be the whole document, and one without `#` something elsewhere.
        let uri = attribute(*reference, "URI").and_then(|uri| uri.strip_prefix('#'));
        if uri != Some(id) || !only_attributes(*reference, &["URI"]) {
            return Err(SamlError::WrongReference);
        }
        let children: Vec<_> = elements(*reference).collect();
        let [transforms, method, value] = children.as_slice() else {
            return Err(SamlError::SignatureMalformed);
        };
        Ok(Self {
            algorithm,
            prefixes: transformed(*transforms)?,
            hash: listed(*method, "DigestMethod", &DIGESTS, SamlError::DigestRefused)?,
            digest: Some(*value)
                .filter(|value| is(*value, DSIG, "DigestValue"))
                .and_then(base64)
                .ok_or(SamlError::SignatureMalformed)?,
        })
    }
}

/// The prefixes that the second transform declares, where the transforms are the two they must be.
fn transformed<'a>(transforms: Node<'a, '_>) -> Result<Vec<&'a str>, SamlError> {
    let children: Vec<_> = elements(transforms).collect();
    let [enveloped, canonicalized] = children.as_slice() else {
        return Err(SamlError::TransformRefused);
    };
    let good = is(transforms, DSIG, "Transforms")
        && is(*enveloped, DSIG, "Transform")
        && attribute(*enveloped, "Algorithm") == Some(ENVELOPED)
        && elements(*enveloped).next().is_none();
    if !good {
        return Err(SamlError::TransformRefused);
    }
    canonicalization(*canonicalized, "Transform", SamlError::TransformRefused)
}

/// The prefixes of an exclusive canonicalization without comments.
fn canonicalization<'a>(
    node: Node<'a, '_>,
    name: &str,
    refusal: SamlError,
) -> Result<Vec<&'a str>, SamlError> {
    if !is(node, DSIG, name) || attribute(node, "Algorithm") != Some(EXCLUSIVE) {
        return Err(refusal);
    }
    let mut children = elements(node);
    let Some(inclusive) = children.next() else {
        return Ok(Vec::new());
    };
    if !is(inclusive, EXCLUSIVE, "InclusiveNamespaces") || children.next().is_some() {
        return Err(refusal);
    }
    let listed = attribute(inclusive, "PrefixList").ok_or(refusal)?;
    let prefixes: Vec<_> = listed.split_ascii_whitespace().collect();
    match prefixes.len() > MAX_PREFIXES {
        true => Err(refusal),
        false => Ok(prefixes),
    }
}

/// The entry of `list` that the element's `Algorithm` names.
fn listed<T: Copy>(
    node: Node<'_, '_>,
    name: &str,
    list: &[(&str, T)],
    refusal: SamlError,
) -> Result<T, SamlError> {
    if !is(node, DSIG, name) {
        return Err(SamlError::SignatureMalformed);
    }
    let named = attribute(node, "Algorithm");
    list.iter()
        .find(|(uri, _)| Some(*uri) == named && elements(node).next().is_none())
        .map(|(_, entry)| *entry)
        .ok_or(refusal)
}

/// The bytes of an element's base64, which may be broken into lines (XML Schema 2, 3.2.16).
pub(super) fn base64(node: Node<'_, '_>) -> Option<Vec<u8>> {
    unwrapped_base64(text(node)?)
}

/// The bytes of base64 that may be broken into lines; `None` also where there are none.
pub(super) fn unwrapped_base64(text: &str) -> Option<Vec<u8>> {
    let dense: String = text.split_ascii_whitespace().collect();
    STANDARD
        .decode(dense)
        .ok()
        .filter(|bytes| !bytes.is_empty())
}
