//! The little of Keystone's v3 API that the set-up of tests needs.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, blocking::Client};
use serde_json::{Value, json};

use super::keystone::{PASSWORD, REGION};
use crate::cloud::text;

/// How long one answer may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A caller with a token.
#[derive(Debug)]
pub struct Identity {
    url: String,
    http: Client,
    /// The token of its project.
    pub token: String,
}

impl Identity {
    /// Signs in to a project of the default domain.
    ///
    /// # Errors
    /// When Keystone does not answer or refuses.
    pub fn sign_in(url: &str, user: &str, project: &str) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        let domain = json!({"id": "default"});
        let user = json!({"name": user, "domain": domain, "password": PASSWORD});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let reply = http.post(format!("{url}/auth/tokens")).json(&body).send()?;
        let status = reply.status();
        let token = reply
            .headers()
            .get("X-Subject-Token")
            .and_then(|value| value.to_str().ok());
        let token = token
            .with_context(|| format!("Keystone gave no token ({status})"))?
            .to_owned();
        Ok(Self {
            url: url.to_owned(),
            http,
            token,
        })
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, format!("{}/{path}", self.url));
        request = request.header("X-Auth-Token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send()?;
        let status = reply.status();
        let answer = reply.text()?;
        anyhow::ensure!(
            status.is_success(),
            "Keystone refused {path} ({status}): {answer}"
        );
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&answer).with_context(|| format!("{path} answered no JSON: {answer}"))
    }

    /// The id of the role, project or user of this name; made when there is none.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn ensure(&self, kind: &str, name: &str) -> anyhow::Result<String> {
        let found = self.call(Method::GET, &format!("{kind}s?name={name}"), None)?;
        if let Some(id) = found[format!("{kind}s")][0]["id"].as_str() {
            return Ok(id.to_owned());
        }
        let fields = match kind {
            "role" => json!({"name": name}),
            "project" => json!({"name": name, "domain_id": "default"}),
            _ => json!({"name": name, "domain_id": "default", "password": PASSWORD}),
        };
        let made = self.call(Method::POST, &format!("{kind}s"), Some(&json!({kind: fields})))?;
        Ok(text(&made[kind]["id"])?.to_owned())
    }

    /// Gives a user a role in a project.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn grant(&self, project: &str, user: &str, role: &str) -> anyhow::Result<()> {
        let path = format!("projects/{project}/users/{user}/roles/{role}");
        self.call(Method::PUT, &path, None).map(drop)
    }

    /// Names the network service in the catalogue.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub fn publish_network(&self, url: &str) -> anyhow::Result<()> {
        let service = json!({"service": {"type": "network", "name": "neutron"}});
        let service = self.call(Method::POST, "services", Some(&service))?;
        for interface in ["public", "internal", "admin"] {
            let endpoint = json!({"endpoint": {
                "service_id": service["service"]["id"], "region_id": REGION, "interface": interface, "url": url,
            }});
            self.call(Method::POST, "endpoints", Some(&endpoint))?;
        }
        Ok(())
    }
}
