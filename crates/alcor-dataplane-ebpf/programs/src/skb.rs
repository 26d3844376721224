//! A packet as the kernel lends it: bytes in and out through helpers that check bounds, so that paged
//! packets (TSO, GRO) work as they are.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
};

/// Bytes behind the Ethernet header that [`Skb::renew`] takes away at once: an IPv4 header, and those of a tunnel and of what is in it.
const BEGINNING: i32 = 196;
/// And once more.
const REST: i32 = 4;

/// The packet.
#[derive(Clone, Copy)]
pub struct Skb(pub *mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: the context pointer is valid while the program runs.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).ifindex }
    }

    /// True when the frame came with a VLAN tag, which the kernel takes out of the bytes before programs see them.
    #[inline(always)]
    pub fn has_vlan_tag(self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (*self.0).vlan_present != 0 }
    }

    /// Payload bytes of each segment, 0 when the packet is one packet.
    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).gso_size }
    }

    /// The packet's time stamp; a traced packet brings its clock there.
    #[inline(always)]
    pub fn tstamp(self) -> u64 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).tstamp }
    }

    /// `N` bytes from `at`, or `None` when they are not all there.
    #[inline(always)]
    pub fn bytes<const N: usize>(self, at: u32) -> Option<[u8; N]> {
        let mut bytes = [0u8; N];
        // SAFETY: the helper writes `N` bytes or fails.
        let rc = unsafe { bpf_skb_load_bytes(self.0.cast(), at, bytes.as_mut_ptr().cast(), N as u32) };
        (rc == 0).then_some(bytes)
    }

    /// As [`Self::bytes`], into the beginning of `to`.
    #[inline(always)]
    pub fn load<const N: usize>(self, at: u32, to: &mut [u8]) -> Option<()> {
        if to.len() < N {
            return None;
        }
        // SAFETY: the helper writes `N` bytes, and there is room for them, or fails.
        let rc = unsafe { bpf_skb_load_bytes(self.0.cast(), at, to.as_mut_ptr().cast(), N as u32) };
        (rc == 0).then_some(())
    }

    /// Overwrites with the first `N` bytes of `from`, as [`Self::store`].
    #[inline(always)]
    pub fn store_from<const N: usize>(self, at: u32, from: &[u8]) -> Option<()> {
        if from.len() < N {
            return None;
        }
        // SAFETY: the helper reads `N` bytes, and there are as many.
        let rc = unsafe { bpf_skb_store_bytes(self.0.cast(), at, from.as_ptr().cast(), N as u32, 0) };
        (rc == 0).then_some(())
    }

    /// Overwrites `N` bytes at `at`; `flags` as of `bpf_skb_store_bytes`.
    #[inline(always)]
    pub fn store<const N: usize>(self, at: u32, bytes: &[u8; N], flags: u64) -> Option<()> {
        // SAFETY: the helper reads `N` bytes.
        let rc = unsafe { bpf_skb_store_bytes(self.0.cast(), at, bytes.as_ptr().cast(), N as u32, flags) };
        (rc == 0).then_some(())
    }

    /// Makes the packet this long.
    #[inline(always)]
    pub fn resize(self, len: u32) -> Option<()> {
        // SAFETY: no pointers into the packet are held anywhere in these programs.
        (unsafe { bpf_skb_change_tail(self.0.cast(), len, 0) } == 0).then_some(())
    }

    /// Makes the packet one of this many bytes that is to be written anew behind its Ethernet header. To a resized one the kernel would
    /// still add the checksum that the old one was to get (what comes from a machine of this node, or was put together of segments, is without
    /// one). It forgets that when the place where it would begin to count is taken away; some only when more is taken away after that.
    #[inline(always)]
    pub fn renew(self, len: u32) -> Option<()> {
        self.resize(len + (BEGINNING + REST) as u32)?;
        self.shorten(BEGINNING)?;
        self.shorten(REST)
    }

    /// Takes bytes away behind the Ethernet header.
    #[inline(always)]
    fn shorten(self, by: i32) -> Option<()> {
        // SAFETY: as in `resize`.
        (unsafe { bpf_skb_adjust_room(self.0, -by, BPF_ADJ_ROOM_MAC, 0) } == 0).then_some(())
    }
}

#[inline(always)]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    (bytes[at] as u16) << 8 | bytes[at + 1] as u16
}

/// `N` bytes of a larger array at a constant place.
#[inline(always)]
pub fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0u8; N];
    let mut i = 0;
    while i < N {
        part[i] = bytes[at + i];
        i += 1;
    }
    part
}

/// Copies into a larger array at a constant place.
#[inline(always)]
pub fn put<const N: usize>(bytes: &mut [u8], at: usize, value: &[u8; N]) {
    let mut i = 0;
    while i < N {
        bytes[at + i] = value[i];
        i += 1;
    }
}
