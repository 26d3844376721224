//! A frame as the kernel lends it: bytes in place, each access checked against the end. Pointers do not outlive a change of the
//! frame's length.

use alcor_dataplane_abi::csum_fold;
use aya_ebpf::bindings::xdp_md;

/// The frame.
#[derive(Clone, Copy)]
pub struct Frame(pub *mut xdp_md);

impl Frame {
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context pointer is valid while the program runs.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn start(self) -> usize {
        // Volatile, so that the compiler does not hand the number over to a function: it is a pointer to the verifier.
        // SAFETY: as in `ifindex`.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).data) as usize }
    }

    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: as in `start`.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).data_end) as usize }
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.end() - self.start()
    }

    /// What lies at an offset, if all of it is there. `T` has no alignment.
    #[inline(always)]
    pub fn at<T>(self, offset: usize) -> Option<*mut T> {
        let at = self.start() + offset;
        if at + size_of::<T>() > self.end() {
            return None;
        }
        Some(at as *mut T)
    }

    /// A copy of what lies at an offset.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: usize) -> Option<T> {
        // SAFETY: the bytes are there; `T` has no alignment and any bytes are a value of it.
        self.at::<T>(offset).map(|at| unsafe { *at })
    }

    /// Overwrites what lies at an offset; `None` when not all of it is there.
    #[inline(always)]
    pub fn write<T: Copy>(self, offset: usize, value: T) -> Option<()> {
        // SAFETY: as in `read`.
        self.at::<T>(offset).map(|at| unsafe { *at = value })
    }

    /// As [`Self::write`], without a copy on the stack.
    #[inline(always)]
    pub fn write_from<T: Copy>(self, offset: usize, value: &T) -> Option<()> {
        // SAFETY: as in `read`.
        self.at::<T>(offset).map(|at| unsafe { core::ptr::copy_nonoverlapping(value, at, 1) })
    }

    #[inline(always)]
    pub fn be16(self, offset: usize) -> Option<u16> {
        self.read::<[u8; 2]>(offset).map(u16::from_be_bytes)
    }
}

#[inline(always)]
pub const fn be16(bytes: &[u8], at: usize) -> u16 {
    (bytes[at] as u16) << 8 | bytes[at + 1] as u16
}

/// The Internet checksum of an IPv4 header without options: 0 when the one in it is right.
#[inline(always)]
pub const fn header_checksum(ip: &[u8; 20]) -> u16 {
    let mut sum = 0u32;
    let mut at = 0;
    while at < 20 {
        sum += be16(ip, at) as u32;
        at += 2;
    }
    csum_fold(sum)
}
