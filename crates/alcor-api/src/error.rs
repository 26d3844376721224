//! Refusals as Neutron's clients know them: a status code and `{"NeutronError": {"type", "message", "detail"}}`.

use std::borrow::Cow;

use alcor_region::{ErrorClass, RegionError};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// A refusal on its way to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {kind}: {message}")]
pub struct ApiError {
    status: StatusCode,
    kind: Cow<'static, str>,
    message: String,
    retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "NeutronError")]
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
    detail: &'a str,
}

impl ApiError {
    /// Any status, Neutron's exception type, and the words.
    pub fn new(status: StatusCode, kind: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.into(),
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// 400 as the API layer of Neutron raises it.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HTTPBadRequest", message)
    }

    /// 400 for a query parameter or header: Neutron's `BadRequest`.
    pub fn bad_parameter(parameter: &str, message: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "BadRequest",
            format!("Bad {parameter} request: {message}."),
        )
    }

    /// 400 for a value that cannot be converted: Neutron's `InvalidInput`.
    pub fn invalid_input(reason: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidInput",
            format!("Invalid input for operation: {reason}."),
        )
    }

    /// 400 for an attribute's value.
    pub fn invalid_attribute(attribute: &str, reason: &str) -> Self {
        Self::bad_request(format!("Invalid input for {attribute}. Reason: {reason}."))
    }

    /// 404 for a path that is nothing.
    pub fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "HTTPNotFound",
            "The resource could not be found.",
        )
    }

    /// 503 with the time after which it makes sense to try again.
    pub fn unavailable(message: impl Into<String>, retry_after_s: u64) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        error.retry_after_s = Some(retry_after_s);
        error
    }

    /// The status code.
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<RegionError> for ApiError {
    fn from(error: RegionError) -> Self {
        let status = match error.class() {
            ErrorClass::BadRequest => StatusCode::BAD_REQUEST,
            ErrorClass::Forbidden => StatusCode::FORBIDDEN,
            ErrorClass::NotFound => StatusCode::NOT_FOUND,
            ErrorClass::Conflict => StatusCode::CONFLICT,
            ErrorClass::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            ErrorClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let retry_after_s = match &error {
            RegionError::StoreUnavailable { retry_after, .. } => Some(retry_after.as_secs().max(1)),
            _ => None,
        };
        Self {
            status,
            kind: error.neutron_type().into(),
            message: error.to_string(),
            retry_after_s,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body {
            error: Inner {
                kind: &self.kind,
                message: &self.message,
                detail: "",
            },
        };
        // Three texts always serialise; the fallback keeps the path free of panics.
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            bytes,
        )
            .into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_trouble_is_503_and_says_when_to_come_back() {
        let error = RegionError::StoreUnavailable {
            reason: "disk full".to_owned(),
            retry_after: std::time::Duration::from_secs(7),
        };
        let response = ApiError::from(error).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }
}
