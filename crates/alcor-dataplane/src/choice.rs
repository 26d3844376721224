//! Which gateway a packet or a router goes to, in terms of rows: [`alcor_dataplane_abi::gateway`] for addresses and ids. Pure.

use std::net::IpAddr;

use alcor_dataplane_abi::gateway::{choose, flow_key, key};
use alcor_model::{Id, Router};

/// An address as keys are made of it: IPv4 in the first four bytes, the rest is 0.
pub fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The gateway that takes what one address sends to another; `None` when there are none.
pub fn of_flow(source: IpAddr, destination: IpAddr, gateways: &[IpAddr]) -> Option<IpAddr> {
    member(flow_key(&bytes(source), &bytes(destination)), gateways)
}

/// The gateway that owns all that faces the outside for a router; `None` when there are none.
pub fn owner(router: Id<Router>, gateways: &[IpAddr]) -> Option<IpAddr> {
    member(key(router.uuid().as_bytes()), gateways)
}

fn member(key: u64, gateways: &[IpAddr]) -> Option<IpAddr> {
    let members = gateways
        .iter()
        .map(|ip| alcor_dataplane_abi::gateway::key(&bytes(*ip)));
    gateways.get(choose(key, members)?).copied()
}
