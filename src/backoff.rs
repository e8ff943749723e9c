//! How long to wait before trying again.

use std::time::Duration;

/// The first wait is at most this long.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer. With the 10 s that a connection may take, work goes on within 15 s of the return of what was away.
const LONGEST: Duration = Duration::from_secs(5);

/// Exponential waits with full jitter, so that replicas that lost the same server do not come back
/// to it all at once.
#[derive(Debug)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: FIRST }
    }
}

impl Backoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.ceiling.mul_f64(rand::random_range(0.1..=1.0));
        self.ceiling = (self.ceiling * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..50).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= FIRST);
        assert!(
            waits
                .iter()
                .all(|wait| *wait > Duration::ZERO && *wait <= LONGEST)
        );
        assert!(waits[10..].iter().any(|wait| *wait > LONGEST / 4));
    }
}
