//! What clients of the local socket read from the data plane, and how it is shown to them. Values only.

use alcor_dataplane::{ConnectionEntry, Drops, GatewayReport};
use alcor_model::{Id, Port};
use serde_json::{Value, json};

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Counters of dropped packets.
    Drops,
    /// The connections of a port.
    Connections(Id<Port>),
    /// What a gateway says of itself.
    Gateway,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readout {
    /// See [`Reading::Drops`].
    Drops(Drops),
    /// See [`Reading::Connections`].
    Connections(Vec<ConnectionEntry>),
    /// See [`Reading::Gateway`]; `None`: this is no gateway.
    Gateway(Option<GatewayReport>),
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
            Self::Gateway(Some(report)) => json!({"ok": true, "gateway": report}),
            Self::Gateway(None) => json!({"error": "this is not a gateway"}),
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

#[cfg(test)]
mod tests {
    use alcor_dataplane::gateway::{AttachMode, GatewayDevice, GatewayLoad, RouterNat};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_gateway_tells_its_devices_load_and_translated_connections() {
        let router = Id::from_uuid(Uuid::from_u128(1));
        let report = GatewayReport {
            devices: vec![GatewayDevice {
                device: "eth0".to_owned(),
                mode: AttachMode::Native,
            }],
            load: GatewayLoad {
                north_packets: 3,
                ..GatewayLoad::default()
            },
            nat: vec![RouterNat {
                router,
                connections: 1,
                limit: 2,
                refused: 5,
            }],
            neighbours_room: Some(10),
            layout: Some(4),
        };
        let body = Readout::Gateway(Some(report)).body();
        let gateway = &body["gateway"];
        assert_eq!(gateway["devices"], json!([{"device": "eth0", "mode": "native"}]));
        assert_eq!(gateway["load"]["north_packets"], 3);
        let nat = json!([{"router": router, "connections": 1, "limit": 2, "refused": 5}]);
        assert_eq!(gateway["nat"], nat);
    }
}
