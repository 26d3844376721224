//! From a JSON value in a request's body to a checked value, by the attribute's [`Kind`]. Shapes only: nothing here
//! knows the region's state.

use std::{collections::HashSet, hash::Hash, net::IpAddr};

use alcor_model::{
    MacAddr, Port,
    resource::{AllocationPool, HostRoute},
};
use alcor_region::command::{AddressPairRequest, FixedIpRequest};
use http::StatusCode;
use ipnet::IpNet;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    attributes::Kind,
    error::ApiError,
    resources::{MAX_TAG, tags::MAX_TAGS},
};

/// Limit of allocation pools in one subnet.
pub const MAX_POOLS: usize = 100;
/// Limit of DNS servers of one subnet (Neutron's `max_dns_nameservers`).
pub const MAX_DNS_NAMESERVERS: usize = 5;
/// Limit of static routes of one subnet (Neutron's `max_subnet_host_routes`).
pub const MAX_HOST_ROUTES: usize = 20;
/// Longest DNS name in characters (RFC 1035, section 2.3.4, without the root's dot).
pub const MAX_DNS_NAME: usize = 253;
/// Characters of a bad value that an error repeats.
const MAX_SHOWN: usize = 120;

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// `null`
    Null,
    /// true or false
    Bool(bool),
    /// Text.
    Text(String),
    /// A number.
    Int(u64),
    /// A UUID.
    Uuid(Uuid),
    /// An address.
    Ip(IpAddr),
    /// A prefix.
    Cidr(IpNet),
    /// A MAC address.
    Mac(MacAddr),
    /// An object.
    Object(Map<String, Value>),
    /// Ranges.
    Pools(Vec<AllocationPool>),
    /// Texts.
    Texts(Vec<String>),
    /// Addresses.
    Ips(Vec<IpAddr>),
    /// Routes.
    HostRoutes(Vec<HostRoute>),
    /// A port's addresses.
    FixedIps(Vec<FixedIpRequest>),
    /// A port's further sources.
    AddressPairs(Vec<AddressPairRequest>),
    /// What the check of a resource's own type left.
    Json(Value),
}

/// Checks a value. `Ok(None)` means "as if the client had not given it".
///
/// # Errors
/// 400 with Neutron's words.
pub fn value(name: &str, kind: Kind, value: Value) -> Result<Option<Parsed>, ApiError> {
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let parsed = match (kind, value) {
        (Kind::Custom(custom), value) => return (custom.parse)(name, value),
        (Kind::Text(max) | Kind::TextOrNull(max), Value::String(text)) => {
            Parsed::Text(short_text(text, max).map_err(fail)?)
        }
        (Kind::TextOrNull(_), Value::Null) => Parsed::Null,
        (Kind::Text(_) | Kind::TextOrNull(_), other) => {
            return Err(fail(format!("'{}' is not a valid string", shown(&other))));
        }
        (Kind::DnsName, Value::String(text)) => Parsed::Text(dns_name(text).map_err(fail)?),
        (Kind::Bool, value) => Parsed::Bool(boolean(&value)?),
        (Kind::IntOrNull(..), Value::Null) => Parsed::Null,
        (Kind::Int(min, max) | Kind::IntOrNull(min, max), value) => {
            let number = integer(&value)
                .ok_or_else(|| ApiError::invalid_input(&format!("'{}' is not an integer", shown(&value))))?;
            Parsed::Int(in_range(number, min, max).map_err(fail)?)
        }
        (Kind::OneOfInt(allowed), value) => {
            match integer(&value).and_then(|number| u64::try_from(number).ok()) {
                Some(number) if allowed.contains(&number) => Parsed::Int(number),
                _ => return Err(fail(format!("{} is not in {allowed:?}", shown(&value)))),
            }
        }
        (Kind::OneOf(_), Value::Null) => return Ok(None),
        (Kind::OneOf(allowed), value) => match value.as_str() {
            Some(text) if allowed.contains(&text) => Parsed::Text(text.to_owned()),
            _ => return Err(fail(format!("'{}' is not in {allowed:?}", shown(&value)))),
        },
        (Kind::UuidOrNull, Value::Null) => Parsed::Null,
        (Kind::Uuid | Kind::UuidOrNull, value) => Parsed::Uuid(uuid(&value).map_err(fail)?),
        (Kind::IpOrNull, Value::Null) => Parsed::Null,
        (Kind::IpOrNull, value) => Parsed::Ip(ip(&value).map_err(fail)?),
        (Kind::Cidr, Value::Null) => return Ok(None),
        (Kind::Cidr, value) => Parsed::Cidr(block(name, &value)?),
        (Kind::Mac, Value::Null) => Parsed::Null,
        (Kind::Mac, value) => Parsed::Mac(mac(&value).map_err(fail)?),
        (Kind::OnlyNull | Kind::OnlyEmptyList, Value::Null) => return Ok(None),
        (Kind::OnlyEmptyList, Value::Array(list)) if list.is_empty() => return Ok(None),
        (Kind::OnlyNull | Kind::OnlyEmptyList, value) => {
            return Err(fail(format!(
                "'{}' is given, but this attribute is not supported",
                shown(&value)
            )));
        }
        (Kind::OnlyFalse, value) => {
            if boolean(&value)? {
                return Err(fail("true is not supported".to_owned()));
            }
            return Ok(None);
        }
        (Kind::Object(_), Value::Null) => Parsed::Object(Map::new()),
        (Kind::Object(max), Value::Object(map)) => Parsed::Object(small_object(map, max).map_err(fail)?),
        (Kind::Object(_), other) => return Err(fail(format!("'{}' is not a dictionary", shown(&other)))),
        (Kind::Pools, value) => Parsed::Pools(each(&value, "IP pool", MAX_POOLS, pool).map_err(fail)?),
        (Kind::Ips, value) => Parsed::Ips(nameservers(name, &value)?),
        (Kind::HostRoutes, value) => Parsed::HostRoutes(host_routes(name, &value)?),
        (Kind::FixedIps, value) => Parsed::FixedIps(fixed_ips(name, &value)?),
        (Kind::AddressPairs, value) => Parsed::AddressPairs(address_pairs(name, &value)?),
        (Kind::DnsName, other) => return Err(fail(format!("'{}' is not a valid string", shown(&other)))),
        (Kind::Tags, Value::Null) => return Ok(None),
        (Kind::Tags, value) => Parsed::Texts(tags(&value).map_err(fail)?),
        (
            Kind::Time
            | Kind::ShownList
            | Kind::ShownUuids
            | Kind::ShownTexts
            | Kind::ShownRows(_)
            | Kind::ShownObject,
            other,
        ) => return Err(fail(format!("'{}' cannot be set", shown(&other)))),
    };
    Ok(Some(parsed))
}

/// A value as an error repeats it: text without quotes, everything else as JSON, cut.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    cut(&text)
}

/// Cuts a text for an error.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads a truth in any of Neutron's spellings.
pub fn boolean_text(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" | "on" => Some(true),
        "false" | "f" | "0" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

pub(crate) fn boolean(value: &Value) -> Result<bool, ApiError> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => boolean_text(&number.to_string()),
        Value::String(text) => boolean_text(text),
        _ => None,
    }
    .ok_or_else(|| ApiError::invalid_input(&format!("'{}' cannot be converted to boolean", shown(value))))
}

/// A text that fits and can be kept anywhere: databases have no NUL in their texts.
fn short_text(text: String, max: usize) -> Result<String, String> {
    if text.contains('\0') {
        return Err(format!("'{}' contains a NUL character", cut(&text)));
    }
    // Bytes are at least characters, so most texts need no counting.
    if text.len() > max && text.chars().count() > max {
        return Err(format!("'{}' exceeds maximum length of {max}", cut(&text)));
    }
    Ok(text)
}

/// Host names as DHCP may hand them out: labels of letters, digits and hyphens (RFC 1123, section 2.1).
pub(crate) fn dns_name(text: String) -> Result<String, String> {
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let bare = text.strip_suffix('.').unwrap_or(&text);
    // RFC 1123, section 2.1: the highest level has a letter, so that no name looks like an address.
    let top_is_good = bare
        .rsplit_once('.')
        .is_none_or(|(_, top)| !top.bytes().all(|b| b.is_ascii_digit()));
    if text.is_empty() || (bare.len() <= MAX_DNS_NAME && bare.split('.').all(label_is_good) && top_is_good) {
        Ok(text)
    } else {
        Err(format!(
            "'{}' not a valid PQDN or FQDN. Reason: each label has 1 to 63 letters, digits or hyphens and neither starts nor \
             ends with a hyphen; all together at most {MAX_DNS_NAME} characters",
            cut(&text)
        ))
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from)),
        Value::String(text) => text.trim().parse::<i64>().ok().map(i128::from),
        _ => None,
    }
}

/// Reads a number that may be negative, both ends included; also as text of digits. Fractions are cut off, as Neutron does.
///
/// # Errors
/// 400 with Neutron's words.
pub fn signed(name: &str, value: &Value, min: i64, max: i64) -> Result<i64, ApiError> {
    let cut_off = |number: f64| format!("{:.0}", number.trunc()).parse::<i128>().ok();
    let number = integer(value)
        .or_else(|| value.as_f64().and_then(cut_off))
        .ok_or_else(|| ApiError::invalid_input(&format!("'{}' is not an integer", shown(value))))?;
    let refuse = |reason: String| ApiError::invalid_attribute(name, &reason);
    match i64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if number < i128::from(min) => Err(refuse(format!(
            "'{number}' is too small - must be at least '{min}'"
        ))),
        _ => Err(refuse(format!(
            "'{number}' is too large - must be no larger than '{max}'"
        ))),
    }
}

fn in_range(number: i128, min: u64, max: u64) -> Result<u64, String> {
    if number < i128::from(min) {
        return Err(format!("'{number}' is too small - must be at least '{min}'"));
    }
    match u64::try_from(number) {
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!(
            "'{number}' is too large - must be no larger than '{max}'"
        )),
    }
}

pub(crate) fn uuid(value: &Value) -> Result<Uuid, String> {
    value
        .as_str()
        .and_then(|text| Uuid::parse_str(text).ok())
        .ok_or_else(|| format!("'{}' is not a valid UUID", shown(value)))
}

fn ip(value: &Value) -> Result<IpAddr, String> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("'{}' is not a valid IP address", shown(value)))
}

pub(crate) fn cidr(value: &Value) -> Result<IpNet, String> {
    let Some(text) = value.as_str() else {
        return Err(format!("'{}' is not a valid IP subnet", shown(value)));
    };
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(format!(
            "'{text}' isn't a recognized IP subnet cidr, '{}' is recommended",
            IpNet::from(address)
        ));
    }
    text.parse()
        .map_err(|_| format!("'{}' is not a valid IP subnet", cut(text)))
}

/// A subnet's block. What is no prefix at all is refused with the words of Neutron's conversion.
fn block(name: &str, value: &Value) -> Result<IpNet, ApiError> {
    let is_address = value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok());
    cidr(value).map_err(|reason| {
        if is_address {
            ApiError::invalid_attribute(name, &reason)
        } else {
            ApiError::invalid_input(&format!("{} is not in a CIDR format", shown(value)))
        }
    })
}

fn mac(value: &Value) -> Result<MacAddr, String> {
    value
        .as_str()
        .and_then(|text| text.parse::<MacAddr>().ok())
        .filter(|mac| !mac.is_multicast() && *mac != MacAddr::default())
        .ok_or_else(|| format!("'{}' is not a valid MAC address", shown(value)))
}

fn small_object(map: Map<String, Value>, max: usize) -> Result<Map<String, Value>, String> {
    let bytes = serde_json::to_vec(&map).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > max {
        Err(format!("it has {bytes} bytes, more than {max}"))
    } else {
        Ok(map)
    }
}

/// Every element of a list, read by `read`; `null` is the empty list.
fn each<T>(
    value: &Value,
    what: &str,
    max: usize,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) if list.len() <= max => list.iter().map(read).collect(),
        Value::Array(list) => Err(format!(
            "{} elements are more than the limit of {max}",
            list.len()
        )),
        other => Err(format!("Invalid data format for {what}: '{}'", shown(other))),
    }
}

/// A list of texts, none of them twice.
///
/// # Errors
/// The reason, in Neutron's words.
pub fn unique_texts(value: &Value, max: usize) -> Result<Vec<String>, String> {
    let Value::Array(list) = value else {
        return Err(format!("'{}' is not a list", shown(value)));
    };
    let mut seen = HashSet::with_capacity(list.len());
    for value in list {
        let text = value
            .as_str()
            .ok_or_else(|| format!("'{}' is not a valid string", shown(value)))?;
        if !seen.insert(text) {
            return Err(format!("Duplicate items in the list: '{}'", cut(text)));
        }
    }
    list.iter()
        .filter_map(Value::as_str)
        .map(|text| short_text(text.to_owned(), max))
        .collect()
}

/// Tags of a new resource.
fn tags(value: &Value) -> Result<Vec<String>, String> {
    let tags = unique_texts(value, MAX_TAG)?;
    if tags.len() > MAX_TAGS {
        return Err(format!(
            "The number of tags exceed the per-resource limit of {MAX_TAGS}"
        ));
    }
    Ok(tags)
}

/// An object with no other keys than these.
fn object_of<'a>(value: &'a Value, what: &str, keys: &[&str]) -> Result<&'a Map<String, Value>, String> {
    match value.as_object() {
        Some(map) if map.keys().all(|key| keys.contains(&key.as_str())) => Ok(map),
        _ => Err(format!("Invalid data format for {what}: '{}'", shown(value))),
    }
}

/// A key that must be there.
fn member<'a>(map: &'a Map<String, Value>, key: &str, what: &str) -> Result<&'a Value, String> {
    map.get(key)
        .ok_or_else(|| format!("Invalid data format for {what}: '{key}' is missing"))
}

fn pool(value: &Value) -> Result<AllocationPool, String> {
    let map = object_of(value, "IP pool", &["start", "end"])?;
    Ok(AllocationPool {
        start: ip(member(map, "start", "IP pool")?)?,
        end: ip(member(map, "end", "IP pool")?)?,
    })
}

/// The first element that is there twice.
fn duplicate<T: Eq + Hash + Copy>(list: &[T]) -> Option<T> {
    let mut seen = HashSet::with_capacity(list.len());
    list.iter().copied().find(|item| !seen.insert(*item))
}

/// Refuses a list that is too long with the exception type that Neutron has for this list.
fn bounded(value: &Value, max: usize, kind: &'static str, message: &str) -> Result<(), ApiError> {
    match value.as_array() {
        Some(list) if list.len() > max => Err(ApiError::new(StatusCode::BAD_REQUEST, kind, message)),
        _ => Ok(()),
    }
}

fn nameservers(name: &str, value: &Value) -> Result<Vec<IpAddr>, ApiError> {
    let message = format!(
        "Unable to complete operation. The number of DNS nameservers exceeds the limit {MAX_DNS_NAMESERVERS}."
    );
    bounded(value, MAX_DNS_NAMESERVERS, "DNSNameServersExhausted", &message)?;
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let read =
        |item: &Value| ip(item).map_err(|why| format!("'{}' is not a valid nameserver. {why}", shown(item)));
    let list = each(value, "nameserver", MAX_DNS_NAMESERVERS, read).map_err(fail)?;
    match duplicate(&list) {
        Some(twice) => Err(fail(format!("Duplicate nameserver '{twice}'"))),
        None => Ok(list),
    }
}

fn host_routes(name: &str, value: &Value) -> Result<Vec<HostRoute>, ApiError> {
    let message = format!(
        "Unable to complete operation. The number of host routes exceeds the limit {MAX_HOST_ROUTES}."
    );
    bounded(value, MAX_HOST_ROUTES, "HostRoutesExhausted", &message)?;
    routes(name, value, MAX_HOST_ROUTES)
}

/// Routes, no more than the limit, none of them twice.
///
/// # Errors
/// 400 with Neutron's words.
pub(crate) fn routes(name: &str, value: &Value, max: usize) -> Result<Vec<HostRoute>, ApiError> {
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let read = |item: &Value| {
        let map = object_of(item, "hostroute", &["destination", "nexthop"])?;
        Ok(HostRoute {
            destination: cidr(member(map, "destination", "hostroute")?)?,
            nexthop: ip(member(map, "nexthop", "hostroute")?)?,
        })
    };
    let list = each(value, "hostroute", max, read).map_err(fail)?;
    let keys: Vec<(IpNet, IpAddr)> = list
        .iter()
        .map(|route| (route.destination, route.nexthop))
        .collect();
    match duplicate(&keys) {
        Some((destination, nexthop)) => {
            Err(fail(format!("Duplicate hostroute '{destination} via {nexthop}'")))
        }
        None => Ok(list),
    }
}

fn optional<T>(
    map: &Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value).map(Some),
    }
}

pub(crate) fn fixed_ips(name: &str, value: &Value) -> Result<Vec<FixedIpRequest>, ApiError> {
    bounded(
        value,
        Port::MAX_FIXED_IPS,
        "InvalidInput",
        &format!(
            "Invalid input for operation: Exceeded maximum amount of fixed ips per port ({}).",
            Port::MAX_FIXED_IPS
        ),
    )?;
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let read = |item: &Value| {
        let map = object_of(item, "fixed IP", &["ip_address", "subnet_id"])?;
        let request = FixedIpRequest {
            subnet_id: optional(map, "subnet_id", uuid)?.map(alcor_model::Id::from_uuid),
            ip_address: optional(map, "ip_address", ip)?,
        };
        Ok(request)
    };
    let list = each(value, "fixed IP", Port::MAX_FIXED_IPS, read).map_err(fail)?;
    if list
        .iter()
        .any(|request| request.subnet_id.is_none() && request.ip_address.is_none())
    {
        return Err(ApiError::invalid_input(
            "IP allocation requires subnet_id or ip_address",
        ));
    }
    let addresses: Vec<IpAddr> = list.iter().filter_map(|request| request.ip_address).collect();
    match duplicate(&addresses) {
        Some(twice) => Err(fail(format!("Duplicate IP address '{twice}'"))),
        None => Ok(list),
    }
}

fn address_pairs(name: &str, value: &Value) -> Result<Vec<AddressPairRequest>, ApiError> {
    let message = format!(
        "The number of allowed address pair exceeds the maximum {}.",
        Port::MAX_ADDRESS_PAIRS
    );
    bounded(
        value,
        Port::MAX_ADDRESS_PAIRS,
        "AllowedAddressPairExhausted",
        &message,
    )?;
    let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
    let lacks_ip = |pair: &Value| pair.is_object() && pair.get("ip_address").is_none();
    if value.as_array().is_some_and(|list| list.iter().any(lacks_ip)) {
        let message = "AllowedAddressPair must contain ip_address";
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "AllowedAddressPairsMissingIP",
            message,
        ));
    }
    let address = |item: &Value| match item
        .as_str()
        .map(|text| (text.parse::<IpAddr>(), text.parse::<IpNet>()))
    {
        Some((Ok(address), _)) => Ok(IpNet::from(address)),
        Some((_, Ok(prefix))) => Ok(prefix),
        _ => Err(format!(
            "'{}' is neither a valid IP address, nor is it a valid IP subnet",
            shown(item)
        )),
    };
    let read = |item: &Value| {
        let what = "allowed address pair";
        let map = object_of(item, what, &["ip_address", "mac_address"])?;
        Ok(AddressPairRequest {
            ip_address: address(member(map, "ip_address", what)?)?,
            mac_address: optional(map, "mac_address", mac)?,
        })
    };
    let list = each(value, "allowed address pair", Port::MAX_ADDRESS_PAIRS, read).map_err(fail)?;
    let keys: Vec<(IpNet, Option<MacAddr>)> = list
        .iter()
        .map(|pair| (pair.ip_address, pair.mac_address))
        .collect();
    match duplicate(&keys) {
        Some((prefix, _)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "DuplicateAddressPairInRequest",
            format!("Request contains duplicate address pair: ip_address {prefix}."),
        )),
        None => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(kind: Kind, json: Value) -> Result<Option<Parsed>, String> {
        value("x", kind, json).map_err(|error| error.to_string())
    }

    #[test]
    fn booleans_in_every_spelling() {
        for yes in [
            json!(true),
            json!("True"),
            json!(1),
            json!("1"),
            json!("yes"),
            json!(" ON "),
        ] {
            assert_eq!(read(Kind::Bool, yes), Ok(Some(Parsed::Bool(true))));
        }
        for no in [json!(false), json!("FALSE"), json!(0), json!("n"), json!("off")] {
            assert_eq!(read(Kind::Bool, no), Ok(Some(Parsed::Bool(false))));
        }
        for bad in [json!(2), json!("maybe"), json!(null), json!([]), json!(1.5)] {
            assert!(read(Kind::Bool, bad).is_err());
        }
    }

    #[test]
    fn prefixes_want_a_length() {
        assert!(
            read(Kind::Cidr, json!("10.0.0.0"))
                .unwrap_err()
                .contains("'10.0.0.0/32' is recommended")
        );
        assert!(read(Kind::Cidr, json!("10.0.0.0/33")).is_err());
        assert_eq!(
            read(Kind::Cidr, json!("10.0.0.1/24")),
            Ok(Some(Parsed::Cidr("10.0.0.1/24".parse().unwrap())))
        );
    }

    #[test]
    fn host_names_cannot_smuggle_anything() {
        for good in ["", "vm1", "vm-1.example.org", "vm.example."] {
            assert!(read(Kind::DnsName, json!(good)).is_ok(), "{good}");
        }
        for bad in ["-a", "a-", "a b", "a\nb", "a..b", "ü", "."] {
            assert!(read(Kind::DnsName, json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_have_limits_and_no_duplicates() {
        let ten: Vec<Value> = (0..10)
            .map(|n| json!({"ip_address": format!("10.0.0.{n}")}))
            .collect();
        assert!(read(Kind::FixedIps, Value::Array(ten.clone())).is_ok());
        let twice = json!([{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1"}]);
        assert!(
            read(Kind::FixedIps, twice)
                .unwrap_err()
                .contains("Duplicate IP address '10.0.0.1'")
        );
        assert!(read(Kind::FixedIps, json!([{}])).is_err());
        assert!(read(Kind::FixedIps, json!([{"ip": "10.0.0.1"}])).is_err());
        let eleven: Vec<Value> = (0..11)
            .map(|n| json!({"ip_address": format!("10.0.0.{n}")}))
            .collect();
        assert!(read(Kind::AddressPairs, Value::Array(ten)).is_ok());
        assert!(
            read(Kind::AddressPairs, Value::Array(eleven))
                .unwrap_err()
                .contains("AllowedAddressPairExhausted")
        );
    }

    #[test]
    fn errors_repeat_little_of_a_long_value() {
        let error = read(Kind::Uuid, json!("ü".repeat(100_000))).unwrap_err();
        assert!(error.chars().count() < 300);
    }

    const KINDS: [Kind; 21] = [
        Kind::Text(5),
        Kind::TextOrNull(5),
        Kind::DnsName,
        Kind::Bool,
        Kind::Int(1, 10),
        Kind::IntOrNull(1, 10),
        Kind::Uuid,
        Kind::IpOrNull,
        Kind::Cidr,
        Kind::Mac,
        Kind::OneOfInt(&[4, 6]),
        Kind::OneOf(&["a"]),
        Kind::OnlyNull,
        Kind::OnlyFalse,
        Kind::OnlyEmptyList,
        Kind::Object(10),
        Kind::Pools,
        Kind::Ips,
        Kind::HostRoutes,
        Kind::FixedIps,
        Kind::AddressPairs,
    ];

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[0-9a-f:./]{1,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            let key = prop_oneof![
                "[a-z_]{0,8}",
                Just("ip_address".to_owned()),
                Just("start".to_owned())
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_of_any_kind_is_taken_or_refused_with_400(json in any_json(), kind in prop::sample::select(&KINDS[..])) {
            if let Err(error) = value("x", kind, json) {
                prop_assert_eq!(error.status(), StatusCode::BAD_REQUEST);
            }
        }
    }
}
