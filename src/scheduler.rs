//! When a burn runs, and when it lets others run first.
//!
//! Spin never preempts a guest: while a burn runs, its thread serves no other request. So a burn
//! runs in time slices and yields between them. The scheduling delay, the time from a yield until
//! the burn resumes, shows how many others share the thread. A few burns share it evenly. Forty
//! burns that did so would all be slow, so they are admitted one after another:
//!
//! - A new burn yields without having run. It is admitted if the scheduling delay is short; after a
//!   long one, as soon as two delays in a row are no longer than it accepts. Until then it backs
//!   off and yields again.
//! - A new burn accepts a delay of six time slices of others. The accepted delay grows with age, so
//!   older burns are admitted before younger ones, and only a few run at a time.
//! - The age of a burn that would end too late, even if it were admitted now, counts from zero
//!   again: it keeps its work, but no longer delays others that can still end in time.
//! - An admitted burn runs in short time slices until it ends, or in long ones while it is alone.
//!
//! `make crowds` and `make bench CASES=few,tutorial,fair,overload` measure the effect.

use std::time::Duration;

/// The wait of a yield, the shortest that lets others run: a wait for zero returns at once.
pub const YIELD: Duration = Duration::from_nanos(1);

/// A time slice among others.
pub const SHORT_SLICE: Duration = Duration::from_millis(2);

/// A time slice alone. A yield then leaves the core idle for more than a millisecond, 3 % of 40 ms.
/// A burn may notice only at the end of a slice that its client disconnected: with 50 ms, that
/// wasted up to 50 ms of CPU.
const LONG_SLICE: Duration = Duration::from_millis(40);

/// Delays below this one are short: the timer of the host alone causes up to 1.2 ms, one time slice
/// of another burn at least 2 ms.
pub const SHORT_DELAY: Duration = Duration::from_micros(1800);

/// So many short delays in a row show that a burn is alone. Among a few that share several threads,
/// two in a row are frequent.
const MIN_SHORT_DELAYS: u32 = 5;

/// The scheduling delay that a new burn accepts: six time slices of others.
const MIN_ACCEPTED_DELAY: Duration = Duration::from_millis(12);

/// The longest scheduling delay that a burn ever accepts: fourteen time slices of others. A health
/// probe waits as long.
const MAX_ACCEPTED_DELAY: Duration = Duration::from_millis(28);

/// The age from which on a burn accepts `MAX_ACCEPTED_DELAY`.
const AGEING_PERIOD: Duration = Duration::from_millis(2800);

/// The age by which a burn should have ended: most clients give up after 5 s or more.
const DEADLINE: Duration = Duration::from_millis(4600);

/// The wall-clock time per CPU time of a burn that is admitted after `MAX_ACCEPTED_DELAY` and
/// throttled a third of the time.
const CROWDED_PACE: f64 = 22.5;

/// The shortest time for which a burn ages, however late it would end.
const MIN_AGEING: Duration = Duration::from_secs(1);

/// The time to back off, on average, as a multiple of the excess of a scheduling delay over what
/// the burn accepts: so a burn yields more often as its turn comes near, and the oldest is the
/// first to notice that another has ended.
const BACKOFF_PER_EXCESS: u32 = 12;

/// The shortest time to back off, on average: each yield costs CPU time.
const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// The longest time to back off, on average, as a share of the age, even if it is less than
/// `MIN_BACKOFF`: among a few, a burn soon tries again.
const MAX_BACKOFF_SHARE: f64 = 0.125;

/// So many delays in a row that are longer than any time slice are not throttling: another
/// component of the app holds the thread for that long each time, and the burn would never be
/// admitted.
const MAX_LONG_DELAYS: u32 = 100;

/// Schedules one burn.
pub struct Scheduler {
    admitted: bool,
    previous_delay: Duration,
    /// The number of the last delays in a row that were short.
    short_delays: u32,
    /// The number of the last delays in a row that were longer than any time slice.
    long_delays: u32,
}

/// The next step of a burn.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Run for one time slice of this length, then yield.
    Run(Duration),
    /// Yield again at once.
    Yield,
    /// Wait for this long, then yield.
    BackOff(Duration),
}

impl Scheduler {
    /// The scheduler of a burn that is `admitted` from the start, or has to be admitted first.
    pub fn new(admitted: bool) -> Self {
        Self {
            admitted,
            previous_delay: Duration::ZERO,
            short_delays: 0,
            long_delays: 0,
        }
    }

    /// Decides for a burn of this `age`, with this much CPU time `left` to burn, that has yielded
    /// and got the thread back after `delay`.
    ///
    /// `jitter`, from 0 to 1, keeps burns that start together from yielding together.
    pub fn next(
        &mut self,
        delay: Duration,
        age: Duration,
        left: Duration,
        jitter: f64,
    ) -> Decision {
        let count = |before, is_one| if is_one { before + 1 } else { 0 };
        self.short_delays = count(self.short_delays, delay < SHORT_DELAY);
        self.long_delays = count(self.long_delays, delay > LONG_SLICE);
        self.admitted |= self.long_delays == MAX_LONG_DELAYS;
        if !self.admitted && self.long_delays > 0 {
            // Throttling, which shows nothing about others.
            return Decision::Yield;
        }
        // One short delay may be luck.
        let longer = delay.max(self.previous_delay);
        self.previous_delay = delay;
        let accepted = accepted_delay(age, left);
        self.admitted |= longer <= accepted;
        if self.admitted {
            let is_alone = self.short_delays >= MIN_SHORT_DELAYS;
            return Decision::Run(if is_alone { LONG_SLICE } else { SHORT_SLICE });
        }
        // A young burn may have met the long time slice of one other.
        if delay <= accepted || age < LONG_SLICE {
            return Decision::Yield;
        }
        let backoff = ((delay - accepted) * BACKOFF_PER_EXCESS)
            .max(MIN_BACKOFF)
            .min(age.mul_f64(MAX_BACKOFF_SHARE));
        Decision::BackOff(backoff.mul_f64(0.5 + jitter))
    }
}

/// The longest scheduling delay that a burn of this `age` accepts, with this much CPU time `left`.
fn accepted_delay(age: Duration, left: Duration) -> Duration {
    let latest_start = DEADLINE.saturating_sub(left.mul_f64(CROWDED_PACE));
    let age = age.as_secs_f64() % latest_start.max(MIN_AGEING).as_secs_f64();
    let share = (age / AGEING_PERIOD.as_secs_f64()).min(1.0);
    MIN_ACCEPTED_DELAY + (MAX_ACCEPTED_DELAY - MIN_ACCEPTED_DELAY).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{BackOff, Run, Yield};

    const MS: Duration = Duration::from_millis(1);
    /// What is left of a short burn, in the tests in which it does not matter.
    const LEFT: Duration = Duration::from_millis(20);

    /// The decision for a burn of this age after two equal delays, with the average jitter.
    fn decide(delay: Duration, age: Duration, left: Duration) -> Decision {
        let mut scheduler = Scheduler::new(false);
        scheduler.next(delay, age, left, 0.5);
        scheduler.next(delay, age, left, 0.5)
    }

    #[test]
    fn a_burn_that_is_alone_is_admitted_at_once_and_soon_runs_in_long_slices() {
        let mut scheduler = Scheduler::new(false);
        let mut next = |delay| scheduler.next(delay, MS, LEFT, 0.5);
        // Others arrive after a long slice: it stays admitted, in short slices.
        for _ in 0..2 {
            for _ in 1..MIN_SHORT_DELAYS {
                assert_eq!(next(MS), Run(SHORT_SLICE));
            }
            assert_eq!(next(MS), Run(LONG_SLICE));
            assert_eq!(next(40 * MS), Run(SHORT_SLICE));
        }
    }

    #[test]
    fn a_few_burns_share_the_thread() {
        for others in 1..=6 {
            let mut scheduler = Scheduler::new(false);
            let decision = scheduler.next(others * SHORT_SLICE, MS, LEFT, 0.5);
            assert_eq!(decision, Run(SHORT_SLICE), "{others} others");
        }
        let seventh = Scheduler::new(false).next(7 * SHORT_SLICE, 80 * MS, LEFT, 0.5);
        assert_eq!(seventh, BackOff(10 * MS));
    }

    #[test]
    fn an_older_burn_accepts_a_longer_delay() {
        assert!(matches!(decide(18 * MS, 1040 * MS, LEFT), BackOff(_)));
        assert_eq!(decide(18 * MS, 1060 * MS, LEFT), Run(SHORT_SLICE));
        let longest = MAX_ACCEPTED_DELAY;
        assert_eq!(decide(longest, AGEING_PERIOD, LEFT), Run(SHORT_SLICE));
        assert_eq!(decide(longest, 4100 * MS, LEFT), Run(SHORT_SLICE));
        // No burn accepts more.
        let crowded = decide(longest + MS, AGEING_PERIOD, LEFT);
        assert!(matches!(crowded, BackOff(_)));
    }

    #[test]
    fn a_burn_that_would_end_too_late_starts_again_as_a_new_one() {
        // 20 ms of CPU time take 450 ms in a crowd, 100 ms take 2.25 s.
        for (left, latest_start) in [(20 * MS, 4150 * MS), (100 * MS, 2350 * MS)] {
            let before = decide(20 * MS, latest_start - MS, left);
            assert_eq!(before, Run(SHORT_SLICE), "{left:?}");
            let after = decide(20 * MS, latest_start + MS, left);
            assert!(matches!(after, BackOff(_)), "{left:?}");
            let again = decide(20 * MS, 2 * latest_start - MS, left);
            assert_eq!(again, Run(SHORT_SLICE), "{left:?}");
        }
        // A long burn ages for a second at a time, however late it ends.
        let hour = Duration::from_secs(3600);
        assert_eq!(decide(15 * MS, 990 * MS, hour), Run(SHORT_SLICE));
        assert!(matches!(decide(15 * MS, 1010 * MS, hour), BackOff(_)));
    }

    #[test]
    fn a_burn_backs_off_for_longer_the_more_a_delay_exceeds_what_it_accepts() {
        assert_eq!(decide(38 * MS, AGEING_PERIOD, LEFT), BackOff(120 * MS));
        assert_eq!(decide(40 * MS, AGEING_PERIOD, LEFT), BackOff(144 * MS));
        assert_eq!(decide(30 * MS, AGEING_PERIOD, LEFT), BackOff(MIN_BACKOFF));
        // An eighth of the age at most.
        assert_eq!(decide(40 * MS, 800 * MS, LEFT), BackOff(100 * MS));
        assert_eq!(decide(40 * MS, 200 * MS, LEFT), BackOff(25 * MS));
        // The jitter makes it from half as long to half as long again.
        for (jitter, share) in [(0.0, 0.5), (1.0, 1.5)] {
            let decision = Scheduler::new(false).next(29 * MS, AGEING_PERIOD, LEFT, jitter);
            assert_eq!(decision, BackOff(MIN_BACKOFF.mul_f64(share)));
        }
    }

    #[test]
    fn throttling_does_not_keep_a_burn_out() {
        let mut scheduler = Scheduler::new(false);
        assert_eq!(scheduler.next(75 * MS, 75 * MS, LEFT, 0.5), Yield);
        assert_eq!(scheduler.next(MS, 77 * MS, LEFT, 0.5), Run(SHORT_SLICE));
    }

    #[test]
    fn a_component_that_holds_the_thread_does_not_keep_a_burn_out() {
        let mut scheduler = Scheduler::new(false);
        let mut next = |n| scheduler.next(200 * MS, n * 200 * MS, LEFT, 0.5);
        for n in 1..MAX_LONG_DELAYS {
            assert_eq!(next(n), Yield);
        }
        assert_eq!(next(MAX_LONG_DELAYS), Run(SHORT_SLICE));
    }

    #[test]
    fn one_short_delay_may_be_luck() {
        let mut scheduler = Scheduler::new(false);
        let long = scheduler.next(20 * MS, 48 * MS, LEFT, 0.5);
        assert_eq!(long, BackOff(6 * MS));
        assert_eq!(scheduler.next(5 * MS, 60 * MS, LEFT, 0.5), Yield);
        assert_eq!(scheduler.next(5 * MS, 66 * MS, LEFT, 0.5), Run(SHORT_SLICE));
    }

    #[test]
    fn a_young_burn_tries_again_at_once() {
        let decision = Scheduler::new(false).next(30 * MS, 31 * MS, LEFT, 0.5);
        assert_eq!(decision, Yield);
    }

    #[test]
    fn a_burn_can_be_admitted_from_the_start() {
        let decision = Scheduler::new(true).next(40 * MS, 40 * MS, LEFT, 0.5);
        assert_eq!(decision, Run(SHORT_SLICE));
    }
}
