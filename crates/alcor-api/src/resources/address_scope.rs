//! `/v2.0/address-scopes`

use alcor_model::{
    AddressScope,
    resource::{SharedType, Standard},
};
use alcor_region::{
    RegionState,
    address_scope::{AddressScopeCreate, AddressScopeUpdate},
    command::Caller,
};

use super::{Resource, Rows, View, Walk, attribute_table, lookup, standard_create, standard_update};
use crate::{
    attributes::{Attribute, Given},
    error::ApiError,
};

impl Resource for AddressScope {
    const SINGULAR: &'static str = "address_scope";
    const PLURAL: &'static str = "address_scopes";
    const PATH: &'static str = "address-scopes";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        bare AddressScope,
        [
            Attribute::new("name", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.standard.name
            ))
            .writable()
            .listed(),
            Attribute::new("ip_version", Kind::OneOfInt(&[4, 6]), |v: &V| Field::Int(
                v.row.ip_version.into()
            ))
            .required()
            .listed(),
            Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(v.is_shared(
                SharedType::AddressScope,
                v.row.id.uuid()
            )))
            .writable()
            .listed(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn seen_by<'a>(state: &'a RegionState, caller: &Caller, walk: Walk) -> Option<Rows<'a, Self>> {
        lookup::seen(caller, walk, state.address_scopes(), |project| {
            state.scopes_seen_by(project)
        })
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        Ok(AddressScopeCreate {
            standard: standard_create(given)?,
            // The table takes nothing but 4 and 6, and wants one of them.
            ip_version: if given.get("ip_version") == Some(6u64) {
                6
            } else {
                4
            },
            shared: given.get("shared").unwrap_or(false),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        let given = &mut given;
        Ok(AddressScopeUpdate {
            standard: standard_update(given),
            shared: given.get("shared"),
        })
    }

    fn update_of_tags(_: Vec<String>) -> Self::Update {
        AddressScopeUpdate::default()
    }
}
