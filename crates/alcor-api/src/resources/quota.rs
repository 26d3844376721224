//! `/v2.0/quotas`: how much a project may own, and how much it does. Not a resource like the others: there is nothing to
//! create, and a row is named by its project.

use alcor_policy::Value as Attribute;
use alcor_region::quota;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    MAX_TEXT,
    handlers::{named, respond},
};
use crate::{
    attributes::Kind,
    auth::Who,
    authorize::authorize_on,
    body::JsonBody,
    error::ApiError,
    parse::{self, Parsed},
    router::{Route, route},
    state::ApiState,
};

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, "/v2.0/quotas", get(list)).doc(doc::list),
        route(Method::POST, "/v2.0/quotas", post(create)).doc(doc::create),
        route(Method::GET, "/v2.0/quotas/tenant", get(tenant)).doc(doc::tenant),
        route(Method::GET, "/v2.0/quotas/project", get(project)).doc(doc::project),
        route(Method::GET, "/v2.0/quotas/{id}", get(show)).doc(doc::show),
        route(Method::PUT, "/v2.0/quotas/{id}", put(update)).doc(doc::update),
        route(Method::DELETE, "/v2.0/quotas/{id}", delete(reset)).doc(doc::reset),
        route(Method::GET, "/v2.0/quotas/{id}/default", get(default)).doc(doc::default),
        route(Method::GET, "/v2.0/quotas/{id}/details", get(details)).doc(doc::details),
    ]
}

/// What the routes take and answer.
mod doc {
    use alcor_region::quota::{MAX_LIMIT, QUOTAS, UNLIMITED};
    use serde_json::{Map, Value, json};

    use crate::openapi::{
        Operation,
        schema::{list as list_of, object, reference},
    };

    fn limit() -> Value {
        json!({"type": "integer", "minimum": UNLIMITED, "maximum": MAX_LIMIT})
    }

    /// An object with a member for each quota.
    fn each(of: impl Fn() -> Value, more: &[(&str, Value)]) -> Value {
        let mut properties: Map<String, Value> =
            QUOTAS.iter().map(|quota| (quota.name.to_owned(), of())).collect();
        properties.extend(
            more.iter()
                .map(|(name, schema)| ((*name).to_owned(), schema.clone())),
        );
        let names: Vec<&String> = properties.keys().collect();
        json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
    }

    fn shown(summary: &'static str) -> Operation {
        Operation::new(summary)
            .component("Quota", each(limit, &[]))
            .answers(200, object([("quota", reference("Quota"))]))
    }

    pub(super) fn list() -> Operation {
        let project = || json!({"type": "string"});
        let row = each(limit, &[("project_id", project()), ("tenant_id", project())]);
        Operation::new("Lists the quotas of projects that have some of their own")
            .component("ProjectQuota", row)
            .answers(200, object([("quotas", list_of(reference("ProjectQuota")))]))
    }
    pub(super) fn create() -> Operation {
        Operation::new("Always refused: quotas are set, not made").answers(501, reference("Error"))
    }
    pub(super) fn tenant() -> Operation {
        Operation::new("The caller's project, by its old name").answers(
            200,
            object([("tenant", object([("tenant_id", json!({"type": "string"}))]))]),
        )
    }
    pub(super) fn project() -> Operation {
        Operation::new("The caller's project").answers(
            200,
            object([("project", object([("project_id", json!({"type": "string"}))]))]),
        )
    }
    pub(super) fn show() -> Operation {
        shown("Shows the quotas of a project")
    }
    pub(super) fn default() -> Operation {
        shown("Shows the quotas of projects that have none of their own")
    }
    pub(super) fn update() -> Operation {
        let digits = json!({"type": "string", "pattern": "^\\s*[0-9]{1,9}\\s*$"});
        let mut properties: Map<String, Value> = QUOTAS
            .iter()
            .map(|quota| (quota.name.to_owned(), json!({"anyOf": [limit(), digits.clone()]})))
            .collect();
        properties.insert("force".to_owned(), json!({}));
        properties.insert("check_limit".to_owned(), json!({}));
        let quota = json!({"type": "object", "properties": properties, "additionalProperties": false});
        let body = json!({"type": "object", "properties": {"quota": quota}, "required": ["quota"]});
        shown("Sets quotas of a project").body(body)
    }
    pub(super) fn reset() -> Operation {
        Operation::new("Gives a project the default quotas again").answers_empty(204)
    }
    pub(super) fn details() -> Operation {
        let number = || json!({"type": "integer", "minimum": 0});
        let detail = || object([("limit", limit()), ("used", number()), ("reserved", number())]);
        Operation::new("Shows the quotas of a project and what it owns")
            .component("QuotaDetails", each(detail, &[]))
            .answers(200, object([("quota", reference("QuotaDetails"))]))
    }
}

/// Everybody may look at the quotas of their own project; the policy has the word on all else. It is asked about the
/// project that the request is about, or about no single one.
fn allowed(api: &ApiState, who: &Who, project_id: Option<&str>, action: &str) -> Result<(), ApiError> {
    let own = project_id.is_some() && project_id == who.credentials.project_id.as_deref();
    match project_id {
        Some(_) if own && action == "get_quota" => Ok(()),
        Some(project) => authorize_on(api, who, action, &[("project_id", Attribute::text(project))]),
        None => authorize_on(api, who, action, &()),
    }
}

/// A project's limits by name.
fn limits(api: &ApiState, project_id: &str) -> Map<String, Value> {
    let region = api.region();
    quota::usages(&region.snapshot().state, region.config(), project_id)
        .map(|usage| (usage.name.to_owned(), json!(usage.limit)))
        .collect()
}

/// `GET /v2.0/quotas`: the projects that have limits of their own.
async fn list(State(api): State<ApiState>, who: Who) -> Result<Response, ApiError> {
    allowed(&api, &who, None, "get_quota")?;
    let snapshot = api.region().snapshot();
    let quotas: Vec<Value> = snapshot
        .state
        .quotas()
        .iter()
        .map(|row| {
            let mut view = limits(&api, &row.project_id);
            view.insert("project_id".to_owned(), json!(row.project_id));
            view.insert("tenant_id".to_owned(), json!(row.project_id));
            Value::Object(view)
        })
        .collect();
    respond(StatusCode::OK, &json!({"quotas": quotas}))
}

/// `POST /v2.0/quotas`: there is nothing to create.
async fn create() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "HTTPNotImplemented",
        "POST requests are not supported on this resource.",
    )
}

/// `GET /v2.0/quotas/project`: whose token this is.
async fn project(who: Who) -> Result<Response, ApiError> {
    respond(
        StatusCode::OK,
        &json!({"project": {"project_id": who.credentials.project_id}}),
    )
}

/// `GET /v2.0/quotas/tenant`: as `project`, by its old name.
async fn tenant(who: Who) -> Result<Response, ApiError> {
    respond(
        StatusCode::OK,
        &json!({"tenant": {"tenant_id": who.credentials.project_id}}),
    )
}

/// `GET /v2.0/quotas/{id}`
async fn show(State(api): State<ApiState>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    allowed(&api, &who, Some(&id), "get_quota")?;
    respond(StatusCode::OK, &json!({"quota": limits(&api, &id)}))
}

/// `GET /v2.0/quotas/{id}/default`: what holds for projects without limits of their own.
async fn default(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    allowed(&api, &who, Some(&id), "get_quota")?;
    let limits: Map<String, Value> = quota::defaults(api.region().config())
        .map(|(name, limit)| (name.to_owned(), json!(limit)))
        .collect();
    respond(StatusCode::OK, &json!({"quota": limits}))
}

/// `GET /v2.0/quotas/{id}/details`: limits, and what there is. Nothing is ever reserved: a limit is checked in the
/// transaction that makes the row.
async fn details(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    if !who.credentials.is_admin && who.credentials.project_id.as_deref() != Some(&id) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "AdminRequired",
            "User does not have admin privileges: Only admin is authorized to access quotas for another project.",
        ));
    }
    let region = api.region();
    let details: Map<String, Value> = quota::usages(&region.snapshot().state, region.config(), &id)
        .map(|usage| {
            let detail = json!({"limit": usage.limit, "used": usage.used, "reserved": 0});
            (usage.name.to_owned(), detail)
        })
        .collect();
    respond(StatusCode::OK, &json!({"quota": details}))
}

/// What a client may say besides limits. Usage is checked unless it says `force`; `check_limit` asks for what happens anyway.
struct Wanted {
    limits: Vec<(&'static str, i64)>,
    force: bool,
}

fn wanted(mut body: Map<String, Value>) -> Result<Wanted, ApiError> {
    let mut given = named(&mut body, "quota")?;
    let force = given.remove("force") == Some(Value::Bool(true));
    given.remove("check_limit");
    let unknown: Vec<&str> = given
        .keys()
        .map(String::as_str)
        .filter(|name| quota::find(name).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Unrecognized attribute(s) '{}'",
            parse::cut(&unknown.join(", "))
        )));
    }
    let mut limits = Vec::with_capacity(given.len());
    for (name, value) in given {
        if let Some(kind) = quota::find(&name) {
            limits.push((
                kind.name,
                parse::signed(kind.name, &value, quota::UNLIMITED, quota::MAX_LIMIT)?,
            ));
        }
    }
    Ok(Wanted { limits, force })
}

/// `PUT /v2.0/quotas/{id}`
async fn update(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    allowed(&api, &who, Some(&id), "update_quota")?;
    let project = project_id(&id)?;
    let Wanted {
        limits: wanted,
        force,
    } = wanted(body)?;
    api.region()
        .write(move |tx, _| quota::update(tx, &project, wanted, force))
        .await?;
    respond(StatusCode::OK, &json!({"quota": limits(&api, &id)}))
}

/// A project's id, which may be any text that fits where project ids go.
fn project_id(id: &str) -> Result<String, ApiError> {
    match parse::value("project_id", Kind::Text(MAX_TEXT), Value::from(id))? {
        Some(Parsed::Text(id)) => Ok(id),
        _ => Err(ApiError::invalid_attribute("project_id", "it is not a text")),
    }
}

/// `DELETE /v2.0/quotas/{id}`: back to the defaults.
async fn reset(State(api): State<ApiState>, who: Who, Path(id): Path<String>) -> Result<Response, ApiError> {
    allowed(&api, &who, Some(&id), "delete_quota")?;
    api.region().write(move |tx, _| quota::reset(tx, &id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
