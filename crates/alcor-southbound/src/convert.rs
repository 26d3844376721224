//! Protobuf messages to typed values and back. Everything that arrives is checked here, once; what gets past is
//! well-formed.

pub mod load;
pub mod resolve;
mod router;
mod security;

use std::net::IpAddr;

use alcor_dataplane::{NeighbourRow, NetworkRow, PortRow, Row, RowChange, RowKey, SubnetRow};
use alcor_model::{
    Id, MacAddr, Network, Revision, Vni,
    resource::{AddressPair, FixedIp, HostRoute},
};
use alcor_proto::v1;
use bytes::Bytes;
use ipnet::IpNet;
use thiserror::Error;

/// Why a message cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A part that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Bytes of the wrong length.
    #[error("{what} has {got} bytes")]
    Length {
        /// Which field.
        what: &'static str,
        /// How many there were.
        got: usize,
    },
    /// A number outside of its range.
    #[error("{what} is {got}, which is out of range")]
    Range {
        /// Which field.
        what: &'static str,
        /// The number.
        got: u64,
    },
    /// Parts that cannot both be right.
    #[error("{0} contradict each other")]
    Contradiction(&'static str),
}

/// An address as bytes.
pub fn encode_ip(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

/// An address of 4 or 16 bytes.
///
/// # Errors
/// [`DecodeError::Length`] for any other length.
pub fn decode_ip(what: &'static str, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| DecodeError::Length {
            what,
            got: bytes.len(),
        })
}

/// An id as bytes.
pub fn encode_id<T>(id: Id<T>) -> Bytes {
    Bytes::copy_from_slice(id.uuid().as_bytes())
}

/// An id of 16 bytes.
///
/// # Errors
/// [`DecodeError::Length`] for any other length.
pub fn decode_id<T>(what: &'static str, bytes: &[u8]) -> Result<Id<T>, DecodeError> {
    uuid::Uuid::from_slice(bytes)
        .map(Id::from_uuid)
        .map_err(|_| DecodeError::Length {
            what,
            got: bytes.len(),
        })
}

fn encode_mac(mac: MacAddr) -> Bytes {
    Bytes::copy_from_slice(&mac.0)
}

fn decode_mac(what: &'static str, bytes: &[u8]) -> Result<MacAddr, DecodeError> {
    bytes.try_into().map(MacAddr).map_err(|_| DecodeError::Length {
        what,
        got: bytes.len(),
    })
}

fn encode_prefix(net: IpNet) -> v1::Prefix {
    v1::Prefix {
        address: encode_ip(net.addr()),
        length: u32::from(net.prefix_len()),
    }
}

fn decode_prefix(what: &'static str, prefix: Option<&v1::Prefix>) -> Result<IpNet, DecodeError> {
    let prefix = prefix.ok_or(DecodeError::Missing(what))?;
    let ip = decode_ip(what, &prefix.address)?;
    let range = || DecodeError::Range {
        what,
        got: u64::from(prefix.length),
    };
    let length = u8::try_from(prefix.length).map_err(|_| range())?;
    IpNet::new(ip, length).map_err(|_| range())
}

fn encode_prefixes(blocks: &[IpNet]) -> v1::Prefixes {
    v1::Prefixes {
        prefixes: blocks.iter().copied().map(encode_prefix).collect(),
    }
}

fn decode_prefixes(what: &'static str, blocks: &v1::Prefixes) -> Result<Vec<IpNet>, DecodeError> {
    let blocks = blocks.prefixes.iter();
    blocks.map(|block| decode_prefix(what, Some(block))).collect()
}

fn decode_u16(what: &'static str, got: u32) -> Result<u16, DecodeError> {
    u16::try_from(got).map_err(|_| DecodeError::Range {
        what,
        got: u64::from(got),
    })
}

/// A row in the message's form.
pub fn encode_row(revision: Revision, row: &Row) -> v1::Row {
    let body = match row {
        Row::Network(row) => v1::row::Body::Network(v1::Network {
            vni: row.vni.get(),
            mtu: u32::from(row.mtu),
            admin_state_up: row.admin_state_up,
            underlay: row.underlay.as_deref().map(encode_prefixes),
            on_demand: row.on_demand,
            gateways: row.gateways.iter().copied().map(encode_ip).collect(),
        }),
        Row::Router(row) => v1::row::Body::Router(router::encode(row)),
        Row::FloatingIp(row) => v1::row::Body::FloatingIp(router::encode_floating_ip(row)),
        Row::Policy(row) => v1::row::Body::Policy(security::encode_policy(row)),
        Row::Label(row) => v1::row::Body::Label(security::encode_label(row)),
        Row::Subnet(row) => v1::row::Body::Subnet(encode_subnet(row)),
        Row::Port(row) => v1::row::Body::Port(encode_port(row)),
        Row::Neighbour(row) => v1::row::Body::Neighbour(encode_neighbour(row)),
    };
    v1::Row {
        revision: revision.0,
        body: Some(body),
    }
}

fn encode_neighbour(row: &NeighbourRow) -> v1::Neighbour {
    v1::Neighbour {
        ip: encode_ip(row.ip),
        mac: encode_mac(row.mac),
        host: encode_ip(row.host),
        label: u32::from(row.label),
        forward: row.forward,
    }
}

fn encode_subnet(row: &SubnetRow) -> v1::Subnet {
    v1::Subnet {
        id: encode_id(row.id),
        cidr: Some(encode_prefix(row.cidr)),
        gateway_ip: row.gateway_ip.map(encode_ip).unwrap_or_default(),
        gateway_mac: encode_mac(row.gateway_mac),
        enable_dhcp: row.enable_dhcp,
        slaac: row.slaac,
        dns_nameservers: row.dns_nameservers.iter().copied().map(encode_ip).collect(),
        host_routes: row
            .host_routes
            .iter()
            .map(|route| v1::Route {
                destination: Some(encode_prefix(route.destination)),
                nexthop: encode_ip(route.nexthop),
            })
            .collect(),
    }
}

fn encode_port(row: &PortRow) -> v1::Port {
    v1::Port {
        id: encode_id(row.id),
        mac: encode_mac(row.mac),
        fixed_ips: row
            .fixed_ips
            .iter()
            .map(|fixed| v1::FixedIp {
                subnet_id: encode_id(fixed.subnet_id),
                ip: encode_ip(fixed.ip_address),
            })
            .collect(),
        allowed_address_pairs: row
            .allowed_address_pairs
            .iter()
            .map(|pair| v1::AddressPair {
                prefix: Some(encode_prefix(pair.ip_address)),
                mac: encode_mac(pair.mac_address),
            })
            .collect(),
        admin_state_up: row.admin_state_up,
        port_security_enabled: row.port_security_enabled,
        dns_name: row.dns_name.clone(),
        label: row.label.map(u32::from),
    }
}

/// A deleted row in the message's form.
pub fn encode_tombstone(revision: Revision, key: &RowKey) -> v1::Row {
    use v1::tombstone::Key;
    let key = match key {
        RowKey::Network(_) => Key::Network(true),
        RowKey::Subnet(_, id) => Key::SubnetId(encode_id(*id)),
        RowKey::Router(_, id) => Key::RouterId(encode_id(*id)),
        RowKey::FloatingIp(_, id) => Key::FloatingIpId(encode_id(*id)),
        RowKey::Policy(_, id) => Key::PolicyGroupId(encode_id(*id)),
        RowKey::Label(_, label) => Key::Label(u32::from(label.get())),
        RowKey::Port(_, id) => Key::PortId(encode_id(*id)),
        RowKey::Neighbour(_, ip) => Key::NeighbourIp(encode_ip(*ip)),
    };
    v1::Row {
        revision: revision.0,
        body: Some(v1::row::Body::Tombstone(v1::Tombstone { key: Some(key) })),
    }
}

/// Reads a row of a delta of `network`.
///
/// # Errors
/// When anything in it is not well-formed.
pub fn decode_row(network: Id<Network>, row: &v1::Row) -> Result<(Revision, RowChange), DecodeError> {
    let body = row.body.as_ref().ok_or(DecodeError::Missing("the row's body"))?;
    let change = match body {
        v1::row::Body::Network(message) => RowChange::Put(Row::Network(NetworkRow {
            id: network,
            vni: Vni::try_from(message.vni).map_err(|_| DecodeError::Range {
                what: "vni",
                got: u64::from(message.vni),
            })?,
            mtu: u16::try_from(message.mtu).map_err(|_| DecodeError::Range {
                what: "mtu",
                got: u64::from(message.mtu),
            })?,
            admin_state_up: message.admin_state_up,
            underlay: message
                .underlay
                .as_ref()
                .map(|blocks| decode_prefixes("a block of the underlay", blocks))
                .transpose()?,
            on_demand: message.on_demand,
            gateways: router::decode_gateways(&message.gateways)?,
        })),
        v1::row::Body::Router(message) => RowChange::Put(Row::Router(router::decode(network, message)?)),
        v1::row::Body::FloatingIp(message) => {
            RowChange::Put(Row::FloatingIp(router::decode_floating_ip(network, message)?))
        }
        v1::row::Body::Policy(message) => {
            RowChange::Put(Row::Policy(security::decode_policy(network, message)?))
        }
        v1::row::Body::Label(message) => {
            RowChange::Put(Row::Label(security::decode_label(network, message)?))
        }
        v1::row::Body::Subnet(message) => RowChange::Put(Row::Subnet(decode_subnet(network, message)?)),
        v1::row::Body::Port(message) => RowChange::Put(Row::Port(decode_port(network, message)?)),
        v1::row::Body::Neighbour(message) => {
            RowChange::Put(Row::Neighbour(decode_neighbour(network, message)?))
        }
        v1::row::Body::Tombstone(message) => RowChange::Remove(decode_tombstone(network, message)?),
    };
    Ok((Revision(row.revision), change))
}

fn decode_neighbour(network: Id<Network>, message: &v1::Neighbour) -> Result<NeighbourRow, DecodeError> {
    Ok(NeighbourRow {
        network_id: network,
        ip: decode_ip("the neighbour's ip", &message.ip)?,
        mac: decode_mac("the neighbour's mac", &message.mac)?,
        host: decode_ip("the neighbour's host", &message.host)?,
        label: decode_u16("label", message.label)?,
        forward: message.forward,
    })
}

fn decode_tombstone(network: Id<Network>, message: &v1::Tombstone) -> Result<RowKey, DecodeError> {
    use v1::tombstone::Key;
    Ok(
        match message
            .key
            .as_ref()
            .ok_or(DecodeError::Missing("the tombstone's key"))?
        {
            Key::Network(_) => RowKey::Network(network),
            Key::SubnetId(id) => RowKey::Subnet(network, decode_id("the tombstone's subnet id", id)?),
            Key::RouterId(id) => RowKey::Router(network, decode_id("the tombstone's router id", id)?),
            Key::FloatingIpId(id) => {
                RowKey::FloatingIp(network, decode_id("the tombstone's floating ip id", id)?)
            }
            Key::PortId(id) => RowKey::Port(network, decode_id("the tombstone's port id", id)?),
            Key::PolicyGroupId(id) => RowKey::Policy(network, decode_id("the tombstone's group id", id)?),
            Key::Label(label) => RowKey::Label(network, security::decode_label_number(*label)?),
            Key::NeighbourIp(ip) => RowKey::Neighbour(network, decode_ip("the tombstone's ip", ip)?),
        },
    )
}

fn decode_subnet(network: Id<Network>, message: &v1::Subnet) -> Result<SubnetRow, DecodeError> {
    let gateway_ip = match message.gateway_ip.is_empty() {
        true => None,
        false => Some(decode_ip("the subnet's gateway", &message.gateway_ip)?),
    };
    Ok(SubnetRow {
        id: decode_id("the subnet's id", &message.id)?,
        network_id: network,
        cidr: decode_prefix("the subnet's cidr", message.cidr.as_ref())?,
        gateway_ip,
        gateway_mac: decode_mac("the subnet's gateway mac", &message.gateway_mac)?,
        enable_dhcp: message.enable_dhcp,
        slaac: message.slaac,
        dns_nameservers: message
            .dns_nameservers
            .iter()
            .map(|ip| decode_ip("a DNS server", ip))
            .collect::<Result<_, _>>()?,
        host_routes: message
            .host_routes
            .iter()
            .map(|route| {
                Ok(HostRoute {
                    destination: decode_prefix("a host route's destination", route.destination.as_ref())?,
                    nexthop: decode_ip("a host route's next hop", &route.nexthop)?,
                })
            })
            .collect::<Result<_, DecodeError>>()?,
    })
}

fn decode_port(network: Id<Network>, message: &v1::Port) -> Result<PortRow, DecodeError> {
    Ok(PortRow {
        id: decode_id("the port's id", &message.id)?,
        network_id: network,
        mac: decode_mac("the port's mac", &message.mac)?,
        fixed_ips: message
            .fixed_ips
            .iter()
            .map(|fixed| {
                Ok(FixedIp {
                    subnet_id: decode_id("a fixed IP's subnet", &fixed.subnet_id)?,
                    ip_address: decode_ip("a fixed IP", &fixed.ip)?,
                })
            })
            .collect::<Result<_, DecodeError>>()?,
        allowed_address_pairs: message
            .allowed_address_pairs
            .iter()
            .map(|pair| {
                Ok(AddressPair {
                    ip_address: decode_prefix("an allowed pair's prefix", pair.prefix.as_ref())?,
                    mac_address: decode_mac("an allowed pair's mac", &pair.mac)?,
                })
            })
            .collect::<Result<_, DecodeError>>()?,
        admin_state_up: message.admin_state_up,
        port_security_enabled: message.port_security_enabled,
        dns_name: message.dns_name.clone(),
        label: message
            .label
            .map(|label| decode_u16("label", label))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use alcor_dataplane::testing::Scenario;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        /// Every row of a generated goal state arrives as it left, and so does its tombstone.
        #[test]
        fn rows_travel(seed: u64, revision: u64) {
            for row in Scenario::floating(seed).rows {
                let key = row.key();
                let network = key.network_id();
                let sent = encode_row(Revision(revision), &row);
                prop_assert_eq!(decode_row(network, &sent), Ok((Revision(revision), RowChange::Put(row))));
                let sent = encode_tombstone(Revision(revision), &key);
                prop_assert_eq!(decode_row(network, &sent), Ok((Revision(revision), RowChange::Remove(key))));
            }
        }

        /// Any bytes are a row or an error.
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(row) = v1::Row::decode(bytes.as_slice()) {
                let _ = decode_row(Id::from_uuid(uuid::Uuid::nil()), &row);
            }
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let network = Id::from_uuid(uuid::Uuid::nil());
        let row = |body| v1::Row { revision: 1, body };
        assert_eq!(
            decode_row(network, &row(None)),
            Err(DecodeError::Missing("the row's body"))
        );
        let vni = v1::row::Body::Network(v1::Network {
            vni: 0,
            mtu: 1450,
            admin_state_up: true,
            underlay: None,
            on_demand: false,
            gateways: Vec::new(),
        });
        assert_eq!(
            decode_row(network, &row(Some(vni))),
            Err(DecodeError::Range { what: "vni", got: 0 })
        );
        let long = v1::Prefix {
            address: Bytes::from_static(&[10, 0, 0, 0]),
            length: 33,
        };
        assert_eq!(
            decode_prefix("cidr", Some(&long)),
            Err(DecodeError::Range {
                what: "cidr",
                got: 33
            })
        );
        assert_eq!(
            decode_ip("ip", &[1, 2, 3]),
            Err(DecodeError::Length { what: "ip", got: 3 })
        );
    }
}
