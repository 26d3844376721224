//! `/v2.0/ports/{id}/bindings`: the hosts that a port is on, or is about to move to.

use alcor_model::{Port, resource::Binding};
use alcor_region::{
    command::Caller,
    port::{
        binding,
        command::{BindingCreate, BindingUpdate},
    },
};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use http::{Method, StatusCode, Uri};
use serde_json::json;

use super::{
    MAX_TEXT, View,
    handlers::{named, pairs, respond, view},
    plain::PlainJson,
    port::MAX_PROFILE_BYTES,
};
use crate::{
    attributes::{Attribute, Given, Kind, Verb},
    auth::Who,
    authorize::authorize,
    body::JsonBody,
    error::ApiError,
    field::Field,
    query::{Fields, ListQuery},
    router::{Route, route},
    state::ApiState,
};

const SINGULAR: &str = "binding";
const COLLECTION: &str = "/v2.0/ports/{id}/bindings";
const MEMBER: &str = "/v2.0/ports/{id}/bindings/{host}";

/// A binding as it is shown.
#[derive(Clone)]
struct BindingView {
    binding: Binding,
    active: bool,
}

type V = BindingView;

const ATTRIBUTES: &[Attribute<V>] = &[
    Attribute::new("host", Kind::Text(MAX_TEXT), |v: &V| {
        Field::Text(&v.binding.host_id)
    })
    .required()
    .listed(),
    Attribute::new("vif_type", Kind::Text(MAX_TEXT), |v: &V| {
        Field::Text(v.binding.vif_type())
    })
    .listed(),
    Attribute::new("vif_details", Kind::ShownObject, |v: &V| {
        Field::VifDetails(v.binding.host().is_some())
    }),
    Attribute::new("vnic_type", Kind::OneOf(Binding::VNIC_TYPES), |v: &V| {
        Field::Text(&v.binding.vnic_type)
    })
    .writable()
    .listed(),
    Attribute::new("profile", Kind::Object(MAX_PROFILE_BYTES), |v: &V| {
        Field::Object(&v.binding.profile)
    })
    .writable(),
    Attribute::new("status", Kind::Text(16), |v: &V| {
        Field::Text(if v.active { "ACTIVE" } else { "INACTIVE" })
    })
    .listed(),
];

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, COLLECTION, get(list)).doc(doc::list),
        route(Method::POST, COLLECTION, post(create)).doc(doc::create),
        route(Method::GET, MEMBER, get(show)).doc(doc::show),
        route(Method::PUT, MEMBER, put(update)).doc(doc::update),
        route(Method::DELETE, MEMBER, delete(remove)).doc(doc::remove),
        route(Method::PUT, format!("{MEMBER}/activate"), put(activate)).doc(doc::activate),
    ]
}

/// One binding of a port, by its host, as an answer.
fn answer(status: StatusCode, port: &Port, host: &str, fields: &Fields<V>) -> Result<Response, ApiError> {
    let (binding, active) = binding::to_host(port, host).map_err(alcor_region::RegionError::from)?;
    let view = BindingView {
        binding: binding.clone(),
        active,
    };
    let view = &view;
    respond(status, &json!({ SINGULAR: PlainJson { view, fields } }))
}

async fn list(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let wanted = ListQuery::parse(ATTRIBUTES, &pairs(&uri)?)?;
    let view = allowed(&api, &who, "get_port_binding", &id)?;
    binding::check_movable(&view.row)?;
    let views: Vec<V> = binding::of(&view.row)
        .map(|(binding, active)| BindingView {
            binding: binding.clone(),
            active,
        })
        .filter(|view| wanted.matches(view))
        .collect();
    let fields = &wanted.fields;
    let list: Vec<PlainJson<'_, V>> = views.iter().map(|view| PlainJson { view, fields }).collect();
    respond(StatusCode::OK, &json!({ "bindings": list }))
}

async fn show(
    State(api): State<ApiState>,
    who: Who,
    Path((id, host)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let fields = Fields::from_query(ATTRIBUTES, &pairs(&uri)?);
    let view = allowed(&api, &who, "get_port_binding", &id)?;
    binding::check_movable(&view.row)?;
    answer(StatusCode::OK, &view.row, &host, &fields)
}

/// The port, when the policy lets the caller do this with its bindings.
fn allowed(api: &ApiState, who: &Who, action: &str, id: &str) -> Result<View<Port>, ApiError> {
    let view = view::<Port>(api, &who.caller, id)?;
    authorize(api, who, action, &view)?;
    Ok(view)
}

fn given(body: &mut serde_json::Map<String, serde_json::Value>, verb: Verb) -> Result<Given, ApiError> {
    let mut object = named(body, SINGULAR)?;
    // Whose it is, is the port's business; Neutron takes the name of the host, which the path says, in a change.
    object.remove("project_id");
    if verb == Verb::Put {
        object.remove("host");
    }
    Given::check(ATTRIBUTES, verb, object)
}

async fn create(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let mut given = given(&mut body, Verb::Post)?;
    let id = allowed(&api, &who, "create_port_binding", &id)?.row.id;
    let host = given.get::<String>("host").unwrap_or_default();
    if host.is_empty() {
        return Err(ApiError::invalid_attribute(
            "host",
            "'' is not the name of a host",
        ));
    }
    let command = BindingCreate {
        host: host.clone(),
        vnic_type: given.get("vnic_type"),
        profile: given.get("profile"),
    };
    let decide = Caller::clone(&who.caller);
    let port = api
        .region()
        .write(move |tx, env| binding::create(tx, env, &decide, id, command))
        .await?;
    answer(StatusCode::CREATED, &port, &host, &Fields::all(ATTRIBUTES))
}

async fn update(
    State(api): State<ApiState>,
    who: Who,
    Path((id, host)): Path<(String, String)>,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let mut given = given(&mut body, Verb::Put)?;
    let id = allowed(&api, &who, "update_port_binding", &id)?.row.id;
    let command = BindingUpdate {
        vnic_type: given.get("vnic_type"),
        profile: given.get("profile"),
    };
    let (decide, name) = (Caller::clone(&who.caller), host.clone());
    let port = api
        .region()
        .write(move |tx, env| binding::update(tx, env, &decide, id, &name, command))
        .await?;
    answer(StatusCode::OK, &port, &host, &Fields::all(ATTRIBUTES))
}

async fn remove(
    State(api): State<ApiState>,
    who: Who,
    Path((id, host)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let id = allowed(&api, &who, "delete_port_binding", &id)?.row.id;
    let caller = Caller::clone(&who.caller);
    api.region()
        .write(move |tx, env| binding::delete(tx, env, &caller, id, &host))
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn activate(
    State(api): State<ApiState>,
    who: Who,
    Path((id, host)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let id = allowed(&api, &who, "activate", &id)?.row.id;
    let (decide, name) = (Caller::clone(&who.caller), host.clone());
    let port = api
        .region()
        .write(move |tx, env| binding::activate(tx, env, &decide, id, &name))
        .await?;
    answer(StatusCode::OK, &port, &host, &Fields::all(ATTRIBUTES))
}

/// What the API's document says of the routes.
mod doc {
    use serde_json::{Value, json};

    use super::{ATTRIBUTES, SINGULAR};
    use crate::openapi::{Operation, schema};

    fn one() -> Value {
        schema::object([(SINGULAR, schema::row(ATTRIBUTES))])
    }

    /// The whose and the where may be there; the port and the path say them.
    fn asked(creation: bool) -> Value {
        let mut attributes = schema::settable(ATTRIBUTES, creation);
        attributes["properties"]["project_id"] = json!({});
        if !creation {
            attributes["properties"]["host"] = json!({});
        }
        schema::object([(SINGULAR, attributes)])
    }

    pub(super) fn list() -> Operation {
        let rows = schema::list(schema::row(ATTRIBUTES));
        let listed = ATTRIBUTES.iter().filter(|attribute| attribute.filter);
        listed
            .fold(
                Operation::new("Lists the bindings of a port"),
                |operation, attribute| operation.query(attribute.name, schema::filter(attribute.kind)),
            )
            .answers(200, schema::object([("bindings", rows)]))
    }

    pub(super) fn create() -> Operation {
        Operation::new("Prepares a port's move to a host")
            .body(asked(true))
            .answers(201, one())
    }

    pub(super) fn show() -> Operation {
        Operation::new("Shows the binding of a port to a host").answers(200, one())
    }

    pub(super) fn update() -> Operation {
        Operation::new("Changes the binding of a port to a host")
            .body(asked(false))
            .answers(200, one())
    }

    pub(super) fn remove() -> Operation {
        Operation::new("Forgets the binding of a port to a host").answers_empty(204)
    }

    pub(super) fn activate() -> Operation {
        Operation::new("Moves a port to a host that it has a binding to").answers(200, one())
    }
}
