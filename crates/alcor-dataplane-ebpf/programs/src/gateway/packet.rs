//! "Packets that are translated": the IPv4 packet behind the frame's Ethernet header, what is looked at of it, and the changes that
//! keep its checksums as right or wrong as they were.

use alcor_dataplane_abi::{
    DropReason, csum_replace,
    flow::{PROTO_DCCP, PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, Upper, has_ports},
    icmp::{self, ERROR_LEN, QUOTED_LEN},
    gateway_layout::*,
};

use crate::{
    ETH_LEN, IPV4_LEN,
    end::End,
    frame::{Frame, be16},
};

/// "More to come", and the offset.
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Where the upper layer starts.
pub const UPPER: usize = ETH_LEN + IPV4_LEN;
/// Where an ICMP message has its checksum.
pub const ICMP_CHECKSUM: usize = UPPER + 2;
/// Where the packet that an ICMP error quotes starts, and where its upper layer does.
const QUOTE: usize = UPPER + 8;
const QUOTED_UPPER: usize = QUOTE + IPV4_LEN;
/// The shortest packet that is an ICMP error with all that is looked at.
const QUOTING_LEN: usize = IPV4_LEN + 8 + IPV4_LEN + 8;
/// Where an IPv4 header has its addresses and its checksum.
pub const SOURCE: usize = 12;
pub const DESTINATION: usize = 16;
const HEADER_CHECKSUM: usize = 10;

/// [`Work::part`].
pub const WHOLE: u32 = 0;
pub const FIRST: u32 = 1;
pub const LATER: u32 = 2;

/// One packet, and what the stages found out about it.
pub struct Work {
    /// Its header.
    pub ip: [u8; IPV4_LEN],
    pub total_len: u32,
    /// `WHOLE` and the others.
    pub part: u32,
    /// Of a later fragment only the protocol.
    pub upper: Upper,
    /// What an ICMP error quotes.
    pub quoted_source: [u8; 4],
    pub quoted_destination: [u8; 4],
    pub quoted: Upper,
    /// VNI of its network.
    pub vni: u32,
    /// Handle of its network.
    pub network: u32,
    /// Its network says where tunnel packets may come from.
    pub has_underlay: bool,
    /// It came from a tenant: nothing is answered.
    pub inside: bool,
    /// The router that translates, and its number.
    pub router: RouterValue,
    pub number: u32,
    /// What the packet's destination leads to.
    pub external: ExternalValue,
    pub now: u64,
    /// The connection.
    pub key: NatKey,
    /// How the packet's protocol is tracked: a `Tracking`.
    pub tracking: u32,
    /// It may begin a connection.
    pub begins: bool,
    /// The packet is an ICMP error: what it quotes is changed too.
    pub is_error: bool,
    /// The tenant's address and port. Of a later fragment the address that it gets.
    pub address: [u8; 4],
    pub port: u16,
    /// Room for an ICMP error. It quotes the first bytes of the packet as it came; of a tenant's zeroes where there are fewer.
    pub error: [u8; ERROR_LEN],
    pub fragment: FragmentKey,
}

impl Work {
    #[inline(always)]
    pub const fn source(&self) -> [u8; 4] {
        [self.ip[12], self.ip[13], self.ip[14], self.ip[15]]
    }

    /// Notes what an ICMP error about the packet would quote, if all of it is there.
    #[inline(always)]
    pub fn note_head(&mut self, frame: Frame) -> Option<()> {
        let head = frame.at::<[u8; QUOTED_LEN]>(ETH_LEN)?;
        // SAFETY: the bytes are there, as many as there is room for behind the quote's beginning; neither has an alignment.
        unsafe { core::ptr::copy_nonoverlapping(head, self.error.as_mut_ptr().add(icmp::QUOTE).cast(), 1) };
        Some(())
    }

    /// What later fragments of the packet have in common with it, in the network with this VNI or outside (0).
    #[inline(always)]
    pub const fn set_fragment(&mut self, vni: u32) {
        self.fragment = FragmentKey {
            vni,
            source: self.source(),
            destination: self.destination(),
            id: be16(&self.ip, 4),
            protocol: self.upper.protocol,
            pad: 0,
        };
    }

    #[inline(always)]
    pub const fn destination(&self) -> [u8; 4] {
        [self.ip[16], self.ip[17], self.ip[18], self.ip[19]]
    }
}

/// Reads the packet, whose lengths were compared with the bytes present.
#[inline(never)]
pub fn read(frame: Frame, work: &mut Work) -> u32 {
    let malformed = End::drop(DropReason::Malformed).0;
    let Some(ip) = frame.read::<[u8; IPV4_LEN]>(ETH_LEN) else {
        return malformed;
    };
    work.ip = ip;
    let (total_len, fragment, protocol) = (be16(&ip, 2) as usize, be16(&ip, 6), ip[9]);
    work.total_len = total_len as u32;
    work.upper = Upper {
        source: 0,
        point: 0,
        protocol,
        tcp: 0,
    };
    if ip[0] != 0x45 || total_len < IPV4_LEN {
        return malformed;
    }
    work.part = if fragment & FRAGMENT == 0 {
        WHOLE
    } else if fragment & FRAGMENT_OFFSET == 0 {
        FIRST
    } else {
        LATER
    };
    let has_upper = protocol == PROTO_ICMP || has_ports(protocol);
    if work.part == LATER || !has_upper {
        return End::ON.0;
    }
    let least = if protocol == PROTO_TCP { 20 } else { 8 };
    let Some(bytes) = frame.read::<[u8; 8]>(UPPER) else {
        return malformed;
    };
    if IPV4_LEN + least > total_len {
        return malformed;
    }
    work.upper = Upper::beginning(protocol, &bytes);
    if protocol == PROTO_TCP {
        let Some(flags) = frame.read::<u8>(UPPER + 13) else {
            return malformed;
        };
        work.upper.tcp = flags;
    }
    End::ON.0
}

/// Reads what an ICMP error quotes; 0 when it cannot be read.
#[inline(never)]
pub fn read_quote(frame: Frame, work: &mut Work) -> u32 {
    if work.part != WHOLE || (work.total_len as usize) < QUOTING_LEN {
        return 0;
    }
    let (Some(ip), Some(upper)) = (
        frame.read::<[u8; IPV4_LEN]>(QUOTE),
        frame.read::<[u8; 8]>(QUOTED_UPPER),
    ) else {
        return 0;
    };
    if ip[0] != 0x45 || be16(&ip, 6) & FRAGMENT_OFFSET != 0 {
        return 0;
    }
    work.quoted_source = [ip[12], ip[13], ip[14], ip[15]];
    work.quoted_destination = [ip[16], ip[17], ip[18], ip[19]];
    work.quoted = Upper::beginning(ip[9], &upper);
    1
}

/// Changes the word at an offset in the frame, and the checksum at another.
#[inline(always)]
fn replace(frame: Frame, at: usize, checksum_at: usize, new: u16) -> Option<()> {
    let (old, checksum) = (frame.be16(at)?, frame.be16(checksum_at)?);
    frame.write(at, new.to_be_bytes())?;
    frame.write(checksum_at, csum_replace(checksum, old, new).to_be_bytes())
}

/// A word that the upper layer's checksum covers was `old` and is `new`.
#[inline(always)]
fn covered(frame: Frame, work: &Work, old: u16, new: u16) -> Option<()> {
    if work.part == LATER {
        return Some(());
    }
    let protocol = work.upper.protocol;
    if protocol == PROTO_TCP {
        let checksum = frame.be16(UPPER + 16)?;
        return frame.write(UPPER + 16, csum_replace(checksum, old, new).to_be_bytes());
    }
    if protocol != PROTO_UDP && protocol != PROTO_UDPLITE && protocol != PROTO_DCCP {
        return Some(());
    }
    let checksum = frame.be16(UPPER + 6)?;
    if protocol == PROTO_UDP && checksum == 0 {
        return Some(());
    }
    let mut checksum = csum_replace(checksum, old, new);
    if protocol == PROTO_UDP && checksum == 0 {
        // 0 says that there is none.
        checksum = 0xffff;
    }
    frame.write(UPPER + 6, checksum.to_be_bytes())
}

#[inline(always)]
const fn words(address: [u8; 4]) -> [u16; 2] {
    [
        u16::from_be_bytes([address[0], address[1]]),
        u16::from_be_bytes([address[2], address[3]]),
    ]
}

/// Changes the address at `AT` in the header.
#[inline(always)]
pub fn set_address<const AT: usize>(frame: Frame, work: &Work, new: [u8; 4]) -> Option<()> {
    let new = words(new);
    let at = ETH_LEN + AT;
    covered(frame, work, frame.be16(at)?, new[0])?;
    replace(frame, at, ETH_LEN + HEADER_CHECKSUM, new[0])?;
    covered(frame, work, frame.be16(at + 2)?, new[1])?;
    replace(frame, at + 2, ETH_LEN + HEADER_CHECKSUM, new[1])
}

/// Changes the port at `AT` (0 or 2) in the upper layer; of an ICMP query the identifier.
#[inline(always)]
pub fn set_port<const AT: usize>(frame: Frame, work: &Work, new: u16) -> Option<()> {
    if work.upper.protocol == PROTO_ICMP {
        return replace(frame, UPPER + 4, ICMP_CHECKSUM, new);
    }
    covered(frame, work, frame.be16(UPPER + AT)?, new)?;
    frame.write(UPPER + AT, new.to_be_bytes())
}

#[inline(always)]
fn replace_quoted(frame: Frame, at: usize, new: u16) -> Option<()> {
    let (old, sum) = (frame.be16(at)?, frame.be16(QUOTE + HEADER_CHECKSUM)?);
    replace(frame, at, ICMP_CHECKSUM, new)?;
    let sum = csum_replace(sum, old, new);
    replace(frame, QUOTE + HEADER_CHECKSUM, ICMP_CHECKSUM, sum)
}

/// Changes the address at `AT` in the header that is quoted.
#[inline(always)]
pub fn set_quoted_address<const AT: usize>(frame: Frame, new: [u8; 4]) -> Option<()> {
    let new = words(new);
    replace_quoted(frame, QUOTE + AT, new[0])?;
    replace_quoted(frame, QUOTE + AT + 2, new[1])
}

/// Changes the port at `AT` in the upper layer that is quoted.
#[inline(always)]
pub fn set_quoted_port<const AT: usize>(frame: Frame, work: &Work, new: u16) -> Option<()> {
    if work.quoted.protocol == PROTO_ICMP {
        return replace(frame, QUOTED_UPPER + 4, ICMP_CHECKSUM, new);
    }
    replace(frame, QUOTED_UPPER + AT, ICMP_CHECKSUM, new)
}

/// One hop more.
#[inline(always)]
pub fn age(frame: Frame) -> Option<()> {
    let word = frame.be16(ETH_LEN + 8)?;
    replace(
        frame,
        ETH_LEN + 8,
        ETH_LEN + HEADER_CHECKSUM,
        word.wrapping_sub(0x0100),
    )
}
