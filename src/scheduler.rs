//! When a burn runs, and when it lets others run first.
//!
//! Spin never preempts a guest: while a burn runs, its thread serves nobody else. So a burn runs in
//! time slices and yields between them. The scheduling delay, which is how much later than asked it
//! gets the thread back, shows how many others share the thread. Forty burns that share a thread
//! evenly are all slow, so burns are admitted one after another:
//!
//! - A new burn probes: it yields without having run. If this scheduling delay or the previous one
//!   is longer than it accepts, it backs off. It probes again after half of the time that is missing
//!   until it would accept that delay, or after an eighth of its age if that is shorter.
//! - The accepted delay grows with the age of a burn: older burns are admitted before younger ones,
//!   and only a few run at a time.
//! - An admitted burn runs in short time slices until it ends, or in long ones while it is alone.
//!
//! The constants were searched for in virtual time and measured on Spin 3.6.3 with two cores:
//! `make bench ROWS=tutorial,overload,few,no-limit`.

use std::time::Duration;

/// The shortest wait that lets others run: a wait for zero returns at once.
pub const YIELD: Duration = Duration::from_nanos(1);

/// A time slice among others. With 3 ms the health endpoint answered faster than with 4 or 6 ms;
/// 2 ms were no better, and a request cost 1 % more.
const SHORT_SLICE: Duration = Duration::from_millis(3);

/// A time slice alone. A wait then means more than a millisecond of idleness: 3 % of 40 ms. Until
/// the slice ends, a burn may not notice that its client disconnected: 50 ms cost 50 ms of CPU.
const LONG_SLICE: Duration = Duration::from_millis(40);

/// The scheduling delay that a new burn accepts, and the upper bound for a burn that is alone: the
/// timer of the host alone makes it 1.2 ms, one time slice of another burn 4 ms.
const MIN_ACCEPTED_DELAY: Duration = Duration::from_millis(3);

/// The longest scheduling delay that a burn ever accepts: about four time slices of others. With
/// 20 ms after 3 s, 0.43 of an overload was answered in time (0.8 with these constants): more burns
/// ran at a time, and more of those that had waited long ended too late.
const MAX_ACCEPTED_DELAY: Duration = Duration::from_millis(15);

/// The age at which a burn accepts `MAX_ACCEPTED_DELAY`. In virtual time, with 3 s less of an
/// overload was answered in time, and with 4 s only a third of it.
const AGEING_PERIOD: Duration = Duration::from_secs(2);

/// The shortest time to back off, on average.
const MIN_BACKOFF: Duration = Duration::from_millis(20);

/// Schedules one burn.
pub struct Scheduler {
    admitted: bool,
    previous_delay: Duration,
}

/// What a burn does next.
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
        // One long delay may be throttling, and one short delay luck.
        let shorter = delay.min(self.previous_delay);
        let longer = delay.max(self.previous_delay);
        self.previous_delay = delay;
        self.admitted |= accepts(longer, age);
        if self.admitted {
            return Decision::Run(if longer < MIN_ACCEPTED_DELAY {
                LONG_SLICE
            } else {
                SHORT_SLICE
            });
        }
        if accepts(delay, age) {
            // Only the previous delay was too long: another probe decides.
            return Decision::BackOff(Duration::ZERO);
        }
        let missing = age_that_accepts(shorter).saturating_sub(age);
        let backoff = (missing / 2).min(age / 8).max(MIN_BACKOFF);
        Decision::BackOff(backoff.mul_f64(0.5 + jitter))
    }
}

/// Whether a burn of this `age` accepts this scheduling delay.
fn accepts(delay: Duration, age: Duration) -> bool {
    delay <= MAX_ACCEPTED_DELAY && age >= age_that_accepts(delay)
}

/// The age from which on a burn accepts `delay`, or `MAX_ACCEPTED_DELAY` if that is shorter.
fn age_that_accepts(delay: Duration) -> Duration {
    let share = delay
        .saturating_sub(MIN_ACCEPTED_DELAY)
        .div_duration_f64(MAX_ACCEPTED_DELAY - MIN_ACCEPTED_DELAY);
    AGEING_PERIOD.mul_f64(share.min(1.0))
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
    fn an_older_burn_accepts_a_longer_delay() {
        assert!(matches!(decide(4 * MS, 150 * MS), BackOff(_)));
        assert_eq!(decide(4 * MS, 200 * MS), Run(SHORT_SLICE));
        assert!(matches!(decide(9 * MS, 950 * MS), BackOff(_)));
        assert_eq!(decide(9 * MS, 1050 * MS), Run(SHORT_SLICE));
        assert_eq!(decide(MAX_ACCEPTED_DELAY, AGEING_PERIOD), Run(SHORT_SLICE));
        // Beyond the longest accepted delay no burn is admitted, however old.
        let crowded = decide(MAX_ACCEPTED_DELAY + MS, 100 * AGEING_PERIOD);
        assert!(matches!(crowded, BackOff(_)));
    }

    #[test]
    fn a_burn_backs_off_for_half_of_the_missing_time_and_for_less_while_it_is_young() {
        let max = MAX_ACCEPTED_DELAY;
        assert_eq!(decide(max, 800 * MS), BackOff(100 * MS));
        assert_eq!(decide(max, 1600 * MS), BackOff(200 * MS));
        assert_eq!(decide(max, 1800 * MS), BackOff(100 * MS));
        assert_eq!(decide(max, 1999 * MS), BackOff(MIN_BACKOFF));
        assert_eq!(decide(9000 * MS, 1000 * MS), BackOff(125 * MS));
        // The jitter makes it from half as long to half as long again.
        for (jitter, share) in [(0.0, 0.5), (1.0, 1.5)] {
            let decision = Scheduler::new(false).next(9 * MS, Duration::ZERO, jitter);
            assert_eq!(decision, BackOff(MIN_BACKOFF.mul_f64(share)));
        }
    }

    #[test]
    fn one_long_delay_does_not_keep_a_burn_out_for_long() {
        let mut scheduler = Scheduler::new(false);
        assert_eq!(scheduler.next(75 * MS, 75 * MS, 0.5), BackOff(MIN_BACKOFF));
        assert_eq!(scheduler.next(MS, 100 * MS, 0.5), BackOff(Duration::ZERO));
        assert_eq!(scheduler.next(MS, 101 * MS, 0.5), Run(LONG_SLICE));
    }

    #[test]
    fn a_burn_can_be_admitted_from_the_start() {
        let decision = Scheduler::new(true).next(40 * MS, 40 * MS, 0.5);
        assert_eq!(decision, Run(SHORT_SLICE));
    }
}
