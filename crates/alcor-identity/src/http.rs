//! HTTP calls to services of the cloud: TLS with the system's authorities and those in a file, bounded in time and size.
//! What is asked and what an answer means is the caller's business.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Largest answer in bytes.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// The file of authorities.
    #[error("cannot read the certificates in {path}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS.
    #[error("cannot make a client: {0}")]
    Tls(#[from] rustls::Error),
}

/// A call brought no answer. Nothing names the address, which may have somebody's secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("cannot be reached")]
    Unreachable,
    /// The connection broke.
    #[error("broke the connection")]
    Broken,
    /// The answer broke off, or is larger than [`MAX_ANSWER_BYTES`].
    #[error("sent an answer that broke off or is too long")]
    Body,
    /// The time is over.
    #[error("did not answer in time")]
    Timeout,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

/// Calls services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl HttpClient {
    /// A client that trusts the system's authorities and those in the file, and waits so long for an answer.
    ///
    /// # Errors
    /// When the file has not what it should.
    pub fn new(ca_file: Option<&PathBuf>, timeout: Duration) -> Result<Self, HttpClientError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let unreadable = |reason: String| HttpClientError::Certificates {
                path: path.clone(),
                reason,
            };
            let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|error| unreadable(error.to_string()))?;
            if found.is_empty() || roots.add_parsable_certificates(found).1 > 0 {
                return Err(unreadable(
                    "there is something else than certificates in it, or nothing".to_owned(),
                ));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout,
        })
    }

    /// One call, all of it within the timeout.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn call(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        request
            .headers_mut()
            .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let call = async {
            let response = self.client.request(request).await.map_err(|error| {
                if error.is_connect() {
                    CallError::Unreachable
                } else {
                    CallError::Broken
                }
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: body.map_err(|_| CallError::Body)?.to_bytes(),
            })
        };
        tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or(Err(CallError::Timeout))
    }
}
