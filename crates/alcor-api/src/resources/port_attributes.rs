//! The types that only ports' attributes have: extra DHCP options, the word about the data plane, DNS domains.

use alcor_model::{Port, resource::DataPlaneStatus};
use alcor_region::port::{command::DhcpOptionRequest, dhcp::BLANK_OPTIONS};
use serde_json::{Value, json};

use crate::{
    attributes::{Custom, Given},
    error::ApiError,
    parse::{self, Parsed, shown},
};

/// Longest name of a DHCP option in characters (Neutron's limit).
const MAX_OPTION_NAME: usize = 64;
/// Longest value of a DHCP option in characters (Neutron's limit).
const MAX_OPTION_VALUE: usize = 255;
/// Longest domain in characters: a label before it must still fit (Neutron's limit).
const MAX_DOMAIN: usize = 253;

/// A full domain name in small letters, or the empty text.
pub(crate) static DNS_DOMAIN: Custom = Custom {
    name: "string",
    parse: |name, value| {
        let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
        let Value::String(text) = value else {
            return Err(fail(format!("'{}' is not a valid string", shown(&value))));
        };
        if !text.is_empty() && !text.ends_with('.') {
            return Err(fail(format!("'{}' is not a FQDN", parse::cut(&text))));
        }
        if text.chars().count() > MAX_DOMAIN {
            return Err(fail(format!(
                "'{}' with a label before it has more than 255 characters",
                parse::cut(&text)
            )));
        }
        let text = parse::dns_name(text).map_err(fail)?;
        Ok(Some(Parsed::Text(text.to_ascii_lowercase())))
    },
    schema: || json!({"type": "string", "maxLength": MAX_DOMAIN}),
};

/// `ACTIVE`, `DOWN` or `null`.
pub(super) static DATA_PLANE_STATUS: Custom = Custom {
    name: "string",
    parse: |name, value| match &value {
        Value::Null => Ok(Some(Parsed::Null)),
        Value::String(text) if text == "ACTIVE" || text == "DOWN" => Ok(Some(Parsed::Text(text.clone()))),
        other => Err(ApiError::invalid_attribute(
            name,
            &format!("'{}' is not in [None, 'ACTIVE', 'DOWN']", shown(other)),
        )),
    },
    schema: || json!({"type": ["string", "null"], "enum": ["ACTIVE", "DOWN", null]}),
};

/// A list of options, each checked; `null` is the empty list.
pub(super) static DHCP_OPTIONS: Custom = Custom {
    name: "array",
    parse: |name, value| {
        let fail = |reason: String| ApiError::invalid_attribute(name, &reason);
        let list = match value {
            Value::Null => Vec::new(),
            Value::Array(list) if list.len() <= Port::MAX_DHCP_OPTIONS => list,
            Value::Array(list) => {
                let max = Port::MAX_DHCP_OPTIONS;
                return Err(fail(format!(
                    "{} options are more than the limit of {max}",
                    list.len()
                )));
            }
            other => return Err(fail(format!("'{}' is not a list", shown(&other)))),
        };
        let mut checked: Vec<Value> = Vec::with_capacity(list.len());
        for item in &list {
            let option = option(item).map_err(fail)?;
            if checked.contains(&option) {
                return Err(fail(format!("Duplicate items in the list: '{}'", shown(item))));
            }
            checked.push(option);
        }
        Ok(Some(Parsed::Json(Value::Array(checked))))
    },
    schema: || {
        json!({
            "type": ["array", "null"],
            "maxItems": Port::MAX_DHCP_OPTIONS,
            "items": {
                "type": "object",
                "required": ["opt_name", "opt_value"],
                "additionalProperties": false,
                "properties": {
                    "opt_name": {"type": "string", "minLength": 1, "maxLength": MAX_OPTION_NAME},
                    "opt_value": {"type": ["string", "null"], "maxLength": MAX_OPTION_VALUE},
                    "ip_version": {"type": "integer", "enum": [4, 6]},
                },
            },
        })
    },
};

/// Text of one line.
fn line(value: &Value, max: usize, blank: bool) -> Result<&str, String> {
    let Some(text) = value.as_str() else {
        return Err(format!("'{}' is not a valid string", shown(value)));
    };
    if text.chars().count() > max {
        return Err(format!("'{}' exceeds maximum length of {max}", parse::cut(text)));
    }
    if text.trim().is_empty() && !blank {
        return Err(format!("'{}' Blank strings are not permitted", parse::cut(text)));
    }
    if text.contains('\n') {
        return Err(format!(
            "Multi-line string is not allowed: '{}'",
            parse::cut(text)
        ));
    }
    Ok(text)
}

/// One option with all three of its members.
fn option(item: &Value) -> Result<Value, String> {
    let known = ["opt_name", "opt_value", "ip_version"];
    let Some(map) = item
        .as_object()
        .filter(|map| map.keys().all(|key| known.contains(&key.as_str())))
    else {
        return Err(format!("'{}' is not a DHCP option", shown(item)));
    };
    let member = |key: &str| map.get(key).ok_or_else(|| format!("'{key}' is missing"));
    let name = line(member("opt_name")?, MAX_OPTION_NAME, false)?;
    let value = match member("opt_value")? {
        Value::Null => Value::Null,
        value => line(value, MAX_OPTION_VALUE, BLANK_OPTIONS.contains(&name))?.into(),
    };
    let version = match map.get("ip_version") {
        None => 4,
        Some(Value::Number(number)) => number.as_u64().unwrap_or_default(),
        Some(Value::String(text)) => text.parse().unwrap_or_default(),
        Some(_) => 0,
    };
    if version != 4 && version != 6 {
        return Err(format!("'{}' is not in [4, 6]", shown(&map["ip_version"])));
    }
    Ok(json!({"opt_name": name, "opt_value": value, "ip_version": version}))
}

/// Takes the checked options.
pub(super) fn dhcp_options(given: &mut Given) -> Vec<DhcpOptionRequest> {
    let Some(Value::Array(list)) = given.get::<Value>("extra_dhcp_opts") else {
        return Vec::new();
    };
    let text = |item: &Value, key: &str| item[key].as_str().map(str::to_owned);
    list.iter()
        .map(|item| DhcpOptionRequest {
            name: text(item, "opt_name").unwrap_or_default(),
            value: text(item, "opt_value"),
            ip_version: if item["ip_version"] == 6 { 6 } else { 4 },
        })
        .collect()
}

/// Takes the checked word about the data plane.
pub(super) fn data_plane_status(given: &mut Given) -> Option<Option<DataPlaneStatus>> {
    let status = given.get_nullable::<String>("data_plane_status")?;
    Some(status.map(|text| match text.as_str() {
        "ACTIVE" => DataPlaneStatus::Active,
        _ => DataPlaneStatus::Down,
    }))
}
