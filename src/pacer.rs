//! The pace of `cpu=Q&duration=D`: bursts of CPU time with pauses between them.

use std::time::Duration;

use crate::load::Cpu;

/// The CPU time of a burst. Shorter bursts would pace more finely, but a wait follows each, which
/// costs the host some CPU time too.
pub const BURST: Duration = Duration::from_millis(20);

/// The shortest burst, for a load so close to a whole core that no pause is left.
const MIN_BURST: Duration = Duration::from_micros(40);

/// The most CPU time that is caught up on, at full speed: as much as throttling withholds in two of
/// its periods. The rest of a longer stall is written off, so that no long burst at full speed
/// follows.
pub const MAX_CATCH_UP: Duration = Duration::from_millis(100);

/// Computes the CPU time that a burn may use by now, and how long it pauses after that.
///
/// Every method takes the wall-clock time since the start, `elapsed`, and the CPU time `used` so
/// far.
pub struct Pacer {
    cores: f64,
    duration: Duration,
    /// The CPU time that is not caught up on.
    written_off: Duration,
}

impl Pacer {
    /// Paces a burn that holds `cpu` for `duration`.
    pub fn new(cpu: Cpu, duration: Duration) -> Self {
        Self {
            cores: cpu.cores(),
            duration,
            written_off: Duration::ZERO,
        }
    }

    /// Writes off the CPU time that the burn is behind by more than `MAX_CATCH_UP`.
    pub fn write_off(&mut self, elapsed: Duration, used: Duration) {
        let behind = self.due(elapsed).saturating_sub(used + self.written_off);
        self.written_off += behind.saturating_sub(MAX_CATCH_UP);
    }

    /// The CPU time to use before the next pause.
    pub fn goal(&self, elapsed: Duration) -> Duration {
        // A burst starts when the CPU time used equals what is due. When it ends, more is used than
        // is due: by the length of the burst less what became due meanwhile.
        let ahead = BURST.mul_f64(1.0 - self.cores).max(MIN_BURST);
        let goal = (self.due(elapsed) + ahead).min(self.due(self.duration));
        goal.saturating_sub(self.written_off)
    }

    /// The pause until the CPU time used equals what is due, or until the load ends.
    pub fn pause(&self, elapsed: Duration, used: Duration) -> Duration {
        let even = (used + self.written_off).div_f64(self.cores);
        even.min(self.duration).saturating_sub(elapsed)
    }

    fn due(&self, elapsed: Duration) -> Duration {
        elapsed.mul_f64(self.cores)
    }
}
