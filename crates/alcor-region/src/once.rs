//! Requests that are carried out once, however often they come: the reply is a row of the same transaction, so it is
//! there exactly when what the request made is there, also after a restart.
//!
//! A refusal is not kept: it changed nothing, so a repeat may try again.

use alcor_model::{KeptReply, ResourceKey};
use alcor_store::Tx;
use jiff::SignedDuration;
use thiserror::Error;

use crate::{Env, ErrorClass, Refusal, RegionError, RegionState};

/// How long a reply is kept at least, unless the project's other replies take its room.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Most replies that are kept for one project; the oldest goes.
pub const MAX_REPLIES: usize = 1_000;
/// Most bytes of replies that are kept for one project; the oldest go.
pub const MAX_BYTES: usize = 16 << 20;
/// Largest reply that is kept.
pub const MAX_REPLY_BYTES: usize = 4 << 20;

/// What makes a request the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Whose key it is.
    pub project_id: String,
    /// The client's key; without spaces.
    pub key: String,
    /// A digest of what the request says.
    pub request: String,
}

/// A reply as it was given the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: String,
    /// It is a repeat: nothing was done this time.
    pub repeated: bool,
}

/// Why a request with a key is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OnceError {
    /// The key is another request's.
    #[error("The idempotency key {0} was already used for another request")]
    KeyUsed(String),
    /// The reply is too large.
    #[error(
        "The reply of {0} bytes is larger than the {MAX_REPLY_BYTES} that are kept for an idempotency key; make fewer resources with one request"
    )]
    ReplyTooLarge(usize),
    /// The reply cannot be written.
    #[error("The reply cannot be written: {0}")]
    NoReply(String),
}

impl Refusal for OnceError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::KeyUsed(_) => "IdempotencyKeyConflict",
            Self::ReplyTooLarge(_) => "IdempotencyReplyTooLarge",
            Self::NoReply(_) => "ServiceUnavailable",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::KeyUsed(_) => ErrorClass::Conflict,
            Self::ReplyTooLarge(_) => ErrorClass::BadRequest,
            Self::NoReply(_) => ErrorClass::Unavailable,
        }
    }
}

/// Carries a request out and keeps its reply, or gives the reply that is kept.
///
/// # Errors
/// The refusal of `work`; a key that was used for another request; a reply that is too large.
pub fn once(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    once: Once,
    work: impl FnOnce(&mut Tx<'_, RegionState>, &Env) -> Result<(u16, String), RegionError>,
) -> Result<Reply, RegionError> {
    let name = KeptReply::name(&once.project_id, &once.key);
    let now = env.source.now();
    if let Some(kept) = tx.state().kept_replies().get(&name)
        && now.duration_since(kept.created_at) < MAX_AGE
    {
        if kept.request != once.request {
            return Err(OnceError::KeyUsed(once.key).into());
        }
        return Ok(Reply {
            status: kept.status,
            body: kept.body.clone(),
            repeated: true,
        });
    }
    let (status, body) = work(tx, env)?;
    if body.len() > MAX_REPLY_BYTES {
        return Err(OnceError::ReplyTooLarge(body.len()).into());
    }
    make_room(tx, env, &once.project_id, body.len());
    tx.write(KeptReply {
        name,
        revision: tx.revision(),
        project_id: once.project_id,
        request: once.request,
        status,
        body: body.clone(),
        created_at: now,
    });
    Ok(Reply {
        status,
        body,
        repeated: false,
    })
}

/// Removes what is too old, and the oldest as long as there is no room for one more.
fn make_room(tx: &mut Tx<'_, RegionState>, env: &Env, project_id: &str, more: usize) {
    let now = env.source.now();
    while let Some((at, name)) = tx.state().oldest_reply(project_id) {
        let (replies, bytes) = tx.state().kept_of(project_id);
        let fits = replies < MAX_REPLIES && bytes + more <= MAX_BYTES;
        if fits && now.duration_since(at) < MAX_AGE {
            break;
        }
        let key = ResourceKey::KeptReply(name.to_owned());
        tx.delete(key);
    }
}
