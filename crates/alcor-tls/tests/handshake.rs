//! Who gets in, and whom one lets oneself be answered by: real sockets, certificates of a real authority.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test says no"
)]

use std::{
    error::Error as _,
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use alcor_tls::{
    DialError, Identity, Incoming, Peer, Role, Tls, TlsFiles, connect,
    issue::{Folder, Subject, from_now},
};
use futures::StreamExt as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Endpoint, server::Connected as _};

/// How long a server may take to end a connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// An authority in a folder of its own.
struct Ca(tempfile::TempDir);

impl Ca {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // It is older than what is issued by it, however old that is.
        let year = Duration::from_secs(31_536_000);
        let valid = SystemTime::now() - year..SystemTime::now() + year;
        Folder::new(dir.path()).create(valid, false).unwrap();
        Self(dir)
    }

    fn subject(role: Role, name: &str) -> Subject {
        Subject {
            identities: vec![Identity::new(role, name).unwrap()],
            dns: vec!["localhost".to_owned()],
            ips: vec!["127.0.0.1".parse().unwrap()],
        }
    }

    fn issue(&self, role: Role, name: &str) -> TlsFiles {
        let subject = Self::subject(role, name);
        Folder::new(self.0.path())
            .issue(&subject, from_now(1), false)
            .unwrap()
    }

    /// One that was good until yesterday.
    fn expired(&self, role: Role, name: &str) -> TlsFiles {
        let day = Duration::from_secs(86_400);
        let valid = SystemTime::now() - 2 * day..SystemTime::now() - day;
        let subject = Self::subject(role, name);
        Folder::new(self.0.path()).issue(&subject, valid, false).unwrap()
    }

    /// The files of somebody of another authority, who trusts this one.
    fn stranger(&self, role: Role, name: &str) -> TlsFiles {
        let other = Self::new();
        let files = other.issue(role, name);
        let copy = |from: &Path| {
            let to = self
                .0
                .path()
                .join(format!("stranger-{}", from.file_name().unwrap().display()));
            std::fs::copy(from, &to).unwrap();
            to
        };
        TlsFiles {
            ca: self.0.path().join("ca.pem"),
            certificate: copy(&files.certificate),
            key: copy(&files.key),
        }
    }
}

/// A server that only takes connections, and who has got in.
async fn server(files: &TlsFiles) -> (SocketAddr, mpsc::UnboundedReceiver<Peer>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Incoming::new(listener, Some(Tls::load(files).unwrap()));
    let (sender, peers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut held = Vec::new();
        let mut connections = std::pin::pin!(incoming.connections());
        while let Some(connection) = connections.next().await {
            let connection = connection.unwrap();
            let _ = sender.send(connection.connect_info());
            held.push(connection);
        }
    });
    (address, peers)
}

/// A client that trusts the authority and shows this certificate, or none.
async fn knock(address: SocketAddr, ca: &Ca, shown: Option<&TlsFiles>) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let file = ca.0.path().join("ca.pem");
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(files) => {
            let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            let chain = chain.map(Result::unwrap).collect();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await
}

/// Whether the server ends the connection: for the client a handshake of TLS 1.3 is over before the server has looked.
async fn is_shown_out(knocked: io::Result<TlsStream<TcpStream>>) -> bool {
    let Ok(mut stream) = knocked else {
        return true;
    };
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn only_who_has_a_good_certificate_gets_in() {
    let ca = Ca::new();
    let (address, mut peers) = server(&ca.issue(Role::Ncm, "n1")).await;
    let refused = [
        ("none", None),
        ("of another authority", Some(ca.stranger(Role::Host, "h1"))),
        ("of yesterday", Some(ca.expired(Role::Host, "old"))),
    ];
    for (what, files) in &refused {
        let knocked = knock(address, &ca, files.as_ref()).await;
        assert!(is_shown_out(knocked).await, "{what}");
    }
    let h1 = ca.issue(Role::Host, "h1");
    let _in = knock(address, &ca, Some(&h1)).await.unwrap();
    let peer = peers.recv().await.unwrap();
    assert!(
        peer.to_string().contains("alcor://host/h1"),
        "the first to get in: {peer}"
    );
    peer.must_be(&Identity::new(Role::Host, "h1").unwrap()).unwrap();
    peer.must_be(&Identity::new(Role::Host, "h2").unwrap())
        .unwrap_err();
    peer.must_be(&Identity::new(Role::Gateway, "h1").unwrap())
        .unwrap_err();
    peer.must_have_role(&[Role::Ncm, Role::Controller, Role::Gateway])
        .unwrap_err();
    assert!(peers.is_empty());
}

#[tokio::test]
async fn who_speaks_plainly_is_answered_nothing() {
    let ca = Ca::new();
    let (address, mut peers) = server(&ca.issue(Role::Ncm, "n1")).await;
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut heard = Vec::new();
    // The connection may also be reset.
    let _ = plain.read_to_end(&mut heard).await;
    // An alert of TLS at most: its type is 21.
    assert!(heard.is_empty() || heard[0] == 21, "{heard:?}");
    // One that says nothing keeps nobody else out.
    let _silent = TcpStream::connect(address).await.unwrap();
    let _in = knock(address, &ca, Some(&ca.issue(Role::Host, "h1")))
        .await
        .unwrap();
    assert!(
        peers
            .recv()
            .await
            .unwrap()
            .to_string()
            .contains("alcor://host/h1")
    );
    assert!(peers.is_empty());
}

async fn dial(url: &str, files: &TlsFiles, servers: &'static [Role]) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    let tls = Tls::load(files).unwrap();
    let Err(error) = connect(&endpoint, Some(&tls), servers).await else {
        return Ok(());
    };
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    Err(words)
}

#[tokio::test]
async fn only_a_good_server_of_the_right_kind_is_spoken_to() {
    const NCMS: &[Role] = &[Role::Ncm];
    let ca = Ca::new();
    let h1 = ca.issue(Role::Host, "h1");
    let servers = [
        ("an NCM", ca.issue(Role::Ncm, "n1"), None),
        (
            "of another authority",
            ca.stranger(Role::Ncm, "n1"),
            Some("UnknownIssuer"),
        ),
        ("of yesterday", ca.expired(Role::Ncm, "old"), Some("expired")),
        (
            "a host",
            ca.issue(Role::Host, "h2"),
            Some("server authentication"),
        ),
        (
            "a controller",
            ca.issue(Role::Controller, "c1"),
            Some("alcor://controller/c1; alcor://ncm/NAME is needed"),
        ),
    ];
    for (what, files, error) in servers {
        let (address, _peers) = server(&files).await;
        let outcome = dial(&format!("https://{address}"), &h1, NCMS).await;
        match error {
            None => outcome.unwrap(),
            Some(word) => {
                let words = outcome.expect_err(what);
                assert!(words.contains(word), "{what}: {words}");
            }
        }
    }
    let named = Subject {
        ips: Vec::new(),
        ..Ca::subject(Role::Ncm, "n2")
    };
    let files = Folder::new(ca.0.path()).issue(&named, from_now(1), false);
    let (address, _peers) = server(&files.unwrap()).await;
    let port = address.port();
    dial(&format!("https://localhost:{port}"), &h1, NCMS)
        .await
        .unwrap();
    let words = dial(&format!("https://{address}"), &h1, NCMS).await.unwrap_err();
    assert!(
        words.contains("not valid for name"),
        "no such address in the certificate: {words}"
    );
}

#[tokio::test]
async fn the_scheme_says_what_is_done() {
    let ca = Ca::new();
    let tls = Tls::load(&ca.issue(Role::Host, "h1")).unwrap();
    let none = None;
    for (url, tls) in [("http://127.0.0.1:1", Some(&tls)), ("https://127.0.0.1:1", none)] {
        let endpoint = Endpoint::from_static(url);
        let error = connect(&endpoint, tls, &[Role::Ncm]).await.unwrap_err();
        assert!(matches!(error, DialError::Scheme { .. }), "{error}");
    }
}

#[tokio::test]
async fn new_files_count_from_the_next_connection_on() {
    let ca = Ca::new();
    let files = ca.issue(Role::Ncm, "n1");
    let h1 = ca.issue(Role::Host, "h1");
    let (address, _peers) = server(&files).await;
    let url = format!("https://{address}");
    dial(&url, &h1, &[Role::Ncm]).await.unwrap();
    let controller = ca.issue(Role::Controller, "c1");
    std::fs::copy(&controller.certificate, &files.certificate).unwrap();
    dial(&url, &h1, &[Role::Ncm]).await.unwrap();
    std::fs::copy(&controller.key, &files.key).unwrap();
    dial(&url, &h1, &[Role::Ncm]).await.unwrap_err();
    dial(&url, &h1, &[Role::Controller]).await.unwrap();
}
