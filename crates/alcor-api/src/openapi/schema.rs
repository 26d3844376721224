//! JSON Schema of attributes: what is accepted, and what is shown.

use serde_json::{Map, Value, json};

use crate::{
    attributes::{Attribute, Kind},
    parse,
    resources::{MAX_TAG, tags::MAX_TAGS},
};

/// A schema by its name.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The name of a resource's schema: `SecurityGroup` for `security_group`.
pub fn type_name(singular: &str) -> String {
    singular
        .split(['_', '-'])
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
        })
        .collect()
}

/// An object with these members, all required, and no others.
pub fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let properties: Map<String, Value> = members
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let names: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
}

/// A list.
pub fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// Text of at most so many characters.
pub fn text(max: usize) -> Value {
    json!({"type": "string", "maxLength": max})
}

/// Text that a client may give.
fn given_text(max: usize) -> Value {
    json!({"type": "string", "maxLength": max, "pattern": "^[^\\u0000]*$"})
}

/// A UUID.
pub fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

/// An IP address of either family.
pub fn ip() -> Value {
    json!({"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]})
}

/// A prefix with its length.
pub fn cidr() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"})
}

/// A value or `null`.
pub fn nullable(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// Neutron's error body.
pub fn error() -> Value {
    let text = || json!({"type": "string"});
    let inner = object([("type", text()), ("message", text()), ("detail", text())]);
    object([("NeutronError", inner)])
}

/// What is answered to those who do not say who they are.
pub fn unauthorized() -> Value {
    let text = || json!({"type": "string"});
    let inner = object([
        ("code", json!({"const": 401})),
        ("title", text()),
        ("message", text()),
    ]);
    object([("error", inner)])
}

/// A MAC address as it is shown.
const MAC: &str = "^([0-9a-f]{2}:){5}[0-9a-f]{2}$";
/// A MAC address as it is accepted.
const ANY_MAC: &str = "^([0-9a-fA-F]{2}[:-]?){5}[0-9a-fA-F]{2}$";
/// The spellings of a truth.
const TRUTH: &str = "^\\s*([tT][rR][uU][eE]|[fF][aA][lL][sS][eE]|[yY][eE][sS]|[nN][oO]|[oO][nN]|[oO][fF][fF]|[tTfFyYnN01])\\s*$";

fn whole(min: u64, max: u64) -> Value {
    let mut schema = json!({"type": "integer", "minimum": min});
    if let (true, Some(map)) = (max < u64::MAX, schema.as_object_mut()) {
        map.insert("maximum".to_owned(), json!(max));
    }
    schema
}

fn address_pair(of: Value) -> Value {
    json!({
        "type": "object",
        "properties": {"ip_address": of, "mac_address": {"type": "string", "pattern": ANY_MAC}},
        "required": ["ip_address"],
        "additionalProperties": false,
    })
}

/// What is shown of an attribute.
pub fn shown(kind: Kind) -> Value {
    match kind {
        Kind::Text(max) => text(max),
        Kind::TextOrNull(max) => nullable(text(max)),
        Kind::DnsName => text(parse::MAX_DNS_NAME),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int(min, max) => whole(min, max),
        Kind::IntOrNull(min, max) => nullable(whole(min, max)),
        Kind::Uuid => uuid(),
        Kind::UuidOrNull => nullable(uuid()),
        Kind::IpOrNull => nullable(ip()),
        Kind::Cidr => cidr(),
        Kind::Mac => json!({"type": "string", "pattern": MAC}),
        Kind::OneOfInt(allowed) => json!({"enum": allowed}),
        Kind::OneOf(allowed) => {
            let values: Vec<Value> = allowed
                .iter()
                .map(|text| json!(text))
                .chain([Value::Null])
                .collect();
            json!({"enum": values})
        }
        Kind::OnlyNull => json!({"type": "null"}),
        Kind::OnlyFalse => json!({"const": false}),
        Kind::OnlyEmptyList => json!({"type": "array", "maxItems": 0}),
        Kind::Object(_) | Kind::ShownObject => json!({"type": "object"}),
        Kind::Pools => list(object([("start", ip()), ("end", ip())])),
        Kind::Ips => list(ip()),
        Kind::HostRoutes => list(object([("destination", cidr()), ("nexthop", ip())])),
        Kind::FixedIps => list(object([("subnet_id", uuid()), ("ip_address", ip())])),
        Kind::AddressPairs => list(address_pair(json!({"anyOf": [ip(), cidr()]}))),
        Kind::Tags => {
            json!({"type": "array", "items": text(MAX_TAG), "maxItems": MAX_TAGS, "uniqueItems": true})
        }
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::ShownList => json!({"type": "array"}),
        Kind::ShownUuids => list(uuid()),
        Kind::ShownTexts => list(json!({"type": "string"})),
        Kind::ShownRows(singular) => list(reference(&type_name(singular))),
        Kind::Custom(custom) => (custom.schema)(),
    }
}

/// What is accepted for an attribute: what is shown, and Neutron's other spellings.
pub fn accepted(kind: Kind) -> Value {
    let digits = json!({"type": "string", "pattern": "^\\s*[0-9]+\\s*$"});
    match kind {
        Kind::Text(max) => given_text(max),
        Kind::TextOrNull(max) => nullable(given_text(max)),
        Kind::Bool => {
            json!({"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, {"type": "string", "pattern": TRUTH}]})
        }
        Kind::OnlyFalse => json!({"enum": [false, 0, "false", "False", "no", "off", "0"]}),
        Kind::Int(min, max) => json!({"anyOf": [whole(min, max), digits]}),
        Kind::IntOrNull(min, max) => json!({"anyOf": [whole(min, max), digits, {"type": "null"}]}),
        Kind::OneOfInt(allowed) => json!({"anyOf": [{"enum": allowed}, digits]}),
        Kind::Mac => nullable(json!({"type": "string", "pattern": ANY_MAC})),
        Kind::OnlyEmptyList => nullable(shown(kind)),
        Kind::Object(_) => nullable(shown(kind)),
        Kind::Pools | Kind::Ips | Kind::HostRoutes | Kind::AddressPairs => nullable(shown(kind)),
        Kind::FixedIps => nullable(list(json!({
            "type": "object",
            "properties": {"subnet_id": uuid(), "ip_address": ip()},
            "additionalProperties": false,
        }))),
        _ => shown(kind),
    }
}

/// What a filter's text may be. Most texts are accepted and match nothing when no row can have them.
pub fn filter(kind: Kind) -> Value {
    match kind {
        Kind::Bool | Kind::OnlyFalse => json!({"type": "string", "pattern": TRUTH}),
        Kind::Int(..) | Kind::IntOrNull(..) | Kind::OneOfInt(_) => {
            json!({"type": "string", "pattern": "^-?[0-9]{1,18}$"})
        }
        Kind::Cidr => cidr(),
        Kind::FixedIps => {
            json!({"type": "string", "pattern": "^(ip_address|ip_address_substr|subnet_id)=.*$"})
        }
        _ => json!({"type": "string"}),
    }
}

/// A row as it is shown. Nothing is required, because `fields` leaves out what the client does not want and policies
/// leave out what it may not see; nothing else is shown.
pub fn row<V>(table: &'static [Attribute<V>]) -> Value {
    let properties: Map<String, Value> = table
        .iter()
        .filter(|attribute| attribute.visible)
        .map(|attribute| (attribute.name.to_owned(), shown(attribute.kind)))
        .collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// What may be set at creation, or changed later.
pub fn settable<V>(table: &'static [Attribute<V>], creation: bool) -> Value {
    let properties: Map<String, Value> = table
        .iter()
        .filter(|attribute| if creation { attribute.post } else { attribute.put })
        .map(|attribute| (attribute.name.to_owned(), accepted(attribute.kind)))
        .collect();
    let required: Vec<&str> = table
        .iter()
        .filter(|attribute| creation && attribute.required)
        .map(|attribute| attribute.name)
        .collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
