//! Burning CPU: chunks of hashes, a look at the clock between them, and now and then a wait.

use std::time::Duration;

use crate::chain::{Chain, Digest};
use crate::clock::Clock;
use crate::load::Load;
use crate::meter::Meter;
use crate::turns::{INSTANT, Turns};

/// The wall-clock time of a chunk: short enough that a preempted one stands out, long enough that
/// reading the clock costs nothing beside it.
const CHUNK: Duration = Duration::from_micros(500);

/// The iterations of a chunk while nobody knows yet what an iteration costs: some 10 µs.
const FIRST_CHUNK: u64 = 64;

/// The CPU time that a paced load uses at a time. Shorter strokes would pace more finely, but each
/// is followed by a wait, which costs the host up to 0.1 ms of CPU: at 10 ms, 1 % more than asked.
const STROKE: Duration = Duration::from_millis(20);

/// The longest wait without asking whether the load is still wanted.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// What a burn did.
#[derive(Debug, PartialEq)]
pub struct Burnt {
    pub iterations: u64,
    pub digest: Digest,
    /// The CPU time that the burn used.
    pub cpu_time: Duration,
    /// The wall-clock time of the whole burn.
    pub elapsed: Duration,
}

/// Runs `load`, or returns nothing as soon as it is not `wanted` any more.
///
/// `wanted` is asked after every chunk and every wait, with the wall-clock time since the start.
pub fn burn(load: Load, clock: &impl Clock, wanted: impl FnMut(Duration) -> bool) -> Option<Burnt> {
    let mut burn = Burn::new(clock, wanted);
    let mut turns = Turns::new(burn.started);
    let mut turn_end = turns.turn();
    loop {
        match burn.next(load) {
            Next::Work(most) if burn.elapsed() < turn_end => {
                burn.work(most)?;
                continue;
            }
            Next::Work(_) => {
                let late = burn.wait(INSTANT)?;
                let (left, ratio) = (burn.left(load), burn.response_ratio(load));
                burn.wait(turns.stand_back(late, left, ratio))?;
            }
            Next::Pause(pause) => {
                burn.wait(pause)?;
            }
            Next::End => return Some(burn.burnt()),
        }
        turn_end = burn.elapsed() + turns.turn();
    }
}

/// What a load asks for next.
enum Next {
    /// Work, for this many iterations at most.
    Work(u64),
    /// No use of CPU for this long.
    Pause(Duration),
    End,
}

/// A burn under way.
struct Burn<'a, C, W> {
    clock: &'a C,
    wanted: W,
    started: Duration,
    now: Duration,
    chain: Chain,
    meter: Meter,
}

impl<'a, C: Clock, W: FnMut(Duration) -> bool> Burn<'a, C, W> {
    fn new(clock: &'a C, wanted: W) -> Self {
        let started = clock.now();
        Self {
            clock,
            wanted,
            started,
            now: started,
            chain: Chain::default(),
            meter: Meter::default(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    fn next(&self, load: Load) -> Next {
        match load {
            Load::Iterations(n) => match n - self.chain.iterations() {
                0 => Next::End,
                most => Next::Work(most),
            },
            Load::CpuTime(goal) => self.work_until(goal).unwrap_or(Next::End),
            Load::Paced { duration, .. } if self.elapsed() >= duration => Next::End,
            Load::Paced { cpu, duration } => {
                // A stroke starts when the CPU time used is what is due, and ends as far ahead of
                // it as the stroke is longer than what falls due meanwhile; a whole core never is.
                let due = self.elapsed().mul_f64(cpu.cores());
                let ahead = STROKE.mul_f64(1.0 - cpu.cores()).max(CHUNK);
                let goal = (due + ahead).min(duration.mul_f64(cpu.cores()));
                self.work_until(goal).unwrap_or_else(|| {
                    let even = self.meter.cpu_time().div_f64(cpu.cores()).min(duration);
                    // Never nothing: a wait for nothing would let no time pass.
                    Next::Pause(even.saturating_sub(self.elapsed()).max(INSTANT))
                })
            }
        }
    }

    /// Work until `goal` of CPU time is used; nothing where it is.
    fn work_until(&self, goal: Duration) -> Option<Next> {
        let left = goal.saturating_sub(self.meter.cpu_time());
        let most = match self.chain.iterations() {
            0 => FIRST_CHUNK,
            _ => self.meter.iterations_in(left).max(1),
        };
        (!left.is_zero()).then_some(Next::Work(most))
    }

    /// Makes a chunk of `most` iterations at most; nothing if the load is not wanted any more.
    fn work(&mut self, most: u64) -> Option<()> {
        let chunk = self.meter.iterations_in(CHUNK).max(FIRST_CHUNK).min(most);
        self.chain.extend(chunk);
        let started = self.now;
        self.now = self.clock.now();
        self.meter.count(chunk, self.now - started);
        self.is_wanted()
    }

    /// Waits for `pause`, and tells how late that ended; nothing if the load is not wanted any more.
    fn wait(&mut self, pause: Duration) -> Option<Duration> {
        let end = self.now + pause;
        while self.now < end {
            self.clock.wait((end - self.now).min(LONGEST_WAIT));
            self.now = self.clock.now();
            self.is_wanted()?;
        }
        Some(self.now - end)
    }

    fn is_wanted(&mut self) -> Option<()> {
        let elapsed = self.elapsed();
        (self.wanted)(elapsed).then_some(())
    }

    /// The share of the work that is left, from 0 to 1. A paced load has its own pace, and so none
    /// for which it could stand back.
    fn left(&self, load: Load) -> f64 {
        match load {
            Load::Iterations(n) => 1.0 - self.chain.iterations() as f64 / n as f64,
            Load::CpuTime(goal) => 1.0 - self.meter.cpu_time().div_duration_f64(goal),
            Load::Paced { .. } => 0.0,
        }
    }

    /// The wall-clock time so far over the CPU time that the whole work needs.
    fn response_ratio(&self, load: Load) -> f64 {
        let done = 1.0 - self.left(load);
        self.elapsed().div_duration_f64(self.meter.cpu_time()) * done
    }

    fn burnt(&self) -> Burnt {
        Burnt {
            iterations: self.chain.iterations(),
            digest: self.chain.digest(),
            cpu_time: self.meter.cpu_time(),
            elapsed: self.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    const MS: Duration = Duration::from_millis(1);

    /// A clock of a machine so slow that the smallest chunk takes `CHUNK`: every chunk is then of
    /// `FIRST_CHUNK` iterations, but for a last one. It replays what happens beside the work.
    #[derive(Default)]
    struct Replay {
        now: Cell<Duration>,
        chunks: Cell<u32>,
        waited: Cell<bool>,
        /// By its number, from 1 on, how much longer a chunk takes: preemption, throttling.
        taken_away: BTreeMap<u32, Duration>,
        /// How late every wait ends: the host's timer, and others in the queue.
        late: Duration,
        waits: RefCell<Vec<Duration>>,
    }

    impl Clock for Replay {
        fn now(&self) -> Duration {
            let chunk = self.chunks.get();
            if chunk > 0 && !self.waited.replace(false) {
                let taken = self.taken_away.get(&chunk).copied().unwrap_or_default();
                self.now.set(self.now.get() + CHUNK + taken);
            }
            self.chunks.set(self.chunks.get() + 1);
            self.now.get()
        }

        fn wait(&self, pause: Duration) {
            assert!(
                !pause.is_zero() && pause <= LONGEST_WAIT,
                "a wait of {pause:?}"
            );
            self.waits.borrow_mut().push(pause);
            self.now.set(self.now.get() + pause + self.late);
            self.waited.set(true);
            // The look at the clock after a wait is not the end of a chunk.
            self.chunks.set(self.chunks.get() - 1);
        }
    }

    impl Replay {
        fn late(late: Duration) -> Self {
            Self {
                late,
                ..Self::default()
            }
        }

        fn run(&self, load: &str) -> Burnt {
            let load = load.parse().expect("a load");
            burn(load, self, |_| true).expect("it is wanted")
        }

        fn waits(&self) -> usize {
            self.waits.borrow().len()
        }
    }

    fn assert_near(found: Duration, expected: Duration, by: Duration) {
        assert!(
            found.abs_diff(expected) <= by,
            "{found:?} is not {expected:?} ± {by:?}"
        );
    }

    #[test]
    fn iterations_are_made_exactly() {
        for n in [0, 1, 63, 64, 65, 1000] {
            let burnt = Replay::late(MS).run(&format!("iterations={n}"));
            assert_eq!(burnt.iterations, n);
        }
        let nothing = Replay::default().run("iterations=0");
        assert_eq!(nothing.cpu_time, Duration::ZERO);
        assert_eq!(nothing.elapsed, Duration::ZERO);
    }

    #[test]
    fn cpu_time_is_used_exactly_whatever_takes_the_thread_away() {
        // Nothing; a preemption; throttling for most of every 100 ms.
        let histories = [
            vec![],
            vec![(9, 4 * MS)],
            (1..9).map(|n| (11 * n, 75 * MS)).collect(),
        ];
        for history in histories {
            let away: Duration = history.iter().map(|(_, away)| *away).sum();
            let clock = Replay {
                taken_away: history.into_iter().collect(),
                ..Replay::late(MS)
            };
            let burnt = clock.run("cpu_time=50ms");
            assert_near(burnt.cpu_time, 50 * MS, CHUNK / 64);
            assert!(burnt.elapsed >= 50 * MS + away, "{burnt:?}");
            assert_near(burnt.elapsed, 50 * MS + away, 10 * MS);
        }
    }

    #[test]
    fn a_burn_that_is_alone_hardly_waits() {
        let clock = Replay::late(MS);
        let burnt = clock.run("cpu_time=1s");
        assert!(clock.waits() <= 21, "{} waits", clock.waits());
        assert!(burnt.elapsed <= 1030 * MS, "{burnt:?}");
    }

    #[test]
    fn a_burn_among_others_waits_often_and_uses_no_more_cpu_time_for_it() {
        let clock = Replay::late(6 * MS);
        let burnt = clock.run("cpu_time=30ms");
        assert!((9..=11).contains(&clock.waits()), "{} waits", clock.waits());
        assert_near(burnt.cpu_time, 30 * MS, CHUNK / 64);
    }

    #[test]
    fn a_burn_in_a_crowd_stands_back_until_it_has_taken_long_for_its_size() {
        let clock = Replay {
            now: Cell::new(Duration::from_nanos(11)),
            ..Replay::late(40 * MS)
        };
        let burnt = clock.run("cpu_time=20ms");
        let (instants, pauses): (Vec<_>, Vec<_>) = clock
            .waits
            .borrow()
            .iter()
            .partition(|pause| **pause == INSTANT);
        assert!((6..=8).contains(&instants.len()), "{instants:?}");
        assert!(pauses.iter().sum::<Duration>() > 200 * MS, "{pauses:?}");
        assert_near(burnt.cpu_time, 20 * MS, CHUNK / 64);
        assert!(burnt.elapsed < 5000 * MS, "{burnt:?}");
    }

    #[test]
    fn a_paced_load_uses_its_share_and_ends_on_time() {
        // Q, how late every wait is, and what is taken away in between.
        let cases = [
            ("100m", MS, 0),
            ("500m", MS, 0),
            ("900m", MS, 0),
            ("250m", 6 * MS, 0),
            ("250m", MS, 75),
        ];
        for (cpu, late, away) in cases {
            let clock = Replay {
                taken_away: (1..20).map(|n| (30 * n, away * MS)).collect(),
                ..Replay::late(late)
            };
            let load = format!("cpu={cpu}&duration=5s");
            let burnt = clock.run(&load);
            let share: f64 = cpu.trim_end_matches('m').parse().expect("a number");
            let goal = Duration::from_secs_f64(5.0 * share / 1000.0);
            assert_near(burnt.cpu_time, goal, goal / 100);
            assert!(burnt.elapsed >= 5000 * MS, "{load}: {burnt:?}");
            assert_near(burnt.elapsed, 5000 * MS, late + CHUNK);
        }
    }

    #[test]
    fn a_paced_load_is_spread_over_its_duration() {
        let clock = Replay::late(MS);
        clock.run("cpu=100m&duration=2s");
        // A stroke of 20 ms in about every 200 ms.
        let paced = clock
            .waits
            .borrow()
            .iter()
            .filter(|pause| **pause > 100 * MS)
            .count();
        assert!((9..=10).contains(&paced), "{paced} pauses");
    }

    #[test]
    fn a_paced_load_of_next_to_nothing_ends() {
        for load in ["cpu=250m&duration=1ns", "cpu=0.000001m&duration=400ms"] {
            let burnt = Replay::late(MS).run(load);
            assert!(burnt.elapsed > Duration::ZERO, "{load}: {burnt:?}");
        }
    }

    #[test]
    fn a_whole_core_is_held_without_pauses() {
        let burnt = Replay::late(MS).run("cpu=1&duration=1s");
        assert!(burnt.cpu_time >= 970 * MS, "{burnt:?}");
    }

    #[test]
    fn what_is_not_wanted_any_more_ends() {
        for load in [
            "iterations=99999999",
            "cpu_time=1h",
            "cpu=1m&duration=1h",
            "cpu=1&duration=1h",
        ] {
            for late in [MS, 40 * MS] {
                let clock = Replay::late(late);
                let load = load.parse().expect("a load");
                let burnt = burn(load, &clock, |elapsed| elapsed < 2000 * MS);
                assert_eq!(burnt, None);
                assert_near(clock.now.get(), 2000 * MS, LONGEST_WAIT + late);
            }
        }
    }
}
