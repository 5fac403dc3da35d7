//! When a burn works, and when it lets others.
//!
//! Spin never preempts a guest: while a burn works, its thread serves nobody else. So a burn works
//! in turns and waits for an instant between them; how late it comes back tells how many others
//! have the thread. And burns go in one by one, since forty that share a thread are all late:
//!
//! - A new burn looks in: it waits for an instant without having worked. If it comes back later
//!   than it accepts, then or the time before, it stays out, and looks in again about half way to
//!   the age at which it would accept what it found, or an eighth of its age later if that is sooner.
//! - What it accepts grows with its age: the older go before the younger, and few are in at a time.
//! - Once in, it works in short turns until it is done, or in long ones while it is alone.
//!
//! The figures were sought in virtual time and measured on Spin 3.6.3 with two cores:
//! `make bench ROWS=tutorial,overload,few,no-limit`.

use std::time::Duration;

/// The shortest wait that lets others run: a wait for zero returns at once.
pub const INSTANT: Duration = Duration::from_nanos(1);

/// A turn among others. With 3 ms the health endpoint answered faster than with 4 or 6 ms; with
/// 2 ms no faster, and a request cost 1 % more.
const SHORT_TURN: Duration = Duration::from_millis(3);

/// A turn alone. A wait then means more than a millisecond of idleness: one in forty is 3 %. Until
/// its end a burn may not learn that its client left: with 50 ms that cost 50 ms of CPU.
const LONG_TURN: Duration = Duration::from_millis(40);

/// The lateness that a new burn accepts, and that of a burn which is alone: the host's timer makes
/// it 1.2 ms, and one turn of another 4 ms.
const ALONE: Duration = Duration::from_millis(3);

/// The lateness that a burn accepts in the end: some four turns of others. With 20 ms within 3 s,
/// 0.43 of an overload was answered in time (0.8 with these figures): more were in at a time, and
/// of those that had waited long more were late after all.
const CROWDED: Duration = Duration::from_millis(15);

/// The age from which on a burn accepts `CROWDED`. In virtual time, 3 s answered less of an overload
/// and the slowest of eight connections later, and 4 s a third of the overload only.
const GROWN: Duration = Duration::from_secs(2);

/// The least time between two looks, on average.
const LOOK: Duration = Duration::from_millis(20);

/// The turns of one burn.
pub struct Turns {
    is_in: bool,
    /// How late the burn came back from the instant before.
    before: Duration,
}

/// What a burn does next.
#[derive(Debug, PartialEq)]
pub enum Turn {
    /// Work for this long, then wait for an instant.
    Work(Duration),
    /// Wait for this long, then for an instant.
    StayOut(Duration),
}

impl Turns {
    /// The turns of a burn that has to get in first, or `is_in` from the start.
    pub fn new(is_in: bool) -> Self {
        // Prompt enough to go in after one look, but not for a long turn: others may be out.
        let before = ALONE;
        Self { is_in, before }
    }

    /// The turn of a burn that has come back `late` from an instant, at this `age`.
    ///
    /// `lot`, from 0 to 1, keeps burns that start together from looking in together.
    pub fn next(&mut self, late: Duration, age: Duration, lot: f64) -> Turn {
        // One late return may be throttling, and one prompt return luck.
        let (less, more) = (late.min(self.before), late.max(self.before));
        self.before = late;
        self.is_in |= accepts(more, age);
        match self.is_in {
            true if more < ALONE => Turn::Work(LONG_TURN),
            true => Turn::Work(SHORT_TURN),
            // Only the look before was late: another at once tells.
            false if accepts(late, age) => Turn::StayOut(Duration::ZERO),
            false => {
                let missing = age_that_accepts(less).saturating_sub(age);
                Turn::StayOut((missing / 2).min(age / 8).max(LOOK).mul_f64(0.5 + lot))
            }
        }
    }
}

/// Whether a burn of this `age` accepts to come back so `late`.
fn accepts(late: Duration, age: Duration) -> bool {
    late <= CROWDED && age >= age_that_accepts(late)
}

/// The age from which on a burn accepts to come back so `late`, `CROWDED` at most.
fn age_that_accepts(late: Duration) -> Duration {
    let share = late.saturating_sub(ALONE).div_duration_f64(CROWDED - ALONE);
    GROWN.mul_f64(share.min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Turn::{StayOut, Work};

    const MS: Duration = Duration::from_millis(1);

    /// The turn of a burn of this age that has come back so late twice; no luck in its lot.
    fn turn(late: Duration, age: Duration) -> Turn {
        let mut turns = Turns::new(false);
        turns.next(late, age, 0.5);
        turns.next(late, age, 0.5)
    }

    #[test]
    fn a_burn_that_is_alone_goes_in_at_once_and_takes_long_turns() {
        let mut turns = Turns::new(false);
        assert_eq!(turns.next(MS, MS, 0.5), Work(SHORT_TURN));
        assert_eq!(turns.next(MS, 5 * MS, 0.5), Work(LONG_TURN));
        // Others come: it stays in, in short turns, until it is alone twice in a row.
        assert_eq!(turns.next(40 * MS, 52 * MS, 0.5), Work(SHORT_TURN));
        assert_eq!(turns.next(MS, 56 * MS, 0.5), Work(SHORT_TURN));
        assert_eq!(turns.next(MS, 60 * MS, 0.5), Work(LONG_TURN));
    }

    #[test]
    fn the_older_a_burn_the_more_it_accepts() {
        assert!(matches!(turn(4 * MS, 150 * MS), StayOut(_)));
        assert_eq!(turn(4 * MS, 200 * MS), Work(SHORT_TURN));
        assert!(matches!(turn(9 * MS, 950 * MS), StayOut(_)));
        assert_eq!(turn(9 * MS, 1050 * MS), Work(SHORT_TURN));
        assert_eq!(turn(CROWDED, GROWN), Work(SHORT_TURN));
        // Nobody joins a crowd, however old.
        assert!(matches!(turn(CROWDED + MS, 100 * GROWN), StayOut(_)));
    }

    #[test]
    fn a_burn_looks_in_again_half_way_to_where_it_would_accept_and_soon_while_it_is_young() {
        assert_eq!(turn(CROWDED, 800 * MS), StayOut(100 * MS));
        assert_eq!(turn(CROWDED, 1600 * MS), StayOut(200 * MS));
        assert_eq!(turn(CROWDED, 1800 * MS), StayOut(100 * MS));
        assert_eq!(turn(CROWDED, 1999 * MS), StayOut(LOOK));
        assert_eq!(turn(9000 * MS, 1000 * MS), StayOut(125 * MS));
        // By lot, from half as long to half as long again.
        for (lot, share) in [(0.0, 0.5), (1.0, 1.5)] {
            let out = Turns::new(false).next(9 * MS, Duration::ZERO, lot);
            assert_eq!(out, StayOut(LOOK.mul_f64(share)));
        }
    }

    #[test]
    fn one_late_return_does_not_keep_a_burn_out_for_long() {
        let mut turns = Turns::new(false);
        assert_eq!(turns.next(75 * MS, 75 * MS, 0.5), StayOut(LOOK));
        assert_eq!(turns.next(MS, 100 * MS, 0.5), StayOut(Duration::ZERO));
        assert_eq!(turns.next(MS, 101 * MS, 0.5), Work(LONG_TURN));
    }

    #[test]
    fn a_burn_that_paces_itself_is_in_from_the_start() {
        assert_eq!(
            Turns::new(true).next(40 * MS, 40 * MS, 0.5),
            Work(SHORT_TURN)
        );
    }
}
