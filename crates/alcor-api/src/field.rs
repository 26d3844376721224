//! One attribute's value in a row, borrowed: what views write, filters compare and sorts order.

use std::{cmp::Ordering, net::IpAddr};

use alcor_model::{
    MacAddr,
    resource::{AddressPair, AllocationPool, ExtraDhcpOption, FixedIp, HostRoute},
};
use alcor_region::port::dns::DnsAssignment;
use ipnet::IpNet;
use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Times are shown in whole seconds with a `Z`, as Neutron does.
const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// A value. Serialises as Neutron writes it.
#[derive(Clone, Debug)]
pub enum Field<'a> {
    /// `null`
    Null,
    /// true or false
    Bool(bool),
    /// A number.
    Int(u64),
    /// Text.
    Text(&'a str),
    /// A UUID.
    Uuid(Uuid),
    /// An address.
    Ip(IpAddr),
    /// A prefix.
    Cidr(IpNet),
    /// A MAC address.
    Mac(MacAddr),
    /// A time.
    Time(Timestamp),
    /// Texts.
    Texts(&'a [String]),
    /// UUIDs.
    Uuids(Vec<Uuid>),
    /// Addresses.
    Ips(&'a [IpAddr]),
    /// Ranges.
    Pools(&'a [AllocationPool]),
    /// Routes.
    Routes(&'a [HostRoute]),
    /// A port's addresses.
    FixedIps(&'a [FixedIp]),
    /// A port's further sources.
    Pairs(&'a [AddressPair]),
    /// An object.
    Object(&'a Map<String, Value>),
    /// A port's `binding:vif_details`: whether it is bound.
    VifDetails(bool),
    /// What a port's addresses are called.
    DnsAssignments(Vec<DnsAssignment>),
    /// A port's further DHCP options.
    DhcpOptions(&'a [ExtraDhcpOption]),
    /// `[]`
    EmptyList,
    /// A value of a resource's own type, as it is shown.
    Json(Value),
}

impl From<Option<IpAddr>> for Field<'_> {
    fn from(value: Option<IpAddr>) -> Self {
        value.map_or(Self::Null, Self::Ip)
    }
}

impl From<Option<Uuid>> for Field<'_> {
    fn from(value: Option<Uuid>) -> Self {
        value.map_or(Self::Null, Self::Uuid)
    }
}

impl<'a> From<Option<&'a str>> for Field<'a> {
    fn from(value: Option<&'a str>) -> Self {
        value.map_or(Self::Null, Self::Text)
    }
}

/// A prefix of one address is written as the address, as the client gave it.
struct ShortPrefix<'a>(&'a IpNet);

impl Serialize for ShortPrefix<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().serialize(serializer)
        } else {
            self.0.serialize(serializer)
        }
    }
}

/// Who bound a port, by level; Alcor has one.
#[derive(Serialize)]
struct BoundDrivers {
    #[serde(rename = "0")]
    level: &'static str,
}

#[derive(Serialize)]
struct Pair<'a> {
    ip_address: ShortPrefix<'a>,
    mac_address: MacAddr,
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_u64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Uuid(value) => value.serialize(serializer),
            Self::Ip(value) => value.serialize(serializer),
            Self::Cidr(value) => value.serialize(serializer),
            Self::Mac(value) => value.serialize(serializer),
            Self::Time(value) => serializer.serialize_str(&SECONDS.timestamp_to_string(value)),
            Self::Texts(value) => value.serialize(serializer),
            Self::Uuids(value) => value.serialize(serializer),
            Self::Ips(value) => value.serialize(serializer),
            Self::Pools(value) => value.serialize(serializer),
            Self::Routes(value) => value.serialize(serializer),
            Self::FixedIps(value) => value.serialize(serializer),
            Self::Pairs(value) => {
                let mut list = serializer.serialize_seq(Some(value.len()))?;
                for pair in *value {
                    list.serialize_element(&Pair {
                        ip_address: ShortPrefix(&pair.ip_address),
                        mac_address: pair.mac_address,
                    })?;
                }
                list.end()
            }
            Self::Object(value) => value.serialize(serializer),
            Self::VifDetails(bound) => {
                let mut map = serializer.serialize_map(None)?;
                if *bound {
                    map.serialize_entry("port_filter", &true)?;
                    map.serialize_entry("connectivity", "l2")?;
                    map.serialize_entry("bound_drivers", &BoundDrivers { level: "alcor" })?;
                }
                map.end()
            }
            Self::DnsAssignments(value) => value.serialize(serializer),
            Self::DhcpOptions(value) => value.serialize(serializer),
            Self::EmptyList => serializer.serialize_seq(Some(0))?.end(),
            Self::Json(value) => value.serialize(serializer),
        }
    }
}

/// What a filter asks for, read once from the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This text.
    Text(String),
    /// This truth.
    Bool(bool),
    /// This number.
    Int(u64),
    /// This UUID.
    Uuid(Uuid),
    /// This address.
    Ip(IpAddr),
    /// This prefix.
    Cidr(IpNet),
    /// This MAC address.
    Mac(MacAddr),
    /// An address of a port.
    FixedIp(FixedIpFilter),
    /// All of these tags.
    AllTags(Vec<String>),
    /// One of these tags or more.
    AnyTag(Vec<String>),
    /// Not all of these tags.
    NotAllTags(Vec<String>),
    /// None of these tags.
    NoTag(Vec<String>),
    /// This time or a later one.
    Since(Timestamp),
    /// Something that no row can have.
    Nothing,
}

/// One address of the port must fulfil both; `None` is no condition, an empty list is fulfilled by nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixedIpFilter {
    /// It is one of these.
    pub addresses: Option<Vec<IpAddr>>,
    /// It lies in one of these subnets.
    pub subnets: Option<Vec<Uuid>>,
    /// Its text contains one of these.
    pub parts: Option<Vec<String>>,
}

impl FixedIpFilter {
    fn takes(&self, fixed_ip: &FixedIp) -> bool {
        self.addresses
            .as_ref()
            .is_none_or(|list| list.contains(&fixed_ip.ip_address))
            && self
                .subnets
                .as_ref()
                .is_none_or(|list| list.contains(&fixed_ip.subnet_id.uuid()))
            && self.parts.as_ref().is_none_or(|list| {
                let text = fixed_ip.ip_address.to_string();
                list.iter().any(|part| text.contains(part.as_str()))
            })
    }
}

/// Whether a value of a resource's own type is what a filter asks for; of a list, one element is enough.
fn json_is(have: &Value, wanted: &Wanted) -> bool {
    match (have, wanted) {
        (Value::Array(list), wanted) => list.iter().any(|one| json_is(one, wanted)),
        (Value::String(have), Wanted::Text(want)) => have == want,
        (Value::Number(have), Wanted::Text(want)) => have.to_string() == *want,
        (Value::Number(have), Wanted::Int(want)) => have.as_u64() == Some(*want),
        (Value::Bool(have), Wanted::Bool(want)) => have == want,
        (Value::String(have), Wanted::Uuid(want)) => Uuid::parse_str(have).is_ok_and(|have| have == *want),
        (Value::String(have), Wanted::Ip(want)) => have.parse::<IpAddr>().is_ok_and(|have| have == *want),
        _ => false,
    }
}

fn json_order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()).then(a.as_u64().cmp(&b.as_u64())),
        _ => Ordering::Equal,
    }
}

impl Field<'_> {
    /// Whether the value is what a filter asks for.
    pub fn is(&self, wanted: &Wanted) -> bool {
        match (self, wanted) {
            (Self::Text(have), Wanted::Text(want)) => have == want,
            (Self::Json(Value::String(have)), Wanted::Text(want)) => have == want,
            (Self::Bool(have), Wanted::Bool(want)) => have == want,
            (Self::Int(have), Wanted::Int(want)) => have == want,
            (Self::Uuid(have), Wanted::Uuid(want)) => have == want,
            (Self::Ip(have), Wanted::Ip(want)) => have == want,
            (Self::Cidr(have), Wanted::Cidr(want)) => have == want,
            (Self::Mac(have), Wanted::Mac(want)) => have == want,
            (Self::Time(have), Wanted::Since(want)) => have >= want,
            // Types of a resource's own are asked for as text.
            (Self::Int(have), Wanted::Text(want)) => want.trim().parse() == Ok(*have),
            (Self::Uuid(have), Wanted::Text(want)) => want.parse() == Ok(*have),
            (Self::Ip(have), Wanted::Text(want)) => want.parse() == Ok(*have),
            (Self::Cidr(have), Wanted::Text(want)) => want.parse() == Ok(*have),
            (Self::Texts(have), Wanted::Text(want)) => have.contains(want),
            (Self::Uuids(have), Wanted::Uuid(want)) => have.contains(want),
            (Self::Uuids(have), Wanted::Text(want)) => want.parse().is_ok_and(|want| have.contains(&want)),
            (Self::Json(have), wanted) => json_is(have, wanted),
            (Self::FixedIps(have), Wanted::FixedIp(filter)) => {
                have.iter().any(|fixed_ip| filter.takes(fixed_ip))
            }
            (Self::Texts(have), Wanted::AllTags(want)) => want.iter().all(|tag| have.contains(tag)),
            (Self::Texts(have), Wanted::AnyTag(want)) => want.iter().any(|tag| have.contains(tag)),
            (Self::Texts(have), Wanted::NotAllTags(want)) => !want.iter().all(|tag| have.contains(tag)),
            (Self::Texts(have), Wanted::NoTag(want)) => !want.iter().any(|tag| have.contains(tag)),
            _ => false,
        }
    }

    /// The order in a sorted list; `null` comes first, values of different types never meet.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::Ip(a), Self::Ip(b)) => a.cmp(b),
            (Self::Cidr(a), Self::Cidr(b)) => a.cmp(b),
            (Self::Mac(a), Self::Mac(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Json(a), Self::Json(b)) => json_order(a, b),
            _ => Ordering::Equal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds() {
        let time: Timestamp = "2026-11-21T02:42:00.123456Z".parse().unwrap();
        assert_eq!(
            serde_json::to_string(&Field::Time(time)).unwrap(),
            "\"2026-11-21T02:42:00Z\""
        );
    }

    #[test]
    fn a_pair_of_one_address_has_no_length() {
        let pairs = [
            AddressPair {
                ip_address: "10.0.0.5/32".parse().unwrap(),
                mac_address: MacAddr([2, 0, 0, 0, 0, 1]),
            },
            AddressPair {
                ip_address: "10.1.0.0/16".parse().unwrap(),
                mac_address: MacAddr([2, 0, 0, 0, 0, 1]),
            },
        ];
        assert_eq!(
            serde_json::to_string(&Field::Pairs(&pairs)).unwrap(),
            r#"[{"ip_address":"10.0.0.5","mac_address":"02:00:00:00:00:01"},{"ip_address":"10.1.0.0/16","mac_address":"02:00:00:00:00:01"}]"#
        );
    }
}
