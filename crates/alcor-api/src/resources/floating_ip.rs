//! `/v2.0/floatingips` and `/v2.0/floatingip_pools`

use alcor_model::{
    FloatingIp, Id, PortForwarding,
    resource::{PortRange, Standard},
};
use alcor_region::{
    RegionState,
    command::StandardUpdate,
    floating_ip::{AssociationRequest, FloatingIpCreate, FloatingIpUpdate},
};
use axum::{extract::State, response::Response, routing::get};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Resource, View, attribute_table,
    handlers::{Wrapped, pairs, respond},
    standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Custom, Given},
    auth::Who,
    authorize::authorize_on,
    error::ApiError,
    openapi::schema::{self, nullable, object},
    parse,
    router::{Route, route},
    state::ApiState,
};

/// A port as a floating IP shows it; nobody sets it.
static PORT_DETAILS: Custom = Custom {
    name: "object",
    parse: |name, value| {
        let reason = format!("'{}' cannot be set", parse::shown(&value));
        Err(ApiError::invalid_attribute(name, &reason))
    },
    schema: || {
        let text = || json!({"type": "string"});
        nullable(object([
            ("name", text()),
            ("network_id", schema::uuid()),
            ("mac_address", text()),
            ("admin_state_up", json!({"type": "boolean"})),
            ("status", text()),
            ("device_id", text()),
            ("device_owner", text()),
        ]))
    },
};

/// The port that a floating IP leads to, as Neutron shows it there.
fn port_details(floating_ip: &FloatingIp, state: &RegionState) -> Value {
    let port = floating_ip
        .association
        .and_then(|association| state.ports().get(&association.port_id));
    let Some(port) = port else {
        return Value::Null;
    };
    json!({
        "name": port.standard.name,
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": state.port_status(port).0,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    })
}

/// A port forwarding as a floating IP shows it: ranges of several ports are not in it.
fn short_forwarding(forwarding: &PortForwarding) -> Value {
    let mut value = json!({
        "id": forwarding.id,
        "protocol": forwarding.protocol,
        "internal_ip_address": forwarding.internal_ip_address,
        "internal_port_id": forwarding.internal_port_id,
    });
    for (name, range) in [
        ("internal_port", forwarding.internal),
        ("external_port", forwarding.external),
    ] {
        if let Some(port) = PortRange::single(range) {
            value[name] = json!(port);
        }
    }
    value
}

/// What the client says of where the floating IP leads.
fn association(given: &mut Given) -> AssociationRequest {
    AssociationRequest {
        port_id: given
            .get_nullable::<Uuid>("port_id")
            .map(|port| port.map(Id::from_uuid)),
        fixed_ip_address: given.get("fixed_ip_address"),
        router_id: given.get::<Uuid>("router_id").map(Id::from_uuid),
    }
}

impl Resource for FloatingIp {
    const SINGULAR: &'static str = "floatingip";
    const PLURAL: &'static str = "floatingips";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        unnamed FloatingIp,
        [
            Attribute::new("floating_network_id", Kind::Uuid, |v: &V| Field::Uuid(
                v.row.floating_network_id.uuid()
            ))
            .required()
            .listed(),
            Attribute::new("floating_ip_address", Kind::IpOrNull, |v: &V| Field::Ip(
                v.row.floating_ip_address
            ))
            .post()
            .listed(),
            Attribute::new("subnet_id", Kind::UuidOrNull, |_: &V| Field::Null)
                .post()
                .hidden(),
            Attribute::new("router_id", Kind::UuidOrNull, |v: &V| Field::from(
                v.row.router_id.map(Id::uuid)
            ))
            .writable()
            .listed(),
            Attribute::new("port_id", Kind::UuidOrNull, |v: &V| Field::from(
                v.row.association.map(|association| association.port_id.uuid())
            ))
            .writable()
            .listed(),
            Attribute::new("fixed_ip_address", Kind::IpOrNull, |v: &V| Field::from(
                v.row.association.map(|association| association.fixed_ip_address)
            ))
            .writable()
            .listed(),
            Attribute::new("status", Kind::Text(16), |v: &V| Field::Text(match v.row.in_force {
                true => "ACTIVE",
                false => "DOWN",
            }))
            .listed(),
            Attribute::new("port_details", Kind::Custom(&PORT_DETAILS), |v: &V| Field::Json(
                port_details(&v.row, &v.snapshot.state)
            )),
            Attribute::new("dns_name", Kind::DnsName, |v: &V| Field::Text(&v.row.dns_name)).post(),
            Attribute::new("dns_domain", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.dns_domain
            ))
            .post(),
            Attribute::new("qos_policy_id", Kind::OnlyNull, |_: &V| Field::Null).writable(),
            Attribute::new("port_forwardings", Kind::ShownList, |v: &V| Field::Json(
                v.snapshot
                    .state
                    .port_forwardings_of(v.row.id)
                    .map(|forwarding| short_forwarding(forwarding))
                    .collect()
            )),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        let Some(network) = given.get::<Uuid>("floating_network_id") else {
            return Err(ApiError::bad_request(
                "Failed to parse request. Required attribute 'floating_network_id' not specified",
            ));
        };
        Ok(FloatingIpCreate {
            standard: standard_create(given)?,
            floating_network_id: Id::from_uuid(network),
            subnet_id: given.get::<Uuid>("subnet_id").map(Id::from_uuid),
            floating_ip_address: given.get("floating_ip_address"),
            association: association(given),
            dns_name: given.get("dns_name").unwrap_or_default(),
            dns_domain: given.get("dns_domain").unwrap_or_default(),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        // A change of nothing ends the association: once a floating IP had nothing else to change.
        let ends = given.is_empty();
        let mut association = association(given);
        if ends {
            association.port_id = Some(None);
        }
        Ok(FloatingIpUpdate {
            standard: standard_update(given),
            association,
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        FloatingIpUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn extra_routes() -> Vec<Route> {
        vec![route(Method::GET, "/v2.0/floatingip_pools", get(pools)).doc(doc::pools)]
    }
}

/// What the API's document says.
mod doc {
    use serde_json::json;

    use super::POOL_FIELDS;
    use crate::openapi::{
        Operation,
        schema::{cidr, list, object, uuid},
    };

    pub(super) fn pools() -> Operation {
        let text = || json!({"type": "string"});
        let mut pool = object([
            ("subnet_id", uuid()),
            ("subnet_name", text()),
            ("network_id", uuid()),
            ("cidr", cidr()),
            ("project_id", text()),
            ("tenant_id", text()),
        ]);
        // `fields` leaves out what the client does not want.
        pool["required"] = json!([]);
        Operation::new("Lists the subnets that floating IPs come from")
            .query("fields", list(json!({"enum": POOL_FIELDS})))
            .answers(200, object([("floatingip_pools", list(pool))]))
    }
}

/// The attributes of a pool.
const POOL_FIELDS: [&str; 6] = [
    "subnet_id",
    "subnet_name",
    "network_id",
    "cidr",
    "project_id",
    "tenant_id",
];

/// `GET /v2.0/floatingip_pools`: the IPv4 subnets of the external networks that the caller sees. Neither filters nor
/// pages, as in Neutron.
async fn pools(State(api): State<ApiState>, who: Who, uri: Uri) -> Result<Response, ApiError> {
    let caller = &who.caller;
    authorize_on(
        &api,
        &who,
        "get_floatingip_pool",
        &[("project_id", alcor_policy::Value::text(&caller.project_id))],
    )?;
    let query = pairs(&uri)?;
    if let Some((key, _)) = query.iter().find(|(key, _)| key != "fields") {
        return Err(ApiError::bad_request(format!(
            "['{}'] is invalid attribute for filtering",
            parse::cut(key)
        )));
    }
    let names: Vec<&str> = query.iter().map(|(_, name)| name.as_str()).collect();
    let shown = |name: &str| names.is_empty() || names.contains(&name);
    let snapshot = api.region().snapshot();
    let state = &snapshot.state;
    let pools: Vec<Value> = state
        .networks()
        .iter()
        .filter(|network| state.is_external(network) && state.sees_network(caller, network))
        .flat_map(|network| state.subnets_of(network.id))
        .filter(|subnet| subnet.cidr.addr().is_ipv4())
        .map(|subnet| {
            let values = [
                json!(subnet.id),
                json!(subnet.standard.name),
                json!(subnet.network_id),
                json!(subnet.cidr),
                json!(caller.project_id),
                json!(caller.project_id),
            ];
            POOL_FIELDS
                .into_iter()
                .zip(values)
                .filter(|(name, _)| shown(name))
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        })
        .collect();
    respond(StatusCode::OK, &Wrapped("floatingip_pools", pools))
}
