//! When a burn lets others run, and when it stands back for them.
//!
//! Spin never preempts a guest: while a burn works, its thread serves nobody else. So a burn works
//! in turns and waits for an instant between them; how late it comes back tells how many others
//! are queued. One late return may be a neighbour's long turn, or throttling, and one prompt return
//! luck: a burn believes what two in a row say. Where the others are many, it stands back:
//!
//! - for a time in proportion to that lateness, to its patience, which is drawn by lot, and to the
//!   work it has left: few burns then work at a time, and those that are nearly done finish first;
//! - but the less, the longer it has taken for its size (the response ratio of operating systems):
//!   so none stands back for ever.
//!
//! The figures were found on Spin 3.6.3 with two cores: `make bench ROWS=tutorial,overload,no-limit,saturated`.

use std::time::Duration;

/// The shortest wait that lets others run: a wait for zero returns at once.
pub const INSTANT: Duration = Duration::from_nanos(1);

/// The first turn: forty requests that arrive at once shall know of one another before any of them
/// has held a thread for long.
const FIRST_TURN: Duration = Duration::from_millis(1);

/// A turn among others. With 3 ms the health endpoint answered faster than with 4 or 6 ms; with
/// 2 ms no faster, and a request cost 1 % more.
const SHORT_TURN: Duration = Duration::from_millis(3);

/// A turn alone. A wait then means more than a millisecond of idleness: one in fifty is 2 %.
const LONG_TURN: Duration = Duration::from_millis(50);

/// A burn that comes back from two instants sooner than this is alone: the timer of the host makes
/// it 1.2 ms. Where one prompt return in a crowd was enough for a long turn, nobody fired the timers
/// of the others meanwhile, and the health endpoint waited up to a third longer.
const ALONE: Duration = Duration::from_millis(3);

/// Lateness that, twice in a row, asks for standing back: two turns of others and the timer. Where
/// once was enough, two connections at 500m, throttled but no crowd, left up to 7 % of the limit
/// unused, and the slowest of four took twice as long.
const CROWDED: Duration = Duration::from_millis(8);

/// Standing back, in times of the lateness beyond `CROWDED`. More serves the health endpoint and
/// an overload better, and makes the last answers of a crowd later.
const STAND_BACK: f64 = 40.0;

/// The response ratio at which a burn stands back half as long: at forty connections and 500m a
/// request of 20 ms is through after 80 times its size.
const RESPONSE_RATIO: f64 = 70.0;

/// The longest time that a burn stands back at once.
const LONGEST: Duration = Duration::from_secs(1);

/// The turns of one burn.
pub struct Turns {
    /// From 0 to 1.
    patience: f64,
    turn: Duration,
    /// How late the burn came back from the instant before.
    before: Duration,
}

impl Turns {
    /// The turns of a burn that started when the clock said `now`.
    pub fn new(now: Duration) -> Self {
        // The last digits of the clock are the lot; Fibonacci hashing spreads them evenly.
        let lot = (now.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            patience: lot as f64 / u64::MAX as f64,
            turn: FIRST_TURN,
            before: Duration::ZERO,
        }
    }

    /// How long the burn works until its next wait.
    pub fn turn(&self) -> Duration {
        self.turn
    }

    /// How long the burn stands back when it has come back `late` from waiting for an instant.
    ///
    /// `left` is the share of its work that is left, from 0 to 1, and `response_ratio` the
    /// wall-clock time since its start over the CPU time that its whole work needs.
    pub fn stand_back(&mut self, late: Duration, left: f64, response_ratio: f64) -> Duration {
        let (least, most) = (late.min(self.before), late.max(self.before));
        self.before = late;
        self.turn = if most < ALONE { LONG_TURN } else { SHORT_TURN };
        let fading = 1.0 + (response_ratio / RESPONSE_RATIO).powi(2);
        let times = STAND_BACK * self.patience * left / fading;
        least.saturating_sub(CROWDED).mul_f64(times).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn patient() -> Turns {
        Turns {
            patience: 1.0,
            ..Turns::new(Duration::ZERO)
        }
    }

    /// How long a patient burn stands back that has come back `late` from two instants.
    fn stand_back(late: Duration, left: f64, response_ratio: f64) -> Duration {
        let mut turns = patient();
        turns.stand_back(late, left, response_ratio);
        turns.stand_back(late, left, response_ratio)
    }

    #[test]
    fn a_burn_that_is_alone_takes_long_turns_and_one_among_others_short_ones() {
        let mut turns = patient();
        assert_eq!(turns.turn(), FIRST_TURN);
        let mut turn_after = |late| {
            assert_eq!(turns.stand_back(late, 1.0, 1.0), Duration::ZERO);
            turns.turn()
        };
        assert_eq!(turn_after(MS), LONG_TURN);
        assert_eq!(turn_after(5 * MS), SHORT_TURN);
        // One prompt return may be luck.
        assert_eq!(turn_after(MS), SHORT_TURN);
        assert_eq!(turn_after(MS), LONG_TURN);
    }

    #[test]
    fn one_late_return_is_not_a_crowd() {
        let mut turns = patient();
        let mut pause_after = |late| turns.stand_back(late, 1.0, 1.0);
        assert_eq!(pause_after(75 * MS), Duration::ZERO);
        assert_eq!(pause_after(5 * MS), Duration::ZERO);
        assert_eq!(pause_after(75 * MS), Duration::ZERO);
        assert!(pause_after(9 * MS) > Duration::ZERO);
    }

    #[test]
    fn a_burn_stands_back_longer_in_a_larger_crowd_and_shorter_near_its_end() {
        let crowd = stand_back(12 * MS, 1.0, 0.0);
        assert_eq!(crowd, 4 * MS * 40);
        assert_eq!(stand_back(16 * MS, 1.0, 0.0), 2 * crowd);
        assert_eq!(stand_back(12 * MS, 0.25, 0.0), crowd / 4);
        assert_eq!(stand_back(12 * MS, 0.0, 0.0), Duration::ZERO);
        assert_eq!(stand_back(9000 * MS, 1.0, 0.0), LONGEST);
    }

    #[test]
    fn a_burn_stands_back_less_the_longer_it_has_taken_for_its_size() {
        let fresh = stand_back(12 * MS, 1.0, 0.0);
        assert_eq!(stand_back(12 * MS, 1.0, RESPONSE_RATIO), fresh / 2);
        assert_eq!(stand_back(12 * MS, 1.0, 3.0 * RESPONSE_RATIO), fresh / 10);
    }

    #[test]
    fn patience_is_spread_evenly_over_burns_that_start_close_together() {
        let starts = (0..1000).map(|n| Duration::from_nanos(86_400_000_000_000 + 41 * n));
        let patiences: Vec<_> = starts.map(|now| Turns::new(now).patience).collect();
        for tenth in 0..10 {
            let within = |p: &&f64| (**p * 10.0) as usize == tenth;
            let count = patiences.iter().filter(within).count();
            assert!(
                (80..=120).contains(&count),
                "{count} of 1000 in tenth {tenth}"
            );
        }
    }
}
