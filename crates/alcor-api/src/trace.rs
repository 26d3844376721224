//! `GET /alcor/v1/trace`: what would become of a packet. Reads the question; the answer comes from [`HostDirectory::trace`].
//!
//! [`HostDirectory::trace`]: crate::HostDirectory::trace

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use alcor_model::{
    resource::Protocol,
    trace::{TraceError, TraceQuestion},
};
use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;

use crate::{admin::RULE, auth::Who, authorize::authorize_on, error::ApiError, parse, state::ApiState};

/// Where stations begin to take source ports (RFC 6335, section 6).
const SOURCE_PORT: u16 = 49_152;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const PARAMETERS: [&str; 7] = [
    "from",
    "to",
    "protocol",
    "source_port",
    "destination_port",
    "icmp_type",
    "icmp_code",
];

/// `GET /alcor/v1/trace?from=PORT&to=ADDRESS&protocol=tcp&destination_port=22`
///
/// # Errors
/// 403 for callers who are not admins, 400 for what is no packet, 404 for a port that is not there, 409 for one that is
/// bound to no host, 503 while the NCM is away.
pub async fn trace(
    State(api): State<ApiState>,
    who: Who,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, ApiError> {
    authorize_on(&api, &who, RULE, &())?;
    let question = read(&query)?;
    match api.hosts().trace(question).await {
        Ok(trace) => Ok(Json(trace).into_response()),
        Err(error @ TraceError::UnknownPort(_)) => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "PortNotFound",
            error.to_string(),
        )),
        Err(error @ TraceError::NotBound(_)) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "PortNotBound",
            error.to_string(),
        )),
        Err(error @ TraceError::NoNcm) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            error.to_string(),
        )),
    }
}

fn read(query: &BTreeMap<String, String>) -> Result<TraceQuestion, ApiError> {
    if let Some(unknown) = query.keys().find(|name| !PARAMETERS.contains(&name.as_str())) {
        let reason = format!("there is no such parameter; there are {}", PARAMETERS.join(", "));
        return Err(ApiError::bad_parameter(&parse::cut(unknown), &reason));
    }
    let from = required(query, "from")?;
    let to: std::net::IpAddr = required(query, "to")?;
    let protocol = query
        .get("protocol")
        .map_or(Ok(Protocol::TCP), |name| protocol(name, to.is_ipv6()))?;
    let has_ports = matches!(
        protocol,
        Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::DCCP | Protocol::UDPLITE
    );
    let is_icmp = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    let wanted = |name: &str, wanted: bool| match query.contains_key(name) && !wanted {
        true => Err(ApiError::bad_parameter(
            name,
            &format!("protocol {protocol} has none"),
        )),
        false => Ok(()),
    };
    for (name, has) in [
        ("source_port", has_ports),
        ("destination_port", has_ports),
        ("icmp_type", is_icmp),
        ("icmp_code", is_icmp),
    ] {
        wanted(name, has)?;
    }
    let echo = if to.is_ipv6() {
        ECHO_REQUEST_V6
    } else {
        ECHO_REQUEST
    };
    let point = if is_icmp {
        let kind: u8 = optional(query, "icmp_type")?.unwrap_or(echo);
        u16::from_be_bytes([kind, optional(query, "icmp_code")?.unwrap_or(0)])
    } else if has_ports {
        required(query, "destination_port")?
    } else {
        0
    };
    Ok(TraceQuestion {
        from,
        to,
        protocol,
        source_port: optional(query, "source_port")?.unwrap_or(SOURCE_PORT),
        point,
    })
}

/// A protocol by name or number; `icmp` to an IPv6 address is its own ICMP.
fn protocol(name: &str, ipv6: bool) -> Result<u8, ApiError> {
    let known = Protocol::parse(name).map(|protocol| protocol.number);
    let number = known.or_else(|| name.parse().ok());
    match number {
        Some(Protocol::ICMP) if ipv6 => Ok(Protocol::ICMPV6),
        Some(number) => Ok(number),
        None => Err(ApiError::bad_parameter(
            "protocol",
            "it is no protocol's name or number",
        )),
    }
}

fn optional<T: FromStr<Err: Display>>(
    query: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<T>, ApiError> {
    let value = query.get(name).map(|text| text.parse());
    value
        .transpose()
        .map_err(|error: T::Err| ApiError::bad_parameter(name, &error.to_string()))
}

fn required<T: FromStr<Err: Display>>(query: &BTreeMap<String, String>, name: &str) -> Result<T, ApiError> {
    optional(query, name)?.ok_or_else(|| ApiError::bad_parameter(name, "it is missing"))
}

/// What this route takes and answers.
pub(crate) mod doc {
    use serde_json::{Value, json};

    use crate::openapi::{
        Operation,
        schema::{ip, list, nullable, object, reference, uuid},
    };

    pub(crate) fn trace() -> Operation {
        let text = || json!({"type": "string"});
        let flag = || json!({"type": "boolean"});
        let number = |most: u64| json!({"type": "integer", "minimum": 0, "maximum": most});
        let revision = || json!({"type": "integer", "minimum": 0});
        let question = object([
            ("from", uuid()),
            ("to", ip()),
            ("protocol", number(255)),
            ("source_port", number(65_535)),
            ("point", number(65_535)),
        ]);
        let stage = object([
            ("host", text()),
            ("stage", text()),
            ("passes", flag()),
            ("detail", text()),
            ("security_group_id", nullable(uuid())),
            ("rule_id", nullable(uuid())),
        ]);
        let host = object([
            ("name", text()),
            ("alive", flag()),
            ("filters", flag()),
            ("intended_revision", revision()),
            ("applied_revision", nullable(revision())),
            ("in_force", flag()),
            ("refused", list(text())),
        ]);
        let trace = object([
            ("question", question),
            ("source", nullable(ip())),
            ("network_id", uuid()),
            ("stages", list(stage)),
            ("delivered_to", nullable(uuid())),
            ("dropped", nullable(text())),
            ("hosts", list(host)),
        ]);
        let port: Value = number(65_535);
        Operation::new("Says what would become of a packet, stage by stage, on both hosts")
            .query("from", uuid())
            .query("to", ip())
            .query("protocol", text())
            .query("source_port", port.clone())
            .query("destination_port", port)
            .query("icmp_type", number(255))
            .query("icmp_code", number(255))
            .component("Trace", trace)
            .answers(200, reference("Trace"))
            .answers(409, reference("Error"))
    }
}
