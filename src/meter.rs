//! The CPU time of a burn, estimated from the wall clock alone.

use std::collections::VecDeque;
use std::time::Duration;

/// The number of recent chunks that the baseline is taken from. The lower quarter of them is
/// undisturbed even where a neighbour interrupts most of them, and a core that changes its speed is
/// followed within a millisecond.
const WINDOW: usize = 16;

/// The cost above which a chunk was interrupted, as a multiple of the baseline. On a shared virtual
/// machine many single chunks take more than twice as long without another thread on the core, and
/// the kernel accounts all of that. So an interruption of less than 70 µs counts as CPU time.
const INTERRUPTED: f64 = 2.7;

/// The cost that an interrupted chunk counts as: a multiple of the baseline. It costs more than the
/// others: the kernel charges it for the context switch, and its caches are cold.
/// `make bench CASES=neighbours` measures the effect.
const INTERRUPTED_COST: f64 = 1.5;

/// The chunks that are needed before the baseline is used, so that one interrupted first chunk
/// cannot set it.
const MIN_SAMPLES: usize = 4;

/// Estimates the CPU time of chunks of iterations from their wall-clock time.
///
/// A guest cannot read its CPU time, but it can see that its thread was taken away: a chunk then
/// takes far longer than those around it. So a chunk counts as its wall-clock time; if that is more
/// than `INTERRUPTED` times the baseline, which the undisturbed chunks around it set, it counts as
/// `INTERRUPTED_COST` times the baseline. A core that is slower, because of its frequency or of a
/// busy sibling thread, slows chunks down less: that is CPU time.
#[derive(Default)]
pub struct Meter {
    /// The CPU time of the chunks before the window, in nanoseconds.
    committed: f64,
    /// The most recent chunks. Each new one changes the baseline that limits all of them.
    window: VecDeque<Chunk>,
    /// The lower quartile of the costs in the window, in nanoseconds per iteration.
    baseline: f64,
}

struct Chunk {
    iterations: f64,
    /// Nanoseconds of wall clock per iteration.
    cost: f64,
}

impl Meter {
    /// Adds a chunk of `iterations`, at least one, which took `wall_clock`.
    pub fn count(&mut self, iterations: u64, wall_clock: Duration) {
        let iterations = iterations as f64;
        let cost = wall_clock.as_nanos().max(1) as f64 / iterations;
        if self.window.len() == WINDOW {
            let oldest = self.window.pop_front();
            self.committed += oldest.map_or(0.0, |chunk| chunk.counted(self.baseline));
        }
        self.window.push_back(Chunk { iterations, cost });
        // Counting is faster in the guest than sorting or selecting.
        let costs = || self.window.iter().map(|chunk| chunk.cost);
        let cheaper = |cost| costs().filter(|other| *other < cost).count();
        let quarter = (self.window.len() - 1) / 4;
        let lower = costs().filter(|cost| cheaper(*cost) <= quarter);
        self.baseline = lower.fold(0.0, f64::max);
    }

    /// The CPU time of all chunks so far.
    pub fn cpu_time(&self) -> Duration {
        let counted = self.window.iter().map(|chunk| chunk.counted(self.baseline));
        Duration::from_nanos((self.committed + counted.sum::<f64>()) as u64)
    }

    /// Whether there are enough chunks to recognize an interrupted one.
    pub fn is_reliable(&self) -> bool {
        self.window.len() >= MIN_SAMPLES
    }

    /// The CPU time of this number of iterations, at the baseline; zero before the first chunk.
    pub fn cpu_time_of(&self, iterations: u64) -> Duration {
        Duration::from_nanos((iterations as f64 * self.baseline) as u64)
    }

    /// The number of iterations that fit into `cpu_time`; 0 before the first chunk.
    pub fn iterations_in(&self, cpu_time: Duration) -> u64 {
        if self.window.is_empty() {
            return 0;
        }
        (cpu_time.as_nanos() as f64 / self.baseline) as u64
    }
}

impl Chunk {
    /// The CPU time that the chunk counts as, in nanoseconds.
    fn counted(&self, baseline: f64) -> f64 {
        let cost = if self.cost > INTERRUPTED * baseline {
            INTERRUPTED_COST * baseline
        } else {
            self.cost
        };
        self.iterations * cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU time that a meter counts for chunks of 1000 iterations, in microseconds.
    fn counted(chunks: impl IntoIterator<Item = u64>) -> u128 {
        let mut meter = Meter::default();
        for wall_clock in chunks {
            meter.count(1000, Duration::from_micros(wall_clock));
        }
        meter.cpu_time().as_micros()
    }

    #[test]
    fn undisturbed_chunks_count_with_their_wall_clock_time() {
        assert_eq!(counted([]), 0);
        assert_eq!(counted([500]), 500);
        assert_eq!(counted([500, 510, 495, 620, 480]), 2605);
        assert_eq!(counted([500; 1000]), 500_000);
    }

    #[test]
    fn an_interrupted_chunk_counts_at_most_1_5_times_the_baseline() {
        let counts = |chunk: u64| counted([500, 500, 500, chunk, 500]) - 2000;
        assert_eq!(counts(3500), 750);
        assert_eq!(counts(75_500), 750);
        // Most of the chunks, including the first, were interrupted.
        assert_eq!(
            counted([75_500, 500, 3500, 3500, 500, 3500, 500, 3500]),
            3 * 500 + 5 * 750
        );
    }

    #[test]
    fn a_core_that_stays_slower_is_more_cpu_time() {
        // A busy sibling thread; a third of the frequency.
        for slow in [950, 1500] {
            let chunks = [500; 100].into_iter().chain([slow; 100]).chain([500; 100]);
            let (found, truth) = (counted(chunks), u128::from(200 * 500 + 100 * slow));
            let changes = 2 * WINDOW as u128 * u128::from(slow - 750);
            assert!(
                found <= truth && truth - found <= changes,
                "{found} of {truth}"
            );
        }
    }

    #[test]
    fn a_small_last_chunk_is_measured_by_its_cost_per_iteration() {
        let mut meter = Meter::default();
        (0..5).for_each(|_| meter.count(1000, Duration::from_micros(500)));
        meter.count(10, Duration::from_micros(500));
        assert_eq!(meter.cpu_time().as_nanos(), 5 * 500_000 + 7_500);
    }

    #[test]
    fn iterations_are_predicted_from_the_baseline() {
        let mut meter = Meter::default();
        assert_eq!(meter.iterations_in(Duration::from_millis(1)), 0);
        for wall_clock in [500, 50_000, 500] {
            meter.count(1000, Duration::from_micros(wall_clock));
        }
        assert!(!meter.is_reliable());
        assert_eq!(meter.iterations_in(Duration::from_millis(1)), 2000);
    }
}
