//! The HTTP call: one request with a batch of events. When to call and what to do with a failure is [`crate::core`]'s.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use reqwest::{StatusCode, header::HeaderName};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

use crate::{core::Outcome, event::ServerEvent};

/// Longest time for one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: Nova repeats every event.
const ANSWER_MAX: usize = 1 << 20;
/// Characters of an answer that a message repeats.
const SHOWN_MAX: usize = 200;
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// A boxed future, as traits without generics need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where Nova is and what opens its door.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Nova's endpoint with the version, as in the catalogue: `http://controller:8774/v2.1`.
    pub endpoint: String,
    /// A token with the service role; none where Nova asks for none.
    pub token: Option<String>,
}

/// Tokens are secrets.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let endpoint = &self.endpoint;
        f.debug_struct("Access")
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

/// Gives access to Nova.
pub trait NovaAccess: Send + Sync + 'static {
    /// Access as it is known now. An error is tried again later.
    fn access(&self) -> BoxFuture<'_, Result<Access, String>>;
    /// Nova did not accept the token; the next one must be new.
    fn refused(&self);
}

/// Access that never changes.
impl NovaAccess for Access {
    fn access(&self) -> BoxFuture<'_, Result<Access, String>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }
    fn refused(&self) {}
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum SendError {
    /// No token or no endpoint.
    #[error("no access to Nova: {0}")]
    Access(String),
    /// Nova was not reached.
    #[error("Nova cannot be reached: {0}")]
    Transport(#[from] reqwest::Error),
    /// Nova said no.
    #[error("Nova answered {status}: {body}")]
    Status {
        /// Its status code.
        status: StatusCode,
        /// The beginning of its words.
        body: String,
    },
}

impl SendError {
    /// What it means for the batch: only what Nova understood and refuses is given up.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Status { status, .. } => match *status {
                StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS => Outcome::TryAgain,
                status if status.is_client_error() => Outcome::Refused,
                _ => Outcome::TryAgain,
            },
            Self::Access(_) | Self::Transport(_) => Outcome::TryAgain,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    events: Vec<AnsweredEvent>,
}

#[derive(Deserialize)]
struct AnsweredEvent {
    /// The status code of this event alone.
    code: Option<u16>,
    tag: Option<String>,
}

/// Calls Nova. Cheap to clone.
#[derive(Clone)]
pub struct NovaClient {
    http: reqwest::Client,
    access: Arc<dyn NovaAccess>,
}

impl NovaClient {
    /// A client that gets token and endpoint from `access`.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(access: Arc<dyn NovaAccess>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(REQUEST_TIMEOUT)
            .build()?;
        Ok(Self { http, access })
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, events: &[ServerEvent]) -> Result<(), SendError> {
        let access = self.access.access().await.map_err(SendError::Access)?;
        let url = format!(
            "{}/os-server-external-events",
            access.endpoint.trim_end_matches('/')
        );
        let mut request = self.http.post(url).json(&json!({ "events": events }));
        if let Some(token) = &access.token {
            request = request.header(TOKEN, token);
        }
        let response = request.send().await?;
        let status = response.status();
        let body = read(response).await?;
        if status == StatusCode::UNAUTHORIZED {
            self.access.refused();
        }
        // None of the servers is known: said of the whole request, though nothing is wrong with it.
        if status.is_success() || status == StatusCode::NOT_FOUND {
            log_refused(&body);
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body).chars().take(SHOWN_MAX).collect();
        Err(SendError::Status { status, body })
    }
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = ANSWER_MAX - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if body.len() >= ANSWER_MAX {
            break;
        }
    }
    Ok(body)
}

/// A server that Nova does not know, or that has no host yet, cannot take its event; that is no fault of the request.
fn log_refused(body: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return;
    };
    for event in answer.events {
        if let (Some(code), Some(port)) = (event.code.filter(|code| *code != 200), event.tag) {
            tracing::info!(code, port, "Nova did not take an event");
        }
    }
}
