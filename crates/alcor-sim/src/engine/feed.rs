//! The region's feed on its way to the NCM, in the parts that the link makes of it: a snapshot has many, and so has a large commit.
//! What is cut in the middle gets nowhere: the NCM goes on with what it had, or knows nothing.
//!
//! The controller keeps no changes here: whoever asks gets a snapshot. Parts share the region's rows instead of carrying them as
//! text, which is the link's own to test.

use std::collections::VecDeque;

use alcor_link::intake::{Intake, Part, Taken};
use alcor_model::{Change, Revision};
use alcor_ncm::core::{Event as NcmEvent, KINDS};

use super::{Event, Sim};
use crate::clock::Us;

/// When the feed is asked for again while the controller is away.
const AGAIN_US: Us = 1_000_000;
/// Rows of one part when the scenario does not say.
const PART_ROWS: usize = 500;
/// The number of the only region.
const REGION: u64 = 1;
/// Share of the parts of a snapshot of the region after which an NCM that is to die meanwhile does not yet.
const LIVES_ON: f64 = 0.5;

/// The NCM's end of the feed, and what is on its way.
#[derive(Debug)]
pub(super) struct Feed {
    intake: Intake,
    /// The NCM has had all of the region once: before, its shell takes no sessions.
    pub(super) is_loaded: bool,
    is_subscribed: bool,
    parts: VecDeque<Part>,
    /// When the last of them comes.
    at: Us,
    part_rows: usize,
    /// The next commit's changes do not reach the NCM, and those after them do.
    pub(super) misses_changes: bool,
    /// Of the commit whose changes come, more are to come.
    is_in_commit: bool,
    /// The next snapshot of the region kills the NCM before it ends.
    pub(super) dies_in_snapshot: bool,
}

impl Feed {
    pub(super) fn new(part_rows: Option<usize>) -> Self {
        Self {
            intake: Intake::default(),
            is_loaded: false,
            is_subscribed: false,
            parts: VecDeque::new(),
            at: 0,
            part_rows: part_rows.unwrap_or(PART_ROWS).max(1),
            misses_changes: false,
            is_in_commit: false,
            dies_in_snapshot: false,
        }
    }

    /// The NCM's process is gone, and with it what it knew.
    pub(super) fn dies(&mut self) {
        self.breaks();
        self.is_loaded = false;
        self.intake.start_over();
    }

    /// What was on its way from the region is lost, and nothing more comes.
    fn breaks(&mut self) {
        self.parts.clear();
        (self.is_subscribed, self.is_in_commit) = (false, false);
    }

    /// Nothing is on its way, and what comes next is heard of.
    pub(super) fn is_idle(&self) -> bool {
        self.is_subscribed && self.parts.is_empty()
    }

    /// The NCM has been told of all that there was, and is told of what comes.
    pub(super) fn is_live(&self) -> bool {
        self.is_loaded && self.is_subscribed && !self.intake.is_loading()
    }

    /// Whether a part is lost: whole commits are, as nothing is lost within one message after another.
    fn misses(&mut self, part: &Part) -> bool {
        let Part::Changes { more, .. } = part else {
            return false;
        };
        let is_lost = self.misses_changes && !self.is_in_commit;
        match is_lost {
            true => self.misses_changes = *more,
            false => self.is_in_commit = *more,
        }
        is_lost
    }

    fn is_cut_in_snapshot(&self) -> bool {
        self.intake.is_loading() && self.is_subscribed
    }
}

/// Items in as many lists as parts are needed, and at least one.
fn cut<T>(items: Vec<T>, part_rows: usize) -> Vec<Vec<T>> {
    let count = items.len().div_ceil(part_rows).max(1);
    let mut items = items.into_iter();
    (0..count)
        .map(|_| items.by_ref().take(part_rows).collect())
        .collect()
}

impl Sim {
    /// The feed is cut. A snapshot that was on its way is of no use.
    pub(super) fn feed_breaks(&mut self) {
        if self.ncm.feed.is_cut_in_snapshot() {
            self.figures.add("region_snapshots_cut_short", 1);
        }
        self.ncm.feed.breaks();
        self.gateways.ncm_is_behind();
    }

    /// The feed is broken: whatever follows, the NCM must begin anew.
    pub(super) fn lose_feed(&mut self) {
        self.feed_breaks();
        let epoch = self.ncm.epoch();
        let delay = self.message_delay();
        self.after(delay, Event::Subscribe { epoch });
    }

    /// Changes are missing, and nothing comes after them that would show it: at the next sign of life of the feed it is seen.
    pub(super) fn notice_gap(&mut self) {
        self.ncm.feed.misses_changes = false;
        let is_behind = self.ncm.revision().is_some_and(|at| at < self.cloud.durable());
        if self.ncm.feed.is_idle() && is_behind {
            self.lose_feed();
        }
    }

    /// The NCM asks for all of the region, and the changes from there on.
    pub(super) fn subscribe(&mut self, epoch: u32) {
        if epoch != self.ncm.epoch() || !self.ncm.is_there() {
            return;
        }
        if !self.cloud.is_up() {
            return self.after(AGAIN_US, Event::Subscribe { epoch });
        }
        self.feed_breaks();
        self.figures.add("ncm_snapshots_of_region", 1);
        let (revision, rows) = (self.cloud.durable(), self.cloud.rows_for_ncm());
        // A new stream: what the last one left unfinished is dropped.
        let _ = self.ncm.feed.intake.subscription();
        self.ncm.feed.is_subscribed = true;
        let all = rows.len() as u64;
        self.feed_sends(Part::Begin {
            region: REGION,
            revision,
        });
        for rows in cut(rows, self.ncm.feed.part_rows) {
            let sent = rows.len() as u64;
            self.feed_sends(Part::Rows { sent, rows });
        }
        self.feed_sends(Part::End { sent: all });
    }

    /// Puts what was committed after a commit on the feed.
    pub(super) fn publish(&mut self, after: Revision, mut changes: Vec<Change>) {
        if !self.ncm.feed.is_subscribed || changes.is_empty() {
            return;
        }
        changes.retain(|change| KINDS.contains(&change.key().kind()));
        let (revision, committed_us) = (self.cloud.durable(), self.unix_us());
        let parts = cut(changes, self.ncm.feed.part_rows);
        let last = parts.len() - 1;
        for (number, changes) in parts.into_iter().enumerate() {
            self.feed_sends(Part::Changes {
                after,
                revision,
                committed_us,
                changes,
                more: number < last,
            });
        }
    }

    fn feed_sends(&mut self, part: Part) {
        let at = (self.now + self.message_delay()).max(self.ncm.feed.at);
        self.ncm.feed.at = at;
        self.ncm.feed.parts.push_back(part);
        let epoch = self.ncm.epoch();
        self.at(at, Event::Feed { epoch });
    }

    /// The next part reaches the NCM.
    pub(super) fn feed(&mut self, epoch: u32) {
        if epoch != self.ncm.epoch() {
            return;
        }
        let Some(part) = self.ncm.feed.parts.pop_front() else {
            return;
        };
        if self.ncm.feed.misses(&part) {
            return;
        }
        match self.ncm.feed.intake.take(part) {
            Ok(Taken::Nothing | Taken::Resumed) => self.perhaps_dies_in_snapshot(),
            Ok(Taken::Snapshot { revision, rows }) => {
                self.ncm.feed.is_loaded = true;
                self.step_ncm(NcmEvent::Snapshot { revision, rows });
            }
            Ok(Taken::Changes {
                changes,
                revision,
                committed_us,
            }) => {
                if !changes.is_empty() {
                    self.step_ncm(NcmEvent::Changes {
                        changes,
                        committed_us,
                    });
                }
                self.ncm.reached(revision);
            }
            // What does not follow is a gap, and whatever it holds is of no use.
            Err(_) => {
                self.figures.add("feed_gaps", 1);
                self.ncm.feed.intake.start_over();
                self.lose_feed();
            }
        }
    }

    /// A part of a snapshot of the region has come, and the NCM may be to die before the last one.
    fn perhaps_dies_in_snapshot(&mut self) {
        let feed = &self.ncm.feed;
        if feed.dies_in_snapshot && feed.intake.is_loading() && !self.rng.chance(LIVES_ON) {
            self.ncm.feed.dies_in_snapshot = false;
            self.figures.add("ncm_deaths_in_snapshot", 1);
            self.ncm_dies();
        }
    }
}
