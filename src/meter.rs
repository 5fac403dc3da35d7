//! How much CPU time the work has used, told from the wall clock alone.

use std::time::Duration;

/// A chunk that took more than this many times what its neighbours took was preempted or throttled:
/// at half a millisecond, for longer than any other disturbance lasts. A busy sibling thread of the
/// core slows a chunk down by up to 2, and that is CPU time; with 1.5 as the limit, requests were
/// measured 2 % too expensive.
const JUMP: f64 = 2.5;

/// How many chunks a chunk is judged by: enough that a few jumps among them do not move their
/// median, few enough that it follows a core which changes its speed.
const NEIGHBOURS: usize = 7;

/// Counts the CPU time of chunks of iterations by their wall-clock time.
///
/// A guest cannot ask for its CPU time, but it can see its thread being taken away: one chunk then
/// takes far longer than the ones before. Such a chunk counts as its neighbours do. The first has
/// none and counts as it is, so it is to be small.
#[derive(Default)]
pub struct Meter {
    cpu_time: Duration,
    /// Nanoseconds for an iteration in each of the latest chunks, the oldest overwritten first.
    latest: [f64; NEIGHBOURS],
    chunks: usize,
}

impl Meter {
    /// Counts a chunk of `iterations`, at least one, which took `wall_clock`.
    pub fn count(&mut self, iterations: u64, wall_clock: Duration) {
        let cost = wall_clock.as_nanos().max(1) as f64 / iterations as f64;
        self.latest[self.chunks % NEIGHBOURS] = cost;
        self.chunks += 1;
        let median = self.cost();
        let counted = if cost > JUMP * median { median } else { cost };
        self.cpu_time += Duration::from_nanos((counted * iterations as f64) as u64);
    }

    /// The CPU time of all chunks so far.
    pub fn cpu_time(&self) -> Duration {
        self.cpu_time
    }

    /// How many iterations fit into `cpu_time`, none before the first chunk.
    pub fn iterations_in(&self, cpu_time: Duration) -> u64 {
        (cpu_time.as_nanos() as f64 / self.cost()) as u64
    }

    /// The median cost of an iteration in the latest chunks, in nanoseconds.
    fn cost(&self) -> f64 {
        let mut latest = self.latest;
        let latest = &mut latest[..self.chunks.min(NEIGHBOURS)];
        latest.sort_by(f64::total_cmp);
        let middle = latest.len().saturating_sub(1) / 2;
        latest.get(middle).copied().unwrap_or(f64::INFINITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: Duration = Duration::from_micros(500);

    /// The CPU time that a meter counts for chunks of 1000 iterations, in microseconds.
    fn counted(chunks: &[u64]) -> u128 {
        let mut meter = Meter::default();
        for wall_clock in chunks {
            meter.count(1000, Duration::from_micros(*wall_clock));
        }
        meter.cpu_time().as_micros()
    }

    #[test]
    fn undisturbed_chunks_count_as_they_are() {
        assert_eq!(counted(&[]), 0);
        assert_eq!(counted(&[500]), 500);
        assert_eq!(counted(&[500, 510, 495, 620, 480]), 2605);
    }

    #[test]
    fn a_chunk_that_was_preempted_or_throttled_counts_as_its_neighbours_do() {
        assert_eq!(counted(&[500, 500, 500, 3500, 500]), 2500);
        assert_eq!(counted(&[500, 500, 500, 500, 75_500, 500, 50_500]), 3500);
        // Already the second chunk.
        assert_eq!(counted(&[500, 50_500, 500]), 1500);
    }

    #[test]
    fn a_slower_core_is_more_cpu_time() {
        // A busy sibling thread: less than a jump.
        assert_eq!(counted(&[500, 500, 500, 950, 950, 950]), 4350);
        // A lower clock frequency that stays: a jump until it is what most neighbours have.
        let slow = [500, 500, 500, 500, 1500, 1500, 1500, 1500, 1500, 1500];
        assert_eq!(counted(&slow), 4 * 500 + 3 * 500 + 3 * 1500);
    }

    #[test]
    fn a_small_last_chunk_is_judged_by_its_cost_for_an_iteration() {
        let mut meter = Meter::default();
        (0..5).for_each(|_| meter.count(1000, CHUNK));
        meter.count(10, CHUNK / 100);
        assert_eq!(meter.cpu_time(), 5 * CHUNK + CHUNK / 100);
        meter.count(10, CHUNK);
        assert_eq!(meter.cpu_time(), 5 * CHUNK + 2 * CHUNK / 100);
    }

    #[test]
    fn iterations_are_foretold_from_their_median_cost() {
        let mut meter = Meter::default();
        assert_eq!(meter.iterations_in(CHUNK), 0);
        meter.count(1000, CHUNK);
        meter.count(1000, 100 * CHUNK);
        meter.count(1000, CHUNK);
        assert_eq!(meter.iterations_in(2 * CHUNK), 2000);
    }
}
