//! A token bucket.

use std::time::Duration;

/// How much of a burst is left, and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// Taken from the burst and not refilled yet, in thousandths.
    taken: u64,
    /// Milliseconds since the NCM started.
    at: u64,
}

impl Meter {
    /// Takes one, if `rate` a second with bursts of `burst` allow it; else after how long there is one.
    pub(super) fn take(&mut self, now: Duration, rate: u32, burst: u32) -> Result<(), Duration> {
        const ONE: u64 = 1_000;
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // A thousandth a millisecond is one a second.
        let refilled = now.saturating_sub(self.at).saturating_mul(u64::from(rate));
        self.taken = self.taken.saturating_sub(refilled);
        self.at = self.at.max(now);
        let over = (self.taken + ONE).saturating_sub(u64::from(burst) * ONE);
        if over == 0 {
            self.taken += ONE;
            return Ok(());
        }
        Err(Duration::from_millis(over.div_ceil(u64::from(rate.max(1)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut meter = Meter::default();
        let at = Duration::from_millis;
        assert!((0..10).all(|_| meter.take(at(5), 100, 10).is_ok()));
        assert_eq!(meter.take(at(5), 100, 10), Err(at(10)));
        assert_eq!(meter.take(at(15), 100, 10), Ok(()));
        assert_eq!(meter.take(at(16), 100, 10), Err(at(9)));
        assert_eq!(meter.take(at(0), 100, 10), Err(at(9)), "time does not go back");
        assert!((0..10).all(|_| meter.take(at(60_000), 100, 10).is_ok()));
        assert!(meter.take(at(60_000), 100, 10).is_err(), "no more than a burst");
    }
}
