//! Devices: made, brought up and looked at.

use std::{io, path::Path};

use alcor_dataplane::DataplaneError;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::ifaddrs::getifaddrs;

use crate::{
    error,
    netlink::{Ask, ask},
};

/// UDP port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;
/// Largest MTU of the tunnel device: it must never be the one to say no, the networks' MTUs do.
const TUNNEL_MTU: u32 = 65_000;

/// Is there when the kernel has IPv6.
const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6";

/// What the data plane must know of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    /// MAC; zeroes where the kind of device has none.
    pub(crate) mac: [u8; 6],
    /// One end of a veth pair.
    pub(crate) is_veth: bool,
    /// One end of a veth pair whose other end is in another network namespace.
    pub(crate) peer_elsewhere: bool,
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn refused(name: &str) -> impl Fn(io::Error) -> DataplaneError {
    move |reason| error::device(name, reason.to_string())
}

/// The interface index of a name, if there is such a device in this network namespace.
pub(crate) fn ifindex(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

/// Whether a device has an IPv4 address.
pub(crate) fn has_ipv4(name: &str) -> Result<bool, DataplaneError> {
    let mut addresses = getifaddrs().map_err(|source| error::device(name, source.to_string()))?;
    Ok(addresses.any(|found| {
        let is_ipv4 = found
            .address
            .is_some_and(|address| address.as_sockaddr_in().is_some());
        found.interface_name == name && is_ipv4
    }))
}

/// Looks at a device.
pub(crate) fn look(name: &str) -> Result<Device, DataplaneError> {
    let link = match ask(Ask::Get(named(name))) {
        Ok(link) => link.ok_or_else(|| error::device(name, "the kernel did not describe it"))?,
        Err(missing) if missing.raw_os_error() == Some(libc::ENODEV) => {
            return Err(error::device(name, "there is no such device"));
        }
        Err(other) => return Err(error::device(name, other.to_string())),
    };
    let is_veth = link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Veth)))
    });
    let elsewhere = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
        _ => None,
    });
    Ok(Device {
        name: name.to_owned(),
        ifindex: link.header.index,
        mac: mac.unwrap_or_default(),
        is_veth,
        peer_elsewhere: is_veth && elsewhere,
    })
}

/// The device with this index, if it is there.
pub(crate) fn look_at_index(ifindex: u32) -> Option<Device> {
    let name = nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()?;
    look(&name).ok()
}

/// Brings a device up. It gets no address: what this host would say there, the VM would hear.
pub(crate) fn bring_up(name: &str) -> Result<(), DataplaneError> {
    // A kernel without IPv6 refuses the setting, and needs it not. It must be there before the device is up, or the
    // kernel has made an address already.
    if Path::new(IPV6_SETTINGS).exists() {
        let mut link = named(name);
        link.attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
                AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
            ])]));
        ask(Ask::Set(link)).map_err(refused(name))?;
    }
    let mut link = named(name);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    ask(Ask::Set(link)).map(drop).map_err(refused(name))
}

/// The tunnel device, made if it is not there.
pub(crate) fn tunnel(name: &str) -> Result<u32, DataplaneError> {
    if ifindex(name).is_none() {
        let mut link = named(name);
        link.attributes.push(LinkAttribute::Mtu(TUNNEL_MTU));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::CollectMetadata(true),
                InfoVxlan::Gbp,
                InfoVxlan::Port(VXLAN_PORT),
                InfoVxlan::Learning(false),
                // Over IPv6 (RFC 6935, section 5), as over IPv4: the inner packet has checksums of its own.
                InfoVxlan::UDPZeroCsumTX(true),
                InfoVxlan::UDPZeroCsumRX(true),
            ])),
        ]));
        ask(Ask::New(link)).map_err(refused(name))?;
    }
    bring_up(name)?;
    ifindex(name).ok_or_else(|| error::device(name, "it is gone again"))
}

/// Removes a device; nothing happens when it is not there.
pub(crate) fn delete(name: &str) -> Result<(), DataplaneError> {
    match ask(Ask::Delete(named(name))) {
        Err(missing) if missing.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        done => done.map(drop).map_err(refused(name)),
    }
}
