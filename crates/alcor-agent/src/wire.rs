//! Reads the NCM's messages: protobuf to what the state machine takes.
//!
//! A row that cannot be read is refused alone, with the reason; a message that cannot be placed (no network, no
//! phase) breaks the protocol.

use std::{net::IpAddr, time::Duration};

use alcor_dataplane::{NeighbourRow, NetworkRow, PortRow, Row, RowChange, RowKey, SubnetRow};
use alcor_model::{
    Id, MacAddr, Network, Revision, Vni,
    resource::{AddressPair, FixedIp, HostRoute},
};
use alcor_proto::v1::{self, SnapshotPhase, ncm_message::Body};
use ipnet::IpNet;
use thiserror::Error;
use uuid::Uuid;

use crate::delta::{Delta, FromNcm, Phase};

/// What of a message or row cannot be read. The text goes into receipts.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// A field that must be there is not, or an enumeration has no meaning here.
    #[error("{0} is missing or has no meaning")]
    Missing(&'static str),
    /// A field has the wrong length or a value out of its range.
    #[error("{0} has the wrong length or is out of range")]
    Range(&'static str),
}

/// Reads one message.
///
/// # Errors
/// When it breaks the protocol as a whole; rows that cannot be read are in the delta.
pub fn read(message: v1::NcmMessage) -> Result<FromNcm, WireError> {
    match message.body.ok_or(WireError::Missing("the message"))? {
        Body::Welcome(welcome) => Ok(FromNcm::Welcome {
            heartbeat_interval: Duration::from_millis(u64::from(welcome.heartbeat_interval_ms)),
        }),
        Body::Delta(delta) => {
            let network = id(&delta.network_id, "the network id")?;
            let phase = phase(delta.snapshot())?;
            let rows = delta.rows.into_iter();
            Ok(FromNcm::Delta(Delta {
                sequence: delta.sequence,
                network,
                revision: Revision(delta.revision),
                phase,
                rows: rows
                    .map(|row| read_row(network, row).map_err(|error| error.to_string()))
                    .collect(),
            }))
        }
    }
}

const fn phase(phase: SnapshotPhase) -> Result<Phase, WireError> {
    Ok(match phase {
        SnapshotPhase::Unspecified => return Err(WireError::Missing("the snapshot phase")),
        SnapshotPhase::Delta => Phase::Delta,
        SnapshotPhase::Begin => Phase::Begin,
        SnapshotPhase::Part => Phase::Part,
        SnapshotPhase::End => Phase::End,
        SnapshotPhase::Whole => Phase::Whole,
        SnapshotPhase::Forget => Phase::Forget,
    })
}

fn read_row(network: Id<Network>, row: v1::Row) -> Result<(Revision, RowChange), WireError> {
    if row.revision == 0 {
        return Err(WireError::Missing("the row's revision"));
    }
    let change = match row.body.ok_or(WireError::Missing("the row"))? {
        v1::row::Body::Network(row) => RowChange::Put(Row::Network(NetworkRow {
            id: network,
            vni: Vni::try_from(row.vni).map_err(|_| WireError::Range("the VNI"))?,
            mtu: u16::try_from(row.mtu).map_err(|_| WireError::Range("the MTU"))?,
            admin_state_up: row.admin_state_up,
        })),
        v1::row::Body::Subnet(row) => RowChange::Put(Row::Subnet(subnet(network, row)?)),
        v1::row::Body::Port(row) => RowChange::Put(Row::Port(port(network, row)?)),
        v1::row::Body::Neighbour(row) => RowChange::Put(Row::Neighbour(NeighbourRow {
            network_id: network,
            ip: ip(&row.ip, "the neighbour's address")?,
            mac: mac(&row.mac, "the neighbour's MAC")?,
            host: ip(&row.host, "the neighbour's host")?,
            label: u16::try_from(row.label).map_err(|_| WireError::Range("the label"))?,
        })),
        v1::row::Body::Tombstone(tombstone) => RowChange::Remove(tombstone_key(network, tombstone)?),
    };
    Ok((Revision(row.revision), change))
}

fn tombstone_key(network: Id<Network>, tombstone: v1::Tombstone) -> Result<RowKey, WireError> {
    use v1::tombstone::Key;
    Ok(
        match tombstone.key.ok_or(WireError::Missing("the tombstone's key"))? {
            Key::Network(_) => RowKey::Network(network),
            Key::SubnetId(bytes) => RowKey::Subnet(network, id(&bytes, "the subnet id")?),
            Key::PortId(bytes) => RowKey::Port(network, id(&bytes, "the port id")?),
            Key::NeighbourIp(bytes) => RowKey::Neighbour(network, ip(&bytes, "the neighbour's address")?),
        },
    )
}

fn subnet(network: Id<Network>, row: v1::Subnet) -> Result<SubnetRow, WireError> {
    let route = |route: v1::Route| {
        Ok(HostRoute {
            destination: prefix(route.destination, "a route's destination")?,
            nexthop: ip(&route.nexthop, "a route's next hop")?,
        })
    };
    let gateway = (!row.gateway_ip.is_empty()).then(|| ip(&row.gateway_ip, "the gateway"));
    let servers = row.dns_nameservers.iter().map(|bytes| ip(bytes, "a DNS server"));
    Ok(SubnetRow {
        id: id(&row.id, "the subnet id")?,
        network_id: network,
        cidr: prefix(row.cidr, "the subnet's prefix")?,
        gateway_ip: gateway.transpose()?,
        gateway_mac: mac(&row.gateway_mac, "the gateway's MAC")?,
        enable_dhcp: row.enable_dhcp,
        slaac: row.slaac,
        dns_nameservers: servers.collect::<Result<_, _>>()?,
        host_routes: row.host_routes.into_iter().map(route).collect::<Result<_, _>>()?,
    })
}

fn port(network: Id<Network>, row: v1::Port) -> Result<PortRow, WireError> {
    let fixed_ip = |fixed: v1::FixedIp| {
        Ok(FixedIp {
            subnet_id: id(&fixed.subnet_id, "a fixed IP's subnet")?,
            ip_address: ip(&fixed.ip, "a fixed IP")?,
        })
    };
    let pair = |pair: v1::AddressPair| {
        Ok(AddressPair {
            ip_address: prefix(pair.prefix, "an address pair's prefix")?,
            mac_address: mac(&pair.mac, "an address pair's MAC")?,
        })
    };
    Ok(PortRow {
        id: id(&row.id, "the port id")?,
        network_id: network,
        mac: mac(&row.mac, "the port's MAC")?,
        fixed_ips: row
            .fixed_ips
            .into_iter()
            .map(fixed_ip)
            .collect::<Result<_, _>>()?,
        allowed_address_pairs: row
            .allowed_address_pairs
            .into_iter()
            .map(pair)
            .collect::<Result<_, _>>()?,
        admin_state_up: row.admin_state_up,
        port_security_enabled: row.port_security_enabled,
        dns_name: row.dns_name,
    })
}

fn id<T>(bytes: &[u8], what: &'static str) -> Result<Id<T>, WireError> {
    Uuid::from_slice(bytes)
        .map(Id::from_uuid)
        .map_err(|_| WireError::Range(what))
}

fn mac(bytes: &[u8], what: &'static str) -> Result<MacAddr, WireError> {
    bytes.try_into().map(MacAddr).map_err(|_| WireError::Range(what))
}

fn ip(bytes: &[u8], what: &'static str) -> Result<IpAddr, WireError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(octets.into());
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| WireError::Range(what))
}

fn prefix(prefix: Option<v1::Prefix>, what: &'static str) -> Result<IpNet, WireError> {
    let prefix = prefix.ok_or(WireError::Missing(what))?;
    let length = u8::try_from(prefix.length).map_err(|_| WireError::Range(what))?;
    IpNet::new(ip(&prefix.address, what)?, length).map_err(|_| WireError::Range(what))
}
