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
use uuid::Uuid;

use super::{Resource, Rows, View, Walk, attribute_table, lookup, standard_create, standard_update};
use crate::{
    attributes::{Attribute, Given},
    error::ApiError,
    field::Field,
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

fn bad_request(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "BadRequest", message)
}

/// The block, which must be of the family that the client says.
fn cidr(given: &mut Given) -> Result<IpNet, ApiError> {
    let Some(cidr) = given.get::<IpNet>("cidr") else {
        return Err(bad_request(
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
        ));
    };
    match given.get::<u64>("ip_version") {
        Some(wanted) if wanted != version(&cidr) => Err(ApiError::invalid_input(&format!(
            "cidr '{cidr}' does not match the ip_version '{wanted}'"
        ))),
        _ => Ok(cidr),
    }
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
                v.snapshot.state.shared_with(
                    SharedType::Network,
                    v.row.network_id.uuid(),
                    &v.caller.project_id
                )
            ))
            .filterable()
            .hidden(),
            Attribute::new("subnetpool_id", Kind::OnlyNull, |_: &V| Field::Null)
                .post()
                .filterable(),
            Attribute::new("prefixlen", Kind::OnlyNull, |_: &V| Field::Null)
                .post()
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
            cidr: cidr(given)?,
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
