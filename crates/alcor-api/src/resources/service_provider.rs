//! `/v2.0/service-providers`: who provides the services besides networks, subnets and ports. Alcor does, and nobody else.

use alcor_policy::Value as Attr;
use axum::{extract::State, response::Response, routing::get};
use http::{HeaderMap, Method, Uri};
use uuid::Uuid;

use super::{
    MAX_TEXT,
    plain::{self, Collection},
};
use crate::{
    attributes::{Attribute, Kind},
    auth::Who,
    authorize::authorize_on,
    error::ApiError,
    field::Field,
    router::{Route, route},
    state::ApiState,
};

/// A service, by Neutron's name for it; its only provider is the default one.
#[derive(Clone)]
struct Provider {
    service_type: &'static str,
}

/// Routers and floating IPs.
const SERVICES: [Provider; 1] = [Provider {
    service_type: "L3_ROUTER_NAT",
}];

/// Where ids of providers are made from their service: pages begin at them, nobody sees them.
const PROVIDER_IDS: Uuid = Uuid::from_u128(0x1f5c_9a57_20d4_5d0c_8a4e_6f0b_7723_c1d9);

const PROVIDERS: Collection<Provider> = Collection {
    singular: "service_provider",
    plural: "service_providers",
    table: &[
        Attribute::new("service_type", Kind::Text(MAX_TEXT), |v: &Provider| {
            Field::Text(v.service_type)
        })
        .listed(),
        Attribute::new("name", Kind::Text(MAX_TEXT), |_: &Provider| Field::Text("alcor")).listed(),
        Attribute::new("default", Kind::Bool, |_: &Provider| Field::Bool(true)).listed(),
    ],
    id: |v| Uuid::new_v5(&PROVIDER_IDS, v.service_type.as_bytes()),
};

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, "/v2.0/service-providers", get(list))
            .doc(|| plain::doc::list(&PROVIDERS, "Lists who provides services")),
    ]
}

async fn list(
    State(api): State<ApiState>,
    who: Who,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let own = [("project_id", Attr::text(&who.caller.project_id))];
    let allowed = authorize_on(&api, &who, "get_service_provider", &own).is_ok();
    let views = if allowed { SERVICES.to_vec() } else { Vec::new() };
    PROVIDERS.answer_list(&api, &headers, &uri, views)
}
