//! How many addresses a subnet has, and how many of them ports have.

use alcor_model::Subnet;
use ipnet::IpNet;

use super::number;
use crate::RegionState;

/// The addresses of one subnet in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressCounts {
    /// In the block.
    pub all: u128,
    /// In the block, without the network address and the broadcast address of IPv4.
    pub usable: u128,
    /// In the ranges that addresses are given out from.
    pub in_pools: u128,
    /// Had by ports.
    pub used: u64,
    /// Had by ports, in the ranges.
    pub used_in_pools: u64,
}

impl AddressCounts {
    /// Counts them. Costs as much as there are addresses in use.
    pub fn of(state: &RegionState, subnet: &Subnet) -> Self {
        let size = |first, last| number(last).saturating_sub(number(first)).saturating_add(1);
        let all = size(subnet.cidr.network(), subnet.cidr.broadcast());
        let mut counts = Self {
            all,
            usable: match subnet.cidr {
                IpNet::V4(_) => all.saturating_sub(2),
                IpNet::V6(_) => all,
            },
            in_pools: subnet
                .allocation_pools
                .iter()
                .fold(0, |sum, pool| size(pool.start, pool.end).saturating_add(sum)),
            used: 0,
            used_in_pools: 0,
        };
        for (ip, _) in state.addresses_of(subnet.id) {
            counts.used += 1;
            let in_pool = subnet
                .allocation_pools
                .iter()
                .any(|pool| (pool.start..=pool.end).contains(&ip));
            counts.used_in_pools += u64::from(in_pool);
        }
        counts
    }
}
