//! `/v2.0/auto-allocated-topology/{project_id}`: a network for who wants one and nothing more.

use alcor_policy::Value as Attr;
use alcor_region::{RegionError, auto_topology};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::{
    MAX_TEXT,
    handlers::{Wrapped, pairs, respond},
};
use crate::{
    auth::Who,
    authorize::authorize_on,
    error::ApiError,
    parse,
    router::{Route, route},
    state::ApiState,
};

const PATH: &str = "/v2.0/auto-allocated-topology/{project_id}";
const SINGULAR: &str = "auto_allocated_topology";

/// The project of who asks, by clients that do not know its id.
const OWN: &str = "None";
/// The field that asks whether it would work.
const DRY_RUN: &str = "dry-run";

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, PATH, get(show)).doc(doc::show),
        route(Method::DELETE, PATH, delete(remove)).doc(doc::remove),
    ]
}

/// What the API's document says.
mod doc {
    use serde_json::json;

    use super::{DRY_RUN, SINGULAR};
    use crate::openapi::{
        Operation,
        schema::{object, reference, text, uuid},
    };

    pub(super) fn show() -> Operation {
        let id = json!({"anyOf": [uuid(), {"const": "dry-run=pass"}]});
        let topology = object([("id", id), ("project_id", text(255)), ("tenant_id", text(255))]);
        Operation::new("Shows the network that a project was given, which is made when there is none")
            .query("fields", json!({"type": "string", "enum": [DRY_RUN]}))
            .answers(200, object([(SINGULAR, topology)]))
            .answers(409, reference("Error"))
    }

    pub(super) fn remove() -> Operation {
        Operation::new("Deletes the network that a project was given").answers_empty(204)
    }
}

/// The project that is meant, if the caller may do this for it.
fn project(api: &ApiState, who: &Who, action: &str, named: String) -> Result<String, ApiError> {
    let own = &who.caller.project_id;
    let project = if named == OWN { own.clone() } else { named };
    if project.is_empty() || project.chars().count() > MAX_TEXT || project.contains('\0') {
        return Err(ApiError::bad_request(format!(
            "'{}' is not the id of a project",
            parse::cut(&project)
        )));
    }
    let target = [("project_id", Attr::text(&project))];
    authorize_on(api, who, action, &target)?;
    Ok(project)
}

async fn show(
    State(api): State<ApiState>,
    who: Who,
    Path(named): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let project = project(&api, &who, "get_auto_allocated_topology", named)?;
    let mut dry_run = false;
    for (key, value) in pairs(&uri)? {
        match (key.as_str(), value.as_str()) {
            ("fields", DRY_RUN) => dry_run = true,
            ("fields", "") => {}
            _ => {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "BadRequest",
                    "Bad auto_allocate request: Unrecognized field.",
                ));
            }
        }
    }
    let answer = |id: Value| {
        let topology = json!({"id": id, "project_id": project, "tenant_id": project});
        respond(StatusCode::OK, &Wrapped(SINGULAR, topology))
    };
    let caller = (*who.caller).clone();
    let snapshot = api.region().snapshot();
    if dry_run {
        auto_topology::check(&snapshot.state, &caller).map_err(RegionError::from)?;
        return answer(json!("dry-run=pass"));
    }
    if let Some(network) = auto_topology::network_of(&snapshot.state, &project) {
        return answer(json!(network));
    }
    let whose = project.clone();
    let network = api
        .region()
        .write(move |tx, env| auto_topology::get(tx, env, &caller, &whose))
        .await
        .inspect_err(|error| log_cause(error, &project))?;
    answer(json!(network))
}

/// Why a part was refused is told to operators, who can do something about it.
fn log_cause(error: &RegionError, project: &str) {
    if let RegionError::Refused(refusal) = error
        && let Some(cause) = refusal.source()
    {
        tracing::warn!(project, %cause, "no network could be made for a project that has none");
    }
}

async fn remove(
    State(api): State<ApiState>,
    who: Who,
    Path(named): Path<String>,
) -> Result<Response, ApiError> {
    let project = project(&api, &who, "delete_auto_allocated_topology", named)?;
    let caller = (*who.caller).clone();
    api.region()
        .write(move |tx, env| auto_topology::delete(tx, env, &caller, &project))
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
