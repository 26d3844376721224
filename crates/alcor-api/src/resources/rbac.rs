//! `/v2.0/rbac-policies`

use alcor_model::resource::{Access, RbacPolicy, SharedType, Standard};
use alcor_region::rbac::{RbacPolicyCreate, RbacPolicyUpdate};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Resource, View, attribute_table, standard_create};
use crate::{
    attributes::{Attribute, Custom, Given},
    error::ApiError,
    parse::{Parsed, shown},
};

const ACTIONS: &[&str] = &[Access::AccessAsShared.as_str(), Access::AccessAsExternal.as_str()];

/// Longest name of a project (Neutron's limit).
const MAX_PROJECT: usize = 255;

/// A type of objects; any case and surrounding space, as Neutron reads it.
static OBJECT_TYPE: Custom = Custom {
    name: "string",
    parse: |_, value| {
        let kind = value
            .as_str()
            .and_then(|text| SharedType::parse(&text.trim().to_lowercase()));
        match kind {
            Some(kind) => Ok(Some(Parsed::Text(kind.as_str().to_owned()))),
            None => Err(ApiError::invalid_input(&format!(
                "'{}' is not a valid RBAC object type",
                shown(&value)
            ))),
        }
    },
    schema: || json!({"type": "string", "enum": SharedType::ALL.map(SharedType::as_str)}),
};

/// A project (a UUID, with or without hyphens), or `*`.
static TARGET: Custom = Custom {
    name: "string",
    parse: |_, value| match value {
        Value::String(text) if is_target(&text) => Ok(Some(Parsed::Text(text))),
        other => Err(ApiError::invalid_input(&format!(
            "'{}' is not a valid target project ID; expected a UUID or '*'",
            shown(&other)
        ))),
    },
    schema: || json!({"type": "string", "maxLength": MAX_PROJECT}),
};

fn is_target(text: &str) -> bool {
    text == RbacPolicy::EVERYBODY || Uuid::parse_str(text).is_ok()
}

fn missing(name: &str) -> ApiError {
    ApiError::bad_request(format!(
        "Failed to parse request. Required attribute '{name}' not specified"
    ))
}

impl Resource for RbacPolicy {
    const SINGULAR: &'static str = "rbac_policy";
    const PLURAL: &'static str = "rbac_policies";
    const PATH: &'static str = "rbac-policies";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        bare RbacPolicy,
        [
            Attribute::new("object_type", Kind::Custom(&OBJECT_TYPE), |v: &V| Field::Text(
                v.row.object_type.as_str()
            ))
            .required()
            .listed(),
            Attribute::new("object_id", Kind::Uuid, |v: &V| Field::Uuid(v.row.object_id))
                .required()
                .listed(),
            Attribute::new("target_tenant", Kind::Custom(&TARGET), |v: &V| Field::Text(
                &v.row.target_project
            ))
            .required()
            .writable()
            .listed(),
            Attribute::new("action", Kind::OneOf(ACTIONS), |v: &V| Field::Text(
                v.row.action.as_str()
            ))
            .required()
            .listed(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let given = &mut given;
        let object_type = given
            .get::<String>("object_type")
            .and_then(|text| SharedType::parse(&text));
        let action = match given.get::<String>("action").as_deref() {
            Some("access_as_shared") => Some(Access::AccessAsShared),
            Some("access_as_external") => Some(Access::AccessAsExternal),
            _ => None,
        };
        Ok(RbacPolicyCreate {
            standard: standard_create(given)?,
            object_type: object_type.ok_or_else(|| missing("object_type"))?,
            object_id: given.get("object_id").ok_or_else(|| missing("object_id"))?,
            action: action.ok_or_else(|| missing("action"))?,
            target_project: given
                .get("target_tenant")
                .ok_or_else(|| missing("target_tenant"))?,
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        Ok(RbacPolicyUpdate {
            target_project: given.get("target_tenant"),
        })
    }

    fn update_of_tags(_: Vec<String>) -> Self::Update {
        RbacPolicyUpdate::default()
    }
}
