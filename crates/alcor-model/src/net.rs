//! Link-layer and overlay numbers: MAC addresses and VXLAN network identifiers.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A 48-bit MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

/// The MAC address of every subnet gateway, on every host: routing is distributed, so all hosts answer
/// with the same one. Locally administered, outside of the range that ports get theirs from.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x0e, 0xa1, 0xc0, 0x00, 0x00, 0x01]);

/// The MAC address that hosts answer with for an address that they have asked for and do not know yet, in networks whose gateways know
/// it: whoever has the address. No port has it.
pub const ON_DEMAND_MAC: MacAddr = MacAddr([0x0e, 0xa1, 0xc0, 0x00, 0x00, 0x02]);

impl MacAddr {
    /// Broadcast, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// True for group addresses (multicast and broadcast).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// The modified EUI-64 interface identifier (RFC 4291, appendix A) under a /64 prefix.
    pub fn eui64(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let m = self.0;
        let mut octets = prefix.octets();
        octets[8..].copy_from_slice(&[m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]);
        Ipv6Addr::from(octets)
    }

    /// The link-local address that a host with this MAC forms by EUI-64.
    pub fn link_local(self) -> Ipv6Addr {
        self.eui64(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0))
    }
}

/// A text that is not a MAC address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a MAC address; expected six hexadecimal bytes such as fa:16:3e:00:00:01")]
pub struct MacParseError(pub String);

impl FromStr for MacAddr {
    type Err = MacParseError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fail = || MacParseError(s.to_owned());
        let mut mac = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().ok_or_else(fail)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(fail());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| fail())?;
        }
        if parts.next().is_some() {
            Err(fail())
        } else {
            Ok(Self(mac))
        }
    }
}
impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(
            f,
            "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            m[0], m[1], m[2], m[3], m[4], m[5]
        )
    }
}
impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A VXLAN network identifier: 1 to 16,777,215 (RFC 7348, section 5; 0 is never given out).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

/// A number outside of 1..=16,777,215.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} is not a VXLAN network identifier; it must be between 1 and 16777215")]
pub struct VniRangeError(pub u32);

impl Vni {
    /// The largest identifier, 2^24 - 1.
    pub const MAX: u32 = 0x00ff_ffff;

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}
impl TryFrom<u32> for Vni {
    type Error = VniRangeError;
    fn try_from(value: u32) -> Result<Self, Self::Error> {
        if (1..=Self::MAX).contains(&value) {
            Ok(Self(value))
        } else {
            Err(VniRangeError(value))
        }
    }
}
impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}
impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_reads_what_it_prints_and_refuses_the_rest() {
        let mac: MacAddr = "fa:16:3e:0a:0b:0c".parse().unwrap();
        assert_eq!(mac.to_string(), "fa:16:3e:0a:0b:0c");
        for bad in [
            "",
            "fa:16:3e:0a:0b",
            "fa:16:3e:0a:0b:0c:0d",
            "fa:16:3e:0a:0b:+c",
            "fa163e0a0b0c",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn eui64_flips_the_universal_bit() {
        let mac: MacAddr = "fa:16:3e:0a:0b:0c".parse().unwrap();
        assert_eq!(
            mac.link_local(),
            "fe80::f816:3eff:fe0a:b0c".parse::<Ipv6Addr>().unwrap()
        );
    }

    #[test]
    fn vni_has_24_bits_and_no_zero() {
        assert!(Vni::try_from(0).is_err());
        assert!(Vni::try_from(1 << 24).is_err());
        assert_eq!(Vni::try_from(Vni::MAX).map(Vni::get), Ok(Vni::MAX));
    }
}
