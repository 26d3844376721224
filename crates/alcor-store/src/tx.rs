//! What one command does to the state: reads, writes, and the log that takes the writes back when the command
//! is refused.

use std::sync::Arc;

use alcor_model::{Change, Resource, ResourceKey, Revision, Row};

/// The tables and indexes of a shard as one cheap value.
///
/// `put` and `remove` must be exact inverses, indexes included: a refused command is undone by them.
pub trait State: Clone + Default + Send + Sync + 'static {
    /// Puts a row into its table and indexes; gives the row that it replaces.
    fn put(&mut self, row: Resource) -> Option<Resource>;
    /// The row with this key.
    fn get(&self, key: &ResourceKey) -> Option<Resource>;
    /// Removes a row from its table and indexes; gives it.
    fn remove(&mut self, key: &ResourceKey) -> Option<Resource>;
}

/// One command's view of the state. Writes are seen by the command's own later reads.
pub struct Tx<'a, S> {
    state: &'a mut S,
    revision: Revision,
    /// In order; the row that each write replaced, for undo.
    writes: Vec<(ResourceKey, Option<Resource>)>,
    changes: Vec<Change>,
}

impl<'a, S: State> Tx<'a, S> {
    /// Starts a command whose writes will carry `revision`.
    pub fn new(state: &'a mut S, revision: Revision) -> Self {
        Self {
            state,
            revision,
            writes: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The state with what this command has written so far.
    pub fn state(&self) -> &S {
        self.state
    }

    /// The revision that this command's writes carry.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Writes a row and gives it; its revision is set here.
    pub fn write<R: Row>(&mut self, mut row: R) -> Arc<R> {
        row.set_revision(self.revision);
        let row = Arc::new(row);
        self.log(R::into_resource(Arc::clone(&row)));
        row
    }

    /// Writes a row; its revision is set here.
    pub fn put(&mut self, mut row: Resource) {
        row.set_revision(self.revision);
        self.log(row);
    }

    fn log(&mut self, row: Resource) {
        let key = row.key();
        let previous = self.state.put(row.clone());
        self.writes.push((key, previous));
        self.changes.push(Change::Put(row));
    }

    /// Deletes a row; nothing happens when it is not there.
    pub fn delete(&mut self, key: ResourceKey) {
        if let Some(previous) = self.state.remove(&key) {
            self.writes.push((key.clone(), Some(previous)));
            self.changes.push(Change::Delete {
                key,
                revision: self.revision,
            });
        }
    }

    /// How much was written so far, for [`Tx::made_since`].
    pub fn mark(&self) -> usize {
        self.writes.len()
    }

    /// The rows that were not there before and were written after a mark.
    pub fn made_since(&self, mark: usize) -> impl Iterator<Item = &ResourceKey> {
        self.writes
            .iter()
            .skip(mark)
            .filter(|(_, previous)| previous.is_none())
            .map(|(key, _)| key)
    }

    /// Keeps what was written; gives it in order.
    pub fn finish(self) -> Vec<Change> {
        self.changes
    }

    /// Takes back what was written.
    pub fn undo(self) {
        for (key, previous) in self.writes.into_iter().rev() {
            match previous {
                Some(row) => {
                    self.state.put(row);
                }
                None => {
                    self.state.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Rows, named, number_of, numbered};

    proptest! {
        /// A refused command leaves the state as it was, whatever it wrote; a kept one leaves what its changes say.
        #[test]
        fn undo_is_exact(
            before in prop::collection::btree_map(0u8..8, any::<u32>(), 0..8),
            writes in prop::collection::vec((0u8..8, prop::option::of(any::<u32>())), 0..20),
        ) {
            let name = |row: u8| format!("r{row}");
            let mut state = Rows::default();
            for (row, number) in &before {
                state.put(numbered(&name(*row), *number));
            }
            let untouched = state.clone();
            let run = |state: &mut Rows| {
                let mut naive = before.clone();
                let mut tx = Tx::new(state, Revision(7));
                for (row, write) in &writes {
                    match write {
                        Some(number) => {
                            tx.put(numbered(&name(*row), *number));
                            naive.insert(*row, *number);
                        }
                        None => {
                            tx.delete(named(&name(*row)));
                            naive.remove(row);
                        }
                    }
                    // The command sees its own writes.
                    let there = tx.state().get(&named(&name(*row)));
                    assert_eq!(there.as_ref().and_then(number_of), *write);
                }
                naive
            };
            // Refused.
            let mut tx = Tx::new(&mut state, Revision(7));
            for (row, write) in &writes {
                match write {
                    Some(number) => tx.put(numbered(&name(*row), *number)),
                    None => tx.delete(named(&name(*row))),
                }
            }
            tx.undo();
            prop_assert_eq!(&state, &untouched);
            // Kept.
            let naive = run(&mut state);
            for row in 0..8 {
                let there = state.get(&named(&name(row)));
                prop_assert_eq!(there.as_ref().and_then(number_of), naive.get(&row).copied());
            }
        }
    }
}
