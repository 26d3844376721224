//! `/v2.0/ports`

use std::collections::HashSet;

use alcor_model::{
    Id, Port, Revision, SecurityGroup,
    resource::{Binding, DataPlaneStatus, Standard},
};
use alcor_region::{
    RegionState,
    command::{PortCreate, PortUpdate, StandardUpdate},
    port::dns,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Resource, Rows, View, Walk, attribute_table, lookup,
    port_attributes::{DATA_PLANE_STATUS, DHCP_OPTIONS, DNS_DOMAIN, data_plane_status, dhcp_options},
    port_binding, standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Custom, Given},
    error::ApiError,
    parse::{Parsed, shown},
    query::ListQuery,
    router::Route,
};

/// Longest `binding:profile` as JSON, in bytes (Neutron's limit).
pub(super) const MAX_PROFILE_BYTES: usize = 4_095;

/// `null` as the host means "none": Nova unplugs so.
fn host(given: &mut Given) -> Option<String> {
    given
        .get_nullable::<String>("binding:host_id")
        .map(Option::unwrap_or_default)
}

/// Security groups, by id.
static SECURITY_GROUPS: Custom = Custom {
    name: "array",
    parse: security_groups,
    schema: || {
        json!({
            "type": ["array", "null"],
            "items": {"type": "string", "format": "uuid"},
            "maxItems": Port::MAX_SECURITY_GROUPS,
        })
    },
};

/// A list of different UUIDs; `null` is the empty list.
fn security_groups(name: &str, value: Value) -> Result<Option<Parsed>, ApiError> {
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let list = match value {
        Value::Null => Vec::new(),
        Value::Array(list) if list.len() <= Port::MAX_SECURITY_GROUPS => list,
        Value::Array(list) => {
            return Err(fail(format!(
                "{} elements are more than the limit of {}",
                list.len(),
                Port::MAX_SECURITY_GROUPS
            )));
        }
        other => return Err(fail(format!("'{}' is not a list", shown(&other)))),
    };
    let mut seen = HashSet::with_capacity(list.len());
    for item in &list {
        let id = item
            .as_str()
            .and_then(|text| Uuid::parse_str(text).ok())
            .ok_or_else(|| fail(format!("'{}' is not a valid UUID", shown(item))))?;
        if !seen.insert(id) {
            return Err(fail(format!("Duplicate items in the list: '{}'", shown(item))));
        }
    }
    Ok(Some(Parsed::Json(Value::Array(list))))
}

fn groups(given: &mut Given) -> Option<Vec<Id<SecurityGroup>>> {
    let list = given.get::<Value>("security_groups")?;
    Some(
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item.as_str()?.parse().ok())
            .collect(),
    )
}

impl Resource for Port {
    const SINGULAR: &'static str = "port";
    const PLURAL: &'static str = "ports";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        tags in POST Port,
        [
            Attribute::new("network_id", Kind::Uuid, |v: &V| Field::Uuid(
                v.row.network_id.uuid()
            ))
            .required()
            .listed(),
            Attribute::new("admin_state_up", Kind::Bool, |v: &V| Field::Bool(
                v.row.admin_state_up
            ))
            .writable()
            .listed(),
            Attribute::new("status", Kind::Text(16), |v: &V| Field::Text(
                v.snapshot.state.port_status(&v.row).0.as_str()
            ))
            .listed(),
            Attribute::new("mac_address", Kind::Mac, |v: &V| Field::Mac(v.row.mac_address))
                .writable()
                .listed(),
            Attribute::new("fixed_ips", Kind::FixedIps, |v: &V| Field::FixedIps(
                &v.row.fixed_ips
            ))
            .writable()
            .filterable(),
            Attribute::new("allowed_address_pairs", Kind::AddressPairs, |v: &V| Field::Pairs(
                &v.row.allowed_address_pairs
            ))
            .writable(),
            Attribute::new("device_id", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.device_id
            ))
            .writable()
            .listed(),
            Attribute::new("device_owner", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.device_owner
            ))
            .writable()
            .listed(),
            Attribute::new("port_security_enabled", Kind::Bool, |v: &V| Field::Bool(
                v.row.port_security_enabled
            ))
            .writable()
            .listed(),
            Attribute::new("security_groups", Kind::Custom(&SECURITY_GROUPS), |v: &V| {
                Field::Uuids(v.row.security_groups.iter().map(|group| group.uuid()).collect())
            })
            .writable()
            .filterable(),
            Attribute::new("dns_name", Kind::DnsName, |v: &V| Field::Text(&v.row.dns_name))
                .writable()
                .filterable(),
            Attribute::new("dns_domain", Kind::Custom(&DNS_DOMAIN), |v: &V| Field::Text(
                &v.row.dns_domain
            ))
            .writable()
            .filterable(),
            Attribute::new("dns_assignment", Kind::ShownList, |v: &V| Field::DnsAssignments(
                dns::assignments(&v.row, &v.config.dns_domain)
            )),
            Attribute::new("extra_dhcp_opts", Kind::Custom(&DHCP_OPTIONS), |v: &V| {
                Field::DhcpOptions(&v.row.extra_dhcp_opts)
            })
            .writable(),
            Attribute::new("data_plane_status", Kind::Custom(&DATA_PLANE_STATUS), |v: &V| {
                Field::from(v.row.data_plane_status.map(DataPlaneStatus::as_str))
            })
            .changeable(),
            Attribute::new("ip_allocation", Kind::Text(16), |v: &V| Field::Text(
                if v.row.unaddressed { "none" } else { "immediate" }
            ))
            .listed(),
            Attribute::new(
                "binding:host_id",
                Kind::TextOrNull(MAX_TEXT),
                |v: &V| Field::Text(&v.row.binding.host_id)
            )
            .writable()
            .listed(),
            Attribute::new("binding:vif_type", Kind::Text(MAX_TEXT), |v: &V| {
                Field::Text(v.row.binding.vif_type())
            })
            .filterable(),
            Attribute::new("binding:vif_details", Kind::ShownObject, |v: &V| {
                Field::VifDetails(v.row.is_bound())
            }),
            Attribute::new("binding:vnic_type", Kind::OneOf(Binding::VNIC_TYPES), |v: &V| {
                Field::Text(&v.row.binding.vnic_type)
            })
            .writable()
            .filterable(),
            Attribute::new("binding:profile", Kind::Object(MAX_PROFILE_BYTES), |v: &V| {
                Field::Object(&v.row.binding.profile)
            })
            .writable(),
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
        lookup::ports(state, query, walk)
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        let Some(network_id) = given.get::<Uuid>("network_id") else {
            return Err(ApiError::bad_request(
                "Failed to parse request. Required attribute 'network_id' not specified",
            ));
        };
        Ok(PortCreate {
            standard: standard_create(given)?,
            network_id: Id::from_uuid(network_id),
            mac_address: given.get("mac_address"),
            fixed_ips: given.get("fixed_ips"),
            allowed_address_pairs: given.get("allowed_address_pairs").unwrap_or_default(),
            admin_state_up: given.get("admin_state_up"),
            device_id: given.get("device_id").unwrap_or_default(),
            device_owner: given.get("device_owner").unwrap_or_default(),
            port_security_enabled: given.get("port_security_enabled"),
            security_groups: groups(given),
            dns_name: given.get("dns_name").unwrap_or_default(),
            binding_host_id: host(given).unwrap_or_default(),
            binding_vnic_type: given.get("binding:vnic_type"),
            binding_profile: given.get("binding:profile"),
            dns_domain: given.get("dns_domain").unwrap_or_default(),
            extra_dhcp_opts: dhcp_options(given),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(PortUpdate {
            standard: standard_update(given),
            mac_address: given.get_nullable("mac_address"),
            fixed_ips: given.get("fixed_ips"),
            allowed_address_pairs: given.get("allowed_address_pairs"),
            admin_state_up: given.get("admin_state_up"),
            device_id: given.get("device_id"),
            device_owner: given.get("device_owner"),
            port_security_enabled: given.get("port_security_enabled"),
            security_groups: groups(given),
            dns_name: given.get("dns_name"),
            binding_host_id: host(given),
            binding_vnic_type: given.get("binding:vnic_type"),
            binding_profile: given.get("binding:profile"),
            dns_domain: given.get("dns_domain"),
            extra_dhcp_opts: dhcp_options(given),
            data_plane_status: data_plane_status(given),
        })
    }

    fn awaited(&self) -> Option<(Id<Port>, Revision)> {
        self.is_bound().then_some((self.id, self.revision))
    }

    fn extra_routes() -> Vec<Route> {
        port_binding::routes()
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        PortUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}
