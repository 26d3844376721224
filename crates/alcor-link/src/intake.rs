//! The NCM's end of a feed, as a state machine: messages in, whole snapshots and whole batches of changes out. It does no
//! I/O, and what is cut in the middle never gets out.

use std::collections::HashMap;

use alcor_model::{Change, Resource, ResourceKey, Revision};
use alcor_ncm::core::KINDS;
use alcor_proto::link::{self, feed_message::Body};
use thiserror::Error;

use crate::convert::{ConvertError, decode_change, decode_row};

/// Changes that one batch may have, which is one commit or some that follow each other; the largest that a controller sends is far
/// below.
pub const CHANGES_MAX: usize = 1 << 20;

/// The feed is not what it must be. The NCM asks for a snapshot then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IntakeError {
    /// Something is missing in between.
    #[error("the feed goes on after commit {after}, but this NCM is at {at}")]
    Gap {
        /// Where the NCM is.
        at: Revision,
        /// Where the feed goes on.
        after: Revision,
    },
    /// A snapshot has lost or doubled rows.
    #[error("a snapshot had {got} rows, but the controller sent {sent}")]
    Rows {
        /// What came.
        got: u64,
        /// What was sent.
        sent: u64,
    },
    /// More changes than a batch may have.
    #[error("one batch has more than {CHANGES_MAX} changes")]
    TooMany,
    /// A message came that has no place here.
    #[error("{0} came where it has no place")]
    Order(&'static str),
    /// A message cannot be read.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

/// What a message completed.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Nothing yet.
    Nothing,
    /// The NCM has everything up to where it was.
    Resumed,
    /// All of the region.
    Snapshot {
        /// Its commit.
        revision: Revision,
        /// Its rows.
        rows: Vec<Resource>,
    },
    /// What changed.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// Everything up to this commit has been told now.
        revision: Revision,
        /// When the last became durable, microseconds since the Unix epoch; 0 when unknown.
        committed_us: u64,
    },
}

/// A message that has been read.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The feed goes on after this commit.
    Resumed(Revision),
    /// A snapshot begins.
    Begin {
        /// The region's number.
        region: u64,
        /// The snapshot's commit.
        revision: Revision,
    },
    /// Rows of the snapshot.
    Rows {
        /// How many were sent: this side may have no use for some.
        sent: u64,
        /// The rows.
        rows: Vec<Resource>,
    },
    /// The snapshot ends.
    End {
        /// How many rows all of it had.
        sent: u64,
    },
    /// What changed.
    Changes {
        /// The commit before the batch.
        after: Revision,
        /// The last commit of the batch.
        revision: Revision,
        /// When it became durable, microseconds since the Unix epoch; 0 when unknown.
        committed_us: u64,
        /// The changes, or some of them.
        changes: Vec<Change>,
        /// More of them come.
        more: bool,
    },
}

impl Part {
    /// Reads a message; none when it is of a newer controller, and nothing that this NCM could use.
    fn read(message: link::FeedMessage) -> Result<Option<Self>, ConvertError> {
        let Some(body) = message.body else { return Ok(None) };
        let part = match body {
            Body::Resumed(resumed) => Self::Resumed(Revision(resumed.revision)),
            Body::SnapshotBegin(begin) => Self::Begin {
                region: begin.region,
                revision: Revision(begin.revision),
            },
            Body::SnapshotRows(rows) => Self::Rows {
                sent: rows.rows.len() as u64,
                rows: known(rows.rows.iter().map(decode_row))?,
            },
            Body::SnapshotEnd(end) => Self::End { sent: end.rows },
            Body::Changes(part) => Self::Changes {
                after: Revision(part.after),
                revision: Revision(part.revision),
                committed_us: part.committed_us,
                changes: known(part.changes.iter().map(decode_change))?,
                more: part.more,
            },
        };
        Ok(Some(part))
    }
}

/// Those that this side has a use for.
fn known<T>(read: impl Iterator<Item = Result<Option<T>, ConvertError>>) -> Result<Vec<T>, ConvertError> {
    read.filter_map(Result::transpose).collect()
}

#[derive(Debug)]
struct Loading {
    region: u64,
    revision: Revision,
    sent: u64,
    /// None where a row has gone again.
    rows: Vec<Option<Resource>>,
    /// Where each row is, once rows have changed.
    places: Option<HashMap<ResourceKey, usize>>,
    /// Some of a commit's changes are there, and more come.
    amending: bool,
}

impl Loading {
    /// A change of before the end.
    fn amend(&mut self, change: Change) {
        let rows = &mut self.rows;
        let places = self.places.get_or_insert_with(|| {
            let keys = rows.iter().enumerate();
            keys.filter_map(|(place, row)| Some((row.as_ref()?.key(), place)))
                .collect()
        });
        match change {
            Change::Delete { key, .. } => {
                if let Some(row) = places.remove(&key).and_then(|place| rows.get_mut(place)) {
                    *row = None;
                }
            }
            Change::Put(new) => {
                let place = *places.entry(new.key()).or_insert(rows.len());
                match rows.get_mut(place) {
                    Some(row) => *row = Some(new),
                    None => rows.push(Some(new)),
                }
            }
        }
    }

    /// All rows, in an order in which they can be loaded.
    fn into_rows(self) -> Vec<Resource> {
        let mut rows: Vec<Resource> = self.rows.into_iter().flatten().collect();
        if self.places.is_some() {
            let order = |row: &Resource| KINDS.iter().position(|kind| *kind == row.key().kind());
            rows.sort_by_key(order);
        }
        rows
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Intake {
    region: u64,
    /// Everything up to this commit has been told; none while nothing is known.
    at: Option<Revision>,
    loading: Option<Loading>,
    /// Parts of a batch that is not all there, and to which commit it leads.
    partial: Option<(Revision, Vec<Change>)>,
}

impl Intake {
    /// A new stream begins: what to ask for. What the last one left unfinished is dropped.
    pub fn subscription(&mut self) -> link::Subscription {
        self.loading = None;
        self.partial = None;
        link::Subscription {
            region: self.region,
            from_revision: self.at.map_or(0, |at| at.0),
            amends: true,
        }
    }

    /// What is known is of no use any more: the next stream begins with a snapshot.
    pub fn start_over(&mut self) {
        *self = Self::default();
    }

    /// Takes a message.
    ///
    /// # Errors
    /// When it is not what must come. Nothing of it gets out; [`Self::start_over`] and subscribe again.
    pub fn step(&mut self, message: link::FeedMessage) -> Result<Taken, IntakeError> {
        match Part::read(message)? {
            Some(part) => self.take(part),
            None => Ok(Taken::Nothing),
        }
    }

    /// Takes a message that has been read.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn take(&mut self, part: Part) -> Result<Taken, IntakeError> {
        match part {
            Part::Resumed(after) => self.resumed(after),
            Part::Begin { region, revision } => {
                self.partial = None;
                self.loading = Some(Loading {
                    region,
                    revision,
                    sent: 0,
                    rows: Vec::new(),
                    places: None,
                    amending: false,
                });
                Ok(Taken::Nothing)
            }
            Part::Rows { sent, rows } => self.rows(sent, rows),
            Part::End { sent } => self.end(sent),
            Part::Changes {
                after,
                revision,
                changes,
                more,
                ..
            } if self.loading.is_some() => self.amend((after, revision), changes, more),
            Part::Changes {
                after,
                revision,
                committed_us,
                changes,
                more,
            } => {
                let at = self.follows(after, "a change")?;
                let (leads_to, mut all) = self.partial.take().unwrap_or((revision, Vec::new()));
                if leads_to != revision {
                    return Err(IntakeError::Order("a part of another batch"));
                }
                all.extend(changes);
                if all.len() > CHANGES_MAX {
                    return Err(IntakeError::TooMany);
                }
                if more {
                    self.partial = Some((revision, all));
                    return Ok(Taken::Nothing);
                }
                let revision = at.max(revision);
                self.at = Some(revision);
                Ok(Taken::Changes {
                    changes: all,
                    revision,
                    committed_us,
                })
            }
        }
    }

    /// Changes of before the end of a snapshot, which is one of a later commit with the last of them.
    fn amend(
        &mut self,
        (after, revision): (Revision, Revision),
        changes: Vec<Change>,
        more: bool,
    ) -> Result<Taken, IntakeError> {
        let loading = self.loading.as_mut().ok_or(IntakeError::Order("a change"))?;
        if after != loading.revision {
            let at = loading.revision;
            return Err(IntakeError::Gap { at, after });
        }
        changes.into_iter().for_each(|change| loading.amend(change));
        loading.amending = more;
        if !more {
            loading.revision = after.max(revision);
        }
        Ok(Taken::Nothing)
    }

    /// Whether a snapshot has begun that has not ended.
    pub const fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    fn resumed(&self, after: Revision) -> Result<Taken, IntakeError> {
        self.follows(after, "the word to go on")?;
        Ok(Taken::Resumed)
    }

    /// What comes goes on from where the NCM is; gives where that is.
    fn follows(&self, after: Revision, what: &'static str) -> Result<Revision, IntakeError> {
        let known = self.at.filter(|_| self.loading.is_none());
        let at = known.ok_or(IntakeError::Order(what))?;
        match after == at {
            true => Ok(at),
            false => Err(IntakeError::Gap { at, after }),
        }
    }

    fn rows(&mut self, sent: u64, rows: Vec<Resource>) -> Result<Taken, IntakeError> {
        let loading = self.loading.as_mut().ok_or(IntakeError::Order("a row"))?;
        loading.sent += sent;
        loading.rows.extend(rows.into_iter().map(Some));
        Ok(Taken::Nothing)
    }

    fn end(&mut self, sent: u64) -> Result<Taken, IntakeError> {
        let order = IntakeError::Order("the end of a snapshot");
        let loading = self.loading.take().ok_or(order.clone())?;
        if loading.amending {
            return Err(order);
        }
        if loading.sent != sent {
            return Err(IntakeError::Rows {
                got: loading.sent,
                sent,
            });
        }
        (self.region, self.at) = (loading.region, Some(loading.revision));
        let revision = loading.revision;
        Ok(Taken::Snapshot {
            revision,
            rows: loading.into_rows(),
        })
    }
}

#[cfg(test)]
mod tests;
