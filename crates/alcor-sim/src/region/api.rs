//! The HTTP API, as a client without credentials uses it. Not here: what is asked for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::RegionError;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The API.
pub(super) struct Api {
    endpoint: String,
    http: reqwest::Client,
    calls: AtomicU64,
}

impl Api {
    /// At `http://address:port`.
    pub(super) fn new(endpoint: String) -> Result<Self, RegionError> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| RegionError::Away(endpoint.clone(), error))?;
        Ok(Self {
            endpoint,
            http,
            calls: AtomicU64::new(0),
        })
    }

    /// How many calls were answered with success.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, RegionError> {
        self.send(path, reqwest::Method::GET, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, RegionError> {
        self.send(path, reqwest::Method::POST, Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Value, RegionError> {
        self.send(path, reqwest::Method::PUT, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), RegionError> {
        self.send(path, reqwest::Method::DELETE, None).await.map(drop)
    }

    async fn send(
        &self,
        path: &str,
        method: reqwest::Method,
        body: Option<&Value>,
    ) -> Result<Value, RegionError> {
        let request = self.http.request(method, format!("{}{path}", self.endpoint));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let away = |error| RegionError::Away(path.to_owned(), error);
        let reply = request.send().await.map_err(away)?;
        let status = reply.status();
        let text = reply.text().await.map_err(away)?;
        if !status.is_success() {
            return Err(RegionError::Refused(path.to_owned(), format!("{status} {text}")));
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|_| RegionError::Answer(path.to_owned(), "JSON"))
    }
}
