//! Asks a controller's HTTP API on behalf of `alcor show`, `alcor host` and `alcor gateway`.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Rows asked for at a time.
pub const PAGE_SIZE: usize = 1_000;

/// An API endpoint.
pub struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    /// For the API at `base` (for example `http://127.0.0.1:9696`).
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
        })
    }

    /// `GET base/path`.
    ///
    /// # Errors
    /// When nobody answers or the answer is an error; the message has the API's own words.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(self.url(path))).await
    }

    /// `PUT base/path` with a body.
    ///
    /// # Errors
    /// As `get`.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.http.put(self.url(path)).json(body)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let reply = request.send().await.with_context(|| {
            format!(
                "nobody answers at {}; is the controller running? (--api names another one)",
                self.base
            )
        })?;
        let (status, url) = (reply.status(), reply.url().clone());
        let body: Value = reply
            .json()
            .await
            .with_context(|| format!("{url} answered {status}, and not in JSON"))?;
        if status.is_success() {
            return Ok(body);
        }
        let message = body["NeutronError"]["message"]
            .as_str()
            .unwrap_or("no reason given");
        anyhow::bail!("{message} ({status})")
    }

    /// All rows of a collection, page by page.
    ///
    /// # Errors
    /// As `get`.
    pub async fn list(&self, collection: &str) -> anyhow::Result<Vec<Value>> {
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let marker = match rows.last().and_then(|row| row["id"].as_str()) {
                Some(id) => format!("&marker={id}"),
                None => String::new(),
            };
            let path = format!("/v2.0/{collection}?limit={PAGE_SIZE}&sort_key=id&sort_dir=asc{marker}");
            let mut body = self.get(&path).await?;
            let Value::Array(page) = body[collection].take() else {
                anyhow::bail!("{path} answered without '{collection}'");
            };
            let last = page.len() < PAGE_SIZE;
            rows.extend(page);
            if last {
                return Ok(rows);
            }
        }
    }
}

/// Writes a name so that it is one segment of a path, whatever it contains (RFC 3986, section 2.1).
pub fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(path_segment("node-1.example"), "node-1.example");
        assert_eq!(path_segment("../x?y"), "..%2Fx%3Fy");
    }
}
