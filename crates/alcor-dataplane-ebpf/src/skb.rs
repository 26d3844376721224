//! A packet's context as `BPF_PROG_TEST_RUN` takes it (`struct __sk_buff` of linux/bpf.h), by offset in bytes.

/// Bytes of it.
const LEN: usize = 192;
/// Offset of the interface index.
pub(crate) const IFINDEX: usize = 40;

/// The context of one packet.
pub(crate) type Context = [u8; LEN];

/// A packet that nothing is said of.
pub(crate) const EMPTY: Context = [0; LEN];

/// Writes a word.
pub(crate) fn set_word(context: &mut Context, at: usize, value: u32) {
    set_bytes(context, at, &value.to_ne_bytes());
}

/// Writes bytes.
pub(crate) fn set_bytes(context: &mut Context, at: usize, value: &[u8]) {
    if let Some(bytes) = context.get_mut(at..at + value.len()) {
        bytes.copy_from_slice(value);
    }
}
