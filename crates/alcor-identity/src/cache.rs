//! What is known of tokens, and who has to ask: decisions only, no I/O and no clock.
//!
//! A token is in flight (one asks, the others wait for the answer) or known until a time. Everything is bounded:
//! what is known by `capacity` (the oldest goes first), what is in flight by `max_in_flight`.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

/// A token's hash.
pub type Key = [u8; 32];

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most tokens that are known.
    pub capacity: usize,
    /// Most tokens that are asked for at a time.
    pub max_in_flight: usize,
    /// How long an answer holds, and so how long a revoked token still works.
    pub revocation: SignedDuration,
    /// How long a refusal holds.
    pub refusal: SignedDuration,
}

/// Keystone's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The token is good until it expires.
    Good {
        /// What it proves.
        proof: Arc<T>,
        /// Its expiry.
        expires_at: Timestamp,
    },
    /// There is no such token.
    Refused,
    /// Nobody knows; nothing is kept, the next one asks again.
    Unknown,
}

/// What to do for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<T, W> {
    /// The token is good.
    Good(Arc<T>),
    /// The token is not good.
    Refused,
    /// Somebody asks already: wait with this.
    Wait(W),
    /// Ask Keystone, then [`Cache::settle`].
    Ask,
    /// Too many ask already.
    Busy,
}

enum Slot<T, W> {
    InFlight(W),
    Known {
        proof: Option<Arc<T>>,
        until: Timestamp,
        generation: u64,
    },
}

/// Known tokens and those in flight. `T` is what a token proves, `W` is how to wait for an answer.
pub struct Cache<T, W> {
    bounds: Bounds,
    slots: HashMap<Key, Slot<T, W>>,
    /// Known tokens from the oldest on; entries of an older generation than the slot's mean nothing.
    order: VecDeque<(Key, u64)>,
    generation: u64,
    in_flight: usize,
}

impl<T, W: Clone> Cache<T, W> {
    /// Empty.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            slots: HashMap::new(),
            order: VecDeque::new(),
            generation: 0,
            in_flight: 0,
        }
    }

    /// What to do for a token. After [`Decision::Ask`] others wait with `waiter` until [`Cache::settle`].
    pub fn decide(&mut self, key: Key, now: Timestamp, waiter: W) -> Decision<T, W> {
        match self.slots.get(&key) {
            Some(Slot::InFlight(waiter)) => return Decision::Wait(waiter.clone()),
            Some(Slot::Known { proof, until, .. }) if now < *until => {
                return proof.clone().map_or(Decision::Refused, Decision::Good);
            }
            _ => {}
        }
        if self.in_flight >= self.bounds.max_in_flight {
            return Decision::Busy;
        }
        self.in_flight += 1;
        self.slots.insert(key, Slot::InFlight(waiter));
        Decision::Ask
    }

    /// Notes the answer for a token in flight.
    pub fn settle(&mut self, key: Key, now: Timestamp, answer: &Answer<T>) {
        if !matches!(self.slots.get(&key), Some(Slot::InFlight(_))) {
            return;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let (proof, until) = match answer {
            Answer::Good { proof, expires_at } => {
                let bound = now.saturating_add(self.bounds.revocation).unwrap_or(now);
                (Some(Arc::clone(proof)), bound.min(*expires_at))
            }
            Answer::Refused => (None, now.saturating_add(self.bounds.refusal).unwrap_or(now)),
            Answer::Unknown => (None, now),
        };
        if until <= now {
            self.slots.remove(&key);
            return;
        }
        self.generation += 1;
        let generation = self.generation;
        let slot = Slot::Known {
            proof,
            until,
            generation,
        };
        self.slots.insert(key, slot);
        self.order.push_back((key, generation));
        self.shrink(now);
    }

    /// Lets go of what nobody may use any more, and of the oldest while there is too much.
    fn shrink(&mut self, now: Timestamp) {
        while let Some((key, generation)) = self.order.front() {
            let current = match self.slots.get(key) {
                Some(Slot::Known {
                    generation: own,
                    until,
                    ..
                }) if own == generation => Some(*until),
                _ => None,
            };
            match current {
                Some(until) if until > now && self.order.len() <= self.bounds.capacity => return,
                Some(_) => {
                    self.slots.remove(key);
                }
                None => {}
            }
            self.order.pop_front();
        }
    }

    /// Tokens that are known or in flight.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn bounds() -> Bounds {
        Bounds {
            capacity: 3,
            max_in_flight: 2,
            revocation: SignedDuration::from_secs(10),
            refusal: SignedDuration::from_secs(2),
        }
    }

    fn good(expires: i64) -> Answer<i64> {
        Answer::Good {
            proof: Arc::new(expires),
            expires_at: at(expires),
        }
    }

    #[test]
    fn one_asks_and_the_others_wait() {
        let mut cache = Cache::<i64, &str>::new(bounds());
        assert_eq!(cache.decide([1; 32], at(0), "first"), Decision::Ask);
        assert_eq!(cache.decide([1; 32], at(0), "second"), Decision::Wait("first"));
        cache.settle([1; 32], at(1), &good(100));
        assert_eq!(
            cache.decide([1; 32], at(2), "third"),
            Decision::Good(Arc::new(100))
        );
    }

    #[test]
    fn answers_hold_until_expiry_or_the_bound() {
        let mut cache = Cache::<i64, ()>::new(bounds());
        for (key, expires, until) in [(1, 5, 5), (2, 100, 10)] {
            assert_eq!(cache.decide([key; 32], at(0), ()), Decision::Ask);
            cache.settle([key; 32], at(0), &good(expires));
            assert_eq!(
                cache.decide([key; 32], at(until - 1), ()),
                Decision::Good(Arc::new(expires))
            );
            assert_eq!(cache.decide([key; 32], at(until), ()), Decision::Ask, "{key}");
        }
    }

    #[test]
    fn refusals_hold_for_a_while_and_ignorance_does_not() {
        let mut cache = Cache::<i64, ()>::new(bounds());
        assert_eq!(cache.decide([1; 32], at(0), ()), Decision::Ask);
        cache.settle([1; 32], at(0), &Answer::Refused);
        assert_eq!(cache.decide([1; 32], at(1), ()), Decision::Refused);
        assert_eq!(cache.decide([1; 32], at(2), ()), Decision::Ask);
        cache.settle([1; 32], at(2), &Answer::Unknown);
        assert!(cache.is_empty());
        assert_eq!(cache.decide([1; 32], at(2), ()), Decision::Ask);
    }

    #[test]
    fn what_has_expired_is_not_kept_and_flights_are_bounded() {
        let mut cache = Cache::<i64, ()>::new(bounds());
        assert_eq!(cache.decide([1; 32], at(50), ()), Decision::Ask);
        cache.settle([1; 32], at(50), &good(50));
        assert!(cache.is_empty());
        assert_eq!(cache.decide([1; 32], at(50), ()), Decision::Ask);
        assert_eq!(cache.decide([2; 32], at(50), ()), Decision::Ask);
        assert_eq!(cache.decide([3; 32], at(50), ()), Decision::Busy);
        cache.settle([1; 32], at(50), &good(60));
        assert_eq!(cache.decide([3; 32], at(50), ()), Decision::Ask);
    }

    proptest! {
        /// Never more than the bounds, never an answer beyond its time, whatever happens in whatever order.
        #[test]
        fn bounds_hold(steps in proptest::collection::vec((0u8..8, 0i64..3, 0u8..4), 0..200)) {
            let mut cache = Cache::<i64, ()>::new(bounds());
            let mut now = 0;
            for (key, passed, what) in steps {
                now += passed;
                match what {
                    0 => if let Decision::Good(proof) = cache.decide([key; 32], at(now), ()) {
                        prop_assert!(*proof > now);
                    },
                    1 => cache.settle([key; 32], at(now), &good(now + 5)),
                    2 => cache.settle([key; 32], at(now), &Answer::Refused),
                    _ => cache.settle([key; 32], at(now), &Answer::Unknown),
                }
                prop_assert!(cache.in_flight <= 2);
                prop_assert!(cache.len() <= 3 + 2);
                prop_assert!(cache.order.len() <= 4);
            }
        }
    }
}
