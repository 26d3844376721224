//! Stage 5: the IPv4 header, DHCP, source addresses.

use alcor_dataplane_abi::{
    DropReason, PuntReason,
    layout::{IPV4, PORT_DHCP4},
};

use crate::{
    ETH_LEN, Work,
    end::End,
    is_group,
    skb::{be16, part, put},
};

const PROTO_ICMP: u8 = 1;
const PROTO_UDP: u8 = 17;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const FRAGMENT: u16 = 0x3fff;

/// Stage 5, packed.
#[inline(never)]
pub fn check(work: &mut Work) -> u64 {
    End::pack(checked(work))
}

#[inline(always)]
fn checked(work: &mut Work) -> Result<(), End> {
    const MALFORMED: End = End::drop(DropReason::Malformed);
    let header = &mut work.packet.bytes;
    work.skb.load::<20>(ETH_LEN, header).ok_or(MALFORMED)?;
    let header_len = (header[0] & 0x0f) as u32 * 4;
    let total_len = be16(header, 2) as u32;
    if header[0] >> 4 != 4
        || header_len < 20
        || total_len < header_len
        || total_len > work.skb.len().wrapping_sub(ETH_LEN)
    {
        return Err(MALFORMED);
    }
    let upper_len = total_len - header_len;
    let fragment = be16(header, 6) & FRAGMENT;
    work.packet.family = IPV4;
    work.packet.ttl = header[8];
    work.packet.protocol = header[9];
    work.packet.upper = ETH_LEN + header_len;
    put(&mut work.packet.source, 0, &part::<4>(header, 12));
    put(&mut work.packet.destination, 0, &part::<4>(header, 16));
    if work.packet.protocol == PROTO_ICMP && fragment == 0 && header_len == 20 && upper_len >= 8 {
        work.packet.echo_request = work.skb.bytes::<1>(ETH_LEN + 20).ok_or(MALFORMED)?[0] == 8;
    }

    let mut is_dhcp = false;
    if work.packet.protocol == PROTO_UDP && fragment & FRAGMENT_OFFSET == 0 {
        if upper_len < 8 {
            return Err(MALFORMED);
        }
        let ports: [u8; 4] = work.skb.bytes(work.packet.upper).ok_or(MALFORMED)?;
        is_dhcp = ports == [0, 68, 0, 67];
        if is_dhcp && work.port.flags & PORT_DHCP4 != 0 {
            return Err(End::punt(PuntReason::Dhcp4));
        }
        if is_dhcp && is_group(work) {
            return Err(End::drop(DropReason::NoFlood));
        }
        if ports == [0, 67, 0, 68] && work.secured() {
            return Err(End::drop(DropReason::DhcpServer));
        }
    }
    let unconfigured = is_dhcp && work.packet.source == [0; 16];
    if work.secured() && !unconfigured && !work.is_allowed(&work.packet.source) {
        return Err(End::drop(DropReason::SpoofedIp));
    }
    Ok(())
}
