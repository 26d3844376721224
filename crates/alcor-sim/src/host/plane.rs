//! The data plane under an agent: that of a host, or of a gateway, which takes and gives packets of the underlay.

use std::net::{IpAddr, Ipv4Addr};

use alcor_dataplane::{
    Dataplane,
    gateway::{GatewayModel, GatewayVerdict, Side},
    model::Model,
};
use alcor_dataplane_abi::gateway_layout::{VXLAN_HAS_VNI, VXLAN_PORT};
use alcor_model::MacAddr;
use bytes::Bytes;
use etherparse::PacketBuilder;

use super::Carried;

/// The device of a gateway that leads to the underlay.
const UNDERLAY: Side = Side {
    underlay: true,
    external: false,
    mac: MacAddr([2, 0, 0, 0, 0, 1]),
};
/// A VXLAN header has a label; a packet was passed on by a host that its port has left.
const HAS_LABEL: u8 = 0x80;
const WAS_FORWARDED: u8 = 0x40;
/// Where a tunnel packet that begins with its IPv4 header has its destination, its VXLAN header, and its frame.
const DESTINATION: usize = 16;
const VXLAN: usize = 28;
const FRAME: usize = 36;

/// The data plane.
pub(super) enum Plane {
    /// Of a host.
    Host(Box<Model>),
    /// Of a gateway, with its tunnel address.
    Gateway(Box<GatewayModel>, Ipv4Addr),
}

impl Plane {
    /// What both can.
    pub(super) fn all(&mut self) -> &mut dyn Dataplane {
        match self {
            Self::Host(model) => model.as_mut(),
            Self::Gateway(model, _) => model.as_mut(),
        }
    }

    /// The data plane of a host.
    pub(super) fn host(&mut self) -> Option<&mut Model> {
        match self {
            Self::Host(model) => Some(model),
            Self::Gateway(..) => None,
        }
    }

    /// A gateway takes a packet out of a tunnel: to whom it goes on, or why not.
    pub(super) fn forward(&mut self, source: IpAddr, carried: &Carried) -> Result<(IpAddr, Carried), String> {
        let (Self::Gateway(model, own), IpAddr::V4(source)) = (self, source) else {
            return Err("this is no gateway".to_owned());
        };
        match model.process(&UNDERLAY, &encapsulate(source, *own, carried)) {
            GatewayVerdict::Underlay(packet) => {
                unwrap(&packet).ok_or_else(|| "its packet cannot be read".to_owned())
            }
            GatewayVerdict::Drop(reason) => Err(reason.as_str().to_owned()),
            other => Err(format!("{other:?}")),
        }
    }
}

fn encapsulate(source: Ipv4Addr, destination: Ipv4Addr, carried: &Carried) -> Vec<u8> {
    let [_, vni @ ..] = carried.vni.to_be_bytes();
    let [high, low] = carried.label.to_be_bytes();
    let mut payload = vec![
        VXLAN_HAS_VNI
            | if carried.label == 0 && !carried.forwarded {
                0
            } else {
                HAS_LABEL
            },
        if carried.forwarded { WAS_FORWARDED } else { 0 },
        high,
        low,
    ];
    payload.extend(vni);
    payload.push(0);
    payload.extend(&carried.frame);
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], UNDERLAY.mac.0)
        .ipv4(source.octets(), destination.octets(), 64)
        .udp(VXLAN_PORT, VXLAN_PORT);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    // Writing into memory does not fail; an empty packet would be passed by and seen.
    if builder.write(&mut packet, &payload).is_err() {
        packet.clear();
    }
    packet
}

/// To whom a tunnel packet goes, and what it carries.
fn unwrap(packet: &Bytes) -> Option<(IpAddr, Carried)> {
    let to: [u8; 4] = packet.get(DESTINATION..)?.first_chunk().copied()?;
    let [flags, more, high, low, a, b, c, _] = packet.get(VXLAN..)?.first_chunk::<8>().copied()?;
    let label = match flags & HAS_LABEL {
        0 => 0,
        _ => u16::from_be_bytes([high, low]),
    };
    let carried = Carried {
        vni: u32::from_be_bytes([0, a, b, c]),
        label,
        forwarded: more & WAS_FORWARDED != 0,
        frame: (packet.len() > FRAME).then(|| packet.slice(FRAME..))?,
    };
    Some((IpAddr::V4(to.into()), carried))
}
