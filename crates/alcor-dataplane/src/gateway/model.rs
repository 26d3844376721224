//! The model of a gateway: frames in, verdicts out.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use alcor_dataplane_abi::gateway_layout::IcmpMeter;
use alcor_model::{Id, Router};

use super::{External, GatewayVerdict, NatLimits, Rows, Side, nat::Nat, outside, underlay};
use crate::{
    Dataplane, DataplaneError, DropReason, Drops, RowChange, Snapshot,
    packet::{
        ETH_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, Ethernet, array,
    },
};

/// The name of this data plane, in refusals too.
const NAME: &str = "gateway-model";

/// A gateway without a kernel.
#[derive(Debug)]
pub struct GatewayModel {
    pub(super) rows: Rows,
    pub(super) tunnel_ip: Ipv4Addr,
    pub(super) probes: bool,
    pub(super) nat: Nat,
    /// Most bytes of a packet that the way to the outside takes.
    pub(super) way_mtu: u16,
    icmp: IcmpMeter,
    drops: BTreeMap<DropReason, u64>,
    pub(super) now: Duration,
}

impl GatewayModel {
    /// A gateway without rows; `probes`: it sends probes back.
    pub fn new(tunnel_ip: Ipv4Addr, probes: bool) -> Self {
        Self {
            rows: Rows::default(),
            tunnel_ip,
            probes,
            nat: Nat::default(),
            way_mtu: u16::MAX,
            icmp: IcmpMeter { last_ns: 0, count: 0 },
            drops: BTreeMap::new(),
            now: Duration::ZERO,
        }
    }

    /// Takes one frame along the path, and counts it when it is dropped.
    pub fn process(&mut self, side: &Side, frame: &[u8]) -> GatewayVerdict {
        let verdict = self.walk(side, frame).unwrap_or_else(GatewayVerdict::from);
        if let GatewayVerdict::Drop(reason) = verdict {
            *self.drops.entry(reason).or_default() += 1;
        }
        verdict
    }

    /// "Where a frame belongs."
    fn walk(&mut self, side: &Side, frame: &[u8]) -> Result<GatewayVerdict, DropReason> {
        let Some(ethernet) = Ethernet::read(frame) else {
            return Ok(GatewayVerdict::Pass);
        };
        let is_only_external = side.external && !side.underlay;
        match ethernet.ethertype {
            ETHERTYPE_ARP if side.external => return Ok(outside::arp(self, side.mac, frame)),
            ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN if is_only_external => return outside::tagged(frame),
            _ => {}
        }
        let destination = array::<4>(frame, ETH_LEN + 16).map(Ipv4Addr::from);
        let (ETHERTYPE_IPV4, Some(destination)) = (ethernet.ethertype, destination) else {
            return Ok(GatewayVerdict::Pass);
        };
        if side.underlay && destination == self.tunnel_ip {
            return underlay::from_underlay(self, frame);
        }
        match self.owned_external(destination) {
            Some(external) if side.external => outside::from_outside(self, frame, external),
            // Where the node would send it is the kernel's knowledge.
            _ if is_only_external => outside::foreign(self, frame),
            _ => Ok(GatewayVerdict::Pass),
        }
    }

    /// What an address leads to that is `external` and of a router that is `owned`.
    pub(super) fn owned_external(&self, ip: Ipv4Addr) -> Option<External> {
        let external = self.rows.external(ip)?;
        let is_owned = self.rows.is_owned(external.router(), self.tunnel_ip);
        is_owned.then_some(external)
    }

    /// Counts an ICMP error, if one may be sent now.
    pub(super) fn admit_icmp(&mut self) -> Result<(), DropReason> {
        self.icmp = self.icmp.admit(self.now_ns()).ok_or(DropReason::IcmpLimit)?;
        Ok(())
    }

    /// The model's clock as connections have it.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sets how much source NAT may take from now on.
    pub const fn set_nat_limits(&mut self, limits: NatLimits) {
        self.nat.limits = limits;
    }

    /// Sets the most bytes of a packet that the way to the outside takes from now on; any at first.
    pub const fn set_way_mtu(&mut self, mtu: u16) {
        self.way_mtu = mtu;
    }

    /// Forgets connections that expired.
    pub fn sweep(&mut self) {
        self.nat.sweep(self.now_ns());
    }

    /// Connections that are translated, by router.
    pub fn nat_connections(&self) -> BTreeMap<Id<Router>, u64> {
        self.nat.counts()
    }

    /// Moves the model's clock, which stands still otherwise.
    pub const fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    /// How often frames were dropped for this reason.
    pub fn drop_count(&self, reason: DropReason) -> u64 {
        self.drops.get(&reason).copied().unwrap_or_default()
    }
}

impl Dataplane for GatewayModel {
    fn name(&self) -> &'static str {
        NAME
    }

    fn filters(&self) -> bool {
        false
    }

    fn apply(&mut self, changes: &[RowChange]) -> Vec<Result<(), DataplaneError>> {
        let apply = |change| {
            let outcome = self.rows.apply(NAME, change);
            let rows = &self.rows;
            self.nat.forget(
                |vni| rows.network_of_vni(vni).is_some(),
                |router| rows.is_named(router),
            );
            outcome
        };
        changes.iter().map(apply).collect()
    }

    fn snapshot(&mut self) -> Result<Snapshot, DataplaneError> {
        Ok(Snapshot {
            rows: self.rows.all().cloned().collect(),
            devices: BTreeMap::new(),
        })
    }

    fn drops(&mut self) -> Result<Drops, DataplaneError> {
        let drops = self.drops.iter();
        Ok(drops.map(|(reason, count)| ((None, *reason), *count)).collect())
    }
}
