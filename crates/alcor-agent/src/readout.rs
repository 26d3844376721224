//! What clients of the local socket read from the data plane, and how it is shown to them. Values only.

use alcor_dataplane::{ConnectionEntry, Drops};
use alcor_model::{Id, Port};
use serde_json::{Value, json};

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Counters of dropped packets.
    Drops,
    /// The connections of a port.
    Connections(Id<Port>),
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readout {
    /// See [`Reading::Drops`].
    Drops(Drops),
    /// See [`Reading::Connections`].
    Connections(Vec<ConnectionEntry>),
}

impl Readout {
    /// One line per port and reason, or per connection.
    pub(crate) fn body(&self) -> Value {
        match self {
            Self::Drops(drops) => {
                let lines = drops.iter().map(|((port, reason), packets)| {
                    json!({"port_id": port, "reason": reason.as_str(), "packets": packets})
                });
                json!({"ok": true, "drops": lines.collect::<Vec<_>>()})
            }
            Self::Connections(connections) => {
                let lines = connections.iter().map(connection);
                json!({"ok": true, "connections": lines.collect::<Vec<_>>()})
            }
        }
    }
}

fn connection(entry: &ConnectionEntry) -> Value {
    json!({
        "own_ip": entry.own_ip,
        "own_port": entry.own_port,
        "other_ip": entry.other_ip,
        "other_port": entry.other_port,
        "protocol": entry.protocol,
        "began_here": entry.began_here,
        "state": entry.state,
        "label": entry.label,
        "epoch": entry.epoch,
        "expires_in_s": entry.expires_in.as_secs(),
    })
}
