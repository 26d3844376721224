//! Who asks: a token's bearer, or, on a loopback address only, the one configured caller.
//!
//! [`authenticate`] runs before every handler; a handler takes [`Who`] (or [`crate::state::Identity`]) and gets what was
//! found. A route that is not in [`PUBLIC`] is not reached without.

use std::{net::IpAddr, sync::Arc};

use alcor_identity::{IdentityError, Verifier};
use alcor_policy::{Credentials, Policy};
use alcor_region::command::Caller;
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use serde_json::json;

use crate::{error::ApiError, state::ApiState};

/// Paths that say nothing of anybody's: what the service is, and that it lives.
const PUBLIC: &[&str] = &["/", "/healthz", "/openapi.json", "/docs"];

/// After this many seconds a client may ask again when tokens cannot be checked.
const RETRY_AFTER_S: u64 = 5;

/// How callers prove who they are.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// Not at all: everybody is this caller. Only for loopback.
    NoAuth(Caller),
    /// By a token of Keystone.
    Keystone {
        /// Checks tokens.
        verifier: Verifier,
        /// Where clients get tokens; told to those without.
        uri: String,
    },
}

impl Authentication {
    /// Whether strangers may be let near.
    pub const fn is_noauth(&self) -> bool {
        matches!(self, Self::NoAuth(_))
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Who {
    /// As the region sees it: whose rows are visible.
    pub caller: Arc<Caller>,
    /// As the policy sees it: who may do what.
    pub credentials: Arc<Credentials>,
}

impl Who {
    /// What a token proves, under a policy.
    pub fn new(policy: &Policy, credentials: Credentials) -> Self {
        let credentials = policy.admit(credentials);
        let service = policy.allows_named("service_api", &credentials, &credentials);
        let caller = Caller {
            // A token for no project owns nothing; the policy lets no such token near rows without owner.
            project_id: credentials.project_id.clone().unwrap_or_default(),
            is_admin: credentials.is_admin || service,
        };
        Self {
            caller: Arc::new(caller),
            credentials: Arc::new(credentials),
        }
    }

    /// The caller that everybody is without authentication. An admin has every role, that of services too.
    pub fn noauth(policy: &Policy, caller: &Caller) -> Self {
        let roles: &[&str] = if caller.is_admin {
            &["admin", "manager", "member", "reader", "service"]
        } else {
            &["member", "reader"]
        };
        let credentials = Credentials {
            user_id: Some("noauth".to_owned()),
            project_id: Some(caller.project_id.clone()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Credentials::default()
        };
        Self::new(policy, credentials)
    }

    /// Whether there is a project that new resources would belong to.
    pub fn has_project(&self) -> bool {
        self.credentials.project_id.is_some()
    }
}

impl FromRequestParts<ApiState> for Who {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self, Response> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| unauthorized(api))
    }
}

/// Finds out who asks before anything else is done with a request.
pub async fn authenticate(State(api): State<ApiState>, mut request: Request, next: Next) -> Response {
    if !PUBLIC.contains(&request.uri().path()) {
        match identify(&api, request.headers()).await {
            Ok(who) => {
                request.extensions_mut().insert(who);
            }
            Err(refusal) => return refusal,
        }
    }
    next.run(request).await
}

async fn identify(api: &ApiState, headers: &HeaderMap) -> Result<Who, Response> {
    let (verifier, who) = match &api.config().authentication {
        Authentication::NoAuth(_) => {
            refuse_foreign_pages(headers).map_err(IntoResponse::into_response)?;
            return Ok(api.noauth());
        }
        Authentication::Keystone { verifier, .. } => (verifier, single(headers, "x-auth-token")),
    };
    let token = who.ok_or_else(|| unauthorized(api))?;
    let checked = verifier
        .check(token)
        .await
        .map_err(|error| refusal(api, &error))?;
    let mut credentials = checked.credentials.clone();
    if headers.contains_key("x-service-token") {
        let token = single(headers, "x-service-token").ok_or_else(|| unauthorized(api))?;
        let service = verifier
            .check(token)
            .await
            .map_err(|error| refusal(api, &error))?;
        credentials.service_roles.clone_from(&service.credentials.roles);
        credentials
            .service_user_id
            .clone_from(&service.credentials.user_id);
        credentials
            .service_project_id
            .clone_from(&service.credentials.project_id);
    }
    Ok(Who::new(api.policy(), credentials))
}

/// The header, if it is there once. A second one could be the one that somebody before us looked at.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn refusal(api: &ApiState, error: &IdentityError) -> Response {
    match error {
        IdentityError::Refused => unauthorized(api),
        IdentityError::Unavailable(_) => {
            ApiError::unavailable("The identity service is not available.", RETRY_AFTER_S).into_response()
        }
    }
}

fn unauthorized(api: &ApiState) -> Response {
    let body = json!({"error": {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }});
    let mut response = (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    if let Authentication::Keystone { uri, .. } = &api.config().authentication
        && let Ok(value) = HeaderValue::from_str(&format!("Keystone uri=\"{uri}\""))
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// Without authentication a page of somebody else, open in a browser on this machine, could do everything: it can
/// reach loopback. Browsers say where a page is from; it has to be from here.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin: Option<Uri> = origin.to_str().ok().and_then(|text| text.parse().ok());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let own = origin.is_some_and(|origin| {
        origin
            .authority()
            .is_some_and(|authority| Some(authority.as_str()) == host)
            && origin.host().is_some_and(is_loopback)
    });
    if own {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "HTTPForbidden",
        "Pages of other origins may not use an API without authentication.",
    ))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(origin: &str, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        refuse_foreign_pages(&headers).is_ok()
    }

    #[test]
    fn only_pages_from_here_may_ask() {
        assert!(refuse_foreign_pages(&HeaderMap::new()).is_ok());
        assert!(page("http://127.0.0.1:9696", "127.0.0.1:9696"));
        assert!(page("http://[::1]:9696", "[::1]:9696"));
        assert!(page("http://localhost:9696", "localhost:9696"));
        assert!(!page("http://127.0.0.1:3000", "127.0.0.1:9696"));
        assert!(!page("https://evil.example", "127.0.0.1:9696"));
        // A name that somebody else's server answers with our address.
        assert!(!page("http://evil.example:9696", "evil.example:9696"));
        assert!(!page("null", "127.0.0.1:9696"));
    }

    #[test]
    fn a_header_that_is_there_twice_says_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(single(&headers, "x-auth-token"), None);
        headers.append("x-auth-token", HeaderValue::from_static("a"));
        assert_eq!(single(&headers, "x-auth-token"), Some("a"));
        headers.append("x-auth-token", HeaderValue::from_static("b"));
        assert_eq!(single(&headers, "x-auth-token"), None);
    }

    #[test]
    fn services_see_everything_and_are_no_admins() {
        let policy = Policy::default();
        let who = |roles: &[&str]| {
            let policy = Policy::load(None).unwrap();
            Who::new(
                &policy,
                Credentials {
                    project_id: Some("p".to_owned()),
                    roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                    ..Credentials::default()
                },
            )
        };
        assert!(who(&["service"]).caller.is_admin && !who(&["service"]).credentials.is_admin);
        assert!(who(&["admin"]).caller.is_admin && who(&["admin"]).credentials.is_admin);
        assert!(!who(&["member"]).caller.is_admin);
        // Without rules nobody is anything.
        assert!(
            !Who::new(&policy, (*who(&["admin"]).credentials).clone())
                .caller
                .is_admin
        );
    }
}
