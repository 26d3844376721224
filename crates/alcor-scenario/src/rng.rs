//! Random numbers of a simulation (SplitMix64): the same seed gives the same run for ever, whatever becomes of any
//! library. Not for secrets.

/// The generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed; every seed is good.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 when the limit is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    /// A place in a list of this length; 0 in an empty one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the result is below a length, which is a usize"
    )]
    pub const fn place(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number from 0 to below 1.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are kept, as many as a double has"
    )]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of the choices, or `None` when there is none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        choices.get(self.place(choices.len())).copied()
    }

    /// A number between two, both included; the first when they are the wrong way round.
    pub const fn between(&mut self, (low, high): (u64, u64)) -> u64 {
        if high <= low {
            low
        } else {
            low + self.below((high - low).saturating_add(1))
        }
    }

    /// Microseconds until the next of events that happen so often a second (a Poisson process); `None` when never.
    pub fn wait_us(&mut self, per_s: f64) -> Option<u64> {
        (per_s > 0.0).then(|| to_us(-(1.0 - self.unit()).ln() / per_s).max(1))
    }

    /// A rank from 0 to below `count`, by Zipf's law with this exponent (the continuous approximation).
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks are far below 2^53, and are not negative"
    )]
    pub fn zipf(&mut self, count: usize, exponent: f64) -> usize {
        let (n, u) = (count as f64 + 1.0, self.unit());
        let rank = if (exponent - 1.0).abs() < 1e-6 {
            n.powf(u)
        } else {
            let power = 1.0 - exponent;
            ((n.powf(power) - 1.0).mul_add(u, 1.0)).powf(1.0 / power)
        };
        (rank as usize).clamp(1, count.max(1)) - 1
    }
}

/// Seconds as microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` keeps to the range of a u64"
)]
pub fn to_us(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_ranks_are_drawn_most_and_none_is_out_of_range() {
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            counts[rng.zipf(10, 1.0)] += 1;
        }
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert!(counts[0] > 2 * counts[3], "{counts:?}");
        assert_eq!(rng.zipf(1, 1.3), 0);
    }

    #[test]
    fn a_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            (rng.next(), rng.below(7), rng.between((3, 5)), rng.wait_us(2.0))
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        assert_eq!(Rng::new(1).wait_us(0.0), None);
    }
}
