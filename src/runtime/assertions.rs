//! SAML assertions to callers, with live keys.
//!
//! Promises: keys come from each provider's metadata, followed as an issuer's keys are (`keys::jwks`); an assertion whose
//! signature does not hold asks for newer metadata once, within the rate limit that holds for issuers. Remembers nothing:
//! an assertion is good once, and that is for its caller to claim ([`Verified::id`]).

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use jiff::Timestamp;

use super::{authenticator::AuthenticatorError, clock::Clock};
use crate::{
    identity::saml::{self, Rules, SamlError, Unverified, Verified},
    keys::jwks::{Jwks, KeySource, Timing},
};

/// Verifies assertions. One per configuration; by default of no provider.
#[derive(Debug, Default)]
pub struct Assertions {
    providers: HashMap<String, Provider>,
    strangers: AtomicU64,
}

#[derive(Debug)]
struct Provider {
    rules: Rules,
    keys: Jwks,
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// Counters of one provider since the start of these assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderMetrics {
    /// Its entity id.
    pub entity_id: String,
    /// Assertions accepted.
    pub accepted: u64,
    /// Assertions refused.
    pub refused: u64,
    /// Readings of metadata that ended.
    pub fetches: u64,
    /// Those of them that failed.
    pub failed_fetches: u64,
    /// Usable keys at the moment; none where its assertions cannot be verified.
    pub keys: Option<u64>,
}

impl Assertions {
    /// Starts with the system's clock and default timing; reading metadata begins at once, and a source that does not answer
    /// only makes its provider unavailable. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`AuthenticatorError`] for faults of the configuration.
    pub fn new(providers: Vec<(Rules, KeySource)>) -> Result<Self, AuthenticatorError> {
        Self::with(providers, Clock::system(), Timing::default())
    }

    /// As [`new`](Self::new), with a clock and timing of the caller's choice.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with(
        providers: Vec<(Rules, KeySource)>,
        clock: Clock,
        timing: Timing,
    ) -> Result<Self, AuthenticatorError> {
        let mut by_name = HashMap::new();
        for (rules, source) in providers {
            let name = rules.entity_id.clone();
            let keys = Jwks::new(&name, &source, timing, clock.clone());
            let keys = keys.map_err(|cause| AuthenticatorError::Source {
                issuer: name.clone(),
                cause,
            })?;
            let provider = Provider {
                rules,
                keys,
                accepted: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            };
            if by_name.insert(name.clone(), provider).is_some() {
                return Err(AuthenticatorError::Twice(name));
            }
        }
        Ok(Self {
            providers: by_name,
            strangers: AtomicU64::new(0),
        })
    }

    /// Whether there is any provider.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// The caller that `document`, an assertion or a response with one, proves at the instant `now`. It proves that as often
    /// as it is asked: whoever gives something for it claims [`Verified::id`] first.
    ///
    /// Waits only where metadata has to be read first, and then at most about [`Timing::timeout`]. Cancellation-safe.
    ///
    /// # Errors
    /// [`SamlError`]; [`SamlError::IssuerUnavailable`] while the provider's metadata cannot be had.
    pub async fn verify(&self, document: &[u8], now: Timestamp) -> Result<Verified, SamlError> {
        let known = saml::read(document).and_then(|assertion| {
            let provider = self.providers.get(assertion.issuer());
            Ok((provider.ok_or(SamlError::UnknownIssuer)?, assertion))
        });
        let (provider, assertion) = known.inspect_err(|_| {
            self.strangers.fetch_add(1, Relaxed);
        })?;
        let verified = provider.verify(&assertion, now).await;
        let counter = match verified {
            Ok(_) => &provider.accepted,
            Err(_) => &provider.refused,
        };
        counter.fetch_add(1, Relaxed);
        verified
    }

    /// Waits until the first reading of every provider's metadata has ended, well or not.
    pub async fn first_fetches(&self) {
        for provider in self.providers.values() {
            provider.keys.fetched(1).await;
        }
    }

    /// Counters as they are now, by entity id.
    #[must_use]
    pub fn metrics(&self) -> Vec<ProviderMetrics> {
        let mut all: Vec<_> = self.providers.values().map(Provider::metrics).collect();
        all.sort_by(|a, b| a.entity_id.cmp(&b.entity_id));
        all
    }

    /// Documents refused before they could be laid to a provider.
    #[must_use]
    pub fn refused_strangers(&self) -> u64 {
        self.strangers.load(Relaxed)
    }
}

impl Provider {
    async fn verify(
        &self,
        assertion: &Unverified<'_>,
        now: Timestamp,
    ) -> Result<Verified, SamlError> {
        if self.keys.current().is_none() {
            self.keys.wait_for_any().await;
        }
        let first = self.verify_with_current(assertion, now);
        // No key is named, so that newer metadata may have the key is all that can be said.
        let worth = [SamlError::BadSignature, SamlError::MetadataExpired];
        match first {
            Err(error) if worth.contains(&error) && self.keys.refresh_for(None).await => {
                self.verify_with_current(assertion, now)
            }
            other => other,
        }
    }

    fn verify_with_current(
        &self,
        assertion: &Unverified<'_>,
        now: Timestamp,
    ) -> Result<Verified, SamlError> {
        let current = self.keys.current().ok_or(SamlError::IssuerUnavailable)?;
        assertion.verify(&self.rules, &current.keys, now)
    }

    fn metrics(&self) -> ProviderMetrics {
        let (fetches, failed_fetches) = self.keys.fetches();
        ProviderMetrics {
            entity_id: self.rules.entity_id.clone(),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            fetches,
            failed_fetches,
            keys: self.keys.current().map(|current| current.keys.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;
    use crate::{
        identity::{
            saml::testing::{ENTITY, ID, assertion, published, rules, signed},
            testing::{RSA, RSA_OTHER, now},
        },
        keys::{
            jwks::Place,
            testing::{Answer, Idp},
        },
        runtime::clock::Hand,
    };

    fn timing() -> Timing {
        Timing {
            timeout: Duration::from_secs(30),
            ..Timing::default()
        }
    }

    fn with(at: Place, signed_by: Option<&Path>) -> (Assertions, Hand) {
        let (clock, hand) = Clock::manual(now());
        let source = KeySource::Metadata {
            at,
            signed_by: signed_by.map(Path::to_owned),
        };
        let assertions = Assertions::with(vec![(rules(), source)], clock, timing()).unwrap();
        (assertions, hand)
    }

    async fn said(assertions: &Assertions, document: &str) -> Result<String, SamlError> {
        let verified = assertions.verify(document.as_bytes(), now()).await;
        verified.map(|verified| verified.id)
    }

    #[tokio::test]
    async fn a_provider_that_changes_its_key_is_followed_through_its_metadata() {
        let idp = Idp::start(published(&[&RSA]).into_bytes()).await;
        let (assertions, hand) = with(Place::Url(idp.url("/metadata")), None);
        let (old, new) = (signed(&assertion(), &RSA), signed(&assertion(), &RSA_OTHER));
        assert_eq!(said(&assertions, &old).await, Ok(ID.to_owned()));

        // Both keys for a while, then the new one only; the first assertion under it asks for the metadata.
        idp.publish(Answer::Body(published(&[&RSA, &RSA_OTHER]).into_bytes()));
        assert_eq!(said(&assertions, &new).await, Ok(ID.to_owned()));
        assert_eq!(said(&assertions, &old).await, Ok(ID.to_owned()));
        let served = idp.served();
        // Strangers' signatures do not become load.
        let forged = new.replace("<ds:SignatureValue>", "<ds:SignatureValue>AAAA");
        for _ in 0..20 {
            assert_eq!(
                said(&assertions, &forged).await,
                Err(SamlError::BadSignature)
            );
        }
        assert!(idp.served() <= served + 1, "{}", idp.served());
        idp.publish(Answer::Body(published(&[&RSA_OTHER]).into_bytes()));
        hand.advance(Duration::from_secs(11));
        assert_eq!(
            said(&assertions, &forged).await,
            Err(SamlError::BadSignature)
        );
        assert_eq!(said(&assertions, &old).await, Err(SamlError::BadSignature));
        assert_eq!(said(&assertions, &new).await, Ok(ID.to_owned()));
        let metrics = assertions.metrics().remove(0);
        assert_eq!(
            (metrics.accepted, metrics.refused, metrics.keys),
            (4, 22, Some(1))
        );
    }

    #[tokio::test]
    async fn a_provider_out_of_reach_is_unavailable_and_no_other_is() {
        let idp = Idp::start(published(&[&RSA]).into_bytes()).await;
        idp.publish(Answer::Status(500));
        let (assertions, _hand) = with(Place::Url(idp.url("/metadata")), None);
        let good = signed(&assertion(), &RSA);
        assert_eq!(
            said(&assertions, &good).await,
            Err(SamlError::IssuerUnavailable)
        );
        let other = good.replace(ENTITY, "https://other.example");
        assert_eq!(
            said(&assertions, &other).await,
            Err(SamlError::UnknownIssuer)
        );
        assert_eq!(assertions.refused_strangers(), 1);
        assert_eq!(assertions.metrics()[0].keys, None);
        // Something else than metadata, and somebody else's.
        for body in [
            "<html></html>".to_owned(),
            published(&[&RSA]).replace(ENTITY, "x"),
        ] {
            idp.publish(Answer::Body(body.into_bytes()));
            let (assertions, _hand) = with(Place::Url(idp.url("/metadata")), None);
            assert_eq!(
                said(&assertions, &good).await,
                Err(SamlError::IssuerUnavailable)
            );
        }
    }

    #[tokio::test]
    async fn metadata_in_a_file_is_read_again_and_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("idp.xml");
        let until = |instant: &str| {
            let until = format!(" validUntil=\"{instant}\" entityID=");
            published(&[&RSA]).replacen(" entityID=", &until, 1)
        };
        fs::write(&path, until("2030-03-17T17:46:40Z")).unwrap();
        let (assertions, hand) = with(Place::File(path.clone()), None);
        let good = signed(&assertion(), &RSA);
        assert_eq!(
            said(&assertions, &good).await,
            Err(SamlError::MetadataExpired)
        );
        fs::write(&path, until("2030-03-17T17:46:41Z")).unwrap();
        let fetches = assertions.metrics()[0].fetches;
        hand.advance(Duration::from_secs(11));
        assertions.providers[ENTITY].keys.fetched(fetches + 1).await;
        assert_eq!(said(&assertions, &good).await, Ok(ID.to_owned()));
    }

    #[tokio::test]
    async fn with_a_pinned_certificate_unsigned_metadata_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/saml");
        let good = fs::read_to_string(corpus.join("cases/good-response.xml")).unwrap();
        let pinned = folder.path().join("federation.pem");
        let signed = corpus.join("metadata-signed.xml");
        for (certificate, file, expected) in [
            ("federation.pem", "metadata-signed.xml", Ok(())),
            (
                "federation.pem",
                "metadata.xml",
                Err(SamlError::IssuerUnavailable),
            ),
            (
                "idp.pem",
                "metadata-signed.xml",
                Err(SamlError::IssuerUnavailable),
            ),
        ] {
            fs::copy(corpus.join(certificate), &pinned).unwrap();
            let (assertions, _hand) = with(Place::File(corpus.join(file)), Some(&pinned));
            assert_eq!(
                said(&assertions, &good).await.map(drop),
                expected,
                "{certificate} {file}"
            );
        }
        // The same document with another key in it.
        fs::copy(corpus.join("federation.pem"), &pinned).unwrap();
        let text = fs::read_to_string(signed).unwrap();
        let changed = folder.path().join("changed.xml");
        fs::write(
            &changed,
            text.replacen(
                "WantAuthnRequestsSigned=\"false\"",
                "WantAuthnRequestsSigned=\"true\"",
                1,
            ),
        )
        .unwrap();
        let (assertions, _hand) = with(Place::File(changed), Some(&pinned));
        assert_eq!(
            said(&assertions, &good).await,
            Err(SamlError::IssuerUnavailable)
        );
    }

    /// A provider whose metadata says until when it is good, counted from when it is asked for.
    #[tokio::test]
    async fn metadata_that_is_good_for_longer_is_no_other() {
        let until = |n: usize| {
            let until = format!(" validUntil=\"2030-03-18T17:00:{n:02}Z\" entityID=");
            published(&[&RSA]).replacen(" entityID=", &until, 1)
        };
        let idp = Idp::start(until(0).into_bytes()).await;
        let (assertions, _hand) = with(Place::Url(idp.url("/metadata")), None);
        let good = signed(&assertion(), &RSA);
        assert_eq!(said(&assertions, &good).await, Ok(ID.to_owned()));
        let forged = good.replace("<ds:SignatureValue>", "<ds:SignatureValue>AAAA");
        let served = idp.served();
        for n in 1..=20 {
            idp.publish(Answer::Body(until(n).into_bytes()));
            assert_eq!(
                said(&assertions, &forged).await,
                Err(SamlError::BadSignature)
            );
        }
        assert_eq!(idp.served() - served, 1);
    }
}
