//! Stages 9 and 10: to whom the frame goes, and out.

use std::collections::BTreeMap;

use alcor_model::{Id, Port};
use bytes::Bytes;

use super::{
    path::{Context, End, Packet},
    tables::Peer,
};
use crate::{DropReason, PortRow, Verdict, packet::ETH_LEN};

/// Labels of security groups are not stamped yet.
const NO_LABEL: u16 = 0;

pub(super) fn switch(context: &Context<'_>, packet: &Packet) -> Result<Verdict, End> {
    let peer = context
        .network
        .fdb(context.ethernet.destination)
        .ok_or(End::Unknown(packet.destination))?;
    if matches!(peer, Peer::Local(receiver) if receiver.id == context.port.id) {
        return Err(DropReason::Loop.into());
    }
    send(context, peer, context.frame.to_vec())
}

pub(super) fn send(context: &Context<'_>, peer: Peer<'_>, frame: Vec<u8>) -> Result<Verdict, End> {
    let network = &context.network.row;
    if frame.len() - ETH_LEN.min(frame.len()) > usize::from(network.mtu) {
        return Err(DropReason::Oversize.into());
    }
    match peer {
        Peer::Local(receiver) => Ok(deliver(receiver, context.devices, frame.into())?),
        Peer::Remote(neighbour) => Ok(Verdict::Tunnel {
            host: neighbour.host,
            vni: network.vni,
            label: NO_LABEL,
            frame: frame.into(),
        }),
    }
}

pub(super) fn deliver(
    receiver: &PortRow,
    devices: &BTreeMap<Id<Port>, String>,
    frame: Bytes,
) -> Result<Verdict, DropReason> {
    if !receiver.admin_state_up || !devices.contains_key(&receiver.id) {
        return Err(DropReason::PortDown);
    }
    Ok(Verdict::Deliver {
        port: receiver.id,
        frame,
    })
}
