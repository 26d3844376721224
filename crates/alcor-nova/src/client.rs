//! The HTTP call: one request with a batch of events. When to call and what to do with a failure is [`crate::core`]'s.

use std::{future::Future, pin::Pin, sync::Arc};

use alcor_identity::{
    Secret,
    http::{CallError, HttpClient},
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderName},
};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;

use crate::{core::Outcome, event::ServerEvent};

/// Characters of an answer that a message repeats.
const SHOWN_MAX: usize = 200;
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// A boxed future, as traits without generics need.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where Nova is and what opens its door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Nova's endpoint with the version, as in the catalogue: `http://controller:8774/v2.1`.
    pub endpoint: String,
    /// A token with the service role; none where Nova asks for none.
    pub token: Option<Secret>,
}

/// Gives access to Nova.
pub trait NovaAccess: Send + Sync + 'static {
    /// Access as it is known now. An error is tried again later.
    fn access(&self) -> BoxFuture<'_, Result<Access, String>>;
    /// Nova did not accept this; the next token must be new.
    fn refused(&self, access: Access) -> BoxFuture<'_, ()>;
}

/// Access that never changes.
impl NovaAccess for Access {
    fn access(&self) -> BoxFuture<'_, Result<Access, String>> {
        Box::pin(std::future::ready(Ok(self.clone())))
    }
    fn refused(&self, _: Access) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum SendError {
    /// No token or no endpoint.
    #[error("no access to Nova: {0}")]
    Access(String),
    /// Nova's address or the token cannot be what they are said to be.
    #[error("no request can be made of what is known of Nova: {0}")]
    Request(&'static str),
    /// There was no answer.
    #[error("Nova {0}")]
    Call(#[from] CallError),
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
            Self::Access(_) | Self::Request(_) | Self::Call(_) => Outcome::TryAgain,
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
    http: HttpClient,
    access: Arc<dyn NovaAccess>,
}

impl NovaClient {
    /// A client that gets token and endpoint from `access`.
    pub fn new(http: HttpClient, access: Arc<dyn NovaAccess>) -> Self {
        Self { http, access }
    }

    /// Sends a batch.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, events: &[ServerEvent]) -> Result<(), SendError> {
        let access = self.access.access().await.map_err(SendError::Access)?;
        let answer = self.http.call(request(&access, events)?).await?;
        let status = answer.status;
        if status == StatusCode::UNAUTHORIZED {
            self.access.refused(access).await;
        }
        // None of the servers is known: said of the whole request, though nothing is wrong with it.
        if status.is_success() || status == StatusCode::NOT_FOUND {
            log_refused(&answer.body);
            return Ok(());
        }
        let body = String::from_utf8_lossy(&answer.body);
        let body = body.chars().take(SHOWN_MAX).collect();
        Err(SendError::Status { status, body })
    }
}

fn request(access: &Access, events: &[ServerEvent]) -> Result<Request<Full<Bytes>>, SendError> {
    let url = format!(
        "{}/os-server-external-events",
        access.endpoint.trim_end_matches('/')
    );
    let body = json!({ "events": events }).to_string().into_bytes();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::try_from(url).map_err(|_| SendError::Request("its endpoint is no address"))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(token) = &access.token {
        let mut value = HeaderValue::from_str(token.reveal())
            .map_err(|_| SendError::Request("the token cannot be in a header"))?;
        value.set_sensitive(true);
        headers.insert(TOKEN, value);
    }
    Ok(request)
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
