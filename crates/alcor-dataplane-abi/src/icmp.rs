//! ICMP errors of IPv4, as kernel programs of hosts and gateways write them: about a packet that cannot go on, to whoever sent it. Pure. Not
//! here: when one is due, and the model's, which writes its own to be compared with.

use crate::{
    connection::Direction,
    csum_fold,
    flow::{Identity, PROTO_ICMP, Upper, identify},
    gateway_layout::GATEWAY_TTL,
};

/// Time exceeded in transit, as type and code.
pub const TIME_EXCEEDED: u16 = 0x0b00;
/// Fragmentation needed, as type and code.
pub const TOO_LONG: u16 = 0x0304;
/// What an error quotes: a header without options and 8 bytes.
pub const QUOTED_LEN: usize = 28;
/// Where in an error that lies: behind its own header, and 8 bytes of ICMP.
pub const QUOTE: usize = IPV4_LEN + 8;
/// Bytes of an error, from its IPv4 header on.
pub const ERROR_LEN: usize = QUOTE + QUOTED_LEN;

const IPV4_LEN: usize = 20;

/// True for a packet, or a first fragment, that may be answered with an error: it is none itself, and one station sent it (RFC 1122,
/// section 3.2.2).
#[inline(always)]
pub const fn may_be_told(upper: &Upper, source: [u8; 4]) -> bool {
    let is_query = upper.protocol != PROTO_ICMP
        || matches!(identify(upper, Direction::Egress), Identity::Tracked { .. });
    let first = source[0];
    is_query && first != 0 && first != 127 && first < 224
}

/// Writes an error between two addresses around the packet that it quotes, which lies at [`QUOTE`] already; the MTU is that of
/// "fragmentation needed", else 0.
#[inline(always)]
pub const fn write(error: &mut [u8; ERROR_LEN], source: [u8; 4], destination: [u8; 4], kind: u16, mtu: u16) {
    let mut at = 0;
    while at < QUOTE {
        error[at] = 0;
        at += 1;
    }
    error[0] = 0x45;
    error[3] = ERROR_LEN as u8;
    // Not to be fragmented.
    error[6] = 0x40;
    error[8] = GATEWAY_TTL;
    error[9] = PROTO_ICMP;
    at = 0;
    while at < 4 {
        error[12 + at] = source[at];
        error[16 + at] = destination[at];
        at += 1;
    }
    let ([a, b], [c, d]) = (kind.to_be_bytes(), mtu.to_be_bytes());
    error[IPV4_LEN] = a;
    error[IPV4_LEN + 1] = b;
    error[IPV4_LEN + 6] = c;
    error[IPV4_LEN + 7] = d;
    let [a, b] = csum_fold(sum(error, 0, IPV4_LEN)).to_be_bytes();
    error[10] = a;
    error[11] = b;
    let [a, b] = csum_fold(sum(error, IPV4_LEN, ERROR_LEN)).to_be_bytes();
    error[IPV4_LEN + 2] = a;
    error[IPV4_LEN + 3] = b;
}

#[inline(always)]
const fn sum(bytes: &[u8; ERROR_LEN], from: usize, to: usize) -> u32 {
    let mut sum = 0;
    let mut at = from;
    while at < to {
        sum += (bytes[at] as u32) << 8 | bytes[at + 1] as u32;
        at += 2;
    }
    sum
}
