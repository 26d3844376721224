//! Kept replies of each project, the oldest first, and how much room they take.

use alcor_model::KeptReply;
use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;

use super::{Indexed, RegionState};

/// The replies of one project.
#[derive(Clone, Default, PartialEq)]
struct OfProject {
    by_age: OrdSet<(Timestamp, String)>,
    bytes: usize,
}

/// What is derived from kept replies.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct ReplyIndexes {
    projects: OrdMap<String, OfProject>,
}

impl RegionState {
    /// The oldest kept reply of a project: when it was made, and its name.
    pub fn oldest_reply(&self, project_id: &str) -> Option<(Timestamp, &str)> {
        let (at, name) = self.replies.projects.get(project_id)?.by_age.get_min()?;
        Some((*at, name))
    }

    /// How many replies of a project are kept, and the bytes of their bodies.
    pub fn kept_of(&self, project_id: &str) -> (usize, usize) {
        self.replies
            .projects
            .get(project_id)
            .map_or((0, 0), |project| (project.by_age.len(), project.bytes))
    }
}

impl Indexed for KeptReply {
    fn index(&self, state: &mut RegionState) {
        let project = state.replies.projects.entry(self.project_id.clone()).or_default();
        project.by_age.insert((self.created_at, self.name.clone()));
        project.bytes += self.body.len();
    }

    fn unindex(&self, state: &mut RegionState) {
        if let Some(project) = state.replies.projects.get_mut(&self.project_id) {
            project.by_age.remove(&(self.created_at, self.name.clone()));
            project.bytes = project.bytes.saturating_sub(self.body.len());
            if project.by_age.is_empty() {
                state.replies.projects.remove(&self.project_id);
            }
        }
    }
}
