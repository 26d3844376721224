//! `/v2.0/security-group-rules`, and the types of a rule's attributes.

use alcor_model::{
    AddressGroup, Id, SecurityGroup, SecurityGroupRule,
    resource::{Direction, Ethertype, Protocol, Remote, RuleMatch, Standard},
};
use alcor_region::{
    Region, RegionState,
    command::{Caller, StandardUpdate},
    security_group::{RuleCreate, RuleRequest},
};
use http::StatusCode;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Resource, Rows, View, Walk, attribute_table, standard_create, standard_update};
use crate::{
    attributes::{Attribute, Custom, Given},
    error::ApiError,
    field::Field,
    parse::{Parsed, cut, shown},
    query::ListQuery,
    resources::security_group::ensure_default_of,
};

/// How `null` and "any protocol" are said.
const ANY_PROTOCOL: &str = "any";
/// Neutron's spellings of families.
const ETHERTYPES: [Ethertype; 2] = [Ethertype::Ipv4, Ethertype::Ipv6];
/// Longest text that names a group; a UUID in any form is shorter.
pub(super) const MAX_GROUP_NAME: usize = 64;

fn refused(kind: &'static str, message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, kind, message)
}

/// A protocol by name or number.
pub(super) static PROTOCOL: Custom = Custom {
    name: "ip-protocol",
    parse: protocol,
    schema: || {
        let names: Vec<&str> = Protocol::NAMES.iter().map(|(name, _)| *name).collect();
        json!({
            "anyOf": [
                {"type": "null"},
                {"type": "integer", "minimum": 0, "maximum": 255},
                {"type": "string", "pattern": "^[0-9]{1,3}$"},
                {"enum": names},
                {"const": ANY_PROTOCOL},
            ],
        })
    },
};

fn protocol(_: &str, value: Value) -> Result<Option<Parsed>, ApiError> {
    let text = match &value {
        Value::Null => return Ok(None),
        Value::String(text) if text == ANY_PROTOCOL => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    match Protocol::parse(&text) {
        Some(protocol) => Ok(Some(Parsed::Text(protocol.spelled))),
        None => {
            let names: Vec<String> = Protocol::NAMES
                .iter()
                .map(|(name, _)| format!("'{name}'"))
                .collect();
            Err(refused(
                "SecurityGroupRuleInvalidProtocol",
                format!(
                    "Security group rule protocol {} not supported. Only protocol values [None, '{ANY_PROTOCOL}', {}] and \
                     integer representations [0 to 255] are supported.",
                    shown(&value),
                    names.join(", ")
                ),
            ))
        }
    }
}

/// An address family, in any case.
pub(super) static ETHERTYPE: Custom = Custom {
    name: "ethertype",
    parse: ethertype,
    schema: || json!({"type": "string", "enum": ["IPv4", "IPv6"]}),
};

fn ethertype(_: &str, value: Value) -> Result<Option<Parsed>, ApiError> {
    let known = value.as_str().and_then(|text| {
        ETHERTYPES
            .into_iter()
            .find(|family| family.as_str().eq_ignore_ascii_case(text))
    });
    match known {
        Some(family) => Ok(Some(Parsed::Text(family.as_str().to_owned()))),
        None => Err(refused(
            "SecurityGroupRuleInvalidEtherType",
            format!(
                "Security group rule for ethertype '{}' not supported. Allowed values are ['IPv4', 'IPv6'].",
                shown(&value)
            ),
        )),
    }
}

/// A port, or what ICMP has in its place.
pub(super) static PORT: Custom = Custom {
    name: "port-number",
    parse: port,
    schema: || {
        json!({
            "anyOf": [
                {"type": "null"},
                {"type": "integer", "minimum": 0, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]{1,5}$"},
            ],
        })
    },
};

fn port(_: &str, value: Value) -> Result<Option<Parsed>, ApiError> {
    let number = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number.filter(|number| *number <= u64::from(u16::MAX)) {
        Some(number) => Ok(Some(Parsed::Int(number))),
        None => Err(refused(
            "SecurityGroupInvalidPortValue",
            format!("Invalid value for port {}", shown(&value)),
        )),
    }
}

/// A prefix whose host bits may be set; an address is a prefix of itself.
pub(super) static PREFIX: Custom = Custom {
    name: "cidr",
    parse: prefix,
    schema: || json!({"type": ["string", "null"], "description": "a prefix or an address"}),
};

/// Reads a prefix or an address.
pub(super) fn prefix_of(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn prefix(_: &str, value: Value) -> Result<Option<Parsed>, ApiError> {
    match &value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        _ => {}
    }
    match value.as_str().and_then(prefix_of) {
        Some(prefix) => Ok(Some(Parsed::Cidr(prefix))),
        None => Err(refused(
            "InvalidCIDR",
            format!("Invalid CIDR {} given as IP prefix.", shown(&value)),
        )),
    }
}

/// A group by id. What is no id names nothing: it is not found, as in Neutron.
pub(super) fn group_id(text: &str) -> Result<Id<SecurityGroup>, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "SecurityGroupNotFound",
            format!("Security group {} does not exist", cut(text)),
        )
    })
}

fn address_group_id(text: &str) -> Result<Id<AddressGroup>, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "AddressGroupNotFound",
            format!("Address group {} could not be found.", cut(text)),
        )
    })
}

/// What a rule or a template matches, from what the client gave; `group` reads how it names a group.
pub(super) fn request_from<G>(
    given: &mut Given,
    group: impl FnOnce(&str) -> Result<G, ApiError>,
) -> Result<RuleRequest<G>, ApiError> {
    // The table has checked the spelling and that a direction is there.
    let direction = match given.get::<String>("direction").as_deref() {
        Some("egress") => Direction::Egress,
        _ => Direction::Ingress,
    };
    let ethertype = match given.get::<String>("ethertype").as_deref() {
        Some("IPv6") => Ethertype::Ipv6,
        _ => Ethertype::Ipv4,
    };
    let port = |given: &mut Given, name| {
        given
            .get::<u64>(name)
            .and_then(|number| u16::try_from(number).ok())
    };
    // The empty text is as good as none.
    let text = |given: &mut Given, name| given.get::<String>(name).filter(|text| !text.is_empty());
    Ok(RuleRequest {
        direction,
        ethertype,
        protocol: given
            .get::<String>("protocol")
            .and_then(|text| Protocol::parse(&text)),
        port_range_min: port(given, "port_range_min"),
        port_range_max: port(given, "port_range_max"),
        remote_ip_prefix: given.get("remote_ip_prefix"),
        remote_group_id: text(given, "remote_group_id")
            .map(|text| group(&text))
            .transpose()?,
        remote_address_group_id: text(given, "remote_address_group_id")
            .map(|text| address_group_id(&text))
            .transpose()?,
    })
}

/// The protocol as the client spelled it.
pub(super) fn shown_protocol<R>(matches: &RuleMatch<R>) -> Field<'_> {
    matches
        .protocol
        .as_ref()
        .map(|protocol| protocol.spelled.as_str())
        .into()
}

/// One end of a range.
pub(super) fn shown_port(port: Option<u16>) -> Field<'static> {
    port.map_or(Field::Null, |port| Field::Int(port.into()))
}

/// A remote's prefix.
pub(super) fn shown_prefix(remote: Remote) -> Field<'static> {
    match remote {
        Remote::Prefix(prefix) => Field::Cidr(prefix),
        _ => Field::Null,
    }
}

/// A remote's group.
pub(super) fn shown_group(remote: Remote) -> Field<'static> {
    match remote {
        Remote::Group(id) => Field::Uuid(id.uuid()),
        _ => Field::Null,
    }
}

/// A remote's address group.
pub(super) fn shown_address_group(remote: Remote) -> Field<'static> {
    match remote {
        Remote::AddressGroup(id) => Field::Uuid(id.uuid()),
        _ => Field::Null,
    }
}

impl Resource for SecurityGroupRule {
    const SINGULAR: &'static str = "security_group_rule";
    const PLURAL: &'static str = "security_group_rules";
    const PATH: &'static str = "security-group-rules";
    const TAGGED: bool = false;
    const ATTRIBUTES: &'static [Attribute<View<Self>>] = attribute_table!(
        bare SecurityGroupRule,
        [
            Attribute::new("security_group_id", Kind::Text(MAX_GROUP_NAME), |v: &V| Field::Uuid(
                v.row.security_group_id.uuid()
            ))
            .required()
            .listed(),
            Attribute::new("direction", Kind::OneOf(&["ingress", "egress"]), |v: &V| {
                Field::Text(v.row.matches.direction.as_str())
            })
            .required()
            .listed(),
            Attribute::new("ethertype", Kind::Custom(&ETHERTYPE), |v: &V| Field::Text(
                v.row.matches.ethertype.as_str()
            ))
            .post()
            .listed(),
            Attribute::new("protocol", Kind::Custom(&PROTOCOL), |v: &V| shown_protocol(
                &v.row.matches
            ))
            .post()
            .listed(),
            Attribute::new("port_range_min", Kind::Custom(&PORT), |v: &V| shown_port(
                v.row.matches.port_range_min
            ))
            .post()
            .listed(),
            Attribute::new("port_range_max", Kind::Custom(&PORT), |v: &V| shown_port(
                v.row.matches.port_range_max
            ))
            .post()
            .listed(),
            Attribute::new("remote_ip_prefix", Kind::Custom(&PREFIX), |v: &V| shown_prefix(
                v.row.matches.remote
            ))
            .post()
            .listed(),
            Attribute::new("normalized_cidr", Kind::Custom(&PREFIX), |v: &V| {
                match v.row.matches.remote {
                    Remote::Prefix(prefix) => Field::Cidr(prefix.trunc()),
                    _ => Field::Null,
                }
            })
            .listed(),
            Attribute::new("remote_group_id", Kind::TextOrNull(MAX_GROUP_NAME), |v: &V| shown_group(
                v.row.matches.remote
            ))
            .post()
            .listed(),
            Attribute::new("remote_address_group_id", Kind::TextOrNull(MAX_GROUP_NAME), |v: &V| {
                shown_address_group(v.row.matches.remote)
            })
            .post()
            .listed(),
            Attribute::new("belongs_to_default_sg", Kind::Bool, |v: &V| Field::Bool(
                v.snapshot
                    .state
                    .security_groups()
                    .get(&v.row.security_group_id)
                    .is_some_and(|group| group.is_default)
            ))
            .filterable(),
            Attribute::new("description", Kind::Text(MAX_TEXT), |v: &V| Field::Text(
                &v.row.standard.description
            ))
            .writable()
            .listed(),
            Attribute::new("tags", Kind::Tags, |v: &V| Field::Texts(&v.row.standard.tags)),
            Attribute::new("created_at", Kind::Time, |v: &V| Field::Time(v.row.standard.created_at))
                .sortable(),
            Attribute::new("updated_at", Kind::Time, |v: &V| Field::Time(v.row.standard.updated_at))
                .sortable(),
            Attribute::new("revision_number", Kind::Int(0, u64::MAX), |v: &V| Field::Int(
                v.row.standard.revision_number
            ))
            .listed(),
        ]
    );

    fn standard(&self) -> &Standard {
        &self.standard
    }

    fn seen_by<'a>(state: &'a RegionState, caller: &Caller, walk: Walk) -> Option<Rows<'a, Self>> {
        let seen = (!caller.is_admin).then(|| state.rules_seen_by(&caller.project_id))?;
        Some(walk.sorted(seen.cloned().collect()))
    }

    async fn before_list(region: &Region, project_id: String) -> Result<(), ApiError> {
        ensure_default_of(region, project_id).await
    }

    fn indexed<'a>(
        state: &'a RegionState,
        query: &ListQuery<View<Self>>,
        walk: Walk,
    ) -> Option<Rows<'a, Self>> {
        let groups: Vec<Id<SecurityGroup>> = query
            .texts("security_group_id")?
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        Some(
            walk.sorted(
                groups
                    .into_iter()
                    .flat_map(|group| state.rules_of(group))
                    .cloned()
                    .collect(),
            ),
        )
    }

    fn create_from(mut given: Given) -> Result<Self::Create, ApiError> {
        let group = given.get::<String>("security_group_id").unwrap_or_default();
        Ok(RuleCreate {
            standard: standard_create(&mut given)?,
            request: request_from(&mut given, group_id)?,
            security_group_id: group_id(&group)?,
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
