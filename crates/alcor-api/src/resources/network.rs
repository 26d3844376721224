//! `/v2.0/networks`

use alcor_model::{
    Id, Network, Vni,
    resource::{SharedType, Standard},
};
use alcor_region::{
    RegionState,
    command::{Caller, NetworkCreate, NetworkUpdate, StandardUpdate},
};

use super::{
    Resource, Rows, View, Walk, attribute_table,
    availability_zone::{HINTS, zones_of},
    lookup, standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Given},
    error::ApiError,
    field::Field,
};

/// The client's MTU; 0 means "choose" as in Neutron.
fn mtu(given: &mut Given) -> Option<u16> {
    match given.get::<u64>("mtu") {
        None | Some(0) => None,
        // The table's range ends at 65535.
        Some(mtu) => u16::try_from(mtu).ok(),
    }
}

/// The address scope of the network's subnets of a family: that of the pool they were taken from.
fn scope(view: &View<Network>, ipv6: bool) -> Field<'_> {
    let state = &view.snapshot.state;
    let scope = state
        .subnets_of(view.row.id)
        .filter(|subnet| subnet.cidr.addr().is_ipv6() == ipv6)
        .filter_map(|subnet| subnet.subnetpool_id)
        .filter_map(|pool| state.subnet_pools().get(&pool))
        .find_map(|pool| pool.address_scope_id);
    Field::from(scope.map(Id::uuid))
}

impl Resource for Network {
    const SINGULAR: &'static str = "network";
    const PLURAL: &'static str = "networks";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        Network,
        [
            Attribute::new("admin_state_up", Kind::Bool, |v: &V| Field::Bool(
                v.row.admin_state_up
            ))
            .writable()
            .listed(),
            Attribute::new("status", Kind::Text(16), |v: &V| Field::Text(
                if v.row.admin_state_up { "ACTIVE" } else { "DOWN" }
            ))
            .listed(),
            Attribute::new("subnets", Kind::ShownUuids, |v: &V| Field::Uuids(
                v.snapshot
                    .state
                    .subnets_of(v.row.id)
                    .map(|subnet| subnet.id.uuid())
                    .collect()
            )),
            Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(
                v.is_shared(SharedType::Network, v.row.id.uuid())
            ))
            .writable()
            .listed(),
            Attribute::new("mtu", Kind::Int(0, 65_535), |v: &V| Field::Int(v.row.mtu.into()))
                .writable()
                .listed(),
            Attribute::new("port_security_enabled", Kind::Bool, |v: &V| Field::Bool(
                v.row.port_security_enabled
            ))
            .writable()
            .listed(),
            Attribute::new("router:external", Kind::Bool, |v: &V| Field::Bool(v.row.external))
                .writable()
                .filterable(),
            Attribute::new("is_default", Kind::Bool, |v: &V| Field::Bool(v.row.is_default))
                .writable()
                .filterable(),
            Attribute::new("availability_zone_hints", Kind::Custom(&HINTS), |v: &V| {
                Field::Texts(&v.row.availability_zone_hints)
            })
            .post(),
            Attribute::new("availability_zones", Kind::ShownTexts, |v: &V| zones_of(
                &v.snapshot.state
            )),
            Attribute::new("l2_adjacency", Kind::Bool, |_: &V| Field::Bool(true)).filterable(),
            Attribute::new("ipv4_address_scope", Kind::UuidOrNull, |v: &V| scope(v, false)),
            Attribute::new("ipv6_address_scope", Kind::UuidOrNull, |v: &V| scope(v, true)),
            Attribute::new("provider:network_type", Kind::OneOf(&["vxlan"]), |_: &V| {
                Field::Text("vxlan")
            })
            .post()
            .filterable(),
            Attribute::new("provider:physical_network", Kind::OnlyNull, |_: &V| Field::Null)
                .post()
                .filterable(),
            Attribute::new(
                "provider:segmentation_id",
                Kind::IntOrNull(1, Vni::MAX as u64),
                |v: &V| { Field::Int(v.row.segmentation_id.get().into()) }
            )
            .post()
            .listed(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn seen_by<'a>(state: &'a RegionState, caller: &Caller, walk: Walk) -> Option<Rows<'a, Self>> {
        lookup::seen(caller, walk, state.networks(), |project| {
            state.networks_seen_by(project)
        })
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        Ok(NetworkCreate {
            standard: standard_create(given)?,
            admin_state_up: given.get("admin_state_up"),
            mtu: mtu(given),
            shared: given.get("shared"),
            port_security_enabled: given.get("port_security_enabled"),
            // The table's range is a VNI's, so nothing is lost here.
            segmentation_id: given
                .get::<u64>("provider:segmentation_id")
                .and_then(|vni| u32::try_from(vni).ok())
                .and_then(|vni| Vni::try_from(vni).ok()),
            external: given.get("router:external"),
            is_default: given.get("is_default"),
            availability_zone_hints: given.get("availability_zone_hints").unwrap_or_default(),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(NetworkUpdate {
            standard: standard_update(given),
            admin_state_up: given.get("admin_state_up"),
            mtu: mtu(given),
            shared: given.get("shared"),
            port_security_enabled: given.get("port_security_enabled"),
            external: given.get("router:external"),
            is_default: given.get("is_default"),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        NetworkUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}
