//! `/v2.0/routers` and what is done to their interfaces and static routes.

use std::sync::Arc;

use alcor_model::{
    Id, Router,
    resource::{HostRoute, Standard},
};
use alcor_region::{
    RegionState,
    command::StandardUpdate,
    router::{self, GatewayRequest, InterfaceInfo, InterfaceRequest, RouterCreate, RouterUpdate},
};
use axum::{
    extract::{Path, State},
    response::Response,
    routing::put,
};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Resource, View, attribute_table,
    availability_zone::{HINTS, zones_of},
    handlers::{named, one, respond, view},
    standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Custom, Given},
    auth::Who,
    authorize::{Shown, authorize},
    body::JsonBody,
    error::ApiError,
    parse::{self, Parsed, shown},
    router::{Route, route},
    state::ApiState,
};

/// Most static routes that a request may name; how many a router may have is the region's to say.
const MAX_ROUTES: usize = 1_000;

/// A way out; the empty object and `null` are none.
static GATEWAY: Custom = Custom {
    name: "object",
    parse: |name, value| match &value {
        Value::Null => Ok(Some(Parsed::Null)),
        Value::Object(map) if map.is_empty() => Ok(Some(Parsed::Null)),
        value => {
            gateway(name, value)?;
            Ok(Some(Parsed::Json(value.clone())))
        }
    },
    schema: || {
        json!({
            "type": ["object", "null"],
            "properties": {
                "network_id": {"type": "string", "format": "uuid"},
                "enable_snat": {"type": "boolean"},
                "external_fixed_ips": {"type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "subnet_id": {"type": "string", "format": "uuid"},
                        "ip_address": {"type": "string"},
                    },
                }},
                "qos_policy_id": {"type": "null"},
            },
        })
    },
};

fn gateway(name: &str, value: &Value) -> Result<GatewayRequest, ApiError> {
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let Some(map) = value.as_object() else {
        return Err(fail(format!("'{}' is not a dictionary", shown(value))));
    };
    const KEYS: [&str; 4] = ["network_id", "enable_snat", "external_fixed_ips", "qos_policy_id"];
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(fail(format!(
            "Validation of dictionary's keys failed. Unexpected key: '{}'",
            parse::cut(key)
        )));
    }
    let Some(network_id) = map.get("network_id") else {
        return Err(fail(
            "Validation of dictionary's keys failed. Expected keys: {'network_id'}".to_owned(),
        ));
    };
    if map.get("qos_policy_id").is_some_and(|policy| !policy.is_null()) {
        return Err(fail("qos_policy_id is not supported".to_owned()));
    }
    Ok(GatewayRequest {
        network_id: Id::from_uuid(parse::uuid(network_id).map_err(fail)?),
        enable_snat: map.get("enable_snat").map(parse::boolean).transpose()?,
        external_fixed_ips: match map.get("external_fixed_ips") {
            None => Vec::new(),
            Some(list) => parse::fixed_ips(name, list)?,
        },
    })
}

/// Static routes; `null` is none.
static ROUTES: Custom = Custom {
    name: "array",
    parse: |name, value| Ok(Some(Parsed::HostRoutes(parse::routes(name, &value, MAX_ROUTES)?))),
    schema: || {
        json!({"type": ["array", "null"], "items": {
            "type": "object",
            "properties": {"destination": {"type": "string"}, "nexthop": {"type": "string"}},
            "required": ["destination", "nexthop"],
        }})
    },
};

/// True or false, or `null` for "choose".
pub(super) static BOOL_OR_NULL: Custom = Custom {
    name: "boolean",
    parse: |_, value| match value {
        Value::Null => Ok(None),
        value => Ok(Some(Parsed::Bool(parse::boolean(&value)?))),
    },
    schema: || json!({"type": ["boolean", "null"]}),
};

/// A router's way out, as it is shown.
fn shown_gateway(router: &Router, state: &RegionState) -> Value {
    let Some(gateway) = router.gateway else {
        return Value::Null;
    };
    let port = state.ports().get(&gateway.port_id);
    let fixed_ips = port.map(|port| port.fixed_ips.as_slice()).unwrap_or_default();
    json!({
        "network_id": gateway.network_id,
        "enable_snat": gateway.enable_snat,
        "external_fixed_ips": fixed_ips,
        "qos_policy_id": null,
    })
}

/// The way out that the client wants: `None` when it does not say, `Some(None)` for none.
fn given_gateway(given: &mut Given) -> Result<Option<Option<GatewayRequest>>, ApiError> {
    let name = "external_gateway_info";
    match given.get_nullable::<Value>(name) {
        None => Ok(None),
        Some(None) => Ok(Some(None)),
        Some(Some(value)) => Ok(Some(Some(gateway(name, &value)?))),
    }
}

impl Resource for Router {
    const SINGULAR: &'static str = "router";
    const PLURAL: &'static str = "routers";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        Router,
        [
            Attribute::new("admin_state_up", Kind::Bool, |v: &V| Field::Bool(
                v.row.admin_state_up
            ))
            .writable()
            .listed(),
            // What an API server without agents says; what carries packets is in the compatibility table.
            Attribute::new("status", Kind::Text(16), |_: &V| Field::Text("ACTIVE")).listed(),
            Attribute::new("external_gateway_info", Kind::Custom(&GATEWAY), |v: &V| {
                Field::Json(shown_gateway(&v.row, &v.snapshot.state))
            })
            .writable(),
            Attribute::new("routes", Kind::Custom(&ROUTES), |v: &V| Field::Routes(
                &v.row.routes
            ))
            .changeable(),
            Attribute::new("distributed", Kind::Custom(&BOOL_OR_NULL), |v: &V| Field::Bool(
                v.row.distributed
            ))
            .writable(),
            Attribute::new("ha", Kind::Custom(&BOOL_OR_NULL), |v: &V| Field::Bool(v.row.ha)).writable(),
            Attribute::new("availability_zone_hints", Kind::Custom(&HINTS), |v: &V| {
                Field::Texts(&v.row.availability_zone_hints)
            })
            .post(),
            Attribute::new("availability_zones", Kind::ShownTexts, |v: &V| zones_of(
                &v.snapshot.state
            )),
            Attribute::new("flavor_id", Kind::OnlyNull, |_: &V| Field::Null).post(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        Ok(RouterCreate {
            standard: standard_create(given)?,
            admin_state_up: given.get("admin_state_up"),
            distributed: given.get("distributed"),
            ha: given.get("ha"),
            gateway: given_gateway(given)?.flatten(),
            availability_zone_hints: given.get("availability_zone_hints").unwrap_or_default(),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(RouterUpdate {
            standard: standard_update(given),
            admin_state_up: given.get("admin_state_up"),
            distributed: given.get("distributed"),
            ha: given.get("ha"),
            gateway: given_gateway(given)?,
            routes: given.get("routes"),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        RouterUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn extra_routes() -> Vec<Route> {
        let action = |name: &str| format!("/v2.0/routers/{{id}}/{name}");
        vec![
            route(Method::PUT, action("add_router_interface"), put(add_interface)).doc(doc::add_interface),
            route(
                Method::PUT,
                action("remove_router_interface"),
                put(remove_interface),
            )
            .doc(doc::remove_interface),
            route(Method::PUT, action("add_extraroutes"), put(add_routes)).doc(doc::add_routes),
            route(Method::PUT, action("remove_extraroutes"), put(remove_routes)).doc(doc::remove_routes),
        ]
    }
}

/// What the API's document says.
mod doc {
    use alcor_model::Router;
    use serde_json::{Value, json};

    use super::ROUTES;
    use crate::openapi::{
        self, Operation,
        schema::{list, nullable, object, reference, uuid},
    };

    fn interface(summary: &'static str, body: Value) -> Operation {
        let project = || json!({"type": "string"});
        let answer = object([
            ("id", uuid()),
            ("project_id", project()),
            ("tenant_id", project()),
            ("port_id", uuid()),
            ("network_id", uuid()),
            ("subnet_id", nullable(uuid())),
            ("subnet_ids", list(uuid())),
        ]);
        Operation::new(summary)
            .component("RouterInterface", answer)
            .body(body)
            .answers(200, reference("RouterInterface"))
    }

    pub(super) fn add_interface() -> Operation {
        let body = json!({"oneOf": [object([("subnet_id", uuid())]), object([("port_id", uuid())])]});
        interface("Gives a router an interface: by a subnet or by a port", body)
    }

    pub(super) fn remove_interface() -> Operation {
        let body = json!({
            "type": "object",
            "properties": {"subnet_id": uuid(), "port_id": uuid()},
            "minProperties": 1,
            "additionalProperties": false,
        });
        interface(
            "Takes an interface from a router: by a subnet, a port, or both",
            body,
        )
    }

    fn routes(summary: &'static str) -> Operation {
        let router = openapi::show::<Router>();
        let body = object([("router", object([("routes", (ROUTES.schema)())]))]);
        Operation {
            summary: summary.into(),
            parameters: Vec::new(),
            ..router
        }
        .body(body)
    }

    pub(super) fn add_routes() -> Operation {
        routes("Gives a router static routes besides those that it has")
    }

    pub(super) fn remove_routes() -> Operation {
        routes("Takes static routes from a router")
    }
}

fn bad_request(reason: &str) -> ApiError {
    ApiError::bad_parameter("router", reason)
}

/// What the client names; whatever else is in the body is refused.
fn interface_request(body: &Map<String, Value>) -> Result<InterfaceRequest, ApiError> {
    let id = |name: &str| {
        let value = body.get(name);
        value
            .map(parse::uuid)
            .transpose()
            .map_err(|reason| bad_request(&reason))
    };
    if let Some(key) = body
        .keys()
        .find(|key| !["port_id", "subnet_id"].contains(&key.as_str()))
    {
        return Err(ApiError::bad_request(format!(
            "Unrecognized attribute(s) '{}'",
            parse::cut(key)
        )));
    }
    Ok(InterfaceRequest {
        port_id: id("port_id")?.map(Id::from_uuid),
        subnet_id: id("subnet_id")?.map(Id::from_uuid),
    })
}

fn interface_json(info: &InterfaceInfo) -> Value {
    let owner = &info.port.standard.project_id;
    json!({
        "id": info.router_id,
        "project_id": owner,
        "tenant_id": owner,
        "port_id": info.port.id,
        "network_id": info.port.network_id,
        "subnet_id": info.subnet_ids.last(),
        "subnet_ids": info.subnet_ids,
    })
}

/// `PUT /add_router_interface`
async fn add_interface(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = view::<Router>(&api, &who.caller, &id)?;
    authorize(&api, &who, "add_router_interface", &view)?;
    let id = view.row.id;
    let request = interface_request(&body)?;
    let asker = Arc::clone(&who.caller);
    let add = api
        .region()
        .write(move |tx, env| router::add_interface(tx, env, &asker, id, request));
    respond(StatusCode::OK, &interface_json(&add.await?))
}

/// `PUT /remove_router_interface`
async fn remove_interface(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = view::<Router>(&api, &who.caller, &id)?;
    authorize(&api, &who, "remove_router_interface", &view)?;
    let id = view.row.id;
    let request = interface_request(&body)?;
    let asker = Arc::clone(&who.caller);
    let remove = api
        .region()
        .write(move |tx, env| router::remove_interface(tx, env, &asker, id, request));
    respond(StatusCode::OK, &interface_json(&remove.await?))
}

/// The routes of `{"router": {"routes": [...]}}`.
fn named_routes(mut body: Map<String, Value>) -> Result<Vec<HostRoute>, ApiError> {
    let router = named(&mut body, "router")?;
    match router.get("routes") {
        Some(routes) => parse::routes("routes", routes, MAX_ROUTES),
        None => Err(ApiError::bad_request(
            "Failed to parse request. Required attribute 'routes' not specified",
        )),
    }
}

fn shown_router(api: &ApiState, who: &Who, row: Arc<Router>) -> Result<Response, ApiError> {
    let view = View::new(row, &api.region().snapshot(), &who.caller, api.region().config());
    one(StatusCode::OK, &view, &Shown::all(api, who))
}

/// `PUT /add_extraroutes`
async fn add_routes(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = view::<Router>(&api, &who.caller, &id)?;
    authorize(&api, &who, "add_extraroutes", &view)?;
    let id = view.row.id;
    let routes = named_routes(body)?;
    let asker = Arc::clone(&who.caller);
    let add = api
        .region()
        .write(move |tx, env| router::add_routes(tx, env, &asker, id, &routes));
    shown_router(&api, &who, add.await?)
}

/// `PUT /remove_extraroutes`
async fn remove_routes(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = view::<Router>(&api, &who.caller, &id)?;
    authorize(&api, &who, "remove_extraroutes", &view)?;
    let id = view.row.id;
    let routes = named_routes(body)?;
    let asker = Arc::clone(&who.caller);
    let remove = api
        .region()
        .write(move |tx, env| router::remove_routes(tx, env, &asker, id, &routes));
    shown_router(&api, &who, remove.await?)
}
