//! Reading a request's body: bounded while it streams in, parsed once.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

use crate::{error::ApiError, state::ApiState};

/// How much of a body that is too long is read and thrown away, so that a client which sends everything before it
/// reads still gets the answer. Beyond, the connection is closed.
const MAX_DISCARDED_BYTES: usize = 128 << 20;

/// The body as a JSON object.
pub struct JsonBody(pub Map<String, Value>);

impl FromRequest<ApiState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let max = state.config().max_body_bytes;
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, max).await?;
        parse(&bytes).map(Self)
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::bad_request("Resource body required"));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::bad_request("Body contains invalid data")),
        Err(error) => Err(ApiError::bad_request(format!("Malformed request body: {error}."))),
    }
}

async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, ApiError> {
    let too_long = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "HTTPRequestEntityTooLarge",
            format!("The body of the request is larger than the limit of {max} bytes."),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) && headers.contains_key(header::EXPECT) {
        // The client waits for a word before it sends the body; this is the word.
        return Err(too_long());
    }
    let mut stream = body.into_data_stream();
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    let mut length = 0_usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::bad_request(format!("The body of the request could not be read: {error}."))
        })?;
        length = length.saturating_add(chunk.len());
        if length > max {
            first = Bytes::new();
            rest = Vec::new();
            if length > MAX_DISCARDED_BYTES {
                break;
            }
        } else if first.is_empty() {
            first = chunk;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&chunk);
        }
    }
    if length > max {
        return Err(too_long());
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}
