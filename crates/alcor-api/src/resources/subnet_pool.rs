//! `/v2.0/subnetpools`, and the actions on a pool: its prefixes, and subnets that come into it.

use alcor_model::{
    Id, Network, Subnet, SubnetPool,
    resource::{SharedType, Standard},
};
use alcor_region::{
    RegionState,
    command::{Caller, StandardUpdate},
    subnet_pool::{self, SubnetPoolCreate, SubnetPoolUpdate},
};
use axum::{
    extract::{Path, State},
    response::Response,
    routing::put,
};
use http::{Method, StatusCode};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Resource, Rows, View, Walk, attribute_table, handlers, lookup, standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Custom, Given, Kind},
    auth::Who,
    authorize::authorize,
    body::JsonBody,
    error::ApiError,
    openapi::schema,
    parse::{self, Parsed, shown},
    router::{Route, route},
    state::ApiState,
};

/// The longest prefix of both families, and the largest quota.
const MAX_PREFIXLEN: u64 = 128;
const MAX_QUOTA: u64 = i32::MAX as u64;

/// A list of prefixes without duplicates.
static PREFIXES: Custom = Custom {
    name: "array",
    parse: |name, value| {
        let prefixes = prefixes(&value).map_err(|reason| ApiError::invalid_attribute(name, &reason))?;
        Ok(Some(Parsed::Json(json!(prefixes))))
    },
    schema: || schema::list(schema::cidr()),
};

/// The length of a prefix: a number, which Neutron shows as text.
static PREFIXLEN: Custom = Custom {
    name: "string",
    parse: |name, value| parse::value(name, Kind::Int(0, MAX_PREFIXLEN), value),
    schema: || json!({"type": "string", "pattern": "^[0-9]{1,3}$"}),
};

fn prefixes(value: &Value) -> Result<Vec<IpNet>, String> {
    let Value::Array(list) = value else {
        return Err(format!("'{}' is not a list", shown(value)));
    };
    if list.len() > SubnetPool::MAX_PREFIXES {
        return Err(format!("more than {} prefixes", SubnetPool::MAX_PREFIXES));
    }
    let mut found = Vec::with_capacity(list.len());
    for item in list {
        let prefix = parse::cidr(item)?;
        if found.contains(&prefix) {
            return Err(format!("Duplicate items in the list: '{prefix}'"));
        }
        found.push(prefix);
    }
    Ok(found)
}

fn taken_prefixes(given: &mut Given) -> Option<Vec<IpNet>> {
    let value = given.get::<Value>("prefixes")?;
    serde_json::from_value(value).ok()
}

impl Resource for SubnetPool {
    const SINGULAR: &'static str = "subnetpool";
    const PLURAL: &'static str = "subnetpools";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        SubnetPool,
        [
            Attribute::new("prefixes", Kind::Custom(&PREFIXES), |v: &V| Field::Json(json!(
                v.row.prefixes
            )))
            .required()
            .writable(),
            Attribute::new("ip_version", Kind::OneOfInt(&[4, 6]), |v: &V| Field::Int(
                v.row.ip_version().into()
            ))
            .listed(),
            Attribute::new(
                "default_prefixlen",
                Kind::Custom(&PREFIXLEN),
                |v: &V| Field::Json(json!(v.row.default_prefixlen.to_string()))
            )
            .writable()
            .filterable(),
            Attribute::new("min_prefixlen", Kind::Custom(&PREFIXLEN), |v: &V| Field::Json(
                json!(v.row.min_prefixlen.to_string())
            ))
            .writable()
            .filterable(),
            Attribute::new("max_prefixlen", Kind::Custom(&PREFIXLEN), |v: &V| Field::Json(
                json!(v.row.max_prefixlen.to_string())
            ))
            .writable()
            .filterable(),
            Attribute::new("default_quota", Kind::IntOrNull(0, MAX_QUOTA), |v: &V| v
                .row
                .default_quota
                .map_or(Field::Null, Field::Int))
            .writable()
            .listed(),
            Attribute::new("is_default", Kind::Bool, |v: &V| Field::Bool(v.row.is_default))
                .writable()
                .listed(),
            Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(
                v.is_shared(SharedType::SubnetPool, v.row.id.uuid())
            ))
            .post()
            .listed(),
            Attribute::new("address_scope_id", Kind::UuidOrNull, |v: &V| Field::from(
                v.row.address_scope_id.map(Id::uuid)
            ))
            .writable()
            .listed(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn seen_by<'a>(state: &'a RegionState, caller: &Caller, walk: Walk) -> Option<Rows<'a, Self>> {
        lookup::seen(caller, walk, state.subnet_pools(), |project| {
            state.pools_seen_by(project)
        })
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        let standard = standard_create(given)?;
        if standard.name.trim().is_empty() {
            return Err(ApiError::invalid_attribute(
                "name",
                "a subnet pool must have a name",
            ));
        }
        Ok(SubnetPoolCreate {
            standard,
            prefixes: taken_prefixes(given).unwrap_or_default(),
            default_prefixlen: given.get("default_prefixlen"),
            min_prefixlen: given.get("min_prefixlen"),
            max_prefixlen: given.get("max_prefixlen"),
            default_quota: given.get("default_quota"),
            is_default: given.get("is_default").unwrap_or(false),
            address_scope_id: given.get("address_scope_id").map(Id::from_uuid),
            shared: given.get("shared").unwrap_or(false),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(SubnetPoolUpdate {
            standard: standard_update(given),
            prefixes: taken_prefixes(given),
            default_prefixlen: given.get("default_prefixlen"),
            min_prefixlen: given.get("min_prefixlen"),
            max_prefixlen: given.get("max_prefixlen"),
            default_quota: given.get("default_quota"),
            is_default: given.get("is_default"),
            address_scope_id: given
                .get_nullable::<Uuid>("address_scope_id")
                .map(|id| id.map(Id::from_uuid)),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        SubnetPoolUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn extra_routes() -> Vec<Route> {
        let action = |name: &str| format!("/v2.0/subnetpools/{{id}}/{name}");
        vec![
            route(Method::PUT, action("add_prefixes"), put(add_prefixes)).doc(doc::add_prefixes),
            route(Method::PUT, action("remove_prefixes"), put(remove_prefixes)).doc(doc::remove_prefixes),
            route(
                Method::PUT,
                action("onboard_network_subnets"),
                put(onboard_network_subnets),
            )
            .doc(doc::onboard_network_subnets),
        ]
    }
}

/// What the actions take and answer.
mod doc {
    use serde_json::{Value, json};

    use crate::openapi::{
        Operation,
        schema::{cidr, list, object, uuid},
    };

    fn prefixes() -> Value {
        json!({"type": "object", "properties": {"prefixes": list(cidr())}, "required": ["prefixes"]})
    }

    pub(super) fn add_prefixes() -> Operation {
        Operation::new("Adds prefixes to a pool")
            .body(prefixes())
            .answers(200, object([("prefixes", list(cidr()))]))
    }

    pub(super) fn remove_prefixes() -> Operation {
        Operation::new("Takes prefixes that no subnet uses out of a pool")
            .body(prefixes())
            .answers(200, object([("prefixes", list(cidr()))]))
    }

    pub(super) fn onboard_network_subnets() -> Operation {
        let body =
            json!({"type": "object", "properties": {"network_id": uuid()}, "required": ["network_id"]});
        Operation::new("Puts the subnets of a network into a pool")
            .body(body)
            .answers(200, list(object([("id", uuid()), ("cidr", cidr())])))
    }
}

/// The prefixes of an action's body: at least one.
fn body_prefixes(mut body: Map<String, Value>) -> Result<Vec<IpNet>, ApiError> {
    let value = body.remove("prefixes").unwrap_or_default();
    let is_list = value.as_array().is_some_and(|list| !list.is_empty());
    if !is_list {
        return Err(ApiError::bad_request("Request body contains invalid data"));
    }
    prefixes(&value).map_err(|reason| ApiError::invalid_input(&reason))
}

/// `PUT /v2.0/subnetpools/{id}/add_prefixes`
async fn add_prefixes(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = handlers::view::<SubnetPool>(&api, &who.caller, &id)?;
    authorize(&api, &who, "add_prefixes", &view)?;
    let (id, caller) = (view.row.id, who.caller);
    let prefixes = body_prefixes(body)?;
    let pool = api
        .region()
        .write(move |tx, env| subnet_pool::add_prefixes(tx, env, &caller, id, prefixes))
        .await?;
    handlers::respond(StatusCode::OK, &json!({"prefixes": pool.prefixes}))
}

/// `PUT /v2.0/subnetpools/{id}/remove_prefixes`
async fn remove_prefixes(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = handlers::view::<SubnetPool>(&api, &who.caller, &id)?;
    authorize(&api, &who, "remove_prefixes", &view)?;
    let (id, caller) = (view.row.id, who.caller);
    let prefixes = body_prefixes(body)?;
    let pool = api
        .region()
        .write(move |tx, env| subnet_pool::remove_prefixes(tx, env, &caller, id, prefixes))
        .await?;
    handlers::respond(StatusCode::OK, &json!({"prefixes": pool.prefixes}))
}

/// `PUT /v2.0/subnetpools/{id}/onboard_network_subnets`
async fn onboard_network_subnets(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let view = handlers::view::<SubnetPool>(&api, &who.caller, &id)?;
    authorize(&api, &who, "onboard_network_subnets", &view)?;
    let (id, caller) = (view.row.id, who.caller);
    let network = match body.get("network_id").and_then(Value::as_str) {
        Some(text) => Id::from_uuid(handlers::uuid::<Network>(text)?),
        None => return Err(ApiError::invalid_input("network_id must be specified.")),
    };
    let subnets = api
        .region()
        .write(move |tx, env| subnet_pool::onboard(tx, env, &caller, id, network))
        .await?;
    let shown = |subnet: &std::sync::Arc<Subnet>| json!({"id": subnet.id, "cidr": subnet.cidr});
    handlers::respond(StatusCode::OK, &subnets.iter().map(shown).collect::<Vec<_>>())
}
