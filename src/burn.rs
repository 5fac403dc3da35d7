//! Burning CPU: chunks of hashes, a clock reading after each, and waits between time slices.

use std::time::Duration;

use anyhow::Result;

use crate::chain::{Chain, Digest};
use crate::clock::Clock;
use crate::load::Load;
use crate::meter::Meter;
use crate::overhead::{Cost, Overhead};
use crate::pacer::Pacer;
use crate::scheduler::{Decision, SHORT_DELAY, SHORT_SLICE, Scheduler, YIELD};

/// The wall-clock time of a chunk: shorter than the time for which neighbours usually leave the
/// core alone, so that most chunks are undisturbed. A clock reading and its evaluation cost about
/// 2 µs: with chunks of 500 µs the hash rate was 5 % higher.
const CHUNK: Duration = Duration::from_micros(40);

/// The iterations of a chunk until the cost of an iteration is known: about 3 µs.
const FIRST_CHUNK: u64 = 16;

/// The time between two checks whether the client is still connected, while the burn runs.
const CANCEL_CHECK_INTERVAL: Duration = Duration::from_micros(500);

/// The shortest time between two checks for the client while a burn waits. With a check after every
/// wait, a crowd in Spin spent 1 to 3 % more of the CPU on waiting.
const WAIT_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The longest wait at a time.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// How long before the end of a short time slice the wait of the yield begins: the millisecond of
/// the host's timer, and a margin of two chunks. So the wait is over when the burn yields.
const YIELD_LEAD: Duration = Duration::from_micros(1100);

/// By how much a time slice is extended, at most, while a yield would not let others run.
const MAX_EXTENSION: Duration = Duration::from_millis(2);

/// A chunk that takes longer than this counts as throttled: neighbours mostly take less.
const THROTTLED: Duration = Duration::from_millis(10);

/// How late a wait may end because of the timer of the host alone.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The result of a burn.
#[derive(Debug, PartialEq)]
pub struct Burnt {
    pub iterations: u64,
    pub digest: Digest,
    /// The CPU time that the burn used.
    pub cpu_time: Duration,
    /// The CPU time that the host is assumed to have used in addition.
    pub overhead: Duration,
    /// The wall-clock time that the burn waited voluntarily: to pace itself, and to let others run.
    pub waited: Duration,
    /// The wall-clock time of the whole burn.
    pub elapsed: Duration,
}

/// Runs `load`. The CPU time that it asks for includes the `overhead` of the host.
///
/// `check` is called regularly with the wall-clock time since the start.
///
/// # Errors
///
/// If `check` fails: that ends the burn.
pub fn burn(
    load: Load,
    overhead: Overhead,
    clock: &impl Clock,
    check: impl FnMut(Duration) -> Result<()>,
) -> Result<Burnt> {
    // A paced load pauses anyway.
    let admitted = matches!(load, Load::Paced { .. });
    let timer = Timer::start(clock, check);
    let mut burn = Burn::new(overhead, timer, Scheduler::new(admitted));
    match load {
        Load::Iterations(n) => burn.run_iterations(n)?,
        Load::CpuTime(goal) => burn.run_cpu_time(goal)?,
        Load::Paced { cpu, duration } => burn.run_paced(Pacer::new(cpu, duration), duration)?,
    }
    Ok(burn.finish())
}

/// A burn in progress.
struct Burn<'a, C: Clock, F> {
    overhead: Overhead,
    timer: Timer<'a, C, F>,
    scheduler: Scheduler,
    /// The length of the current time slice.
    slice: Duration,
    slice_end: Duration,
    /// The latest end to which the slice may be extended.
    latest_slice_end: Duration,
    chain: Chain,
    meter: Meter,
}

impl<'a, C: Clock, F: FnMut(Duration) -> Result<()>> Burn<'a, C, F> {
    fn new(overhead: Overhead, timer: Timer<'a, C, F>, scheduler: Scheduler) -> Self {
        Self {
            overhead,
            slice: Duration::ZERO,
            slice_end: timer.now,
            latest_slice_end: timer.now,
            timer,
            scheduler,
            chain: Chain::default(),
            meter: Meter::default(),
        }
    }

    fn run_iterations(&mut self, n: u64) -> Result<()> {
        while self.chain.iterations() < n {
            self.step(n - self.chain.iterations())?;
        }
        Ok(())
    }

    fn run_cpu_time(&mut self, goal: Duration) -> Result<()> {
        while let Some(limit) = self.iterations_until(goal) {
            self.step(limit)?;
        }
        Ok(())
    }

    fn run_paced(&mut self, mut pacer: Pacer, duration: Duration) -> Result<()> {
        while self.timer.elapsed() < duration {
            let (elapsed, used) = (self.timer.elapsed(), self.used());
            pacer.write_off(elapsed, used);
            match self.iterations_until(pacer.goal(elapsed)) {
                Some(limit) => self.step(limit)?,
                None => self.pause(pacer.pause(elapsed, used))?,
            }
        }
        Ok(())
    }

    /// The iterations until `goal` of CPU time is used, at least one; none once it is.
    fn iterations_until(&self, goal: Duration) -> Option<u64> {
        if !self.meter.is_reliable() {
            return Some(FIRST_CHUNK);
        }
        let left = goal.saturating_sub(self.used());
        (!left.is_zero()).then(|| self.meter.iterations_in(left).max(1))
    }

    /// The CPU time that the burn and the host have used.
    fn used(&self) -> Duration {
        self.meter.cpu_time() + self.overhead()
    }

    fn overhead(&self) -> Duration {
        let cpu_time = |cost| match cost {
            Cost::None => Duration::ZERO,
            Cost::CpuTime(time) => time,
            Cost::Iterations(n) => self.meter.cpu_time_of(n),
        };
        cpu_time(self.overhead.per_request)
            + cpu_time(self.overhead.per_pause) * self.timer.pauses
            + cpu_time(self.overhead.per_yield) * self.timer.yields
    }

    /// Runs one chunk of at most `limit` iterations, or yields if the time slice is over. `limit`
    /// is what is left of the burn, or of the burst of a paced load.
    fn step(&mut self, limit: u64) -> Result<()> {
        // The first chunks measure the core, so that what is left of the burn is known as a time.
        if !self.meter.is_reliable() || !self.must_yield() {
            return self.run_chunk(limit);
        }
        let delay = self.timer.yield_to_others()?;
        let left = self.meter.cpu_time_of(limit);
        let (age, jitter) = (self.timer.elapsed(), self.timer.jitter());
        match self.scheduler.next(delay, age, left, jitter) {
            Decision::Run(slice) => self.start_slice(slice),
            Decision::Yield => {}
            Decision::BackOff(backoff) => self.timer.back_off(backoff)?,
        }
        Ok(())
    }

    fn start_slice(&mut self, slice: Duration) {
        self.slice = slice;
        self.slice_end = self.timer.now + slice;
        self.latest_slice_end = self.slice_end + MAX_EXTENSION;
    }

    /// Whether the time slice is over. A short one is extended while a yield would let nobody run.
    fn must_yield(&mut self) -> bool {
        let now = self.timer.now;
        if now >= self.slice_end {
            let is_missed = self.timer.cancel_missed_yield();
            if !is_missed || now >= self.latest_slice_end {
                return true;
            }
            self.slice_end = now + YIELD_LEAD;
        }
        // After a long slice, the burn really waits: if its wait were over, it would be resumed
        // ahead of the requests that have arrived.
        if self.slice == SHORT_SLICE && now + YIELD_LEAD >= self.slice_end {
            self.timer.begin_yield();
        }
        false
    }

    fn run_chunk(&mut self, limit: u64) -> Result<()> {
        let iterations = self.meter.iterations_in(CHUNK).max(FIRST_CHUNK).min(limit);
        self.chain.extend(iterations);
        let wall_clock = self.timer.lap();
        self.meter.count(iterations, wall_clock);
        self.timer.check_every(CANCEL_CHECK_INTERVAL)
    }

    /// Waits for `pause`. Others ran meanwhile, so a whole time slice follows.
    fn pause(&mut self, pause: Duration) -> Result<()> {
        // A wait for zero would let no time pass.
        self.timer.pause(pause.max(YIELD))?;
        self.start_slice(self.slice);
        Ok(())
    }

    fn finish(self) -> Burnt {
        Burnt {
            iterations: self.chain.iterations(),
            digest: self.chain.digest(),
            cpu_time: self.meter.cpu_time(),
            overhead: self.overhead(),
            waited: self.timer.waited,
            elapsed: self.timer.elapsed(),
        }
    }
}

/// The clock of one burn: it counts the waits, and calls `check` regularly.
struct Timer<'a, C: Clock, F> {
    clock: &'a C,
    check: F,
    started: Duration,
    now: Duration,
    last_check: Duration,
    /// How often the thread stopped, in a wait or by throttling.
    pauses: u32,
    /// All other waits.
    yields: u32,
    /// The wait of the next yield, if it has begun.
    next_yield: Option<C::Pollable>,
    waited: Duration,
}

impl<'a, C: Clock, F: FnMut(Duration) -> Result<()>> Timer<'a, C, F> {
    fn start(clock: &'a C, check: F) -> Self {
        let started = clock.now();
        Self {
            clock,
            check,
            started,
            now: started,
            last_check: started,
            pauses: 0,
            yields: 0,
            next_yield: None,
            waited: Duration::ZERO,
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// Ends a chunk, and returns its wall-clock time.
    fn lap(&mut self) -> Duration {
        let started = self.now;
        self.now = self.clock.now();
        let wall_clock = self.now - started;
        self.pauses += u32::from(wall_clock > THROTTLED);
        wall_clock
    }

    /// Waits for `pause` of a paced load.
    fn pause(&mut self, pause: Duration) -> Result<()> {
        self.pauses += self.wait(pause)?;
        Ok(())
    }

    /// Waits for `backoff`, to let others run.
    fn back_off(&mut self, backoff: Duration) -> Result<()> {
        self.yields += self.wait(backoff)?;
        Ok(())
    }

    /// Returns the number of waits that it took.
    fn wait(&mut self, pause: Duration) -> Result<u32> {
        // A yield after this wait needs a wait of its own.
        self.next_yield = None;
        let (started, end) = (self.now, self.now + pause);
        let mut waits = 0;
        while self.now < end {
            let pollable = self.clock.subscribe((end - self.now).min(MAX_WAIT));
            self.block(pollable)?;
            waits += 1;
        }
        self.waited += (self.now - started).min(pause + TIMER_SLACK);
        Ok(waits)
    }

    /// Begins the wait of the next yield, unless it has begun.
    fn begin_yield(&mut self) {
        self.next_yield
            .get_or_insert_with(|| self.clock.subscribe(YIELD));
    }

    /// Drops the wait of the next yield if the host has noticed its end, since it would let nobody
    /// run. Returns whether it did.
    fn cancel_missed_yield(&mut self) -> bool {
        let missed = self
            .next_yield
            .take_if(|pollable| self.clock.is_ready(pollable));
        missed.is_some()
    }

    /// Lets others run, and returns the scheduling delay.
    fn yield_to_others(&mut self) -> Result<Duration> {
        let begun = self.next_yield.take();
        let (started, has_begun) = (self.now, begun.is_some());
        self.block(begun.unwrap_or_else(|| self.clock.subscribe(YIELD)))?;
        let delay = self.now - started;
        // After a wait that began ahead, a short delay does not show that the thread was idle.
        if delay < SHORT_DELAY && !has_begun {
            self.pauses += 1;
        } else {
            self.yields += 1;
        }
        self.waited += delay.min(TIMER_SLACK);
        Ok(delay)
    }

    fn block(&mut self, pollable: C::Pollable) -> Result<()> {
        self.clock.block(pollable);
        self.now = self.clock.now();
        self.check_every(WAIT_CHECK_INTERVAL)
    }

    fn check_every(&mut self, interval: Duration) -> Result<()> {
        if self.now - self.last_check < interval {
            return Ok(());
        }
        self.last_check = self.now;
        let elapsed = self.elapsed();
        (self.check)(elapsed)
    }

    /// A number from 0 to 1 that differs between burns and moments: the last digits of the clock,
    /// spread evenly by Fibonacci hashing. WASI's random numbers would be one more import.
    fn jitter(&self) -> f64 {
        let spread = (self.now.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        spread as f64 / u64::MAX as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;

    use crate::pacer::{BURST, MAX_CATCH_UP};
    use std::cell::{Cell, RefCell};

    const MS: Duration = Duration::from_millis(1);

    /// The clock of a machine so slow that the smallest chunk takes `CHUNK`, so that every chunk
    /// but a last one has `FIRST_CHUNK` iterations. It replays interruptions and scheduling delays.
    struct Replay {
        now: Cell<Duration>,
        chunks: Cell<u32>,
        waited: Cell<bool>,
        /// How much longer the nth chunk takes, from 1 on: preemption, throttling.
        stolen: Box<dyn Fn(u32) -> Duration>,
        /// The scheduling delay of every wait: the timer of the host, and other burns.
        delay: Duration,
        waits: RefCell<Vec<Duration>>,
        /// How long the timer of the host makes the shortest wait.
        shortest_wait: Duration,
        /// Another thread serves others, so the host notices at once that a wait is over.
        others_are_served: bool,
    }

    impl Clock for Replay {
        /// The pause, and its end.
        type Pollable = (Duration, Duration);

        fn now(&self) -> Duration {
            let chunk = self.chunks.get();
            if !self.waited.replace(false) && chunk > 0 {
                self.now.set(self.now.get() + CHUNK + (self.stolen)(chunk));
            }
            self.chunks.set(self.chunks.get() + 1);
            self.now.get()
        }

        fn subscribe(&self, pause: Duration) -> (Duration, Duration) {
            assert!(!pause.is_zero() && pause <= MAX_WAIT, "a wait of {pause:?}");
            (pause, self.now.get() + pause.max(self.shortest_wait))
        }

        fn is_ready(&self, (_, end): &(Duration, Duration)) -> bool {
            self.others_are_served && *end <= self.now.get()
        }

        fn block(&self, (pause, end): (Duration, Duration)) {
            assert!(!self.is_ready(&(pause, end)), "a wait that lets nobody run");
            self.waits.borrow_mut().push(pause);
            self.now.set(self.now.get().max(end) + self.delay);
            self.waited.set(true);
            // The clock reading after a wait is not the end of a chunk.
            self.chunks.set(self.chunks.get() - 1);
        }
    }

    impl Replay {
        fn new(delay: Duration, stolen: impl Fn(u32) -> Duration + 'static) -> Self {
            Self {
                now: Cell::default(),
                chunks: Cell::default(),
                waited: Cell::default(),
                stolen: Box::new(stolen),
                delay,
                waits: RefCell::default(),
                shortest_wait: Duration::ZERO,
                others_are_served: false,
            }
        }

        fn undisturbed(delay: Duration) -> Self {
            Self::new(delay, |_| Duration::ZERO)
        }

        fn run(&self, load: &str) -> Burnt {
            self.run_with(Overhead::default(), load)
        }

        fn run_with(&self, overhead: Overhead, load: &str) -> Burnt {
            let load = load.parse().expect("a load");
            burn(load, overhead, self, |_| Ok(())).expect("a connected client")
        }

        /// How often a burn checks its client, which disconnects after two seconds.
        fn checks(&self, load: &str) -> u32 {
            let load = load.parse().expect("a load");
            let mut checks = 0;
            let burnt = burn(load, Overhead::default(), self, |elapsed| {
                checks += 1;
                ensure!(elapsed < 2000 * MS, "the client has disconnected");
                Ok(())
            });
            burnt.expect_err("no client");
            checks
        }

        fn waits(&self) -> usize {
            self.waits.borrow().len()
        }

        /// The CPU time that was actually used.
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
    fn exactly_n_iterations_are_made() {
        for n in [0, 1, 15, 16, 17, 1000] {
            let burnt = Replay::undisturbed(MS).run(&format!("iterations={n}"));
            assert_eq!(burnt.iterations, n);
        }
        let nothing = Replay::undisturbed(MS).run("iterations=0");
        assert_eq!(nothing.cpu_time, Duration::ZERO);
        assert_eq!(nothing.elapsed, Duration::ZERO);
    }

    #[test]
    fn cpu_time_is_exact_whatever_interrupts_the_burn() {
        // Nothing; a preemption; throttling for most of every 100 ms; in the very first chunk.
        let histories: [fn(u32) -> bool; 4] =
            [|_| false, |n| n == 100, |n| n % 625 == 0, |n| n == 1];
        for history in histories {
            let clock = Replay::new(MS, move |n| 75 * MS * u32::from(history(n)));
            let burnt = clock.run("cpu_time=50ms");
            assert_near(burnt.cpu_time, 50 * MS, CHUNK);
            assert_near(clock.used(), 50 * MS, 2 * CHUNK);
            let stolen: Duration = (1..clock.chunks.get()).map(&clock.stolen).sum();
            assert_eq!(burnt.elapsed, clock.used() + burnt.waited + stolen);
        }
    }

    #[test]
    fn neighbours_on_the_same_core_add_only_the_cost_of_their_interruptions() {
        // How long a neighbour is busy, and then idle, in microseconds.
        let neighbours = [
            (300, 650),
            (300, 325),
            (150, 300),
            (900, 1100),
            (80, 170),
            (3000, 3000),
            (100, 60),
        ];
        for (busy, idle) in neighbours {
            let busy_periods = move |n| n * CHUNK.as_micros() as u32 / idle;
            let stolen =
                move |n| Duration::from_micros(busy) * (busy_periods(n) - busy_periods(n - 1));
            let clock = Replay::new(MS, stolen);
            clock.run("cpu_time=200ms");
            // An interruption itself costs CPU time, which this clock does not replay: the meter
            // counts half a chunk for it.
            let interruptions = busy_periods(clock.chunks.get() - 1);
            let used = clock.used() + CHUNK.mul_f64(0.5) * interruptions;
            assert_near(used, 200 * MS, 2 * MS);
        }
    }

    #[test]
    fn an_interruption_of_less_than_70_us_counts_as_cpu_time() {
        // 60 µs in every other chunk: 40 of 70 µs are the burn's own.
        let clock = Replay::new(MS, |n| Duration::from_micros(60) * (n % 2));
        clock.run("cpu_time=200ms");
        assert_near(clock.used(), 200 * MS * 40 / 70, 3 * MS);
    }

    #[test]
    fn the_overhead_of_the_host_is_part_of_the_load() {
        let as_time = Overhead {
            per_request: Cost::CpuTime(MS / 2),
            per_pause: Cost::CpuTime(MS / 10),
            per_yield: Cost::CpuTime(MS / 20),
        };
        // This clock makes 16 iterations in 40 µs.
        let as_iterations = Overhead {
            per_request: Cost::Iterations(200),
            per_pause: Cost::Iterations(40),
            per_yield: Cost::Iterations(20),
        };
        let alone = || Replay::undisturbed(MS);
        let among_others = || Replay::undisturbed(6 * MS);
        // For 3 ms and for 50 ms, after every 25 ms of CPU time.
        let preempted = || Replay::new(MS, |n| 3 * MS * u32::from(n % 625 == 0));
        let throttled = || Replay::new(MS, |n| 50 * MS * u32::from(n % 625 == 0));
        for (load, goal, clock, pauses, yields) in [
            // Alone, the first yield and those after long time slices leave the thread idle.
            ("cpu_time=20ms", 20 * MS, alone as fn() -> Replay, 1, 4),
            ("cpu_time=200ms", 200 * MS, alone, 5, 4),
            ("cpu_time=20ms", 20 * MS, among_others, 0, 10),
            ("cpu_time=200ms", 200 * MS, among_others, 0, 98),
            ("cpu_time=50ms", 50 * MS, preempted, 2, 4),
            ("cpu_time=50ms", 50 * MS, throttled, 3, 4),
            ("cpu=50m&duration=10s", 500 * MS, alone, 26, 4),
            ("cpu=50m&duration=10s", 500 * MS, among_others, 25, 226),
            ("cpu=500m&duration=2s", 1000 * MS, alone, 49, 4),
        ] {
            for overhead in [as_time, as_iterations] {
                let clock = clock();
                let burnt = clock.run_with(overhead, load);
                let used_by_host = MS / 2 + MS / 10 * pauses + MS / 20 * yields;
                assert_eq!(burnt.overhead, used_by_host, "{load}");
                assert_near(burnt.cpu_time + used_by_host, goal, goal / 200);
            }
        }
    }

    #[test]
    fn a_load_that_is_smaller_than_the_overhead_only_measures_the_core() {
        let overhead = Overhead {
            per_request: Cost::CpuTime(2 * MS),
            ..Overhead::default()
        };
        for load in ["cpu_time=2ms", "cpu=1m&duration=1s"] {
            let burnt = Replay::undisturbed(MS).run_with(overhead, load);
            assert_eq!(burnt.iterations, 4 * FIRST_CHUNK, "{load}");
        }
    }

    #[test]
    fn a_burn_that_is_alone_hardly_waits() {
        let clock = Replay::undisturbed(MS);
        let burnt = clock.run("cpu_time=1s");
        assert!(clock.waits() <= 31, "{} waits", clock.waits());
        assert!(burnt.elapsed <= 1035 * MS, "{burnt:?}");
    }

    #[test]
    fn a_yield_among_others_lasts_only_as_long_as_they_run() {
        let mut clock = Replay::undisturbed(Duration::ZERO);
        clock.shortest_wait = MS;
        // Four short slices. Only the first yield, before any of them, waits for the timer.
        let burnt = clock.run("cpu_time=8ms");
        assert_near(burnt.waited, MS, CHUNK);
    }

    #[test]
    fn a_time_slice_is_extended_while_a_yield_would_not_let_others_run() {
        let mut clock = Replay::undisturbed(6 * MS);
        // Slices of 2 ms, and of 4 ms. The first yield comes before any slice.
        for (others_are_served, slices) in [(false, 15), (true, 8)] {
            clock.others_are_served = others_are_served;
            clock.waits.take();
            clock.run("cpu_time=30ms");
            assert!(
                clock.waits().abs_diff(1 + slices) <= 1,
                "{} waits",
                clock.waits()
            );
        }
    }

    #[test]
    fn a_burn_in_a_crowd_does_not_run_until_it_is_admitted() {
        let clock = Replay::undisturbed(18 * MS);
        let burnt = clock.run("cpu_time=30ms");
        assert_near(clock.used(), 30 * MS, 2 * CHUNK);
        // It accepts a delay of 18 ms at an age of 1.05 s, and then runs in time slices of 2 ms.
        assert_near(burnt.elapsed, (1050 + 15 * (2 + 18)) * MS, 160 * MS);
        assert!(clock.waits() <= 60, "{} waits", clock.waits());
    }

    #[test]
    fn a_burn_that_waits_for_its_turn_checks_its_client_at_most_four_times_a_second() {
        // No burn accepts this scheduling delay.
        let checks = Replay::undisturbed(30 * MS).checks("cpu_time=20ms");
        assert!((6..=8).contains(&checks), "{checks} checks");
    }

    #[test]
    fn voluntary_waits_are_reported_apart_from_scheduling_delays() {
        let others = Replay::undisturbed(6 * MS);
        let burnt = others.run("cpu_time=30ms");
        let asked: Duration = others.waits.borrow().iter().sum();
        let waited = asked + TIMER_SLACK * others.waits() as u32;
        assert_near(burnt.waited, waited, 10 * MS);
        let paced = Replay::undisturbed(MS).run("cpu=100m&duration=2s");
        assert_near(paced.waited, 1800 * MS, 10 * MS);
        assert_near(paced.elapsed, paced.cpu_time + paced.waited, MS);
    }

    #[test]
    fn a_paced_load_uses_its_share_and_ends_on_time() {
        // Q, the scheduling delay, and the milliseconds that throttling takes after every 25 ms.
        let cases = [
            ("100m", MS, 0),
            ("500m", MS, 0),
            ("900m", MS, 0),
            ("250m", 6 * MS, 0),
            ("250m", MS, 50),
        ];
        for (cpu, delay, throttled) in cases {
            let clock = Replay::new(delay, move |n| throttled * MS * u32::from(n % 625 == 0));
            let load = format!("cpu={cpu}&duration=5s");
            let burnt = clock.run(&load);
            let share: f64 = cpu.trim_end_matches('m').parse().expect("a number");
            let goal = Duration::from_secs_f64(5.0 * share / 1000.0);
            assert_near(burnt.cpu_time, goal, goal / 100);
            assert!(burnt.elapsed >= 5000 * MS, "{load}: {burnt:?}");
            assert_near(burnt.elapsed, 5000 * MS, delay + CHUNK + throttled * MS);
        }
    }

    #[test]
    fn a_paced_load_catches_up_on_throttling_but_not_on_a_long_stall() {
        // 50 ms after every 50 ms of CPU time; 2 s at once, a second of CPU time.
        let throttled = Replay::new(MS, |n| 50 * MS * u32::from(n % 1250 == 0));
        throttled.run("cpu=400m&duration=5s");
        assert_near(throttled.used(), 2000 * MS, 40 * MS);
        let stalled = Replay::new(MS, |n| 2000 * MS * u32::from(n == 10_000));
        stalled.run("cpu=500m&duration=5s");
        assert_near(stalled.used(), 1500 * MS + MAX_CATCH_UP, BURST);
    }

    #[test]
    fn a_paced_load_is_spread_over_its_duration() {
        let clock = Replay::undisturbed(MS);
        clock.run("cpu=100m&duration=2s");
        // A burst of 20 ms in about every 200 ms.
        let paced = clock
            .waits
            .borrow()
            .iter()
            .filter(|pause| **pause > 100 * MS)
            .count();
        assert!((9..=10).contains(&paced), "{paced} pauses");
    }

    #[test]
    fn a_paced_load_ends_however_small_it_is() {
        for load in ["cpu=250m&duration=1ns", "cpu=0.000001m&duration=400ms"] {
            let burnt = Replay::undisturbed(MS).run(load);
            assert!(burnt.elapsed > Duration::ZERO, "{load}: {burnt:?}");
        }
    }

    #[test]
    fn a_whole_core_is_held_without_long_pauses() {
        let burnt = Replay::undisturbed(MS).run("cpu=1&duration=1s");
        assert!(burnt.cpu_time >= 970 * MS, "{burnt:?}");
    }

    #[test]
    fn a_burn_ends_when_its_client_disconnects() {
        for load in [
            "iterations=99999999",
            "cpu_time=1h",
            "cpu=1m&duration=1h",
            "cpu=1&duration=1h",
        ] {
            for delay in [MS, 40 * MS] {
                let clock = Replay::undisturbed(delay);
                clock.checks(load);
                assert_near(clock.now.get(), 2000 * MS, MAX_WAIT + delay);
            }
        }
    }
}
