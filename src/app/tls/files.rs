//! What the files of a listener with mutual TLS say: its certificate, and whose it takes.
//!
//! Promises: a certificate that has expired is not put into force; a client is let in by a name only where the certificate has it in
//! full. Never: reads more than [`LONGEST`] of a file. Can miss: revocation; lists are not read.

use std::{fmt, fs::File, io::Read, path::Path, sync::Arc};

use anyhow::Context;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::{audit::sha256_hex, config::TlsFiles};

/// The longest file that is read, in bytes: some hundred certificates.
const LONGEST: u64 = 1 << 20;

/// What the three files hold; never shown, as one of them is a key.
pub(super) struct Contents([Vec<u8>; 3]);

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    from: Timestamp,
    pub(super) until: Timestamp,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> anyhow::Result<Self> {
        Ok(Self([
            read(&files.cert)?,
            read(&files.key)?,
            read(&files.client_ca)?,
        ]))
    }

    pub(super) fn digest(&self) -> [String; 3] {
        self.0.each_ref().map(|bytes| sha256_hex(bytes))
    }

    /// How handshakes go by these files, and how long that can be.
    ///
    /// # Errors
    /// Where one of them cannot be used, worded for the operator.
    pub(super) fn config(
        &self,
        files: &TlsFiles,
        now: Timestamp,
    ) -> anyhow::Result<(ServerConfig, Validity)> {
        let [cert, key, client_ca] = &self.0;
        let mut roots = RootCertStore::empty();
        for root in certificates(client_ca, &files.client_ca)? {
            let added = roots.add(root);
            added.with_context(|| told(&files.client_ca, "a certificate that cannot be used"))?;
        }
        let mut verifier = WebPkiClientVerifier::builder(roots.into()).build()?;
        if !files.client_san.is_empty() {
            let names = files.client_san.clone();
            verifier = Arc::new(Named { verifier, names });
        }
        let chain = certificates(cert, &files.cert)?;
        let validity = chain.first().and_then(|own| Validity::of(own));
        let validity =
            validity.with_context(|| told(&files.cert, "a certificate that cannot be read"))?;
        anyhow::ensure!(
            now < validity.until,
            told(
                &files.cert,
                &format!("a certificate that expired at {}", validity.until)
            )
        );
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| anyhow::anyhow!(told(&files.key, "no private key in PEM")))?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .with_context(|| told(&files.key, "no key of the certificate"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session resumed is a certificate not looked at again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((config, validity))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read `{}`", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.with_context(cannot)?;
    anyhow::ensure!(bytes.len() as u64 <= LONGEST, told(path, "over 1 MiB"));
    Ok(bytes)
}

fn told(path: &Path, what: &str) -> String {
    format!("`{}` holds {what}", path.display())
}

fn certificates(pem: &[u8], path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|_| anyhow::anyhow!(told(path, "broken PEM")))?;
    anyhow::ensure!(!read.is_empty(), told(path, "no certificate in PEM"));
    Ok(read)
}

/// Lets in whom an authority vouches for by one of these names.
struct Named {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("names", &self.names).finish()
    }
}

impl Named {
    fn has_one(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(read) = webpki::EndEntityCert::try_from(certificate) else {
            return false;
        };
        // Nothing is both: a URI has a colon, and a DNS name has none.
        let dns = read
            .valid_dns_names()
            .any(|dns| self.names.iter().any(|name| name.eq_ignore_ascii_case(dns)));
        dns || read
            .valid_uri_names()
            .any(|uri| uri.contains(':') && self.names.iter().any(|name| name == uri))
    }
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .verifier
            .verify_client_cert(end_entity, intermediates, now)?;
        if self.has_one(end_entity) {
            return Ok(verified);
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl Validity {
    /// Reads `validity` of a certificate in DER (RFC 5280, 4.1).
    fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, signed, _) = element(certificate)?;
        let (tag, _, after_version) = element(signed)?;
        // The version is the one member that may be missing.
        let mut rest = if tag == 0xa0 { after_version } else { signed };
        for _serial_algorithm_issuer in 0..3 {
            rest = element(rest)?.2;
        }
        let (_, validity, _) = element(rest)?;
        let (tag, from, rest) = element(validity)?;
        let from = time(tag, from)?;
        let (tag, until, _) = element(rest)?;
        let until = time(tag, until)?;
        Some(Self { from, until })
    }

    /// Whether less than a tenth of its time is left: certificates of an hour and of a year are both renewed earlier than that.
    pub(super) fn runs_out(&self, now: Timestamp) -> bool {
        let whole = self.until.as_second().saturating_sub(self.from.as_second());
        let left = self.until.as_second().saturating_sub(now.as_second());
        left < whole / 10
    }
}

/// The first element of `der`: its tag, what it holds, and what follows it. Lengths of up to three bytes (X.690, 8.1.3).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |sum, &b| sum << 8 | usize::from(b));
            (length, rest)
        }
        _ => return None,
    };
    let (held, rest) = rest.split_at_checked(length)?;
    Some((tag, held, rest))
}

/// A UTCTime or a GeneralizedTime as RFC 5280, 4.1.2.5 restricts them.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let read = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(read.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_standard_has_them() {
        for (tag, text, told) in [
            (0x17, "491231235959Z", Some("2049-12-31T23:59:59Z")),
            (0x17, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (0x18, "20500101000000Z", Some("2050-01-01T00:00:00Z")),
            (0x18, "20501301000000Z", None),
            (0x18, "205001010000Z", None),
            (0x02, "20500101000000Z", None),
        ] {
            let read = time(tag, text.as_bytes()).map(|at| at.to_string());
            assert_eq!(read.as_deref(), told, "{text}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_element() {
        let whole = [0x30, 0x82, 0, 2, 1, 2];
        assert_eq!(element(&whole), Some((0x30, &whole[4..], &[][..])));
        for length in 0..whole.len() {
            assert_eq!(element(&whole[..length]), None, "{length}");
        }
        assert_eq!(element(&[0x30, 0x80, 0, 0]), None, "no end said");
    }

    #[test]
    fn a_certificate_runs_out_in_the_last_tenth_of_its_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let validity = Validity {
            from: at(0),
            until: at(1000),
        };
        assert!(!validity.runs_out(at(900)));
        assert!(validity.runs_out(at(901)) && validity.runs_out(at(2000)));
    }
}
