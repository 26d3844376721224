//! `/v2.0/address-groups`

use std::sync::Arc;

use alcor_model::{
    AddressGroup,
    resource::{SharedType, Standard},
};
use alcor_region::{
    RegionError,
    address_group::{AddressGroupCreate, AddressGroupUpdate, add_addresses, remove_addresses},
    command::{Caller, StandardUpdate},
};
use axum::{
    extract::{Path, State},
    response::Response,
    routing::put,
};
use http::{Method, StatusCode};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Resource, View, attribute_table,
    handlers::{one, view},
    security_group_rule::prefix_of,
    standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Custom, Given},
    auth::Who,
    authorize::{Shown, authorize},
    body::JsonBody,
    error::ApiError,
    openapi::{self, Operation},
    parse::{Parsed, shown},
    router::{Route, route},
    state::ApiState,
};

/// Prefixes of a group.
static ADDRESSES: Custom = Custom {
    name: "array",
    parse: addresses,
    schema: || json!({"type": ["array", "null"], "items": {"type": "string"}, "maxItems": AddressGroup::MAX_ADDRESSES}),
};

/// A list that is not longer than a group may be.
fn bounded(value: &Value) -> Result<&[Value], String> {
    let list = value
        .as_array()
        .ok_or_else(|| format!("'{}' is not a list", shown(value)))?;
    if list.len() > AddressGroup::MAX_ADDRESSES {
        return Err(format!(
            "{} elements are more than the limit of {}",
            list.len(),
            AddressGroup::MAX_ADDRESSES
        ));
    }
    Ok(list)
}

/// At creation, a prefix needs its length.
fn addresses(name: &str, value: Value) -> Result<Option<Parsed>, ApiError> {
    if value.is_null() {
        return Ok(None);
    }
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    for item in bounded(&value).map_err(fail)? {
        if item
            .as_str()
            .and_then(|text| text.parse::<IpNet>().ok())
            .is_none()
        {
            return Err(fail(format!("'{}' is not a valid IP subnet", shown(item))));
        }
    }
    Ok(Some(Parsed::Json(value)))
}

/// Prefixes of a checked list.
fn prefixes(value: &Value) -> Vec<IpNet> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().and_then(prefix_of))
        .collect()
}

/// The `addresses` of an action's body; an address stands for the prefix of itself.
fn asked(body: &serde_json::Map<String, Value>) -> Result<Vec<IpNet>, ApiError> {
    let value = body
        .get("addresses")
        .ok_or_else(|| ApiError::bad_request("Unable to find 'addresses' in request body"))?;
    bounded(value)
        .map_err(|reason| ApiError::invalid_attribute("addresses", &reason))?
        .iter()
        .map(|item| {
            item.as_str()
                .and_then(prefix_of)
                .ok_or_else(|| ApiError::bad_request(format!("invalid IPNetwork {}", shown(item))))
        })
        .collect()
}

fn shown_group(api: &ApiState, who: &Who, row: Arc<AddressGroup>) -> Result<Response, ApiError> {
    let view = View::new(row, &api.region().snapshot(), &who.caller, api.region().config());
    one(StatusCode::OK, &view, &Shown::all(api, who))
}

/// `PUT /v2.0/address-groups/{id}/add_addresses`
async fn add(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = asked(&body)?;
    let view = view::<AddressGroup>(&api, &who.caller, &id)?;
    authorize(&api, &who, "add_addresses", &view)?;
    let id = view.row.id;
    let asking = Caller::clone(&who.caller);
    let row = api
        .region()
        .write(move |tx, env| -> Result<_, RegionError> { add_addresses(tx, env, &asking, id, &asked) })
        .await?;
    shown_group(&api, &who, row)
}

/// `PUT /v2.0/address-groups/{id}/remove_addresses`
async fn remove(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = asked(&body)?;
    let view = view::<AddressGroup>(&api, &who.caller, &id)?;
    authorize(&api, &who, "remove_addresses", &view)?;
    let id = view.row.id;
    let asking = Caller::clone(&who.caller);
    let row = api
        .region()
        .write(move |tx, env| -> Result<_, RegionError> { remove_addresses(tx, env, &asking, id, &asked) })
        .await?;
    shown_group(&api, &who, row)
}

/// What an action takes and answers.
fn doc(summary: &'static str) -> Operation {
    let list = json!({"type": "array", "items": {"type": "string"}, "maxItems": AddressGroup::MAX_ADDRESSES});
    let body = json!({"type": "object", "properties": {"addresses": list}, "required": ["addresses"]});
    openapi::action::<AddressGroup>(summary, body)
}

impl Resource for AddressGroup {
    const SINGULAR: &'static str = "address_group";
    const PLURAL: &'static str = "address_groups";
    const PATH: &'static str = "address-groups";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        bare AddressGroup,
        [
            Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.standard.name
            ))
            .writable()
            .listed(),
            Attribute::new("description", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.standard.description
            ))
            .writable()
            .listed(),
            Attribute::new("addresses", Kind::Custom(&ADDRESSES), |v: &V| Field::Json(json!(
                v.row.addresses
            )))
            .post(),
            // Policies ask for it; Neutron does not show it either.
            Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(
                v.snapshot
                    .state
                    .shared_with(SharedType::AddressGroup, v.row.id.uuid(), &v.caller.project_id)
            ))
            .hidden(),
            Attribute::new("created_at", Kind::Time, |v: &V| Field::Time(v.row.standard.created_at))
                .sortable(),
            Attribute::new("updated_at", Kind::Time, |v: &V| Field::Time(v.row.standard.updated_at))
                .sortable(),
            Attribute::new("revision_number", Kind::Int(0, u64::MAX), |v: &V| Field::Int(
                v.row.standard.revision_number
            ))
            .listed(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        Ok(AddressGroupCreate {
            standard: standard_create(&mut given)?,
            addresses: given
                .get::<Value>("addresses")
                .map(|value| prefixes(&value))
                .unwrap_or_default(),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        Ok(AddressGroupUpdate {
            standard: standard_update(&mut given),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        AddressGroupUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
        }
    }

    fn extra_routes() -> Vec<Route> {
        let action = |name| format!("/v2.0/{}/{{id}}/{name}", Self::PATH);
        vec![
            route(Method::PUT, action("add_addresses"), put(add))
                .doc(|| doc("Adds prefixes to an address group")),
            route(Method::PUT, action("remove_addresses"), put(remove))
                .doc(|| doc("Removes prefixes from an address group")),
        ]
    }
}
