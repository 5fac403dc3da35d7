//! A neighbour on the core: alternately busy and asleep, as a web server is, until it is stopped.

use std::{
    env,
    thread::sleep,
    time::{Duration, Instant},
};

fn main() {
    let micros = |arg: String| arg.parse().ok().map(Duration::from_micros);
    let turns: Vec<_> = env::args().skip(1).filter_map(micros).collect();
    let [busy, asleep] = turns[..] else {
        panic!("two arguments: how long to be busy and how long to sleep, in microseconds");
    };
    loop {
        let started = Instant::now();
        while started.elapsed() < busy {}
        sleep(asleep);
    }
}
