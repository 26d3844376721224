//! Keystone's two calls: log in as the service, ask about a token. Bounded in time, size and tries.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;

use crate::{
    secret::Secret,
    token::{Envelope, Verified},
    verifier::Clock,
};

/// Largest answer of Keystone in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The service's own token is renewed when it has less than this left.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_secs(120);

/// Where Keystone is and who asks it.
#[derive(Clone, Debug)]
pub struct KeystoneConfig {
    /// `http://keystone:5000`, with or without `/v3`.
    pub url: String,
    /// A user who may check tokens.
    pub username: String,
    /// That user's password.
    pub password: Secret,
    /// The user's domain, by name.
    pub user_domain_name: String,
    /// The project in which the user has its role.
    pub project_name: String,
    /// The project's domain, by name.
    pub project_domain_name: String,
    /// Certificates of authorities to trust besides the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Longest time for one call.
    pub timeout: Duration,
    /// How often a call that failed is tried again.
    pub retries: u32,
    /// Time before the first new try; it doubles with each.
    pub backoff: Duration,
}

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KeystoneError {
    /// The file of authorities.
    #[error("cannot read the certificates in {path}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not an address.
    #[error("'{0}' is no http or https address of Keystone")]
    Address(String),
    /// TLS.
    #[error("cannot make a client for Keystone: {0}")]
    Client(#[from] rustls::Error),
}

/// What came of asking about a token.
#[derive(Debug)]
pub enum Asked {
    /// It is good.
    Good(Box<Verified>),
    /// There is none such.
    Refused,
    /// Nobody knows, and why.
    Unknown(String),
}

/// What came of one call.
enum Tried<T> {
    Done(T),
    /// Trying again cannot help.
    Failed(String),
    /// Trying again may help.
    Again(String),
}

struct OwnToken {
    header: HeaderValue,
    renew_at: Timestamp,
}

pub struct Keystone {
    config: KeystoneConfig,
    tokens_uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    clock: Clock,
    /// One logs in at a time; the others wait for that.
    own: tokio::sync::Mutex<Option<OwnToken>>,
}

impl Keystone {
    pub fn new(config: KeystoneConfig, clock: Clock) -> Result<Self, KeystoneError> {
        let base = config
            .url
            .trim_end_matches('/')
            .trim_end_matches("/v3")
            .to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(KeystoneError::Address(config.url));
        }
        let tokens_uri = format!("{base}/v3/auth/tokens?nocatalog=1");
        Ok(Self {
            tokens_uri: tokens_uri
                .parse()
                .map_err(|_| KeystoneError::Address(config.url.clone()))?,
            client: client(config.ca_file.as_ref())?,
            config,
            clock,
            own: tokio::sync::Mutex::new(None),
        })
    }

    /// Asks about a token, as often as configured.
    pub async fn ask(&self, token: &Secret, asked: impl Fn(), logged_in: impl Fn()) -> Asked {
        let mut wait = self.config.backoff;
        let mut tries = 0;
        loop {
            let reason = match self.try_once(token, &asked, &logged_in).await {
                Tried::Done(answer) => return answer,
                Tried::Failed(reason) => return Asked::Unknown(reason),
                Tried::Again(reason) => reason,
            };
            if tries >= self.config.retries {
                return Asked::Unknown(reason);
            }
            tries += 1;
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2);
        }
    }

    async fn try_once(&self, token: &Secret, asked: &impl Fn(), logged_in: &impl Fn()) -> Tried<Asked> {
        let Some(subject) = header(token.reveal()) else {
            return Tried::Done(Asked::Refused);
        };
        let own = match self.own_token(logged_in).await {
            Tried::Done(own) => own,
            Tried::Failed(reason) => return Tried::Failed(reason),
            Tried::Again(reason) => return Tried::Again(reason),
        };
        asked();
        let headers = [("x-auth-token", own.clone()), ("x-subject-token", subject)];
        let response = match self.send(Method::GET, headers, Bytes::new()).await {
            Ok(response) => response,
            Err(reason) => return Tried::Again(reason),
        };
        match response.status {
            StatusCode::OK => match response.envelope() {
                Ok(envelope) => Tried::Done(Asked::Good(Box::new(envelope.verified()))),
                Err(reason) => Tried::Failed(reason),
            },
            StatusCode::NOT_FOUND => Tried::Done(Asked::Refused),
            StatusCode::UNAUTHORIZED => {
                self.forget(&own).await;
                Tried::Again("Keystone does not accept our own token".to_owned())
            }
            status => self.status(status, "check a token"),
        }
    }

    /// The service's own token, from Keystone when there is none that lasts.
    async fn own_token(&self, logged_in: &impl Fn()) -> Tried<HeaderValue> {
        let mut own = self.own.lock().await;
        if let Some(token) = own.as_ref().filter(|token| (self.clock)() < token.renew_at) {
            return Tried::Done(token.header.clone());
        }
        logged_in();
        let json = [("content-type", HeaderValue::from_static("application/json"))];
        let response = match self
            .send(Method::POST, json, self.login().to_string().into())
            .await
        {
            Ok(response) => response,
            Err(reason) => return Tried::Again(reason),
        };
        if response.status != StatusCode::CREATED {
            return self.status(response.status, "log in");
        }
        let Some(mut header) = response.headers.get("x-subject-token").cloned() else {
            return Tried::Failed("Keystone's answer has no token in it".to_owned());
        };
        header.set_sensitive(true);
        match response.envelope() {
            Ok(envelope) => {
                let renew_at = envelope.expires_at().saturating_sub(RENEW_BEFORE);
                *own = Some(OwnToken {
                    header: header.clone(),
                    renew_at: renew_at.unwrap_or_else(|_| (self.clock)()),
                });
                Tried::Done(header)
            }
            Err(reason) => Tried::Failed(reason),
        }
    }

    /// One call, all of it within the timeout. The error says what is wrong without naming the address, which may
    /// have somebody's secret in it.
    async fn send<const N: usize>(
        &self,
        method: Method,
        headers: [(&'static str, HeaderValue); N],
        body: Bytes,
    ) -> Result<Response, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.tokens_uri.clone();
        request
            .headers_mut()
            .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        let call = async {
            let response = self.client.request(request).await.map_err(|error| {
                let what = if error.is_connect() {
                    "cannot be reached"
                } else {
                    "broke the connection"
                };
                format!("Keystone {what}")
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            Ok(Response {
                status: parts.status,
                headers: parts.headers,
                body: body
                    .map_err(|_| "Keystone's answer broke off or is too long".to_owned())?
                    .to_bytes(),
            })
        };
        match tokio::time::timeout(self.config.timeout, call).await {
            Ok(result) => result,
            Err(_) => Err("Keystone did not answer in time".to_owned()),
        }
    }

    async fn forget(&self, header: &HeaderValue) {
        let mut own = self.own.lock().await;
        if own.as_ref().is_some_and(|token| token.header == *header) {
            *own = None;
        }
    }

    fn login(&self) -> serde_json::Value {
        json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": self.config.username,
                "password": self.config.password.reveal(),
                "domain": {"name": self.config.user_domain_name},
            }}},
            "scope": {"project": {
                "name": self.config.project_name,
                "domain": {"name": self.config.project_domain_name},
            }},
        }})
    }

    fn status<T>(&self, status: StatusCode, what: &str) -> Tried<T> {
        let reason = format!("Keystone answered {} when asked to {what}", status.as_u16());
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Tried::Again(reason);
        }
        // Wrong credentials or a user without the role: an operator has to act.
        tracing::error!(user = self.config.username, status = status.as_u16(), "{reason}");
        Tried::Failed(reason)
    }
}

struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Response {
    fn envelope(&self) -> Result<Envelope, String> {
        serde_json::from_slice(&self.body)
            .map_err(|_| "Keystone's answer does not describe a token".to_owned())
    }
}

/// A client that trusts the system's authorities and those in the file.
fn client(
    file: Option<&PathBuf>,
) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, KeystoneError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = file {
        let unreadable = |reason: String| KeystoneError::Certificates {
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
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn header(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(token).ok()?;
    value.set_sensitive(true);
    Some(value)
}
