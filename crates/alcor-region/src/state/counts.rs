//! How many rows of each kind each project owns, kept with every change: what quotas are checked against.

use alcor_model::Kind;
use imbl::OrdMap;

/// Counts by kind and project; a count of zero is not kept.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Counts {
    counts: OrdMap<(Kind, String), u64>,
}

impl Counts {
    pub(super) fn add(&mut self, kind: Kind, project_id: &str) {
        if !project_id.is_empty() {
            *self.counts.entry((kind, project_id.to_owned())).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, project_id: &str) {
        let key = (kind, project_id.to_owned());
        match self.counts.get_mut(&key) {
            Some(1) => {
                self.counts.remove(&key);
            }
            Some(count) => *count -= 1,
            None => {}
        }
    }

    pub(super) fn get(&self, kind: Kind, project_id: &str) -> u64 {
        self.counts
            .get(&(kind, project_id.to_owned()))
            .copied()
            .unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn of(&self, kind: Kind) -> std::collections::BTreeMap<String, u64> {
        self.counts
            .iter()
            .filter(|((counted, _), _)| *counted == kind)
            .map(|((_, project), count)| (project.clone(), *count))
            .collect()
    }
}
