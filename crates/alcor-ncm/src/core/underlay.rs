//! From which addresses a host of a network may get tunnel packets: the tunnel addresses of the hosts with ports there,
//! so that a label is believed only from a host.
//!
//! A network with few hosts has their addresses one by one. In a larger one the row has blocks around them, the smallest
//! ones of which there are few enough: the row stays small, and a host that comes into a block that is there changes it
//! nowhere. So what one host learns is bounded, and what changes is seldom, however many hosts a region has.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Most blocks of one network and address family.
pub const MAX_BLOCKS: usize = 64;
/// Bits by which blocks are widened when there are too many.
const STEP: u8 = 4;
/// So few hosts are told one by one again; fewer than [`MAX_BLOCKS`], so that a network at the bound does not change its
/// blocks with every host.
const MAX_TO_NARROW: usize = MAX_BLOCKS / 2;

/// The hosts of one network.
#[derive(Debug, Default)]
pub(super) struct Underlay {
    /// The tunnel address of each host with ports in the network that has registered one.
    hosts: BTreeMap<String, IpAddr>,
    ipv4: Blocks<32>,
    ipv6: Blocks<128>,
}

/// The blocks of one family, whose addresses have so many bits, with how many hosts are in each.
#[derive(Debug, Default)]
struct Blocks<const BITS: u8> {
    hosts: usize,
    /// How many bits shorter than addresses they are.
    widened: u8,
    counts: BTreeMap<IpNet, usize>,
}

impl<const BITS: u8> Blocks<BITS> {
    fn block(&self, ip: IpAddr) -> IpNet {
        // No prefix is longer than the address, so there is always one.
        let whole = IpNet::new(ip, BITS.saturating_sub(self.widened));
        whole.map_or(everywhere(ip), |block| block.trunc())
    }

    fn count(&mut self, block: IpNet, hosts: usize) {
        *self.counts.entry(block).or_default() += hosts;
    }

    fn add(&mut self, ip: IpAddr) {
        self.hosts += 1;
        self.count(self.block(ip), 1);
        while self.counts.len() > MAX_BLOCKS && self.widened < BITS {
            self.widened = self.widened.saturating_add(STEP).min(BITS);
            for (block, hosts) in std::mem::take(&mut self.counts) {
                self.count(self.block(block.addr()), hosts);
            }
        }
    }

    /// Takes an address away; `others` are those that stay.
    fn remove(&mut self, ip: IpAddr, others: impl Iterator<Item = IpAddr>) {
        let block = self.block(ip);
        self.hosts = self.hosts.saturating_sub(1);
        match self.counts.get_mut(&block) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(&block)),
        }
        if self.widened > 0 && self.hosts <= MAX_TO_NARROW {
            *self = Self::default();
            for ip in others {
                self.add(ip);
            }
        }
    }
}

fn everywhere(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

impl Underlay {
    /// Whether packets may come from a host.
    pub(super) fn has(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// A host with ports in the network has this tunnel address now, or none, or no ports any more. Gives whether the
    /// blocks are others.
    pub(super) fn set(&mut self, host: &str, ip: Option<IpAddr>) -> bool {
        let old = self.hosts.get(host).copied();
        if old == ip {
            return false;
        }
        let before = self.blocks();
        match ip {
            Some(ip) => drop(self.hosts.insert(host.to_owned(), ip)),
            None => drop(self.hosts.remove(host)),
        }
        match ip {
            Some(ip @ IpAddr::V4(_)) => self.ipv4.add(ip),
            Some(ip @ IpAddr::V6(_)) => self.ipv6.add(ip),
            None => {}
        }
        let others = |family: fn(&IpAddr) -> bool| self.hosts.values().copied().filter(family);
        match old {
            Some(old @ IpAddr::V4(_)) => self.ipv4.remove(old, others(IpAddr::is_ipv4)),
            Some(old @ IpAddr::V6(_)) => self.ipv6.remove(old, others(IpAddr::is_ipv6)),
            None => {}
        }
        self.blocks() != before
    }

    /// The blocks, in order.
    pub(super) fn blocks(&self) -> Vec<IpNet> {
        self.ipv4
            .counts
            .keys()
            .chain(self.ipv6.counts.keys())
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn few_hosts_are_told_one_by_one_and_many_by_blocks() {
        let mut underlay = Underlay::default();
        for number in 0..MAX_BLOCKS as u32 {
            assert!(underlay.set(&number.to_string(), Some(address(number))));
        }
        assert!(underlay.blocks().iter().all(|block| block.prefix_len() == 32));
        assert!(underlay.set("one more", Some(address(64))));
        let blocks: Vec<_> = underlay.blocks().iter().map(ToString::to_string).collect();
        assert_eq!(
            blocks,
            [
                "10.0.0.0/28",
                "10.0.0.16/28",
                "10.0.0.32/28",
                "10.0.0.48/28",
                "10.0.0.64/28"
            ]
        );
        assert!(
            !underlay.set("another", Some(address(65))),
            "it is in a block that is there"
        );
        for number in MAX_TO_NARROW as u32..MAX_BLOCKS as u32 {
            underlay.set(&number.to_string(), None);
        }
        underlay.set("one more", None);
        underlay.set("another", None);
        assert_eq!(underlay.blocks().len(), MAX_TO_NARROW);
        assert!(underlay.blocks().iter().all(|block| block.prefix_len() == 32));
    }

    #[test]
    fn addresses_far_apart_end_in_one_block() {
        let mut underlay = Underlay::default();
        for number in 0..=MAX_BLOCKS as u32 {
            let far = IpAddr::from((number << 25 | number >> 7 << 24).to_be_bytes());
            underlay.set(&number.to_string(), Some(far));
        }
        assert!(underlay.blocks().len() <= MAX_BLOCKS);
        let v6 = "2001:db8::1".parse().unwrap();
        assert!(underlay.set("v6", Some(v6)));
        assert!(
            underlay.blocks().contains(&IpNet::from(v6)),
            "families do not widen each other"
        );
    }

    proptest! {
        #[test]
        fn every_host_is_covered_and_nothing_is_left_behind(steps in prop::collection::vec((0u8..100, prop::option::of(any::<u32>())), 1..300)) {
            let mut underlay = Underlay::default();
            let mut hosts: BTreeMap<u8, IpAddr> = BTreeMap::new();
            for (host, ip) in steps {
                let ip = ip.map(|ip| IpAddr::from(ip.to_be_bytes()));
                let before = underlay.blocks();
                let changed = underlay.set(&host.to_string(), ip);
                match ip {
                    Some(ip) => drop(hosts.insert(host, ip)),
                    None => drop(hosts.remove(&host)),
                }
                let blocks = underlay.blocks();
                prop_assert_eq!(changed, blocks != before);
                prop_assert!(blocks.len() <= MAX_BLOCKS);
                prop_assert!(hosts.values().all(|ip| blocks.iter().any(|block| block.contains(ip))));
                prop_assert!(blocks.iter().all(|block| hosts.values().any(|ip| block.contains(ip))));
            }
        }
    }
}
