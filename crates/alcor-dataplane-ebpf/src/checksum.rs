//! A station whose device computes checksums leaves them half done, and a frame that is held has been taken before the
//! device did. Here the rest is done. Pure.
//!
//! Not here: SCTP's checksum, which says nothing of being half done; its sender tries again.

use alcor_dataplane::packet::{
    ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV6_LEN, PROTO_UDP, put, u8_at, u16_at,
    word_sum,
};
use alcor_dataplane_abi::{csum_fold, flow::PROTO_TCP};

/// Fragment offset and "more to come".
const FRAGMENT: u16 = 0x3fff;

/// Where the upper layer of a packet lies, and what its checksum covers besides.
struct Upper {
    protocol: u8,
    at: usize,
    end: usize,
    addresses: u32,
}

/// Completes a TCP or UDP checksum that covers only the addresses yet (what the kernel calls `CHECKSUM_PARTIAL`). Others
/// stay as they are, right or wrong.
pub(crate) fn complete(frame: &mut [u8]) {
    if let Some((at, checksum)) = completed(frame) {
        put(frame, at, &checksum.to_be_bytes());
    }
}

fn completed(frame: &[u8]) -> Option<(usize, u16)> {
    let upper = match Ethernet::read(frame)?.ethertype {
        ETHERTYPE_IPV4 => upper_v4(frame),
        ETHERTYPE_IPV6 => upper_v6(frame),
        _ => None,
    }?;
    let segment = frame.get(upper.at..upper.end)?;
    let at = match upper.protocol {
        PROTO_TCP => 16,
        PROTO_UDP => 6,
        _ => return None,
    };
    let covered = upper.addresses + u32::from(upper.protocol) + u32::try_from(segment.len()).ok()?;
    if u16_at(segment, at)? != !csum_fold(covered) {
        return None;
    }
    // The half that is done stands in the segment and is summed up with it.
    let checksum = match csum_fold(fold(word_sum(segment))) {
        // In UDP 0 means that there is none.
        0 if upper.protocol == PROTO_UDP => u16::MAX,
        checksum => checksum,
    };
    Some((upper.at + at, checksum))
}

/// A sum with its carries added once, so that folding it adds the rest.
const fn fold(sum: u32) -> u32 {
    (sum & 0xffff) + (sum >> 16)
}

fn upper_v4(frame: &[u8]) -> Option<Upper> {
    let packet = frame.get(ETH_LEN..)?;
    let header_len = usize::from(u8_at(packet, 0)? & 0x0f) * 4;
    if header_len < IPV4_LEN || u16_at(packet, 6)? & FRAGMENT != 0 {
        return None;
    }
    Some(Upper {
        protocol: u8_at(packet, 9)?,
        at: ETH_LEN + header_len,
        end: ETH_LEN + usize::from(u16_at(packet, 2)?),
        addresses: word_sum(packet.get(12..20)?),
    })
}

fn upper_v6(frame: &[u8]) -> Option<Upper> {
    let packet = frame.get(ETH_LEN..)?;
    let at = ETH_LEN + IPV6_LEN;
    Some(Upper {
        protocol: u8_at(packet, 6)?,
        at,
        end: at + usize::from(u16_at(packet, 4)?),
        addresses: word_sum(packet.get(8..IPV6_LEN)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP segment of IPv4 with this checksum.
    fn tcp(checksum: u16) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, PROTO_TCP, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff]);
        frame.extend(checksum.to_be_bytes());
        frame.extend([0, 0]);
        frame
    }

    const HALF: u16 = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + 20;

    fn is_right(frame: &[u8]) -> bool {
        let covered = word_sum(&frame[26..34]) + 6 + 20;
        csum_fold(covered + word_sum(&frame[34..])) == 0
    }

    #[test]
    fn what_is_half_done_is_done() {
        let mut frame = tcp(HALF);
        complete(&mut frame);
        assert!(is_right(&frame));
        let done = frame.clone();
        complete(&mut frame);
        assert_eq!(frame, done, "what is right stays");
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        for checksum in [0, HALF + 1, 0xffff] {
            let mut frame = tcp(checksum);
            complete(&mut frame);
            assert_eq!(frame, tcp(checksum));
        }
    }

    #[test]
    fn fragments_and_what_is_cut_short_stay() {
        for (at, value) in [(20, 0x20), (17, 200), (14, 0x41)] {
            let mut frame = tcp(HALF);
            frame[at] = value;
            let before = frame.clone();
            complete(&mut frame);
            assert_eq!(frame, before);
        }
        for len in 0..54 {
            let mut frame = tcp(HALF)[..len].to_vec();
            complete(&mut frame);
            assert_eq!(frame, tcp(HALF)[..len]);
        }
    }

    #[test]
    fn udp_of_ipv6_never_ends_without_a_checksum() {
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, PROTO_UDP, 64]);
        frame.extend([0; 32]);
        // Two bytes make the sum what would be 0.
        let half = u16::from(PROTO_UDP) + 10;
        frame.extend([0, 1, 0, 2, 0, 10]);
        frame.extend(half.to_be_bytes());
        let rest = !csum_fold(word_sum(&frame[54..]));
        frame.extend((!rest).to_be_bytes());
        complete(&mut frame);
        assert_eq!(frame[60..62], [0xff, 0xff]);
    }
}
