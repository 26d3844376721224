//! Tables and indexes out of persistent maps: a clone costs a few reference counts, a change copies the touched
//! tree nodes only. Which indexes a table has is declared by the state that owns them.

use std::{ops::RangeInclusive, sync::Arc};

use imbl::{OrdMap, OrdSet};

/// A primary map from key to row.
#[derive(Clone)]
pub struct Table<K, V> {
    rows: OrdMap<K, Arc<V>>,
}

impl<K: Ord + Clone, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: OrdMap::new() }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    /// The row with this key.
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }

    /// Whether there is a row with this key.
    pub fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    /// Puts a row; gives the one that it replaces.
    pub fn insert(&mut self, key: K, row: Arc<V>) -> Option<Arc<V>> {
        self.rows.insert(key, row)
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        self.rows.remove(key)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<V>> {
        self.rows.values()
    }

    /// The rows whose key is greater than `after`, in key order.
    pub fn after<'a>(&'a self, after: &K) -> impl Iterator<Item = &'a Arc<V>> + use<'a, K, V> {
        self.rows
            .range((
                std::ops::Bound::Excluded(after.clone()),
                std::ops::Bound::Unbounded,
            ))
            .map(|(_, row)| row)
    }

    /// The rows whose key is less than `before`, in reverse key order.
    pub fn before<'a>(&'a self, before: &K) -> impl Iterator<Item = &'a Arc<V>> + use<'a, K, V> {
        self.rows.range(..before.clone()).rev().map(|(_, row)| row)
    }
}

/// An index in which each entry has one owner.
#[derive(Clone)]
pub struct UniqueIndex<I, K> {
    entries: OrdMap<I, K>,
}

impl<I: Ord + Clone, K: Clone + PartialEq> Default for UniqueIndex<I, K> {
    fn default() -> Self {
        Self {
            entries: OrdMap::new(),
        }
    }
}

impl<I: Ord, K: PartialEq> PartialEq for UniqueIndex<I, K> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<I: Ord + Clone, K: Clone + PartialEq> UniqueIndex<I, K> {
    /// Who has this entry.
    pub fn get(&self, entry: &I) -> Option<&K> {
        self.entries.get(entry)
    }

    /// Gives the entry to `key`. Returns the previous owner; the caller has checked that there is none.
    pub fn insert(&mut self, entry: I, key: K) -> Option<K> {
        self.entries.insert(entry, key)
    }

    /// Takes the entry from `key`; nothing happens when somebody else has it.
    pub fn remove(&mut self, entry: &I, key: &K) {
        if self.entries.get(entry) == Some(key) {
            self.entries.remove(entry);
        }
    }

    /// The entries in a range, in order.
    pub fn range(&self, range: RangeInclusive<I>) -> impl DoubleEndedIterator<Item = (&I, &K)> {
        self.entries.range(range)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A key type with a least and a greatest value, so that all keys under one index entry are a range.
pub trait Bounded {
    /// Not greater than any value.
    const MIN: Self;
    /// Not less than any value.
    const MAX: Self;
}

impl<T> Bounded for alcor_model::Id<T> {
    const MIN: Self = Self::from_uuid(uuid::Uuid::nil());
    const MAX: Self = Self::from_uuid(uuid::Uuid::max());
}

impl Bounded for uuid::Uuid {
    const MIN: Self = Self::nil();
    const MAX: Self = Self::max();
}

/// An index in which an entry leads to any number of keys.
#[derive(Clone)]
pub struct MultiIndex<I, K> {
    entries: OrdSet<(I, K)>,
}

impl<I: Ord + Clone, K: Ord + Clone> Default for MultiIndex<I, K> {
    fn default() -> Self {
        Self {
            entries: OrdSet::new(),
        }
    }
}

impl<I: Ord, K: Ord> PartialEq for MultiIndex<I, K> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<I: Ord + Clone, K: Ord + Clone + Bounded> MultiIndex<I, K> {
    /// Adds a key under an entry.
    pub fn insert(&mut self, entry: I, key: K) {
        self.entries.insert((entry, key));
    }

    /// Removes a key from an entry.
    pub fn remove(&mut self, entry: I, key: K) {
        self.entries.remove(&(entry, key));
    }

    /// The keys under an entry, in order.
    pub fn get(&self, entry: &I) -> impl DoubleEndedIterator<Item = &K> + use<'_, I, K> {
        self.entries
            .range((entry.clone(), K::MIN)..=(entry.clone(), K::MAX))
            .map(|(_, key)| key)
    }

    /// Whether an entry has any key. O(log n).
    pub fn contains_entry(&self, entry: &I) -> bool {
        self.get(entry).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use alcor_model::{Id, Port};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(number: u8) -> Id<Port> {
        Id::from_uuid(Uuid::from_u128(u128::from(number)))
    }

    proptest! {
        /// Tables and indexes against a naive scan over the standard maps.
        #[test]
        fn agree_with_a_naive_scan(steps in prop::collection::vec((any::<bool>(), 0u8..6, 0u8..16), 0..120)) {
            let mut table = Table::default();
            let mut unique = UniqueIndex::default();
            let mut multi = MultiIndex::default();
            let (mut naive_table, mut naive_unique) = (BTreeMap::new(), BTreeMap::new());
            let mut naive_multi = BTreeSet::new();
            for (add, entry, key) in steps {
                if add {
                    prop_assert_eq!(table.insert(key, Arc::new(entry)).map(|v| *v), naive_table.insert(key, entry));
                    prop_assert_eq!(unique.insert(entry, id(key)), naive_unique.insert(entry, id(key)));
                    multi.insert(entry, id(key));
                    naive_multi.insert((entry, key));
                } else {
                    prop_assert_eq!(table.remove(&key).map(|v| *v), naive_table.remove(&key));
                    unique.remove(&entry, &id(key));
                    if naive_unique.get(&entry) == Some(&id(key)) {
                        naive_unique.remove(&entry);
                    }
                    multi.remove(entry, id(key));
                    naive_multi.remove(&(entry, key));
                }
                prop_assert_eq!(table.len(), naive_table.len());
                prop_assert_eq!(table.is_empty(), naive_table.is_empty());
                let rows: Vec<_> = table.iter().map(|v| **v).collect();
                prop_assert_eq!(rows, naive_table.values().copied().collect::<Vec<_>>());
                let after: Vec<_> = table.after(&key).map(|v| **v).collect();
                prop_assert_eq!(after, naive_table.range(key + 1..).map(|(_, v)| *v).collect::<Vec<_>>());
                let before: Vec<_> = table.before(&key).map(|v| **v).collect();
                prop_assert_eq!(before, naive_table.range(..key).rev().map(|(_, v)| *v).collect::<Vec<_>>());
                for entry in 0..6 {
                    prop_assert_eq!(unique.get(&entry), naive_unique.get(&entry));
                    let keys: Vec<_> = multi.get(&entry).copied().collect();
                    let naive: Vec<_> = naive_multi.iter().filter(|(e, _)| *e == entry).map(|(_, k)| id(*k)).collect();
                    prop_assert_eq!(multi.contains_entry(&entry), !naive.is_empty());
                    prop_assert_eq!(keys, naive);
                }
            }
        }
    }
}
