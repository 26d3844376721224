//! Between the types of rows and the bytes of maps.
#![allow(unsafe_code)]

use std::net::IpAddr;

use alcor_dataplane_abi::{
    connection::Connection,
    gateway_layout::{
        BlockValue, DeviceValue, ExternalValue, FloatingValue, FragmentKey, FragmentValue, Ipv4Key, Ipv6Key,
        Load, NatBack, NatKey, NatValue, PeerValue, RouterValue, VniValue,
    },
    layout::{
        BitsKey, ConnectionKey, Counters, FilterValue, FloatingIn, FloatingKey, FloatingOut, GatewaySet,
        IPV4, IPV6, IpKey, KeptKey, KeptValue, LabelKey, LocalIp, LocalMac, MacKey, NeighbourValue,
        NetworkValue, PairKey, PortValue, PrefixKey, RemoteMac, RouteValue, ServiceKey, TranslationKey,
        WayOut,
    },
};
use aya::Pod;

/// A map key or value. A type of this crate, so that aya's trait can be implemented for it.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Plain<T>(pub(crate) T);

macro_rules! plain {
    ($($name:ident),+) => {
        $(
            // SAFETY: the layout types are repr(C), have no padding (asserted where they are declared) and
            // consist of integers and byte arrays, so any bytes are a value and every value is bytes.
            unsafe impl Pod for Plain<$name> {}
        )+
    };
}

plain!(
    BitsKey,
    BlockValue,
    Connection,
    ConnectionKey,
    Counters,
    DeviceValue,
    ExternalValue,
    FilterValue,
    FloatingIn,
    FloatingKey,
    FloatingOut,
    FloatingValue,
    FragmentKey,
    FragmentValue,
    GatewaySet,
    IpKey,
    Ipv4Key,
    Ipv6Key,
    KeptKey,
    KeptValue,
    LabelKey,
    Load,
    LocalIp,
    LocalMac,
    MacKey,
    NatBack,
    NatKey,
    NatValue,
    NeighbourValue,
    NetworkValue,
    PairKey,
    PeerValue,
    PortValue,
    PrefixKey,
    RemoteMac,
    RouteValue,
    RouterValue,
    ServiceKey,
    TranslationKey,
    VniValue,
    WayOut
);

/// Family and bytes of an address.
pub(crate) fn address(ip: IpAddr) -> (u32, [u8; 16]) {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            (IPV4, bytes)
        }
        IpAddr::V6(ip) => (IPV6, ip.octets()),
    }
}

/// The address of a family and bytes.
pub(crate) fn ip(family: u32, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    if family == IPV4 {
        [a, b, c, d].into()
    } else {
        bytes.into()
    }
}

/// The key of an address in a network or of a port.
pub(crate) fn ip_key(scope: u32, ip: IpAddr) -> IpKey {
    let (family, ip) = address(ip);
    IpKey { scope, family, ip }
}

/// The key of a MAC in a network or of a port.
pub(crate) fn mac_key(scope: u32, mac: [u8; 6]) -> MacKey {
    MacKey {
        scope,
        mac,
        pad: [0; 2],
    }
}
