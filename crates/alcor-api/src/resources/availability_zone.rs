//! `/v2.0/availability_zones`: the zones that hosts say they are in, and the hints of networks and routers.
//!
//! Every host does for its own ports what Neutron's DHCP and L3 agents do, so a zone is one for networks and one for
//! routers, and every network and router is in all zones.

use alcor_policy::Value as Attr;
use alcor_region::RegionState;
use axum::{extract::State, response::Response, routing::get};
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    MAX_TEXT,
    plain::{self, Collection},
};
use crate::{
    attributes::{Attribute, Custom, Kind},
    auth::Who,
    authorize::authorize_on,
    error::ApiError,
    field::Field,
    parse::{Parsed, shown},
    router::{Route, route},
    state::ApiState,
};

/// Longest list of hints, in characters of JSON (Neutron's limit).
const MAX_HINTS: usize = 255;

/// Names of availability zones, each once.
pub(super) static HINTS: Custom = Custom {
    name: "array",
    parse: |name, value| {
        let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
        let list = match &value {
            Value::Null => return Ok(None),
            Value::Array(list) => list,
            _ => return Err(fail(format!("'{}' is not a list", shown(&value)))),
        };
        if value.to_string().chars().count() > MAX_HINTS {
            return Err(ApiError::invalid_input(
                "Too many availability_zone_hints specified",
            ));
        }
        let mut zones: Vec<String> = Vec::with_capacity(list.len());
        for zone in list {
            let Some(zone) = zone.as_str() else {
                return Err(fail(format!("'{}' is not a valid string", shown(zone))));
            };
            if zones.iter().any(|known| known == zone) {
                return Err(fail(format!("Duplicate items in the list: '{zone}'")));
            }
            zones.push(zone.to_owned());
        }
        Ok(Some(Parsed::Texts(zones)))
    },
    schema: || json!({"type": "array", "items": {"type": "string", "maxLength": MAX_HINTS}, "uniqueItems": true}),
};

/// The zones that a network or a router is in: those with a host that takes ports.
pub(super) fn zones_of(state: &RegionState) -> Field<'_> {
    let names: Vec<&str> = state
        .zones()
        .filter(|zone| zone.available)
        .map(|zone| zone.name)
        .collect();
    Field::Json(json!(names))
}

/// What is in a zone.
const RESOURCES: [&str; 2] = ["network", "router"];

/// One kind of resources in one zone.
#[derive(Clone)]
struct ZoneView {
    name: String,
    resource: &'static str,
    available: bool,
}

type V = ZoneView;

/// Where ids of zones are made from their names: pages begin at them, nobody sees them.
const ZONE_IDS: Uuid = Uuid::from_u128(0x93f0_6d0e_7b1b_5a52_9d0c_38c1_1e64_07ab);

const ZONES: Collection<V> = Collection {
    singular: "availability_zone",
    plural: "availability_zones",
    table: &[
        Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(&v.name)).listed(),
        Attribute::new("resource", Kind::OneOf(&RESOURCES), |v: &V| {
            Field::Text(v.resource)
        })
        .listed(),
        Attribute::new("state", Kind::OneOf(&["available", "unavailable"]), |v: &V| {
            Field::Text(if v.available { "available" } else { "unavailable" })
        })
        .listed(),
    ],
    id: |v| Uuid::new_v5(&ZONE_IDS, format!("{} {}", v.resource, v.name).as_bytes()),
};

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, "/v2.0/availability_zones", get(list))
            .doc(|| plain::doc::list(&ZONES, "Lists the availability zones")),
    ]
}

async fn list(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut views = Vec::new();
    // Zones are nobody's: they are there for every reader of a project of its own.
    let own = [("project_id", Attr::text(&who.caller.project_id))];
    if authorize_on(&api, &who, "get_availability_zone", &own).is_ok() {
        let snapshot = api.region().snapshot();
        views.extend(snapshot.state.zones().flat_map(|zone| {
            RESOURCES.map(|resource| ZoneView {
                name: zone.name.to_owned(),
                resource,
                available: zone.available,
            })
        }));
    }
    ZONES.answer_list(&api, &headers, &uri, views)
}
