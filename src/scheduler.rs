//! When a burn runs, and when it lets others run first.
//!
//! Spin never preempts a guest: while a burn runs, its thread serves no other request. So a burn runs in
//! time slices and yields between them. The scheduling delay, the time by which a
//! wait ends late, shows how many others share the thread. Forty burns that share a thread
//! evenly are all slow, so burns are admitted one after another:
//!
//! - A new burn probes: it yields without having run. It is admitted if the scheduling delay is short;
//!   after a long one, as soon as two delays in a row are no longer than it accepts. It backs off
//!   between its probes, for longer the more the delay exceeds that.
//! - The accepted delay grows with the age of a burn, from 3 ms to 26 ms within 3.2 s: older burns are
//!   admitted before younger ones, and only a few run at a time. From then on it shrinks again, so
//!   that a request that is probably late does not make younger ones late too.
//! - An admitted burn runs in short time slices until it ends, or in long ones while it is alone.
//!
//! The constants were searched for in virtual time, with hosts that spend 20 to 90 µs of CPU time on a
//! wait, and measured in Spin with two cores: `make bench CASES=tutorial,fair,overload,few,no-limit`.

use std::time::Duration;

/// The shortest wait that lets others run: a wait for zero returns at once.
pub const YIELD: Duration = Duration::from_nanos(1);

/// A time slice among others. With 3 ms the health endpoint answered faster than with 4 or 6 ms;
/// 2 ms were no better, and a request cost 1 % more.
const SHORT_SLICE: Duration = Duration::from_millis(3);

/// A time slice alone. A yield then leaves the core idle for more than a millisecond, 3 % of 40 ms. A
/// burn may notice only at the end of a slice that its client disconnected: with 50 ms, that wasted
/// up to 50 ms of CPU.
const LONG_SLICE: Duration = Duration::from_millis(40);

/// The scheduling delay that a new burn accepts, and the upper bound for a burn that is alone: the
/// timer of the host alone makes it 1.2 ms, one time slice of another burn 4 ms.
const MIN_ACCEPTED_DELAY: Duration = Duration::from_millis(3);

/// The longest scheduling delay that a burn ever accepts: more than eight time slices of others. In
/// virtual time, with 24 ms 8 of 700 requests of `cpu_time=35ms` were late on a slow host (4 with
/// 26 ms); with 30 ms 0.70 of an overload of 100 ms was answered in time (0.75).
const MAX_ACCEPTED_DELAY: Duration = Duration::from_millis(26);

/// The age at which a burn accepts `MAX_ACCEPTED_DELAY`: most clients give up after 5 s or more. In
/// virtual time, with 2.8 s 15 of 770 requests of `cpu_time=35ms` were late (none with 3.2 s); with 4 s
/// 0.49 of the overload was answered in time (0.75), and without a decrease after 3.2 s 0.55.
const AGEING_PERIOD: Duration = Duration::from_millis(3200);

/// The time to back off, on average, as a multiple of the excess of a scheduling delay over what the
/// burn accepts: a twelfth of the time until it is old enough for that delay. So a burn probes more
/// often as its turn comes near, and the oldest is the first to notice that another has ended. In
/// virtual time, with a time that depends on the age alone the p95 of forty requests of 20 ms was 1.58
/// times a fair share (1.43).
const BACKOFF_PER_EXCESS: u32 = 12;

/// The longest time to back off, on average, as a share of the age: one long time slice of another
/// burn looks like a crowd. In virtual time, without this the p95 of three requests on a core was
/// 312 ms (267 ms).
const MAX_BACKOFF_SHARE: f64 = 0.25;

/// The shortest time to back off, on average. In virtual time, on a slow host, with 30 ms 0.59 of an
/// overload of 125 connections was answered in time (0.63): more probes cost CPU time.
const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// Schedules one burn.
pub struct Scheduler {
    admitted: bool,
    previous_delay: Duration,
}

/// The next step of a burn.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Run for one time slice of this length, then yield.
    Run(Duration),
    /// Wait for this long, then yield.
    BackOff(Duration),
}

impl Scheduler {
    /// The scheduler of a burn that is `admitted` from the start, or has to be admitted first.
    pub fn new(admitted: bool) -> Self {
        Self {
            admitted,
            // Short enough to be admitted after one probe, but not for a long time slice: other
            // burns may have backed off.
            previous_delay: MIN_ACCEPTED_DELAY,
        }
    }

    /// Decides for a burn of this `age` that has yielded and got the thread back after `delay`.
    ///
    /// `jitter`, from 0 to 1, keeps burns that start together from probing together.
    pub fn next(&mut self, delay: Duration, age: Duration, jitter: f64) -> Decision {
        // One short delay may be luck.
        let longer = delay.max(self.previous_delay);
        self.previous_delay = delay;
        let accepted = accepted_delay(age);
        self.admitted |= longer <= accepted;
        if self.admitted {
            return Decision::Run(if longer < MIN_ACCEPTED_DELAY {
                LONG_SLICE
            } else {
                SHORT_SLICE
            });
        }
        if delay <= accepted || delay > LONG_SLICE {
            // Only the previous delay was too long, or this one is longer than any time slice: it
            // was throttling and shows nothing about others. Another probe decides.
            return Decision::BackOff(Duration::ZERO);
        }
        let backoff = (delay - accepted) * BACKOFF_PER_EXCESS;
        let backoff = backoff.min(age.mul_f64(MAX_BACKOFF_SHARE)).max(MIN_BACKOFF);
        Decision::BackOff(backoff.mul_f64(0.5 + jitter))
    }
}

/// The longest scheduling delay that a burn of this `age` accepts.
fn accepted_delay(age: Duration) -> Duration {
    // It grows for one period, shrinks for one, and so on.
    let phase = age.div_duration_f64(AGEING_PERIOD) % 2.0;
    let share = phase.min(2.0 - phase);
    MIN_ACCEPTED_DELAY + (MAX_ACCEPTED_DELAY - MIN_ACCEPTED_DELAY).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{BackOff, Run};

    const MS: Duration = Duration::from_millis(1);

    /// The decision for a burn of this age after two equal delays, with the average jitter.
    fn decide(delay: Duration, age: Duration) -> Decision {
        let mut scheduler = Scheduler::new(false);
        scheduler.next(delay, age, 0.5);
        scheduler.next(delay, age, 0.5)
    }

    #[test]
    fn a_burn_that_is_alone_is_admitted_at_once_and_runs_in_long_slices() {
        let mut scheduler = Scheduler::new(false);
        assert_eq!(scheduler.next(MS, MS, 0.5), Run(SHORT_SLICE));
        assert_eq!(scheduler.next(MS, 5 * MS, 0.5), Run(LONG_SLICE));
        // Others arrive: it stays admitted, in short slices until two delays in a row are short.
        assert_eq!(scheduler.next(40 * MS, 52 * MS, 0.5), Run(SHORT_SLICE));
        assert_eq!(scheduler.next(MS, 56 * MS, 0.5), Run(SHORT_SLICE));
        assert_eq!(scheduler.next(MS, 60 * MS, 0.5), Run(LONG_SLICE));
    }

    #[test]
    fn an_older_burn_accepts_a_longer_delay_until_it_is_probably_late() {
        assert!(matches!(decide(10 * MS, 900 * MS), BackOff(_)));
        assert_eq!(decide(10 * MS, 1000 * MS), Run(SHORT_SLICE));
        assert_eq!(decide(MAX_ACCEPTED_DELAY, AGEING_PERIOD), Run(SHORT_SLICE));
        // From then on less, down to what a new burn accepts, and then more again.
        assert_eq!(decide(10 * MS, 5400 * MS), Run(SHORT_SLICE));
        assert!(matches!(decide(10 * MS, 5500 * MS), BackOff(_)));
        assert_eq!(
            decide(MIN_ACCEPTED_DELAY, 2 * AGEING_PERIOD),
            Run(SHORT_SLICE)
        );
        assert_eq!(decide(10 * MS, 7500 * MS), Run(SHORT_SLICE));
        // Beyond the longest accepted delay no burn is admitted.
        let crowded = decide(MAX_ACCEPTED_DELAY + MS, AGEING_PERIOD);
        assert!(matches!(crowded, BackOff(_)));
    }

    #[test]
    fn a_burn_backs_off_for_longer_the_more_a_delay_exceeds_what_it_accepts() {
        assert_eq!(decide(36 * MS, AGEING_PERIOD), BackOff(120 * MS));
        assert_eq!(decide(40 * MS, AGEING_PERIOD), BackOff(168 * MS));
        assert_eq!(decide(30 * MS, AGEING_PERIOD), BackOff(MIN_BACKOFF));
        // A quarter of the age at most.
        assert_eq!(decide(40 * MS, 800 * MS), BackOff(200 * MS));
        assert_eq!(decide(40 * MS, 80 * MS), BackOff(MIN_BACKOFF));
        // The jitter makes it from half as long to half as long again.
        for (jitter, share) in [(0.0, 0.5), (1.0, 1.5)] {
            let decision = Scheduler::new(false).next(9 * MS, Duration::ZERO, jitter);
            assert_eq!(decision, BackOff(MIN_BACKOFF.mul_f64(share)));
        }
    }

    #[test]
    fn throttling_does_not_keep_a_burn_out() {
        let mut scheduler = Scheduler::new(false);
        let probe = BackOff(Duration::ZERO);
        assert_eq!(scheduler.next(75 * MS, 75 * MS, 0.5), probe);
        assert_eq!(scheduler.next(MS, 77 * MS, 0.5), probe);
        assert_eq!(scheduler.next(MS, 79 * MS, 0.5), Run(LONG_SLICE));
    }

    #[test]
    fn a_burn_can_be_admitted_from_the_start() {
        let decision = Scheduler::new(true).next(40 * MS, 40 * MS, 0.5);
        assert_eq!(decision, Run(SHORT_SLICE));
    }
}
