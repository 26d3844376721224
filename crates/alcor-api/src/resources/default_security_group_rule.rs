//! `/v2.0/default-security-group-rules`: the templates that new security groups get their first rules from.

use alcor_model::{
    DefaultSecurityGroupRule,
    resource::{Remote, Standard, TemplateRemote},
};
use alcor_region::{
    Region,
    command::StandardUpdate,
    security_group::{TemplateCreate, ensure_templates, has_templates},
};

use super::{
    Resource, View,
    security_group_rule::{
        ETHERTYPE, MAX_GROUP_NAME, PORT, PREFIX, PROTOCOL, group_id, request_from, shown_address_group,
        shown_group, shown_port, shown_prefix, shown_protocol,
    },
    standard_create, standard_update,
};
use crate::{
    attributes::{Attribute, Given, Kind},
    error::ApiError,
    field::Field,
    resources::MAX_TEXT,
};

/// How a template names the group that the rule is made for.
const PARENT: &str = "PARENT";

type V = View<DefaultSecurityGroupRule>;

fn remote(view: &V) -> Remote {
    match view.row.matches.remote {
        TemplateRemote::Fixed(remote) => remote,
        TemplateRemote::Parent => Remote::Any,
    }
}

/// A template belongs to nobody: an owner is taken, as Neutron takes it, and neither kept nor shown.
const TABLE: &[Attribute<V>] = &[
    Attribute::new("id", Kind::Uuid, |v: &V| Field::Uuid(v.row.id.uuid())).listed(),
    Attribute::new("direction", Kind::OneOf(&["ingress", "egress"]), |v: &V| {
        Field::Text(v.row.matches.direction.as_str())
    })
    .required()
    .listed(),
    Attribute::new("ethertype", Kind::Custom(&ETHERTYPE), |v: &V| {
        Field::Text(v.row.matches.ethertype.as_str())
    })
    .post()
    .listed(),
    Attribute::new("protocol", Kind::Custom(&PROTOCOL), |v: &V| {
        shown_protocol(&v.row.matches)
    })
    .post()
    .listed(),
    Attribute::new("port_range_min", Kind::Custom(&PORT), |v: &V| {
        shown_port(v.row.matches.port_range_min)
    })
    .post()
    .listed(),
    Attribute::new("port_range_max", Kind::Custom(&PORT), |v: &V| {
        shown_port(v.row.matches.port_range_max)
    })
    .post()
    .listed(),
    Attribute::new("remote_ip_prefix", Kind::Custom(&PREFIX), |v: &V| {
        shown_prefix(remote(v))
    })
    .post()
    .listed(),
    Attribute::new(
        "remote_group_id",
        Kind::TextOrNull(MAX_GROUP_NAME),
        |v: &V| match v.row.matches.remote {
            TemplateRemote::Parent => Field::Text(PARENT),
            TemplateRemote::Fixed(remote) => shown_group(remote),
        },
    )
    .post()
    .listed(),
    Attribute::new(
        "remote_address_group_id",
        Kind::TextOrNull(MAX_GROUP_NAME),
        |v: &V| shown_address_group(remote(v)),
    )
    .post()
    .listed(),
    Attribute::new("description", Kind::Text(MAX_TEXT), |v: &V| {
        Field::Text(&v.row.standard.description)
    })
    .writable()
    .filterable(),
    Attribute::new("used_in_default_sg", Kind::Bool, |v: &V| {
        Field::Bool(v.row.used_in_default_sg)
    })
    .required()
    .filterable(),
    Attribute::new("used_in_non_default_sg", Kind::Bool, |v: &V| {
        Field::Bool(v.row.used_in_non_default_sg)
    })
    .required()
    .filterable(),
    Attribute::new("project_id", Kind::Text(MAX_TEXT), |_: &V| Field::Text(""))
        .post()
        .hidden(),
    Attribute::new("tenant_id", Kind::Text(MAX_TEXT), |_: &V| Field::Text(""))
        .post()
        .hidden(),
];

impl Resource for DefaultSecurityGroupRule {
    const SINGULAR: &'static str = "default_security_group_rule";
    const PLURAL: &'static str = "default_security_group_rules";
    const PATH: &'static str = "default-security-group-rules";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = TABLE;

    fn standard(&self) -> &Standard {
        &self.standard
    }

    /// A region has its first templates from the first look at them on.
    async fn before_list(region: &Region, _: String) -> Result<(), ApiError> {
        if !has_templates(&region.snapshot().state) {
            region
                .write(|tx, env| {
                    ensure_templates(tx, env);
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let group = |text: &str| match text {
            PARENT => Ok(None),
            text => group_id(text).map(Some),
        };
        Ok(TemplateCreate {
            standard: standard_create(&mut given)?,
            request: request_from(&mut given, group)?,
            used_in_default_sg: given.get("used_in_default_sg").unwrap_or_default(),
            used_in_non_default_sg: given.get("used_in_non_default_sg").unwrap_or_default(),
        })
    }

    fn update_from(mut given: Given) -> Result<Self::Update, ApiError> {
        Ok(standard_update(&mut given))
    }

    fn update_of_tags(tags: Vec<String>) -> Self::Update {
        StandardUpdate {
            tags: Some(tags),
            ..Default::default()
        }
    }
}
