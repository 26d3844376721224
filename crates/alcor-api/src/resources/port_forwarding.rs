//! `/v2.0/floatingips/{id}/port_forwardings`: below its floating IP, whose project owns it.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use alcor_model::{
    FloatingIp, Id, PortForwarding,
    resource::{PortRange, Standard},
};
use alcor_region::{
    RegionState,
    command::Caller,
    floating_ip::forwarding::{PortForwardingCreate, PortForwardingUpdate},
};
use axum::{
    extract::{Path, State},
    response::Response,
    routing::{delete, get, post, put},
};
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Resource, Rows, View, Walk, attribute_table, create,
    handlers::{self, pairs, view},
};
use crate::{
    attributes::{Attribute, Custom, Given},
    auth::Who,
    body::JsonBody,
    error::ApiError,
    field::Field,
    openapi,
    parse::{self, Parsed, shown},
    query::{self, ListQuery},
    router::{Route, route},
    state::ApiState,
};

/// The floating IP that the path names. Handlers get it as an attribute that no client may give.
const PARENT: &str = "floatingip_id";

/// Longest description (Neutron's limit).
const MAX_DESCRIPTION: usize = 1024;

/// Protocols that have ports.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "sctp", "udplite", "dccp"];

/// A protocol by name, in any case.
static PROTOCOL: Custom = Custom {
    name: "string",
    parse: |name, value| {
        let text = value.as_str().map(str::to_ascii_lowercase);
        match text.filter(|text| PROTOCOLS.contains(&text.as_str())) {
            Some(text) => Ok(Some(Parsed::Text(text))),
            None => Err(ApiError::invalid_attribute(
                name,
                &format!("'{}' is not in {PROTOCOLS:?}", shown(&value)),
            )),
        }
    },
    schema: || json!({"type": "string", "enum": PROTOCOLS}),
};

/// One port or two with a colon between them.
static RANGE: Custom = Custom {
    name: "string",
    parse: |name, value| match value {
        Value::Null => Ok(None),
        value => {
            let text = match &value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let range = range(&text).map_err(|reason| ApiError::invalid_attribute(name, &reason))?;
            Ok(Some(Parsed::Text(range_text(range))))
        }
    },
    schema: || json!({"type": ["string", "null"], "pattern": "^[0-9]{1,5}(:[0-9]{1,5})?$"}),
};

fn range(text: &str) -> Result<PortRange, String> {
    let port = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!(
            "Invalid port: {}, the port must be in the range [1, 65535]",
            parse::cut(text)
        )),
        Ok(port) => Ok(port),
    };
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let range = PortRange {
        first: port(first)?,
        last: port(last)?,
    };
    if range.first > range.last {
        return Err("First port in a port range must be lower than the second port".to_owned());
    }
    Ok(range)
}

fn range_text(range: PortRange) -> String {
    format!("{}:{}", range.first, range.last)
}

fn single<'a>(range: PortRange) -> Field<'a> {
    range.single().map_or(Field::Null, |port| Field::Int(port.into()))
}

fn missing(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Failed to parse request. Required attribute '{name}' not specified"
    ))
}

/// The ports of one side (`external`, `internal`), which clients give as one port or as a range, not as both.
fn given_range(given: &mut Given, side: &str) -> Result<Option<PortRange>, ApiError> {
    let single = given
        .get::<u64>(&format!("{side}_port"))
        .and_then(|port| u16::try_from(port).ok())
        .map(|port| PortRange {
            first: port,
            last: port,
        });
    let ranged = given
        .get::<String>(&format!("{side}_port_range"))
        .and_then(|text| range(&text).ok());
    match (single, ranged) {
        (Some(single), Some(ranged)) if single != ranged => Err(ApiError::bad_parameter(
            "port_forwarding",
            &format!("Ambiguous use of {side}_port and {side}_port_range"),
        )),
        (single, ranged) => Ok(ranged.or(single)),
    }
}

fn given_address(given: &mut Given) -> Result<Option<Ipv4Addr>, ApiError> {
    match given.get::<IpAddr>("internal_ip_address") {
        None => Ok(None),
        Some(IpAddr::V4(ip)) => Ok(Some(ip)),
        Some(ip) => Err(ApiError::bad_parameter(
            "port_forwarding",
            &format!("'{ip}' is not an IPv4 address"),
        )),
    }
}

impl Resource for PortForwarding {
    const SINGULAR: &'static str = "port_forwarding";
    const PLURAL: &'static str = "port_forwardings";
    const RULE: &'static str = "floatingip_port_forwarding";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        own PortForwarding,
        [
            Attribute::new("external_port", Kind::IntOrNull(1, 65_535), |v: &V| single(
                v.row.external
            ))
            .writable()
            .listed(),
            Attribute::new("external_port_range", Kind::Custom(&RANGE), |v: &V| Field::Json(
                range_text(v.row.external).into()
            ))
            .writable()
            .listed(),
            Attribute::new("internal_port", Kind::IntOrNull(1, 65_535), |v: &V| single(
                v.row.internal
            ))
            .writable(),
            Attribute::new("internal_port_range", Kind::Custom(&RANGE), |v: &V| Field::Json(
                range_text(v.row.internal).into()
            ))
            .writable(),
            Attribute::new("internal_ip_address", Kind::IpOrNull, |v: &V| Field::Ip(
                v.row.internal_ip_address.into()
            ))
            .required()
            .writable(),
            Attribute::new("internal_port_id", Kind::Uuid, |v: &V| Field::Uuid(
                v.row.internal_port_id.uuid()
            ))
            .required()
            .writable()
            .listed(),
            Attribute::new("protocol", Kind::Custom(&PROTOCOL), |v: &V| Field::Text(
                &v.row.protocol
            ))
            .required()
            .writable()
            .listed(),
            Attribute::new("description", Kind::Text(MAX_DESCRIPTION), |v: &V| Field::Text(
                &v.row.standard.description
            ))
            .writable()
            .filterable(),
            Attribute::new("project_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.standard.project_id
            ))
            .post()
            .hidden(),
            // The path's, never the client's: see [`below`].
            Attribute::new(PARENT, Kind::Uuid, |v: &V| Field::Uuid(v.row.floatingip_id.uuid()))
                .required()
                .filterable()
                .hidden(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn indexed<'a>(
        state: &'a RegionState,
        query: &ListQuery<View<Self>>,
        walk: Walk,
    ) -> Option<Rows<'a, Self>> {
        let parents = query.uuids(PARENT)?;
        let rows = parents
            .into_iter()
            .flat_map(|id| state.port_forwardings_of(Id::from_uuid(id)));
        Some(walk.sorted(rows.cloned().collect()))
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        Ok(PortForwardingCreate {
            floatingip_id: given
                .get::<Uuid>(PARENT)
                .map(Id::from_uuid)
                .ok_or_else(|| missing(PARENT))?,
            description: given.get("description").unwrap_or_default(),
            protocol: given.get("protocol").ok_or_else(|| missing("protocol"))?,
            external: given_range(given, "external")?.ok_or_else(|| missing("external_port"))?,
            internal: given_range(given, "internal")?.ok_or_else(|| missing("internal_port"))?,
            internal_port_id: given
                .get::<Uuid>("internal_port_id")
                .map(Id::from_uuid)
                .ok_or_else(|| missing("internal_port_id"))?,
            internal_ip_address: given_address(given)?.ok_or_else(|| missing("internal_ip_address"))?,
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(PortForwardingUpdate {
            description: given.get("description"),
            protocol: given.get("protocol"),
            external: given_range(given, "external")?,
            internal: given_range(given, "internal")?,
            internal_port_id: given.get::<Uuid>("internal_port_id").map(Id::from_uuid),
            internal_ip_address: given_address(given)?,
        })
    }

    fn update_of_tags(_: Vec<String>) -> Self::Update {
        PortForwardingUpdate::default()
    }
}

/// The routes, below those of floating IPs.
pub(crate) fn routes() -> Vec<Route> {
    let collection = "/v2.0/floatingips/{floatingip_id}/port_forwardings";
    let member = format!("{collection}/{{id}}");
    vec![
        route(Method::GET, collection, get(list)).doc(doc::list),
        route(Method::POST, collection, post(add))
            .keeps_replies()
            .doc(doc::create),
        route(Method::GET, &member, get(show)).doc(openapi::show::<PortForwarding>),
        route(Method::PUT, &member, put(update)).doc(openapi::update::<PortForwarding>),
        route(Method::DELETE, &member, delete(remove)).doc(openapi::delete::<PortForwarding>),
    ]
}

/// What the API's document says; the path's floating IP is no attribute there.
mod doc {
    use alcor_model::PortForwarding;
    use serde_json::Value;

    use super::PARENT;
    use crate::openapi::{self, Operation};

    pub(super) fn list() -> Operation {
        let mut operation = openapi::list::<PortForwarding>();
        operation
            .parameters
            .retain(|parameter| parameter["name"] != PARENT);
        operation
    }

    pub(super) fn create() -> Operation {
        let mut operation = openapi::create::<PortForwarding>();
        for (_, schema) in &mut operation.components {
            if let Some(properties) = schema["properties"].as_object_mut() {
                properties.remove(PARENT);
            }
            if let Some(Value::Array(required)) = schema.get_mut("required") {
                required.retain(|name| name != PARENT);
            }
        }
        operation
    }
}

/// The floating IP of a path, if the caller sees it.
fn parent(api: &ApiState, caller: &Arc<Caller>, id: &str) -> Result<Id<FloatingIp>, ApiError> {
    Ok(view::<FloatingIp>(api, caller, id)?.row.id)
}

/// Refuses a port forwarding that is not below the floating IP of the path. It never moves to another one.
fn below(api: &ApiState, caller: &Arc<Caller>, floating_ip: &str, id: &str) -> Result<(), ApiError> {
    let parent = parent(api, caller, floating_ip)?;
    if view::<PortForwarding>(api, caller, id)?.row.floatingip_id == parent {
        Ok(())
    } else {
        Err(query::not_found(PortForwarding::SINGULAR, id))
    }
}

/// The query with the path's floating IP as a filter.
fn filtered(uri: &Uri, parent: Id<FloatingIp>) -> Result<Uri, ApiError> {
    let parent = parent.to_string();
    match pairs(uri)?.iter().find(|(key, _)| key == PARENT) {
        // A link to a further page has it already.
        Some((_, value)) if *value == parent => return Ok(uri.clone()),
        Some(_) => {
            return Err(ApiError::bad_request(format!(
                "['{PARENT}'] is invalid attribute for filtering"
            )));
        }
        None => {}
    }
    let query = uri.query().map(|query| format!("{query}&")).unwrap_or_default();
    format!("{}?{query}{PARENT}={parent}", uri.path())
        .parse()
        .map_err(|error| ApiError::bad_request(format!("The query cannot be read: {error}.")))
}

/// `GET /port_forwardings`
async fn list(
    State(api): State<ApiState>,
    who: Who,
    Path(floating_ip): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let uri = filtered(&uri, parent(&api, &who.caller, &floating_ip)?)?;
    handlers::list::<PortForwarding>(State(api), who, headers, uri).await
}

/// `POST /port_forwardings`
async fn add(
    State(api): State<ApiState>,
    who: Who,
    Path(floating_ip): Path<String>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody,
) -> Result<Response, ApiError> {
    let parent = parent(&api, &who.caller, &floating_ip)?;
    let one = body.get_mut(PortForwarding::SINGULAR).into_iter();
    let objects = one.filter_map(Value::as_object_mut);
    for object in objects {
        if object.insert(PARENT.to_owned(), json!(parent)).is_some() {
            return Err(ApiError::bad_request(format!(
                "Unrecognized attribute(s) '{PARENT}'"
            )));
        }
    }
    // Neutron makes these one at a time.
    body.remove(PortForwarding::PLURAL);
    create::create::<PortForwarding>(State(api), who, headers, JsonBody(body)).await
}

/// `GET /port_forwardings/{id}`
async fn show(
    State(api): State<ApiState>,
    who: Who,
    Path((floating_ip, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, ApiError> {
    below(&api, &who.caller, &floating_ip, &id)?;
    handlers::show::<PortForwarding>(State(api), who, Path(id), uri).await
}

/// `PUT /port_forwardings/{id}`
async fn update(
    State(api): State<ApiState>,
    who: Who,
    Path((floating_ip, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    below(&api, &who.caller, &floating_ip, &id)?;
    handlers::update::<PortForwarding>(State(api), who, Path(id), headers, body).await
}

/// `DELETE /port_forwardings/{id}`
async fn remove(
    State(api): State<ApiState>,
    who: Who,
    Path((floating_ip, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    below(&api, &who.caller, &floating_ip, &id)?;
    handlers::delete::<PortForwarding>(State(api), who, Path(id), headers).await
}
