//! The document for people: one page without anything from elsewhere, which reads `/openapi.json` in the browser.

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue};

/// The page.
const PAGE: &str = include_str!("page.html");

/// Nothing but what the page itself has may run or be loaded, and it may only talk to us.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /docs`
pub(crate) async fn serve() -> Response {
    let policy = (
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static(POLICY),
    );
    ([policy], Html(PAGE)).into_response()
}
