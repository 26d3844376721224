//! What the service says about itself: versions, resources, extensions. Only what is truly there is listed, because
//! clients and test suites decide by it what to use.

use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::ApiError;

/// When the list of extensions last changed.
const UPDATED: &str = "2026-11-21T00:00:00-00:00";

/// One extension of the Neutron API.
#[derive(Serialize)]
pub struct Extension {
    /// Neutron's alias.
    pub alias: &'static str,
    /// Neutron's name.
    pub name: &'static str,
    /// What it gives, for people.
    pub description: &'static str,
    /// When it was last changed.
    pub updated: &'static str,
    /// Always empty, as Neutron's.
    pub links: [Value; 0],
}

const fn extension(alias: &'static str, name: &'static str, description: &'static str) -> Extension {
    Extension {
        alias,
        name,
        description,
        updated: UPDATED,
        links: [],
    }
}

/// The extensions, by alias.
pub const EXTENSIONS: &[Extension] = &[
    extension(
        "allowed-address-pairs",
        "Allowed Address Pairs",
        "Further addresses that a port may send from",
    ),
    extension("binding", "Port Binding", "Where a port is plugged"),
    extension(
        "empty-string-filtering",
        "Empty String Filtering",
        "Filters match the empty text",
    ),
    extension(
        "filter-validation",
        "Filter parameters validation",
        "Unknown filters are refused",
    ),
    extension("net-mtu", "Network MTU", "A network's MTU is shown"),
    extension(
        "net-mtu-writable",
        "Network MTU (writable)",
        "A network's MTU can be set",
    ),
    extension(
        "pagination",
        "Pagination support",
        "limit, marker and page_reverse",
    ),
    extension(
        "port-security",
        "Port Security",
        "Source addresses of a port are checked, or not",
    ),
    extension(
        "project-id",
        "project_id field enabled",
        "project_id beside tenant_id",
    ),
    extension(
        "provider",
        "Provider Network",
        "The VXLAN identifier of a network",
    ),
    extension(
        "revision-if-match",
        "If-Match constraints based on revision_number",
        "If-Match: revision_number=N",
    ),
    extension("sorting", "Sorting support", "sort_key and sort_dir"),
    extension(
        "standard-attr-description",
        "standard-attr-description",
        "A description on every resource",
    ),
    extension(
        "standard-attr-revisions",
        "Resource revision numbers",
        "revision_number counts changes",
    ),
    extension(
        "standard-attr-tag",
        "Tag support for resources",
        "Tags on networks, subnets and ports",
    ),
    extension(
        "standard-attr-timestamp",
        "Resource timestamps",
        "created_at and updated_at",
    ),
];

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
    let one = |singular: &str, plural: &str| {
        json!({
            "name": singular,
            "collection": plural,
            "links": [{"rel": "self", "href": format!("{base}/v2.0/{plural}")}],
        })
    };
    let list = [
        one("extension", "extensions"),
        one("network", "networks"),
        one("subnet", "subnets"),
        one("port", "ports"),
    ];
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
