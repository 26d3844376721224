//! `/v2.0/security-groups`

use std::sync::Arc;

use alcor_model::{
    SecurityGroup, SecurityGroupRule,
    resource::{SharedType, Standard},
};
use alcor_region::{
    Region, RegionState,
    command::{Caller, StandardUpdate},
    security_group::{SecurityGroupCreate, SecurityGroupUpdate, ensure_default},
};
use serde_json::Value;

use super::{Resource, Rows, View, ViewJson, Walk, attribute_table, standard_create, standard_update};
use crate::{
    attributes::{Attribute, Given},
    error::ApiError,
    field::Field,
    query::Fields,
};

/// The group's rules, each as its own resource shows it.
fn rules(view: &View<SecurityGroup>) -> Field<'_> {
    let fields = Fields::all(SecurityGroupRule::ATTRIBUTES);
    let rules = view
        .snapshot
        .state
        .rules_of(view.row.id)
        .map(|rule| {
            let view = View::new(Arc::clone(rule), &view.snapshot, &view.caller, &view.config);
            // A row of plain values always serialises; the fallback keeps the path free of panics.
            serde_json::to_value(ViewJson {
                view: &view,
                fields: &fields,
            })
            .unwrap_or_default()
        })
        .collect();
    Field::Json(Value::Array(rules))
}

/// Makes the default group of a project, whoever looks at its groups first.
pub(super) async fn ensure_default_of(region: &Region, project_id: String) -> Result<(), ApiError> {
    if project_id.is_empty()
        || region
            .snapshot()
            .state
            .default_security_group(&project_id)
            .is_some()
    {
        return Ok(());
    }
    region
        .write(move |tx, env| ensure_default(tx, env, &project_id))
        .await?;
    Ok(())
}

impl Resource for SecurityGroup {
    const SINGULAR: &'static str = "security_group";
    const PLURAL: &'static str = "security_groups";
    const PATH: &'static str = "security-groups";
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        SecurityGroup,
        [
            Attribute::new("stateful", Kind::Bool, |v: &V| Field::Bool(v.row.stateful))
                .writable()
                .filterable(),
            Attribute::new("shared", Kind::Bool, |v: &V| Field::Bool(
                v.snapshot.state.shared_with(
                    SharedType::SecurityGroup,
                    v.row.id.uuid(),
                    &v.caller.project_id
                )
            ))
            .filterable(),
            Attribute::new(
                "security_group_rules",
                Kind::ShownRows("security_group_rule"),
                rules
            ),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn seen_by<'a>(state: &'a RegionState, caller: &Caller, walk: Walk) -> Option<Rows<'a, Self>> {
        let seen = (!caller.is_admin).then(|| state.security_groups_seen_by(&caller.project_id))?;
        Some(walk.sorted(seen.cloned().collect()))
    }

    async fn before_list(region: &Region, project_id: String) -> Result<(), ApiError> {
        ensure_default_of(region, project_id).await
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        Ok(SecurityGroupCreate {
            standard: standard_create(&mut given)?,
            stateful: given.get("stateful"),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        Ok(SecurityGroupUpdate {
            standard: standard_update(&mut given),
            stateful: given.get("stateful"),
        })
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        SecurityGroupUpdate {
            standard: StandardUpdate {
                tags: Some(tags),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}
