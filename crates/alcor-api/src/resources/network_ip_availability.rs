//! `/v2.0/network-ip-availabilities`: how many addresses of each network are given out. Nothing is stored for it: it is
//! counted from the ports that there are.

use std::sync::Arc;

use alcor_model::{Id, Network, Subnet};
use alcor_policy::Value as Attribute;
use alcor_region::{RegionState, subnet::AddressCounts};
use axum::{
    extract::{Path, State},
    response::Response,
    routing::get,
};
use http::{Method, StatusCode, Uri};
use ipnet::IpNet;
use serde::{Serialize, Serializer, ser::SerializeMap};
use uuid::Uuid;

use super::handlers::{pairs, respond};
use crate::{
    auth::Who,
    authorize::authorize_on,
    error::ApiError,
    parse,
    router::{Route, route},
    state::ApiState,
};

const PATH: &str = "/v2.0/network-ip-availabilities";

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, PATH, get(list)).doc(doc::list),
        route(Method::GET, format!("{PATH}/{{id}}"), get(show)).doc(doc::show),
    ]
}

/// What the routes answer.
mod doc {
    use serde_json::{Value, json};

    use crate::openapi::{
        Operation,
        schema::{cidr, list as list_of, object, reference, text, uuid},
    };

    /// Numbers of addresses may be larger than 64 bits have room for.
    fn count() -> Value {
        json!({"type": "number", "minimum": 0})
    }

    fn details() -> Value {
        object([
            ("total_ips_in_subnet", count()),
            ("total_ips_in_allocation_pool", count()),
            ("used_ips_in_subnet", count()),
            ("used_ips_in_allocation_pool", count()),
        ])
    }

    fn described(summary: &'static str) -> Operation {
        let subnet = object([
            ("subnet_id", uuid()),
            ("subnet_name", text(255)),
            ("ip_version", json!({"enum": [4, 6]})),
            ("cidr", cidr()),
            ("used_ips", count()),
            ("total_ips", count()),
            ("ip_availability_details", details()),
        ]);
        // Nothing is required, because `fields` leaves out what the client does not want.
        let network = json!({
            "type": "object",
            "properties": {
                "network_id": uuid(),
                "network_name": text(255),
                "project_id": text(255),
                "tenant_id": text(255),
                "used_ips": count(),
                "total_ips": count(),
                "ip_availability_details": details(),
                "subnet_ip_availability": list_of(subnet),
            },
            "additionalProperties": false,
        });
        Operation::new(summary).component("NetworkIpAvailability", network)
    }

    pub(super) fn list() -> Operation {
        let mut operation = described("Lists how many addresses of each network are given out");
        for name in [
            "network_id",
            "network_name",
            "project_id",
            "tenant_id",
            "ip_version",
            "fields",
        ] {
            operation = operation.query(name, json!({"type": "string"}));
        }
        let rows = list_of(reference("NetworkIpAvailability"));
        operation.answers(200, object([("network_ip_availabilities", rows)]))
    }

    pub(super) fn show() -> Operation {
        let row = reference("NetworkIpAvailability");
        described("Shows how many addresses of a network are given out")
            .query("fields", json!({"type": "string"}))
            .answers(200, object([("network_ip_availability", row)]))
    }
}

/// Counts as they are shown.
#[derive(Clone, Copy, Default, Serialize)]
struct Details {
    total_ips_in_subnet: u128,
    total_ips_in_allocation_pool: u128,
    used_ips_in_subnet: u64,
    used_ips_in_allocation_pool: u64,
}

impl Details {
    fn plus(self, other: Self) -> Self {
        Self {
            total_ips_in_subnet: self.total_ips_in_subnet.saturating_add(other.total_ips_in_subnet),
            total_ips_in_allocation_pool: self
                .total_ips_in_allocation_pool
                .saturating_add(other.total_ips_in_allocation_pool),
            used_ips_in_subnet: self.used_ips_in_subnet + other.used_ips_in_subnet,
            used_ips_in_allocation_pool: self.used_ips_in_allocation_pool + other.used_ips_in_allocation_pool,
        }
    }
}

#[derive(Serialize)]
struct SubnetView<'a> {
    subnet_id: Id<Subnet>,
    subnet_name: &'a str,
    ip_version: u8,
    cidr: IpNet,
    used_ips: u64,
    total_ips: u128,
    ip_availability_details: Details,
}

impl<'a> SubnetView<'a> {
    fn new(state: &RegionState, subnet: &'a Subnet) -> Self {
        let counts = AddressCounts::of(state, subnet);
        Self {
            subnet_id: subnet.id,
            subnet_name: &subnet.standard.name,
            ip_version: version(subnet),
            cidr: subnet.cidr,
            used_ips: counts.used,
            // A subnet without ranges gives out nothing by itself, and everything by name: Neutron counts it all.
            total_ips: if subnet.allocation_pools.is_empty() {
                counts.all
            } else {
                counts.in_pools
            },
            ip_availability_details: Details {
                total_ips_in_subnet: counts.usable,
                total_ips_in_allocation_pool: counts.in_pools,
                used_ips_in_subnet: counts.used,
                used_ips_in_allocation_pool: counts.used_in_pools,
            },
        }
    }
}

fn version(subnet: &Subnet) -> u8 {
    match subnet.cidr {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 6,
    }
}

/// One network's counts, with the attributes that the client wants.
struct NetworkView<'a> {
    state: &'a RegionState,
    network: &'a Network,
    ip_versions: &'a [u8],
    fields: &'a [String],
}

impl Serialize for NetworkView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let subnets: Vec<SubnetView<'_>> = self
            .state
            .subnets_of(self.network.id)
            .filter(|subnet| self.ip_versions.is_empty() || self.ip_versions.contains(&version(subnet)))
            .map(|subnet| SubnetView::new(self.state, subnet))
            .collect();
        let total: u128 = subnets
            .iter()
            .fold(0, |sum, subnet| subnet.total_ips.saturating_add(sum));
        let used: u64 = subnets.iter().map(|subnet| subnet.used_ips).sum();
        let details = subnets.iter().fold(Details::default(), |sum, subnet| {
            sum.plus(subnet.ip_availability_details)
        });
        let wants = |name: &str| self.fields.is_empty() || self.fields.iter().any(|field| field == name);
        let project = &self.network.standard.project_id;
        let mut map = serializer.serialize_map(None)?;
        macro_rules! entry {
            ($name:literal, $value:expr) => {
                if wants($name) {
                    map.serialize_entry($name, $value)?;
                }
            };
        }
        entry!("network_id", &self.network.id);
        entry!("network_name", &self.network.standard.name);
        entry!("project_id", project);
        entry!("tenant_id", project);
        entry!("subnet_ip_availability", &subnets);
        entry!("used_ips", &used);
        entry!("total_ips", &total);
        entry!("ip_availability_details", &details);
        map.end()
    }
}

/// What a list is limited to; an empty list is no limit.
#[derive(Default)]
struct Wanted {
    networks: Vec<Option<Uuid>>,
    names: Vec<String>,
    projects: Vec<String>,
    ip_versions: Vec<u8>,
    fields: Vec<String>,
}

impl Wanted {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let mut wanted = Self::default();
        for (key, value) in pairs(uri)? {
            match key.as_str() {
                "network_id" => wanted.networks.push(Uuid::parse_str(&value).ok()),
                "network_name" => wanted.names.push(value),
                "project_id" | "tenant_id" => wanted.projects.push(value),
                // Zero is a family that no subnet has.
                "ip_version" => wanted.ip_versions.push(value.trim().parse().unwrap_or(0)),
                "fields" => wanted.fields.push(value),
                // Whatever else is asked for is no filter here, as in Neutron.
                _ => {}
            }
        }
        wanted.fields.retain(|field| !field.is_empty());
        Ok(wanted)
    }

    fn takes(&self, state: &RegionState, network: &Network) -> bool {
        let has_version = || {
            state
                .subnets_of(network.id)
                .any(|subnet| self.ip_versions.contains(&version(subnet)))
        };
        (self.networks.is_empty() || self.networks.contains(&Some(network.id.uuid())))
            && (self.names.is_empty() || self.names.contains(&network.standard.name))
            && (self.projects.is_empty() || self.projects.contains(&network.standard.project_id))
            && (self.ip_versions.is_empty() || has_version())
    }
}

/// Whether the counts of a network are for the caller: it must see the network, and the policy must say so.
fn sees(api: &ApiState, who: &Who, state: &RegionState, network: &Network) -> bool {
    let target = [("project_id", Attribute::text(&network.standard.project_id))];
    state.sees_network(&who.caller, network)
        && authorize_on(api, who, "get_network_ip_availability", &target).is_ok()
}

/// `GET /v2.0/network-ip-availabilities`, on a thread that may take its time: it looks at every network.
async fn list(State(api): State<ApiState>, who: Who, uri: Uri) -> Result<Response, ApiError> {
    let listing = tokio::task::spawn_blocking(move || list_now(&api, &who, &uri));
    listing
        .await
        .map_err(|_| ApiError::unavailable("The list could not be made.", 1))?
}

fn list_now(api: &ApiState, who: &Who, uri: &Uri) -> Result<Response, ApiError> {
    let wanted = Wanted::parse(uri)?;
    let snapshot = api.region().snapshot();
    let state = &snapshot.state;
    let candidates: Box<dyn Iterator<Item = &Arc<Network>>> = match wanted.networks.as_slice() {
        [] => Box::new(state.networks().iter()),
        named => Box::new(
            named
                .iter()
                .flatten()
                .filter_map(|id| state.networks().get(&Id::from_uuid(*id))),
        ),
    };
    let views: Vec<NetworkView<'_>> = candidates
        .filter(|network| sees(api, who, state, network) && wanted.takes(state, network))
        .take(api.config().max_page)
        .map(|network| NetworkView {
            state,
            network,
            ip_versions: &wanted.ip_versions,
            fields: &wanted.fields,
        })
        .collect();
    #[derive(Serialize)]
    struct Body<'a> {
        network_ip_availabilities: Vec<NetworkView<'a>>,
    }
    let body = Body {
        network_ip_availabilities: views,
    };
    respond(StatusCode::OK, &body)
}

/// `GET /v2.0/network-ip-availabilities/{id}`
async fn show(
    State(api): State<ApiState>,
    who: Who,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let wanted = Wanted::parse(&uri)?;
    let snapshot = api.region().snapshot();
    let state = &snapshot.state;
    let network = Uuid::parse_str(&id)
        .ok()
        .and_then(|uuid| state.networks().get(&Id::from_uuid(uuid)))
        .filter(|network| sees(&api, &who, state, network));
    let Some(network) = network else {
        let message = format!("Network {} could not be found.", parse::cut(&id));
        return Err(ApiError::new(StatusCode::NOT_FOUND, "NetworkNotFound", message));
    };
    #[derive(Serialize)]
    struct Body<'a> {
        network_ip_availability: NetworkView<'a>,
    }
    let body = Body {
        network_ip_availability: NetworkView {
            state,
            network,
            ip_versions: &[],
            fields: &wanted.fields,
        },
    };
    respond(StatusCode::OK, &body)
}
