//! `/v2.0/subnets`

use alcor_model::{
    Id, Subnet,
    resource::{Ipv6Mode, SharedType, Standard},
};
use alcor_region::{
    RegionState,
    command::{Caller, StandardUpdate, SubnetCreate, SubnetUpdate},
};
use http::StatusCode;
use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

use super::{
    MAX_TEXT, Resource, Rows, View, Walk, attribute_table, lookup, standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Custom, Given},
    error::ApiError,
    field::Field,
    openapi::schema,
    parse::{Parsed, shown},
    query::ListQuery,
};

const IPV6_MODES: &[&str] = &["slaac", "dhcpv6-stateless", "dhcpv6-stateful"];

fn mode_from(text: &str) -> Option<Ipv6Mode> {
    match text {
        "slaac" => Some(Ipv6Mode::Slaac),
        "dhcpv6-stateless" => Some(Ipv6Mode::Dhcpv6Stateless),
        "dhcpv6-stateful" => Some(Ipv6Mode::Dhcpv6Stateful),
        _ => None,
    }
}

fn mode_field<'a>(mode: Option<Ipv6Mode>) -> Field<'a> {
    Field::from(mode.map(|mode| match mode {
        Ipv6Mode::Slaac => "slaac",
        Ipv6Mode::Dhcpv6Stateless => "dhcpv6-stateless",
        Ipv6Mode::Dhcpv6Stateful => "dhcpv6-stateful",
    }))
}

const fn version(cidr: &IpNet) -> u64 {
    match cidr {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 6,
    }
}

/// Kinds of ports that a subnet can be for.
const MAX_SERVICE_TYPES: usize = 32;

/// Kinds of ports (`device_owner`).
static SERVICE_TYPES: Custom = Custom {
    name: "array",
    parse: |name, value| match &value {
        Value::Null => Ok(None),
        Value::Array(list) if list.len() > MAX_SERVICE_TYPES => Err(ApiError::invalid_attribute(
            name,
            &format!("more than {MAX_SERVICE_TYPES} types"),
        )),
        Value::Array(list) => {
            let bad = list
                .iter()
                .find(|item| !item.as_str().is_some_and(is_device_owner));
            match bad {
                Some(item) => Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "InvalidSubnetServiceType",
                    format!(
                        "Subnet service type {} does not correspond to a valid device owner.",
                        shown(item)
                    ),
                )),
                None => Ok(Some(Parsed::Json(value))),
            }
        }
        _ => Err(ApiError::bad_request("Subnet service types must be a list.")),
    },
    schema: || schema::list(schema::text(MAX_TEXT)),
};

/// A group and a kind in it, such as `compute:nova`.
fn is_device_owner(text: &str) -> bool {
    text.chars().count() <= MAX_TEXT && text.split_once(':').is_some_and(|(group, _)| !group.is_empty())
}

fn service_types(given: &mut Given) -> Option<Vec<String>> {
    let value = given.get::<Value>("service_types")?;
    serde_json::from_value(value).ok()
}

impl Resource for Subnet {
    const SINGULAR: &'static str = "subnet";
    const PLURAL: &'static str = "subnets";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        Subnet,
        [
            Attribute::new("network_id", Kind::Uuid, |v: &V| Field::Uuid(
                v.row.network_id.uuid()
            ))
            .required()
            .listed(),
            Attribute::new("ip_version", Kind::OneOfInt(&[4, 6]), |v: &V| Field::Int(
                version(&v.row.cidr)
            ))
            .required()
            .listed(),
            Attribute::new("cidr", Kind::Cidr, |v: &V| Field::Cidr(v.row.cidr))
                .post()
                .listed(),
            Attribute::new("gateway_ip", Kind::IpOrNull, |v: &V| Field::from(
                v.row.gateway_ip
            ))
            .writable()
            .listed(),
            Attribute::new("allocation_pools", Kind::Pools, |v: &V| Field::Pools(
                &v.row.allocation_pools
            ))
            .writable(),
            Attribute::new("enable_dhcp", Kind::Bool, |v: &V| Field::Bool(v.row.enable_dhcp))
                .writable()
                .listed(),
            Attribute::new("dns_nameservers", Kind::Ips, |v: &V| Field::Ips(
                &v.row.dns_nameservers
            ))
            .writable(),
            Attribute::new("host_routes", Kind::HostRoutes, |v: &V| Field::Routes(
                &v.row.host_routes
            ))
            .writable(),
            Attribute::new("ipv6_address_mode", Kind::OneOf(IPV6_MODES), |v: &V| mode_field(
                v.row.ipv6_address_mode
            ))
            .post()
            .filterable(),
            Attribute::new("ipv6_ra_mode", Kind::OneOf(IPV6_MODES), |v: &V| mode_field(
                v.row.ipv6_ra_mode
            ))
            .post()
            .filterable(),
            Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(
                v.is_shared(SharedType::Network, v.row.network_id.uuid())
            ))
            .filterable()
            .hidden(),
            Attribute::new("subnetpool_id", Kind::UuidOrNull, |v: &V| Field::from(
                v.row.subnetpool_id.map(Id::uuid)
            ))
            .post()
            .listed(),
            Attribute::new("use_default_subnetpool", Kind::Bool, |_: &V| Field::Null)
                .post()
                .hidden(),
            Attribute::new("prefixlen", Kind::IntOrNull(0, 128), |_: &V| Field::Null)
                .post()
                .hidden(),
            Attribute::new("service_types", Kind::Custom(&SERVICE_TYPES), |v: &V| {
                Field::Texts(&v.row.service_types)
            })
            .writable(),
            Attribute::new("segment_id", Kind::OnlyNull, |_: &V| Field::Null)
                .post()
                .filterable(),
            Attribute::new("dns_publish_fixed_ip", Kind::Bool, |v: &V| Field::Bool(
                v.row.dns_publish_fixed_ip
            ))
            .writable(),
            Attribute::new("router:external", Kind::Bool, |v: &V| Field::Bool(
                v.snapshot
                    .state
                    .networks()
                    .get(&v.row.network_id)
                    .is_some_and(|network| network.external)
            ))
            .filterable(),
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
        lookup::subnets(state, query, walk)
    }
    fn seen_by<'a>(state: &'a RegionState, caller: &Caller, walk: Walk) -> Option<Rows<'a, Self>> {
        lookup::seen_subnets(state, caller, walk)
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        let Some(network_id) = given.get::<Uuid>("network_id") else {
            return Err(ApiError::bad_request(
                "Failed to parse request. Required attribute 'network_id' not specified",
            ));
        };
        Ok(SubnetCreate {
            standard: standard_create(given)?,
            network_id: Id::from_uuid(network_id),
            // The table takes nothing but 4 and 6, and wants one of them.
            ip_version: if given.get("ip_version") == Some(6u64) {
                6
            } else {
                4
            },
            cidr: given.get("cidr"),
            prefixlen: given.get("prefixlen"),
            subnetpool_id: given.get("subnetpool_id").map(Id::from_uuid),
            use_default_subnetpool: given.get("use_default_subnetpool").unwrap_or(false),
            service_types: service_types(given).unwrap_or_default(),
            dns_publish_fixed_ip: given.get("dns_publish_fixed_ip"),
            gateway_ip: given.get_nullable("gateway_ip"),
            allocation_pools: given.get("allocation_pools"),
            dns_nameservers: given.get("dns_nameservers").unwrap_or_default(),
            host_routes: given.get("host_routes").unwrap_or_default(),
            enable_dhcp: given.get("enable_dhcp"),
            ipv6_address_mode: given
                .get::<String>("ipv6_address_mode")
                .and_then(|mode| mode_from(&mode)),
            ipv6_ra_mode: given
                .get::<String>("ipv6_ra_mode")
                .and_then(|mode| mode_from(&mode)),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(SubnetUpdate {
            standard: standard_update(given),
            gateway_ip: given.get_nullable("gateway_ip"),
            allocation_pools: given.get("allocation_pools"),
            dns_nameservers: given.get("dns_nameservers"),
            host_routes: given.get("host_routes"),
            enable_dhcp: given.get("enable_dhcp"),
            service_types: service_types(given),
            dns_publish_fixed_ip: given.get("dns_publish_fixed_ip"),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        SubnetUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}
