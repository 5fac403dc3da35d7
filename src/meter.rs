//! How much CPU time the work has used, told from the wall clock alone.

use std::collections::VecDeque;
use std::time::Duration;

/// How many chunks judge one another: the lower quarter of them is undisturbed even where a
/// neighbour interrupts most, and a core that changes its speed is followed within a millisecond.
const WINDOW: usize = 16;

/// The most that a chunk counts, in times of the lower quartile of its window. A chunk that was
/// interrupted costs more than the others, since the switch itself is accounted to it and caches are
/// cold: with 1.3, chunks of 40 µs came within 3 % of the kernel's account beside each of 13
/// neighbours that took the core for 20 to 3000 µs at a time; with 1.2 or 1.4, within 5 %.
const MOST: f64 = 1.3;

/// From so many chunks on there are enough to judge even the first of them.
const ENOUGH: usize = 4;

/// Counts the CPU time of chunks of iterations by their wall-clock time.
///
/// A guest cannot ask for its CPU time, but it can see its thread being taken away: a chunk then
/// takes far longer than those around it. So a chunk counts as it is, but for no more than `MOST`
/// times what the undisturbed chunks before and after it do. A core that stays slower, be it for its
/// frequency or for a busy sibling thread, slows them all down: that is CPU time.
#[derive(Default)]
pub struct Meter {
    /// The CPU time of the chunks that have left the window, in nanoseconds.
    settled: f64,
    /// The latest chunks, which are judged anew with each that joins them.
    window: VecDeque<Chunk>,
    /// The lower quartile of their costs.
    usual: f64,
}

struct Chunk {
    iterations: f64,
    /// Nanoseconds of wall clock for an iteration.
    cost: f64,
}

impl Meter {
    /// Counts a chunk of `iterations`, at least one, which took `wall_clock`.
    pub fn count(&mut self, iterations: u64, wall_clock: Duration) {
        let iterations = iterations as f64;
        let cost = wall_clock.as_nanos().max(1) as f64 / iterations;
        if self.window.len() == WINDOW {
            let oldest = self.window.pop_front();
            self.settled += oldest.map_or(0.0, |chunk| chunk.counted(self.usual));
        }
        self.window.push_back(Chunk { iterations, cost });
        // Counted, which is faster in the guest than to sort or select.
        let costs = || self.window.iter().map(|chunk| chunk.cost);
        let cheaper = |cost| costs().filter(|other| *other < cost).count();
        let quarter = (self.window.len() - 1) / 4;
        let lower = costs().filter(|cost| cheaper(*cost) <= quarter);
        self.usual = lower.fold(0.0, f64::max);
    }

    /// The CPU time of all chunks so far.
    pub fn cpu_time(&self) -> Duration {
        let counted = self.window.iter().map(|chunk| chunk.counted(self.usual));
        Duration::from_nanos((self.settled + counted.sum::<f64>()) as u64)
    }

    /// Whether there are chunks enough to tell that one of them was interrupted.
    pub fn is_sure(&self) -> bool {
        self.window.len() >= ENOUGH
    }

    /// How many iterations fit into `cpu_time`; none before the first chunk.
    pub fn iterations_in(&self, cpu_time: Duration) -> u64 {
        match self.window.len() {
            0 => 0,
            _ => (cpu_time.as_nanos() as f64 / self.usual) as u64,
        }
    }
}

impl Chunk {
    fn counted(&self, usual: f64) -> f64 {
        self.iterations * self.cost.min(MOST * usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU time that a meter counts for chunks of 1000 iterations, all in microseconds.
    fn counted(chunks: impl IntoIterator<Item = u64>) -> u128 {
        let mut meter = Meter::default();
        for wall_clock in chunks {
            meter.count(1000, Duration::from_micros(wall_clock));
        }
        meter.cpu_time().as_micros()
    }

    #[test]
    fn undisturbed_chunks_count_as_they_are() {
        assert_eq!(counted([]), 0);
        assert_eq!(counted([500]), 500);
        assert_eq!(counted([500, 510, 495, 620, 480]), 2605);
        assert_eq!(counted([500; 1000]), 500_000);
    }

    #[test]
    fn an_interrupted_chunk_counts_little_more_than_the_others() {
        let counts = |chunk: u64| counted([500, 500, 500, chunk, 500]) - 2000;
        assert_eq!(counts(3500), 650);
        assert_eq!(counts(75_500), 650);
        // Most of them, and the first.
        assert_eq!(
            counted([75_500, 500, 3500, 3500, 500, 3500, 500, 3500]),
            3 * 500 + 5 * 650
        );
    }

    #[test]
    fn a_core_that_stays_slower_is_more_cpu_time() {
        // A busy sibling thread; a third of the frequency; each for long.
        for slow in [950, 1500] {
            let chunks = [500; 100].into_iter().chain([slow; 100]).chain([500; 100]);
            let (found, truth) = (counted(chunks), u128::from(200 * 500 + 100 * slow));
            let changes = 2 * WINDOW as u128 * u128::from(slow - 650);
            assert!(
                found <= truth && truth - found <= changes,
                "{found} of {truth}"
            );
        }
    }

    #[test]
    fn a_small_last_chunk_is_judged_by_its_cost_for_an_iteration() {
        let mut meter = Meter::default();
        (0..5).for_each(|_| meter.count(1000, Duration::from_micros(500)));
        meter.count(10, Duration::from_micros(500));
        assert_eq!(meter.cpu_time().as_nanos(), 5 * 500_000 + 6_500);
    }

    #[test]
    fn iterations_are_foretold_from_what_they_usually_cost() {
        let mut meter = Meter::default();
        assert_eq!(meter.iterations_in(Duration::from_millis(1)), 0);
        for wall_clock in [500, 50_000, 500] {
            meter.count(1000, Duration::from_micros(wall_clock));
        }
        assert!(!meter.is_sure());
        assert_eq!(meter.iterations_in(Duration::from_millis(1)), 2000);
    }
}
