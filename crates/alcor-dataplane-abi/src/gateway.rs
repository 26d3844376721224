//! Which gateway of a set takes what: rendezvous hashing, so that a member that goes moves what was its, and nothing else.
//!
//! Hosts, gateways and the NCM must choose alike; that is all this is for. Who is in a set, and who is alive, is told by rows.

/// Members of a set that rows may name.
pub const MAX_GATEWAYS: usize = 16;

/// Mixes all bits of a number into all bits of the result (the finalizer of SplitMix64).
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The key of 16 bytes: an id, or an address (IPv4: the first four bytes, the rest is 0).
#[inline(always)]
pub const fn key(bytes: &[u8; 16]) -> u64 {
    let high = u64::from_be_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ]);
    let low = u64::from_be_bytes([
        bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15],
    ]);
    mix(mix(high.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ low)
}

/// The key of what one address sends to another.
#[inline(always)]
pub const fn flow_key(source: &[u8; 16], destination: &[u8; 16]) -> u64 {
    mix(key(source).wrapping_add(key(destination).rotate_left(32)))
}

/// How much a member, by its own key, wants what has a key: the one that wants it most has it.
#[inline(always)]
pub const fn weight(key: u64, member: u64) -> u64 {
    mix(key ^ member)
}

/// The position of the member that has `key`; `None` without members. Of equal weights the first one has it.
pub fn choose(key: u64, members: impl IntoIterator<Item = u64>) -> Option<usize> {
    let mut best = None;
    for (at, member) in members.into_iter().enumerate() {
        let weight = weight(key, member);
        match best {
            Some((_, most)) if most >= weight => {}
            _ => best = Some((at, weight)),
        }
    }
    best.map(|(at, _)| at)
}
