//! A development CA: makes an authority, and certificates of it for whoever takes part. It keeps no list of what it made and
//! takes nothing back: certificates end by their age.

use std::{
    net::IpAddr,
    ops::Range,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, DnsName, UnixTime, pem::PemObject as _};
use thiserror::Error;
use time::OffsetDateTime;

mod folder;

use crate::identity::Identity;
pub use folder::{Folder, FolderError, Pair};

/// How far back certificates begin to be good: clocks differ.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(3_600);
/// What the names of authorities made here begin with.
const AUTHORITY: &str = "Alcor development CA";
/// Bytes of its key in an authority's name, so that who trusts another one says so.
const KEY_BYTES_IN_NAME: usize = 8;
/// Longest common name that X.509 knows, in characters.
const COMMON_NAME_MAX: usize = 64;

/// No certificate.
#[derive(Debug, Error)]
pub enum IssueError {
    /// Something in it cannot be.
    #[error("cannot make this certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Nobody can connect to this.
    #[error("'{0}' is no DNS name")]
    Dns(String),
    /// Nobody is named.
    #[error("a certificate must name somebody")]
    Nobody,
    /// Everybody would refuse what it makes.
    #[error("the authority's key and certificate do not belong together: {0}")]
    Authority(String),
}

/// A certificate and its key, in PEM. The key is a secret.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// Whose certificate, and where he is found.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// His names; at least one.
    pub identities: Vec<Identity>,
    /// Names by which others connect to him.
    pub dns: Vec<String>,
    /// Addresses by which they do.
    pub ips: Vec<IpAddr>,
}

/// A time from now on, and a little before.
pub fn from_now(days: u32) -> Range<SystemTime> {
    let now = SystemTime::now();
    now - CLOCKS_DIFFER..now + Duration::from_secs(u64::from(days) * 86_400)
}

/// An authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, which is good for this time.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(valid: Range<SystemTime>) -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        let params = authority(&key, valid);
        let certificate = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { certificate, issuer })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// When the key is none.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let key = KeyPair::from_pem(key)?;
        // Certificates have the name of their authority, which follows from its key; how long that is good is not in them.
        let issuer = Issuer::new(authority(&key, from_now(0)), key);
        Ok(Self {
            certificate: certificate.to_owned(),
            issuer,
        })
    }

    /// Certificate and key, as files have them.
    pub fn to_pem(&self) -> Issued {
        Issued {
            certificate: self.certificate.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// A certificate with a new key, which is good for this time.
    ///
    /// # Errors
    /// When it names nobody or has a name that cannot be, and when the authority's certificate is not its key's.
    pub fn issue(&self, subject: &Subject, valid: Range<SystemTime>) -> Result<Issued, IssueError> {
        let Some(first) = subject.identities.first() else {
            return Err(IssueError::Nobody);
        };
        if let Some(wrong) = subject
            .dns
            .iter()
            .find(|name| DnsName::try_from(name.as_str()).is_err())
        {
            return Err(IssueError::Dns(wrong.clone()));
        }
        let mut params = CertificateParams::new(subject.dns.clone())?;
        params.distinguished_name = named(first.uri());
        for identity in &subject.identities {
            params
                .subject_alt_names
                .push(SanType::URI(identity.uri().try_into()?));
        }
        let addresses = subject.ips.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.not_before = OffsetDateTime::from(valid.start);
        params.not_after = OffsetDateTime::from(valid.end);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject
            .identities
            .iter()
            .any(|identity| identity.role().listens())
        {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.verify(certificate.der(), valid.start)?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Whether the authority's certificate stands for the new one.
    fn verify(&self, certificate: &CertificateDer<'_>, at: SystemTime) -> Result<(), IssueError> {
        let wrong = |error: &dyn std::fmt::Display| IssueError::Authority(error.to_string());
        let authority =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|error| wrong(&error))?;
        let anchor = webpki::anchor_from_trusted_cert(&authority).map_err(|error| wrong(&error))?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        webpki::EndEntityCert::try_from(certificate)
            .and_then(|end| {
                end.verify_for_usage(
                    webpki::ALL_VERIFICATION_ALGS,
                    &[anchor],
                    &[],
                    UnixTime::since_unix_epoch(since),
                    webpki::KeyUsage::client_auth(),
                    None,
                    None,
                )
                .map(drop)
            })
            .map_err(|error| wrong(&error))
    }
}

fn authority(key: &KeyPair, valid: Range<SystemTime>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let public = key.public_key_raw();
    let some: String = public
        .iter()
        .rev()
        .take(KEY_BYTES_IN_NAME)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = named(&format!("{AUTHORITY} {some}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(valid.start);
    params.not_after = OffsetDateTime::from(valid.end);
    params
}

/// A common name, for people who look at certificates.
fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    let short: String = name.chars().take(COMMON_NAME_MAX).collect();
    distinguished.push(DnType::CommonName, short);
    distinguished
}
