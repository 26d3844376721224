//! What the service says about itself: versions, resources, extensions. Only what is truly there is listed, because
//! clients and test suites decide by it what to use.

use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::{error::ApiError, extensions::EXTENSIONS, router::collections};

/// `http://host:port` as the client wrote it.
pub fn base_url(headers: &HeaderMap) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    format!("http://{host}")
}

/// `GET /`
pub async fn versions(headers: HeaderMap) -> Response {
    let href = format!("{}/v2.0/", base_url(&headers));
    let version = json!({"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]});
    Json(json!({"versions": [version]})).into_response()
}

/// `GET /v2.0`
pub async fn resources(headers: HeaderMap) -> Response {
    let base = base_url(&headers);
    let list: Vec<Value> = collections()
        .iter()
        .map(|collection| {
            json!({
                "name": collection.singular,
                "collection": collection.plural,
                "links": [{"rel": "self", "href": format!("{base}/v2.0/{}", collection.path)}],
            })
        })
        .collect();
    Json(json!({"resources": list})).into_response()
}

/// `GET /v2.0/extensions`
pub async fn extensions() -> Response {
    Json(json!({"extensions": EXTENSIONS})).into_response()
}

/// `GET /v2.0/extensions/{alias}`
///
/// # Errors
/// 404 for an extension that is not there.
pub async fn extension_by_alias(Path(alias): Path<String>) -> Result<Response, ApiError> {
    match EXTENSIONS.iter().find(|extension| extension.alias == alias) {
        Some(extension) => Ok(Json(json!({"extension": extension})).into_response()),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ExtensionNotFound",
            format!(
                "Extension with alias {} does not exist",
                crate::parse::cut(&alias)
            ),
        )),
    }
}

/// `GET /healthz`: the process answers. It says nothing about the disk, so that a full disk does not take reads away.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// What these routes take and answer.
pub(crate) mod doc {
    use serde_json::{Value, json};

    use crate::openapi::{
        Operation,
        schema::{list, object, reference},
    };

    fn text() -> Value {
        json!({"type": "string"})
    }

    fn links() -> Value {
        list(object([
            ("rel", text()),
            ("href", json!({"type": "string", "format": "uri"})),
        ]))
    }

    fn extension_schema() -> Value {
        object([
            ("alias", text()),
            ("name", text()),
            ("description", text()),
            ("updated", text()),
            ("links", list(json!({}))),
        ])
    }

    pub(crate) fn versions() -> Operation {
        let version = object([("id", text()), ("status", text()), ("links", links())]);
        Operation::new("The versions of the API").answers(200, object([("versions", list(version))]))
    }
    pub(crate) fn resources() -> Operation {
        let resource = object([("name", text()), ("collection", text()), ("links", links())]);
        Operation::new("The collections there are").answers(200, object([("resources", list(resource))]))
    }
    pub(crate) fn extensions() -> Operation {
        Operation::new("The extensions of the Neutron API that are there")
            .component("Extension", extension_schema())
            .answers(200, object([("extensions", list(reference("Extension")))]))
    }
    pub(crate) fn extension() -> Operation {
        Operation::new("Shows an extension")
            .component("Extension", extension_schema())
            .answers(200, object([("extension", reference("Extension"))]))
    }
    pub(crate) fn healthz() -> Operation {
        Operation::new("Whether the process answers")
            .media("text/plain")
            .answers(200, text())
    }
    pub(crate) fn openapi() -> Operation {
        Operation::new("This document").answers(200, json!({"type": "object"}))
    }
    pub(crate) fn page() -> Operation {
        Operation::new("This document for people")
            .media("text/html")
            .answers(200, text())
    }
}
