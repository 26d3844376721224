//! The events as Nova takes them. No decision is here.

use alcor_model::{Id, Port};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum EventName {
    /// The port's device carries packets, or (`failed`) never will as things are.
    #[serde(rename = "network-vif-plugged")]
    VifPlugged,
    /// The port's device carries packets no more.
    #[serde(rename = "network-vif-unplugged")]
    VifUnplugged,
    /// The port is deleted.
    #[serde(rename = "network-vif-deleted")]
    VifDeleted,
    /// What Nova keeps a copy of (addresses, MAC) is different now.
    #[serde(rename = "network-changed")]
    NetworkChanged,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventStatus {
    /// Well.
    Completed,
    /// Badly.
    Failed,
}

/// One event about one port of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ServerEvent {
    /// What happened.
    pub name: EventName,
    /// The server whose port it is.
    pub server_uuid: Uuid,
    /// The port.
    #[serde(rename = "tag", serialize_with = "port_id")]
    pub port: Id<Port>,
    /// How it ended.
    pub status: EventStatus,
}

fn port_id<S: Serializer>(id: &Id<Port>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// Events that replace each other: of each subject only the newest word about a port is worth sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Whether the device carries packets.
    Plugging,
    /// Addresses.
    Data,
    /// That the port is gone.
    End,
}

impl ServerEvent {
    pub(crate) fn subject(&self) -> Subject {
        match self.name {
            EventName::VifPlugged | EventName::VifUnplugged => Subject::Plugging,
            EventName::NetworkChanged => Subject::Data,
            EventName::VifDeleted => Subject::End,
        }
    }
}
