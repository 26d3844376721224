//! Replies that are kept, so that a client may repeat a request without doing it twice.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Revision;

/// The reply to one request that carried an idempotency key. Written in the transaction of what the request made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReply {
    /// The project and the client's key; see [`KeptReply::name`].
    pub name: String,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Whose request it was.
    pub project_id: String,
    /// What the request said, as a digest: another request may not have the same key.
    pub request: String,
    /// The status code of the reply.
    pub status: u16,
    /// The body of the reply.
    pub body: String,
    /// When the request was carried out.
    pub created_at: Timestamp,
}

impl KeptReply {
    /// The name of a row: keys of different projects do not meet. A key has no spaces, so the last one parts the two.
    pub fn name(project_id: &str, key: &str) -> String {
        format!("{project_id} {key}")
    }
}
