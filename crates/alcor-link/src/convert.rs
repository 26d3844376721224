//! Rows, changes and reports as they travel, and back. Whatever comes is checked here, before anybody acts on it.

use std::net::IpAddr;

use alcor_model::{
    Change, HostRuntime, Id, Kind, Label, Port, Resource, ResourceKey, Revision,
    resource::{FloatingIpWord, HostWord, NAME_BYTES_MAX, PortStatus, is_name, kept_reason},
};
use alcor_ncm::core::{KINDS, PortReport};
use alcor_proto::link;
use alcor_southbound::convert::{decode_id, decode_ip, encode_id, encode_ip};
use bytes::Bytes;
use thiserror::Error;

/// What came is none of the protocol.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConvertError {
    /// A row's body is none of its kind.
    #[error("a row of kind {kind} cannot be read: {reason}")]
    Row {
        /// The kind.
        kind: String,
        /// What is wrong.
        reason: String,
    },
    /// A value is none of what it must be.
    #[error("{0}")]
    Value(String),
}

fn bad_row(kind: &str, reason: impl ToString) -> ConvertError {
    ConvertError::Row {
        kind: kind.to_owned(),
        reason: reason.to_string(),
    }
}

fn value(reason: impl ToString) -> ConvertError {
    ConvertError::Value(reason.to_string())
}

/// A row as it travels.
///
/// # Errors
/// When a value cannot be written as JSON, which no value of these types can cause.
pub fn encode_row(row: &Resource) -> Result<link::FeedRow, ConvertError> {
    let kind = row.key().kind().as_str();
    let body = row.to_json().map_err(|error| bad_row(kind, error))?;
    Ok(link::FeedRow {
        kind: kind.to_owned(),
        body: body.into(),
    })
}

/// The row; none when this side does not know its kind, or has no use for it.
///
/// # Errors
/// When the body is not that of a row of its kind.
pub fn decode_row(row: &link::FeedRow) -> Result<Option<Resource>, ConvertError> {
    let Some(kind) = known(&row.kind) else {
        return Ok(None);
    };
    let body = std::str::from_utf8(&row.body).map_err(|error| bad_row(&row.kind, error))?;
    let row = Resource::from_json(kind, body).map_err(|error| bad_row(&row.kind, error))?;
    Ok(Some(row))
}

fn known(kind: &str) -> Option<Kind> {
    Kind::parse(kind).filter(|kind| KINDS.contains(kind))
}

/// A change as it travels; none when no NCM has a use for it.
///
/// # Errors
/// As [`encode_row`].
pub fn encode_change(change: &Change) -> Result<Option<link::FeedChange>, ConvertError> {
    use link::feed_change::Change as Wire;
    let key = change.key();
    if !KINDS.contains(&key.kind()) {
        return Ok(None);
    }
    let change = match change {
        Change::Put(row) => Wire::Put(encode_row(row)?),
        Change::Delete { revision, .. } => Wire::Removal(link::Removal {
            kind: key.kind().as_str().to_owned(),
            id: key.id_text(),
            revision: revision.0,
        }),
    };
    Ok(Some(link::FeedChange { change: Some(change) }))
}

/// The change; none when this side does not know the kind.
///
/// # Errors
/// When it is none, or its row cannot be read.
pub fn decode_change(change: &link::FeedChange) -> Result<Option<Change>, ConvertError> {
    use link::feed_change::Change as Wire;
    match &change.change {
        Some(Wire::Put(row)) => Ok(decode_row(row)?.map(Change::Put)),
        Some(Wire::Removal(removal)) => {
            let Some(kind) = known(&removal.kind) else {
                return Ok(None);
            };
            let key = ResourceKey::parse(kind, &removal.id).map_err(|error| bad_row(&removal.kind, error))?;
            Ok(Some(Change::Delete {
                key,
                revision: Revision(removal.revision),
            }))
        }
        None => Err(value("a change says nothing")),
    }
}

/// Roughly how many bytes a change takes.
pub(crate) fn size_of(change: &link::FeedChange) -> usize {
    use link::feed_change::Change as Wire;
    match &change.change {
        Some(Wire::Put(row)) => row.body.len(),
        Some(Wire::Removal(removal)) => removal.id.len(),
        None => 0,
    }
}

/// A registration as it travels.
pub fn encode_registration(name: String, word: HostWord) -> link::HostRegistration {
    link::HostRegistration {
        name,
        tunnel_ip: encode_ip(word.tunnel_ip),
        availability_zone: word.availability_zone,
        external_networks: word.external_networks.into_iter().map(encode_id).collect(),
    }
}

fn check_name(what: &str, text: &str) -> Result<(), ConvertError> {
    if !is_name(text) {
        return Err(value(format!(
            "the name of a{} {what} has 1 to {NAME_BYTES_MAX} printable bytes",
            if what.starts_with('a') { "n" } else { "" }
        )));
    }
    Ok(())
}

/// A host's name, and what it says of itself.
///
/// # Errors
/// When one of them cannot be one, or there are too many external networks.
pub fn decode_registration(registration: link::HostRegistration) -> Result<(String, HostWord), ConvertError> {
    let link::HostRegistration {
        name,
        tunnel_ip,
        availability_zone,
        external_networks,
    } = registration;
    let tunnel_ip = decode_ip("the tunnel address", &tunnel_ip).map_err(value)?;
    let external_networks = external_networks.iter();
    let external_networks = external_networks.map(|id| decode_id("an external network", id));
    let word = HostWord {
        tunnel_ip,
        availability_zone,
        external_networks: external_networks.collect::<Result<_, _>>().map_err(value)?,
    };
    word.check(&name).map_err(|error| value(error.to_string()))?;
    Ok((name, word))
}

/// A gateway's registration as it travels.
pub fn encode_gateway(name: String, set: String, tunnel_ip: IpAddr) -> link::GatewayRegistration {
    link::GatewayRegistration {
        name,
        set,
        tunnel_ip: encode_ip(tunnel_ip),
    }
}

/// A gateway's name, set and tunnel address.
///
/// # Errors
/// When one of them cannot be one.
pub fn decode_gateway(
    registration: link::GatewayRegistration,
) -> Result<(String, String, IpAddr), ConvertError> {
    let link::GatewayRegistration { name, set, tunnel_ip } = registration;
    check_name("gateway", &name)?;
    check_name("set of gateways", &set)?;
    let tunnel_ip = decode_ip("the tunnel address", &tunnel_ip).map_err(value)?;
    Ok((name, set, tunnel_ip))
}

/// What is known of a floating IP as it travels.
pub fn encode_floating_ip_word(word: &FloatingIpWord) -> link::FloatingIpWord {
    link::FloatingIpWord {
        id: encode_id(word.id),
        revision: word.revision.0,
        in_force: word.in_force,
    }
}

/// What is known of a floating IP.
///
/// # Errors
/// When it names none.
pub fn decode_floating_ip_word(word: &link::FloatingIpWord) -> Result<FloatingIpWord, ConvertError> {
    Ok(FloatingIpWord {
        id: decode_id("floating IP", &word.id).map_err(value)?,
        revision: Revision(word.revision),
        in_force: word.in_force,
    })
}

/// A report as it travels.
pub fn encode_report(report: PortReport) -> link::PortWord {
    link::PortWord {
        port_id: encode_id(report.port_id),
        host: report.host,
        applied_revision: report.applied_revision.0,
        status: report.status.as_str().to_owned(),
        reason: report.reason.unwrap_or_default(),
    }
}

/// The report.
///
/// # Errors
/// When it is none.
pub fn decode_report(word: link::PortWord) -> Result<PortReport, ConvertError> {
    let port_id = decode_id::<Port>("port id", &word.port_id).map_err(value)?;
    let statuses = [
        PortStatus::Active,
        PortStatus::Down,
        PortStatus::Build,
        PortStatus::Error,
    ];
    let status = statuses.into_iter().find(|status| status.as_str() == word.status);
    if !is_name(&word.host) {
        return Err(value("a report names no host"));
    }
    Ok(PortReport {
        port_id,
        host: word.host,
        applied_revision: Revision(word.applied_revision),
        status: status.ok_or_else(|| value("a report has no status"))?,
        reason: kept_reason(&word.reason),
    })
}

/// What is known of a host, as it travels.
///
/// # Errors
/// When a value cannot be written as JSON, which no value of this type can cause.
pub fn encode_note(note: &HostRuntime) -> Result<Bytes, ConvertError> {
    let body = serde_json::to_vec(note).map_err(|error| bad_row(Kind::HostRuntime.as_str(), error))?;
    Ok(body.into())
}

/// What is known of a host.
///
/// # Errors
/// When it is not that.
pub fn decode_note(body: &[u8]) -> Result<HostRuntime, ConvertError> {
    serde_json::from_slice(body).map_err(|error| bad_row(Kind::HostRuntime.as_str(), error))
}

/// A label that may be used again, as it travels.
pub fn encode_release((id, revision): (Id<Label>, Revision)) -> link::LabelRelease {
    link::LabelRelease {
        id: encode_id(id),
        revision: revision.0,
    }
}

/// A label that may be used again.
///
/// # Errors
/// When it has no id.
pub fn decode_release(release: &link::LabelRelease) -> Result<(Id<Label>, Revision), ConvertError> {
    let id = decode_id("label id", &release.id).map_err(value)?;
    Ok((id, Revision(release.revision)))
}
