//! One entry of one of the small kernel tables, as a value: what rows amount to in the kernel is a set of
//! entries, and a change of rows is the difference of two sets.

use std::collections::BTreeMap;

use alcor_dataplane_abi::layout::{
    BitsKey, FilterValue, FloatingIn, FloatingKey, FloatingOut, GatewaySet, IpKey, LabelKey, LocalIp,
    LocalMac, MacKey, NetworkValue, PairKey, PortValue, PrefixKey, RouteValue, ServiceKey, TranslationKey,
    WayOut,
};

/// Bits of an [`IpKey`] before the address.
pub(crate) const IP_SCOPE_BITS: u32 = 64;
/// Bits of a [`PairKey`] before the address.
pub(crate) const PAIR_SCOPE_BITS: u32 = 96;

/// Which entry. Entries are put in this order and removed in the opposite one, so that what is looked up first
/// (the port by its device, the network by its VNI) is there last and goes first; and so that a set of rules is whole
/// before a port's filter names it, and goes after no filter does any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Bits(BitsKey),
    Label(LabelKey),
    /// Prefix length in bits of the whole key.
    Prefix(u32, PrefixKey),
    /// Prefix length in bits of the whole key.
    Service(u32, ServiceKey),
    /// Prefix length in bits of the whole key.
    Underlay(u32, IpKey),
    Filter(u32),
    FixedIp(IpKey),
    /// Prefix length in bits of the whole key.
    Pair(u32, PairKey),
    PairMac(MacKey),
    Gateway(IpKey),
    /// Prefix length in bits of the whole key.
    Subnet(u32, IpKey),
    /// Prefix length in bits of the whole key.
    Routed(u32, IpKey),
    /// Prefix length in bits of the whole key.
    WayOut(u32, IpKey),
    FloatingOut(IpKey),
    Translation(TranslationKey),
    /// A set of gateways: before the networks that name it.
    Gateways(u32),
    Network(u32),
    LocalMac(MacKey),
    LocalIp(IpKey),
    FloatingIn(FloatingKey),
    Port(u32),
    Vni(u32),
}

impl Key {
    /// True for a part of a set of rules.
    pub(crate) const fn is_of_set(&self) -> bool {
        matches!(
            self,
            Self::Bits(_) | Self::Label(_) | Self::Prefix(..) | Self::Service(..)
        )
    }
}

/// What is in it; `Present` where being there is all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Present,
    Gateways(Box<GatewaySet>),
    Network(NetworkValue),
    LocalMac(LocalMac),
    LocalIp(LocalIp),
    Port(PortValue),
    Vni(u32),
    Filter(FilterValue),
    Route(RouteValue),
    WayOut(WayOut),
    FloatingOut(FloatingOut),
    FloatingIn(FloatingIn),
    /// Number of a row of bits, or of a class; a label.
    Number(u32),
    Word(u64),
}

/// A set of entries.
pub(crate) type Entries = BTreeMap<Key, Value>;
