//! When to kill: random moments, other ones in each run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many moments a crash test tries: `BERTH_CRASH_ROUNDS`, or so many.
pub fn crash_rounds(usually: u32) -> u32 {
    std::env::var("BERTH_CRASH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(usually)
}

/// xorshift: each run tries other moments, and prints its seed, which `BERTH_CRASH_SEED` takes.
pub struct Moments(u64);

impl Moments {
    /// Chooses and prints a seed.
    ///
    /// # Panics
    /// If the clock is before 1970.
    #[expect(clippy::new_without_default, reason = "it prints")]
    pub fn new() -> Self {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock after 1970")
            .subsec_nanos();
        let seed = std::env::var("BERTH_CRASH_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(u64::from(time) | 1);
        println!("BERTH_CRASH_SEED={seed}");
        Self(seed)
    }

    /// How long to wait until the next kill: at most `longest`.
    pub fn next(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.choose(10_000) as f64 / 10_000.0)
    }

    /// A number below `count`.
    pub fn choose(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}
