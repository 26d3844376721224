//! Network devices of this host, as the kernel tells of them.

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index; a new device of the same name has another one.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
}
