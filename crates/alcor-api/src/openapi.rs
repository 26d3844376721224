//! The OpenAPI 3.1 document: made from the same declarations that parse, show and route, so it cannot say anything else.
//!
//! A resource's operations and schemas follow from its attribute table ([`schema`]); routes of its own declare an
//! [`Operation`] beside their handler. Served at `/openapi.json`; `docs/openapi.json` is the same, which a test checks.

pub mod operation;
pub mod page;
mod resource;
pub mod schema;

use std::{collections::BTreeMap, sync::OnceLock};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, header};
pub use operation::Operation;
pub(crate) use resource::{action, create, delete, list, options, show, tags, update};
use serde_json::{Map, Value, json};

use crate::router::{self, Route};

/// The version of the document: of the API that it describes, not of the program.
const VERSION: &str = "2.0";

/// The document. Keys are in the order of the alphabet, routes in that of their paths.
pub fn document() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut components = BTreeMap::new();
    for route in router::routes() {
        let operation = route.operation();
        components.extend(operation.components.iter().cloned());
        paths
            .entry(route.path().to_owned())
            .or_default()
            .insert(method_key(route.method()), operation.to_json(&route));
    }
    components.insert("Error".to_owned(), schema::error());
    components.insert("Unauthorized".to_owned(), schema::unauthorized());
    let scheme =
        json!({"type": "apiKey", "in": "header", "name": "X-Auth-Token", "description": "A Keystone token"});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Alcor",
            "version": VERSION,
            "description": "Networks of a cloud region: the OpenStack Networking API v2.0, and what each host really has.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": scheme}},
    })
}

/// As OpenAPI names a method.
fn method_key(method: &Method) -> String {
    method.as_str().to_ascii_lowercase()
}

/// The document as it is served and committed.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        // Maps with text keys always serialise; an empty document would be seen by the first test.
        let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
        text.push('\n');
        text
    })
}

/// `GET /openapi.json`
pub(crate) async fn serve() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], text()).into_response()
}

/// The parameters that a path has, in order.
pub(crate) fn path_parameters(route: &Route) -> Vec<&str> {
    route
        .path()
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .collect()
}
