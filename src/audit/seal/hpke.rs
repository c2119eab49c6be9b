//! Hybrid public key encryption (RFC 9180) in base mode, single shot: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{PrivateKey, UnparsedPublicKey, X25519, agree},
    hmac,
};

/// KEM, KDF and AEAD, as they go into every derivation (RFC 9180, sections 4.1 and 5.1).
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
const SUITE: &[u8] = b"HPKE\x00\x20\x00\x01\x00\x02";

/// Encrypts `text` to the holder of `public`, under the ephemeral private key `ephemeral`, which must be used for nothing else:
/// the encapsulated key and the ciphertext. `None` where a key is none.
pub(super) fn seal(
    public: &[u8; 32],
    ephemeral: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    text: &[u8],
) -> Option<([u8; 32], Vec<u8>)> {
    let private = PrivateKey::from_private_key(&X25519, ephemeral).ok()?;
    let encapsulated = public_of(&private)?;
    let (key, nonce) = schedule(&private, public, &encapsulated, public, info)?;
    let mut sealed = text.to_vec();
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed)
        .ok()?;
    Some((encapsulated, sealed))
}

/// Decrypts what [`seal`] made; `None` where it was not made for this key, or not with this `info` and `aad`.
pub(super) fn open(
    private: &[u8; 32],
    encapsulated: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let private = PrivateKey::from_private_key(&X25519, private).ok()?;
    let own = public_of(&private)?;
    let (key, nonce) = schedule(&private, encapsulated, encapsulated, &own, info)?;
    let mut text = sealed.to_vec();
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut text)
        .ok()?
        .len();
    text.truncate(length);
    Some(text)
}

/// The public half of a private key.
pub(super) fn public(private: &[u8; 32]) -> Option<[u8; 32]> {
    public_of(&PrivateKey::from_private_key(&X25519, private).ok()?)
}

fn public_of(private: &PrivateKey) -> Option<[u8; 32]> {
    private.compute_public_key().ok()?.as_ref().try_into().ok()
}

/// Sections 4.1 and 5.1: from the agreement between `private` and `other` to the key and the first nonce.
fn schedule(
    private: &PrivateKey,
    other: &[u8; 32],
    encapsulated: &[u8; 32],
    recipient: &[u8; 32],
    info: &[u8],
) -> Option<(LessSafeKey, Nonce)> {
    let agreed = agree(
        private,
        UnparsedPublicKey::new(&X25519, other),
        (),
        |agreed| <[u8; 32]>::try_from(agreed).map_err(drop),
    )
    .ok()?;
    let context = [encapsulated.as_slice(), recipient].concat();
    let prk = extract(KEM_SUITE, b"", b"eae_prk", &agreed);
    let shared = expand::<32>(KEM_SUITE, &prk, b"shared_secret", &context);
    let mut context = vec![0];
    context.extend(extract(SUITE, b"", b"psk_id_hash", b""));
    context.extend(extract(SUITE, b"", b"info_hash", info));
    let secret = extract(SUITE, &shared, b"secret", b"");
    let key = expand::<32>(SUITE, &secret, b"key", &context);
    let nonce = expand::<12>(SUITE, &secret, b"base_nonce", &context);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?);
    Some((key, Nonce::assume_unique_for_key(nonce)))
}

/// LabeledExtract (section 4). An empty salt is one of zeros (RFC 5869, section 2.2), as it is to HMAC.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> [u8; 32] {
    mac(salt, &[b"HPKE-v1", suite, label, input])
}

/// LabeledExpand (section 4) for at most one block of the hash.
fn expand<const N: usize>(suite: &[u8], prk: &[u8; 32], label: &[u8], info: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    let length = (N as u16).to_be_bytes();
    let block = mac(prk, &[&length, b"HPKE-v1", suite, label, info, &[1]]);
    let mut out = [0; N];
    out.copy_from_slice(&block[..N]);
    out
}

/// HMAC-SHA-256 over the parts one after the other.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// The vector of the RFC's set for this suite in base mode: mode 0, kem 32, kdf 1, aead 2, first encryption.
    #[test]
    fn the_vector_of_the_rfc() {
        let text = include_str!("../../../tests/data/hpke/rfc9180.json");
        let vector: std::collections::BTreeMap<String, String> =
            serde_json::from_str(text).unwrap();
        let info = hex::decode(&vector["info"]).unwrap();
        let aad = hex::decode(&vector["aad"]).unwrap();
        let text = hex::decode(&vector["pt"]).unwrap();
        let (private, recipient) = (bytes(&vector["skRm"]), bytes(&vector["pkRm"]));
        assert_eq!(public(&private).unwrap(), recipient);
        let (encapsulated, sealed) =
            seal(&recipient, &bytes(&vector["skEm"]), &info, &aad, &text).unwrap();
        assert_eq!(hex::encode(encapsulated), vector["enc"]);
        assert_eq!(hex::encode(&sealed), vector["ct"]);
        assert_eq!(
            open(&private, &encapsulated, &info, &aad, &sealed).unwrap(),
            text
        );
    }

    #[test]
    fn whatever_differs_opens_nothing() {
        let (private, ephemeral) = ([3; 32], [4; 32]);
        let recipient = public(&private).unwrap();
        let (encapsulated, sealed) =
            seal(&recipient, &ephemeral, b"info", b"aad", b"text").unwrap();
        assert_eq!(
            open(&private, &encapsulated, b"info", b"aad", &sealed).unwrap(),
            b"text"
        );
        assert_eq!(
            open(&[5; 32], &encapsulated, b"info", b"aad", &sealed),
            None
        );
        assert_eq!(
            open(&private, &encapsulated, b"onfi", b"aad", &sealed),
            None
        );
        assert_eq!(
            open(&private, &encapsulated, b"info", b"daa", &sealed),
            None
        );
        assert_eq!(open(&private, &[9; 32], b"info", b"aad", &sealed), None);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(open(&private, &encapsulated, b"info", b"aad", &bad), None);
        }
        assert_eq!(
            open(&private, &encapsulated, b"info", b"aad", b"short"),
            None
        );
        // A public key of low order agrees on nothing secret (RFC 7748, section 6.1).
        assert_eq!(seal(&[0; 32], &ephemeral, b"", b"", b""), None);
    }
}
