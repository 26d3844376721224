//! Certificates and key of a process: read from files, and read again when these change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::identity::{Identity, Names, Role, one_of};

/// The only protocol inside: HTTP/2.
const ALPN: &[u8] = b"h2";

/// Where the files are, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, and nobody else's.
    pub ca: PathBuf,
    /// The process's own certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Certificates and key are of no use.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or has something else in it.
    #[error("cannot read {what} in {path}: {reason}")]
    File {
        /// What should be there.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They do not fit together.
    #[error("{certificate} and {key} are of no use: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate is somebody else's.
    #[error("the certificate {certificate} names {named}; {wanted} is needed")]
    NotMine {
        /// Its file.
        certificate: PathBuf,
        /// Whom it names.
        named: String,
        /// Whom it should.
        wanted: String,
    },
}

/// What identifies a version of the files: time of change, length and inode of each.
type Stamp = [Option<(SystemTime, u64, u64)>; 3];

/// What was read.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
    names: Names,
}

struct State {
    /// The version of the files that was last tried.
    tried: Stamp,
    loaded: Loaded,
}

/// The certificates of this process. Cheap to clone.
///
/// Each new connection looks whether the files have changed. Files that are of no use change nothing: what was read before
/// goes on being used, with a warning.
#[derive(Clone)]
pub struct Tls(Arc<(TlsFiles, Mutex<State>)>);

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.0).finish()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or key and certificate do not belong together. A certificate that others will refuse, because
    /// it is too old or of another authority, is only warned of: a better one may come.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let tried = stamp(files);
        let loaded = read(files)?;
        Ok(Self(Arc::new((
            files.clone(),
            Mutex::new(State { tried, loaded }),
        ))))
    }

    /// Whether the certificate is this one's.
    ///
    /// # Errors
    /// When it is not.
    pub fn must_name(&self, identity: &Identity) -> Result<(), TlsError> {
        let names = self.current().names;
        let found = names.has(identity);
        self.mine(found, &names, || identity.to_string())
    }

    /// Whether the certificate is one of these.
    ///
    /// # Errors
    /// When it is not.
    pub fn must_have_role(&self, roles: &[Role]) -> Result<(), TlsError> {
        let names = self.current().names;
        let found = names.has_role(roles);
        self.mine(found, &names, || one_of(roles))
    }

    fn mine(&self, found: bool, names: &Names, wanted: impl FnOnce() -> String) -> Result<(), TlsError> {
        match found {
            true => Ok(()),
            false => Err(TlsError::NotMine {
                certificate: self.0.0.certificate.clone(),
                named: names.to_string(),
                wanted: wanted(),
            }),
        }
    }

    /// What the files say now.
    pub(crate) fn current(&self) -> Loaded {
        let (files, state) = &*self.0;
        let mut state = state.lock();
        // Before they are read: a change while they are is seen the next time.
        let now = stamp(files);
        if now != state.tried {
            state.tried = now;
            match read(files) {
                Ok(loaded) => {
                    tracing::info!(certificate = %files.certificate.display(), "new certificates");
                    state.loaded = loaded;
                }
                Err(error) => {
                    tracing::warn!(%error, "certificates have changed; going on with the ones before")
                }
            }
        }
        state.loaded.clone()
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    [&files.ca, &files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    })
}

fn read(files: &TlsFiles) -> Result<Loaded, TlsError> {
    let authorities = certificates("certificates of authorities", &files.ca)?;
    let chain = certificates("a certificate", &files.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable("a key", &files.key, error))?;
    let unusable = |source| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let added = roots.add(authority);
        added.map_err(|error| unreadable("certificates of authorities", &files.ca, error))?;
    }
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| unreadable("certificates of authorities", &files.ca, error))?;
    warn_if_refused(files, verifier.as_ref(), &chain);
    let names = Names::of(&chain);
    let client = client(&provider, Arc::clone(&roots), chain.clone(), key.clone_key()).map_err(unusable)?;
    let server = server(provider, verifier, chain, key).map_err(unusable)?;
    Ok(Loaded {
        server: Arc::new(server),
        client: Arc::new(client),
        names,
    })
}

fn unreadable(what: &'static str, path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(what, path, error))?;
    match found.is_empty() {
        true => Err(unreadable(what, path, "there is none")),
        false => Ok(found),
    }
}

/// Others will say it less clearly.
fn warn_if_refused(files: &TlsFiles, verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'static>]) {
    if let [own, between @ ..] = chain
        && let Err(error) = verifier.verify_client_cert(own, between, UnixTime::now())
    {
        tracing::warn!(certificate = %files.certificate.display(), ca = %files.ca.display(), %error, "others will refuse this certificate");
    }
}

/// Sessions are not resumed: each connection shows certificates that are good now.
fn client(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The same at the other end.
fn server(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
