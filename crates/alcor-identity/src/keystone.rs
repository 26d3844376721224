//! Keystone's two calls: log in as the service, ask about a token. Bounded in time, size and tries.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ::http::{HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    http::{Answer, HttpClient, HttpClientError},
    secret::Secret,
    token::{Catalogue, Envelope, Verified},
    verifier::Clock,
};

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
    /// Not an address.
    #[error("'{0}' is no http or https address of Keystone")]
    Address(String),
    /// Certificates, TLS.
    #[error(transparent)]
    Client(#[from] HttpClientError),
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

/// The service's own token.
#[derive(Clone)]
pub struct OwnToken {
    pub header: HeaderValue,
    renew_at: Timestamp,
    /// Where the services are; empty for who does not ask.
    pub catalogue: Arc<Catalogue>,
}

pub struct Keystone {
    config: KeystoneConfig,
    tokens_uri: Uri,
    client: HttpClient,
    clock: Clock,
    /// One logs in at a time; the others wait for that.
    own: tokio::sync::Mutex<Option<OwnToken>>,
}

impl Keystone {
    pub fn new(config: KeystoneConfig, clock: Clock, catalogue: bool) -> Result<Self, KeystoneError> {
        let base = config
            .url
            .trim_end_matches('/')
            .trim_end_matches("/v3")
            .to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(KeystoneError::Address(config.url));
        }
        let query = if catalogue { "" } else { "?nocatalog=1" };
        let tokens_uri = format!("{base}/v3/auth/tokens{query}");
        Ok(Self {
            tokens_uri: tokens_uri
                .parse()
                .map_err(|_| KeystoneError::Address(config.url.clone()))?,
            client: HttpClient::new(config.ca_file.as_ref(), config.timeout)?,
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
            Tried::Done(own) => own.header,
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
            StatusCode::OK => match envelope(&response) {
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
    async fn own_token(&self, logged_in: &impl Fn()) -> Tried<OwnToken> {
        let mut own = self.own.lock().await;
        if let Some(token) = own.as_ref().filter(|token| (self.clock)() < token.renew_at) {
            return Tried::Done(token.clone());
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
        match envelope(&response) {
            Ok(envelope) => {
                let renew_at = envelope.expires_at().saturating_sub(RENEW_BEFORE);
                let token = OwnToken {
                    header,
                    renew_at: renew_at.unwrap_or_else(|_| (self.clock)()),
                    catalogue: Arc::new(envelope.catalogue()),
                };
                *own = Some(token.clone());
                Tried::Done(token)
            }
            Err(reason) => Tried::Failed(reason),
        }
    }

    /// The service's own token. Whoever wants it tries again at times of their own.
    pub async fn login_or_known(&self) -> Result<OwnToken, String> {
        match self.own_token(&|| {}).await {
            Tried::Done(own) => Ok(own),
            Tried::Failed(reason) | Tried::Again(reason) => Err(reason),
        }
    }

    async fn send<const N: usize>(
        &self,
        method: Method,
        headers: [(&'static str, HeaderValue); N],
        body: Bytes,
    ) -> Result<Answer, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.tokens_uri.clone();
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        let answer = self.client.call(request).await;
        answer.map_err(|error| format!("Keystone {error}"))
    }

    pub async fn forget(&self, header: &HeaderValue) {
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

fn envelope(answer: &Answer) -> Result<Envelope, String> {
    serde_json::from_slice(&answer.body).map_err(|_| "Keystone's answer does not describe a token".to_owned())
}

fn header(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(token).ok()?;
    value.set_sensitive(true);
    Some(value)
}
