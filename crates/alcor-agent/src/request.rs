//! What clients of the local socket may ask; see `docs/agent.md`. Values only; the socket is in [`crate::socket`].

use alcor_model::{Id, Port};
use serde::Deserialize;

/// How long an attach waits for the port to be wired or refused when the client does not say, in milliseconds.
pub const DEFAULT_WAIT_MS: u32 = 5_000;
/// Longest wait a client may ask for, in milliseconds.
pub const MAX_WAIT_MS: u32 = 60_000;
/// Longest name of a device in bytes (Linux `IFNAMSIZ` without the final zero).
pub const MAX_DEVICE_NAME: usize = 15;

/// One line of a client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Tie a device to a port.
    Attach(Attach),
    /// Untie a port's device.
    Detach(Detach),
    /// Show everything.
    State(State),
    /// Show how many packets were dropped, and why.
    Drops(Drops),
    /// Show the connections of a port.
    Connections(Connections),
    /// Show what a gateway says of itself.
    Gateway(Gateway),
}

/// See [`Request::Attach`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The port; its row may still be on its way.
    pub port_id: Id<Port>,
    /// Name of the device, 1 to [`MAX_DEVICE_NAME`] bytes.
    pub device: String,
    /// Answer after this time at the latest; at most [`MAX_WAIT_MS`].
    #[serde(default = "default_wait_ms")]
    pub wait_ms: u32,
}

/// See [`Request::Detach`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// The port.
    pub port_id: Id<Port>,
}

/// See [`Request::State`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {}

/// See [`Request::Drops`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drops {}

/// See [`Request::Gateway`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {}

/// See [`Request::Connections`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// The port.
    pub port_id: Id<Port>,
}

const fn default_wait_ms() -> u32 {
    DEFAULT_WAIT_MS
}

/// Whether Linux would take this as the name of a device.
pub fn is_device_name(name: &str) -> bool {
    (1..=MAX_DEVICE_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace())
}
