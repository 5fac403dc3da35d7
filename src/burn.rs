//! Burning CPU: chunks of hashes, a look at the clock between them, and now and then a wait.

use std::time::Duration;

use crate::chain::{Chain, Digest};
use crate::clock::Clock;
use crate::load::Load;
use crate::meter::Meter;
use crate::scheduler::{INSTANT, Turn, Turns};

/// The wall-clock time of a chunk: shorter than neighbours on the same core let it work at a time,
/// so that most chunks are undisturbed. A look at the clock and its judgement cost some 2 µs: with
/// chunks of 500 µs the hash rate was 5 % higher.
const CHUNK: Duration = Duration::from_micros(40);

/// The iterations of a chunk while nobody knows yet what an iteration costs: some 3 µs.
const FIRST_CHUNK: u64 = 16;

/// How often a burn that works asks whether its load is still wanted.
const ASK: Duration = Duration::from_micros(500);

/// The CPU time that a paced load uses at a time. Shorter strokes would pace more finely, but each
/// is followed by a wait, which costs the host up to 0.1 ms of CPU: at 10 ms, 1 % more than asked.
const STROKE: Duration = Duration::from_millis(20);

/// The CPU time that a paced load makes up for at most, at full speed: what throttling keeps back in
/// two of its periods. What a longer stall kept back is forgone, so that Q is held, not averaged.
const MAKE_UP: Duration = Duration::from_millis(100);

/// The longest wait without asking whether the load is still wanted.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// How much longer than asked the host's own timer may make a wait.
const TIMER: Duration = Duration::from_millis(2);

/// What a burn did.
#[derive(Debug, PartialEq)]
pub struct Burnt {
    pub iterations: u64,
    pub digest: Digest,
    /// The CPU time that the burn used.
    pub cpu_time: Duration,
    /// The wall-clock time that the burn waited of its own will: to pace itself, and for others.
    pub waited: Duration,
    /// The wall-clock time of the whole burn.
    pub elapsed: Duration,
}

/// Runs `load`, or returns nothing as soon as it is not `wanted` any more.
///
/// `wanted` is asked now and then, with the wall-clock time since the start.
pub fn burn(load: Load, clock: &impl Clock, wanted: impl FnMut(Duration) -> bool) -> Option<Burnt> {
    let mut burn = Burn::new(clock, wanted);
    // A load that paces itself has its own order.
    let mut turns = Turns::new(matches!(load, Load::Paced { .. }));
    let (mut turn, mut turn_end) = (Duration::ZERO, Duration::ZERO);
    loop {
        match burn.next(load) {
            Next::Work(most) if burn.elapsed() < turn_end => {
                burn.work(most)?;
                continue;
            }
            Next::Work(_) => {
                let late = burn.wait(INSTANT)?;
                turn = match turns.next(late, burn.elapsed(), burn.lot()) {
                    Turn::Work(turn) => turn,
                    Turn::StayOut(pause) => {
                        burn.wait(pause)?;
                        Duration::ZERO
                    }
                };
            }
            Next::Pause(pause) => {
                burn.wait(pause)?;
            }
            Next::End => return Some(burn.burnt()),
        }
        turn_end = burn.elapsed() + turn;
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
    /// When it was last asked whether the load is wanted.
    asked: Duration,
    waited: Duration,
    /// The CPU time that a paced load does not make up for.
    forgone: Duration,
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
            asked: started,
            waited: Duration::ZERO,
            forgone: Duration::ZERO,
            chain: Chain::default(),
            meter: Meter::default(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// A number from 0 to 1, other for each burn and moment: the last digits of the clock, spread
    /// evenly by Fibonacci hashing.
    fn lot(&self) -> f64 {
        let spread = (self.now.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        spread as f64 / u64::MAX as f64
    }

    fn next(&mut self, load: Load) -> Next {
        match load {
            Load::Iterations(n) => match n - self.chain.iterations() {
                0 => Next::End,
                most => Next::Work(most),
            },
            Load::CpuTime(goal) => self.work_until(goal).unwrap_or(Next::End),
            Load::Paced { duration, .. } if self.elapsed() >= duration => Next::End,
            Load::Paced { cpu, duration } => {
                let (cores, used) = (cpu.cores(), self.meter.cpu_time());
                let due = self.elapsed().mul_f64(cores);
                let behind = due.saturating_sub(used + self.forgone);
                self.forgone += behind.saturating_sub(MAKE_UP);
                // A stroke starts when the CPU time used is what is due, and ends as far ahead of
                // it as the stroke is longer than what falls due meanwhile; a whole core never is.
                let ahead = STROKE.mul_f64(1.0 - cores).max(CHUNK);
                let goal = (due + ahead).min(duration.mul_f64(cores));
                self.work_until(goal.saturating_sub(self.forgone))
                    .unwrap_or_else(|| {
                        let even = (used + self.forgone).div_f64(cores).min(duration);
                        // Never nothing: a wait for nothing would let no time pass.
                        Next::Pause(even.saturating_sub(self.elapsed()).max(INSTANT))
                    })
            }
        }
    }

    /// Work until `goal` of CPU time is used; nothing where it is.
    fn work_until(&self, goal: Duration) -> Option<Next> {
        let left = goal.saturating_sub(self.meter.cpu_time());
        match self.meter.is_sure() {
            false => Some(Next::Work(FIRST_CHUNK)),
            true if left.is_zero() => None,
            true => Some(Next::Work(self.meter.iterations_in(left).max(1))),
        }
    }

    /// Makes a chunk of `most` iterations at most; nothing if the load is not wanted any more.
    fn work(&mut self, most: u64) -> Option<()> {
        let chunk = self.meter.iterations_in(CHUNK).max(FIRST_CHUNK).min(most);
        self.chain.extend(chunk);
        let started = self.now;
        self.now = self.clock.now();
        self.meter.count(chunk, self.now - started);
        match self.now - self.asked < ASK {
            true => Some(()),
            false => self.is_wanted(),
        }
    }

    /// Waits for `pause`, and tells how late that ended; nothing if the load is not wanted any more.
    fn wait(&mut self, pause: Duration) -> Option<Duration> {
        let (started, end) = (self.now, self.now + pause);
        while self.now < end {
            self.clock.wait((end - self.now).min(LONGEST_WAIT));
            self.now = self.clock.now();
            self.is_wanted()?;
        }
        self.waited += (self.now - started).min(pause + TIMER);
        Some(self.now - end)
    }

    fn is_wanted(&mut self) -> Option<()> {
        self.asked = self.now;
        let elapsed = self.elapsed();
        (self.wanted)(elapsed).then_some(())
    }

    fn burnt(&self) -> Burnt {
        Burnt {
            iterations: self.chain.iterations(),
            digest: self.chain.digest(),
            cpu_time: self.meter.cpu_time(),
            waited: self.waited,
            elapsed: self.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    const MS: Duration = Duration::from_millis(1);

    /// A clock of a machine so slow that the smallest chunk takes `CHUNK`: every chunk is then of
    /// `FIRST_CHUNK` iterations, but for a last one. It replays what happens beside the work.
    struct Replay {
        now: Cell<Duration>,
        chunks: Cell<u32>,
        waited: Cell<bool>,
        /// By its number, from 1 on, how much longer a chunk takes: preemption, throttling.
        taken_away: Box<dyn Fn(u32) -> Duration>,
        /// How late every wait ends: the host's timer, and others in the queue.
        late: Duration,
        waits: RefCell<Vec<Duration>>,
    }

    impl Clock for Replay {
        fn now(&self) -> Duration {
            let chunk = self.chunks.get();
            if !self.waited.replace(false) && chunk > 0 {
                self.now
                    .set(self.now.get() + CHUNK + (self.taken_away)(chunk));
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
        fn new(late: Duration, taken_away: impl Fn(u32) -> Duration + 'static) -> Self {
            Self {
                now: Cell::default(),
                chunks: Cell::default(),
                waited: Cell::default(),
                taken_away: Box::new(taken_away),
                late,
                waits: RefCell::default(),
            }
        }

        fn late(late: Duration) -> Self {
            Self::new(late, |_| Duration::ZERO)
        }

        fn run(&self, load: &str) -> Burnt {
            let load = load.parse().expect("a load");
            burn(load, self, |_| true).expect("it is wanted")
        }

        fn waits(&self) -> usize {
            self.waits.borrow().len()
        }

        /// The CPU time that was really used.
        fn used(&self) -> Duration {
            CHUNK * (self.chunks.get() - 1)
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
        for n in [0, 1, 15, 16, 17, 1000] {
            let burnt = Replay::late(MS).run(&format!("iterations={n}"));
            assert_eq!(burnt.iterations, n);
        }
        let nothing = Replay::late(MS).run("iterations=0");
        assert_eq!(nothing.cpu_time, Duration::ZERO);
        assert_eq!(nothing.elapsed, Duration::ZERO);
    }

    #[test]
    fn cpu_time_is_used_exactly_whatever_takes_the_thread_away() {
        // Nothing; a preemption; throttling for most of every 100 ms; in the very first chunk.
        let histories: [fn(u32) -> bool; 4] =
            [|_| false, |n| n == 100, |n| n % 625 == 0, |n| n == 1];
        for history in histories {
            let clock = Replay::new(MS, move |n| 75 * MS * u32::from(history(n)));
            let burnt = clock.run("cpu_time=50ms");
            assert_near(burnt.cpu_time, 50 * MS, CHUNK);
            assert_near(clock.used(), 50 * MS, 2 * CHUNK);
            let taken_away: Duration = (1..clock.chunks.get()).map(&clock.taken_away).sum();
            assert_eq!(burnt.elapsed, clock.used() + burnt.waited + taken_away);
        }
    }

    #[test]
    fn cpu_time_is_used_exactly_beside_neighbours_that_share_the_core() {
        // For how long a neighbour takes the core, and leaves it, in microseconds.
        let neighbours = [
            (300, 650),
            (300, 325),
            (150, 300),
            (900, 1100),
            (80, 170),
            (3000, 3000),
            (50, 60),
            (20, 100),
        ];
        for (busy, idle) in neighbours {
            let took = move |n| n * CHUNK.as_micros() as u32 / idle;
            let taken_away = move |n| Duration::from_micros(busy) * (took(n) - took(n - 1));
            let clock = Replay::new(MS, taken_away);
            clock.run("cpu_time=200ms");
            // An interruption costs CPU time too, which this clock does not replay: up to 0.3 of a
            // chunk for each is counted for it.
            let interruptions = took(clock.chunks.get() - 1);
            let used = clock.used() + CHUNK.mul_f64(0.3) * interruptions;
            assert_near(used, 200 * MS, 2 * MS);
        }
    }

    #[test]
    fn a_burn_that_is_alone_hardly_waits() {
        let clock = Replay::late(MS);
        let burnt = clock.run("cpu_time=1s");
        assert!(clock.waits() <= 27, "{} waits", clock.waits());
        assert!(burnt.elapsed <= 1030 * MS, "{burnt:?}");
    }

    #[test]
    fn a_burn_in_a_crowd_does_not_work_until_it_gets_in() {
        let clock = Replay::late(9 * MS);
        let burnt = clock.run("cpu_time=30ms");
        assert_near(clock.used(), 30 * MS, 2 * CHUNK);
        // It accepts 9 ms at an age of a second, and then works in turns of 3 ms.
        assert_near(burnt.elapsed, (1000 + 11 * (3 + 9)) * MS, 200 * MS);
        assert!(clock.waits() <= 60, "{} waits", clock.waits());
    }

    #[test]
    fn what_a_burn_waits_is_told_apart_from_what_is_taken_away() {
        let others = Replay::late(6 * MS);
        let burnt = others.run("cpu_time=30ms");
        let asked: Duration = others.waits.borrow().iter().sum();
        assert_near(burnt.waited, asked + TIMER * others.waits() as u32, 10 * MS);
        let paced = Replay::late(MS).run("cpu=100m&duration=2s");
        assert_near(paced.waited, 1800 * MS, 10 * MS);
        assert_near(paced.elapsed, paced.cpu_time + paced.waited, MS);
    }

    #[test]
    fn a_paced_load_uses_its_share_and_ends_on_time() {
        // Q, how late every wait is, and what is taken away in between.
        let cases = [
            ("100m", MS, 0),
            ("500m", MS, 0),
            ("900m", MS, 0),
            ("250m", 6 * MS, 0),
            ("250m", MS, 50),
        ];
        for (cpu, late, away) in cases {
            let clock = Replay::new(late, move |n| away * MS * u32::from(n % 625 == 0));
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
    fn a_paced_load_makes_up_for_throttling_but_not_for_a_long_stall() {
        // 50 ms after every 50 ms of CPU time; 2 s at once, a second of CPU time.
        let throttled = Replay::new(MS, |n| 50 * MS * u32::from(n % 1250 == 0));
        throttled.run("cpu=400m&duration=5s");
        assert_near(throttled.used(), 2000 * MS, 40 * MS);
        let stalled = Replay::new(MS, |n| 2000 * MS * u32::from(n == 10_000));
        stalled.run("cpu=500m&duration=5s");
        assert_near(stalled.used(), 1500 * MS + MAKE_UP, STROKE);
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
