//! The table: each row with its figures, what they must reach, and what they should.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use testkit::Server;
use tokio::{
    select,
    time::{Instant, sleep, timeout},
    try_join,
};

use crate::{
    figure::{Figure::*, Goal::*, *},
    load::{Stop::*, *},
    measure::*,
    report::Report,
    testbed::{Share, Testbed},
};

/// The last figure of the rows that take it off.
const IDLE: &str = "CPU of the idle server, which is taken off here";

/// Figures that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Row {
    /// The CPU of a request is what it asked for
    Accuracy,
    /// A paced load uses what it is to use, and ends on time
    Pacing,
    /// So do both beside others on the same core
    Neighbours,
    /// One connection keeps a core busy
    Alone,
    /// A crowd keeps all cores busy
    Saturated,
    /// The crowd of the tutorial on its one replica
    Tutorial,
    /// What the tutorial's crowd gets of components that burn in one go
    Control,
    /// A crowd that the limit just fits
    JustFits,
    /// Crowds that are more than the limit allows
    Overload,
    /// Few connections use up the limit
    Few,
    /// Probes of a crowd without a limit
    NoLimit,
    /// A burn ends when its client leaves
    Leaving,
    /// A request without a load costs no more than hello-world
    Overhead,
    /// Hashes are as fast as those of a native program
    HashRate,
    /// The component is not much larger than hello-world
    Size,
    /// A request costs the same in a crowd
    Growth,
    /// Latency and health over the number of connections, for a picture
    Crowds,
}

impl Row {
    /// Those that have something to reach.
    pub fn judged() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|&row| row != Self::Crowds).collect()
    }

    /// Measures the row; what cannot be measured is told in the report.
    pub async fn measure(self, testbed: &Testbed, report: &mut Report) {
        let value = self.to_possible_value().expect("no row is skipped");
        report.begin_row(value.get_name());
        let measured = match self {
            Self::Accuracy => accuracy(testbed, report).await,
            Self::Pacing => pacing(testbed, report).await,
            Self::Neighbours => neighbours(testbed, report).await,
            Self::Alone => alone(testbed, report).await,
            Self::Saturated => saturated(testbed, report).await,
            Self::Tutorial => tutorial(testbed, report).await,
            Self::Control => control(testbed, report).await,
            Self::JustFits => just_fits(testbed, report).await,
            Self::Overload => overload(testbed, report).await,
            Self::Few => few(testbed, report).await,
            Self::NoLimit => no_limit(testbed, report).await,
            Self::Leaving => leaving(testbed, report).await,
            Self::Overhead => overhead(testbed, report).await,
            Self::HashRate => hash_rate(testbed, report).await,
            Self::Size => size(testbed, report),
            Self::Growth => growth(testbed, report).await,
            Self::Crowds => crowds(testbed, report).await,
        };
        if let Err(error) = measured {
            report.not_measured(&error);
        }
    }
}

async fn accuracy(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TwoCores).await?;
    let mut own = Vec::new();
    // Milliseconds, connections, requests.
    for (load, goal) in [
        ((20, 1, 100), Within(8.0, 3.0)),
        ((20, 8, 200), Within(8.0, 3.0)),
        ((50, 1, 40), Within(5.0, 2.0)),
        ((50, 8, 160), Within(5.0, 2.0)),
        ((200, 1, 15), Within(5.0, 2.0)),
        ((200, 8, 40), Within(5.0, 2.0)),
    ] {
        let (cpu, reported) = off(&server, load).await?;
        let measure = format!("CPU per request off `cpu_time={}ms`, c={}", load.0, load.1);
        report.add(measure, Percent(cpu), goal);
        own.push(reported);
    }
    drop(server);
    let server = component(testbed, Share::Limited).await?;
    let (cpu, reported) = off(&server, (50, 8, 80)).await?;
    let measure = "CPU per request off `cpu_time=50ms`, c=8, limited to 500m";
    report.add(measure, Percent(cpu), Within(8.0, 3.0));
    own.push(reported);
    let measure =
        "`cpu_time_ms` off CPU per request less that of `iterations=0`: the largest of these";
    report.add(measure, Percent(largest(own)), Within(5.0, 2.0));
    Ok(())
}

/// How far, in percent, CPU per request is off what was asked for, and how far its report is off that.
async fn off(
    server: &Server,
    (millis, connections, requests): (u32, usize, usize),
) -> Result<(f64, f64)> {
    let query = format!("?cpu_time={millis}ms");
    let (mut cpu, mut burn, mut reported) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let empty = cost(server, "?iterations=0", connections, 200).await?;
        let load = cost(server, &query, connections, requests).await?;
        cpu.push(load.cpu_ms);
        burn.push(load.cpu_ms - empty.cpu_ms);
        reported.push(load.reported_ms);
    }
    let cpu = percent_off(median(&cpu), millis.into());
    Ok((cpu, percent_off(median(&reported), median(&burn))))
}

async fn pacing(testbed: &Testbed, report: &mut Report) -> Result<()> {
    const DURATION_MS: f64 = 5000.0;
    let server = component(testbed, Share::TwoCores).await?;
    let idle = idle(&server, 5).await?;
    let mut ends = Vec::new();
    for (millicores, connections) in [(100, 1), (500, 1), (900, 1), (250, 3)] {
        let query = format!("?cpu={millicores}m&duration=5s");
        let load = load(&server, &query, connections);
        let mut cores = Vec::new();
        for _ in 0..3 {
            let before = server.cpu_time()?;
            let tally = load.run(After(connections)).await?;
            let used = 1000.0 * (server.cpu_time()? - before).as_secs_f64();
            cores.push((used / DURATION_MS - idle) / connections as f64);
            ends.extend([0.0, 1.0].map(|share| 1000.0 * tally.seconds(share) - DURATION_MS));
        }
        let off = percent_off(1000.0 * median(&cores), millicores.into());
        let measure = format!("mean CPU off `cpu={millicores}m&duration=5s`, c={connections}");
        report.add(measure, Percent(off), Within(5.0, 2.0));
    }
    let measure = "end off 5 s: the largest of these";
    report.add(measure, Milliseconds(largest(ends)), Within(50.0, 20.0));
    report.add(IDLE, Plain(idle), Reported);
    Ok(())
}

async fn neighbours(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::OneCore).await?;
    let idle = idle(&server, 5).await?;
    // So many neighbours, each busy and then asleep for so many microseconds.
    for (count, busy, asleep) in [
        (0, 0, 0),
        (1, 300, 650),
        (2, 300, 650),
        (1, 150, 300),
        (1, 900, 1100),
        (1, 80, 170),
        (1, 3000, 3000),
    ] {
        let place = match count {
            0 => "alone on a core".to_owned(),
            1 => format!("beside {busy}/{asleep} µs"),
            _ => format!("beside two of {busy}/{asleep} µs"),
        };
        let start = |_| testbed.neighbour(busy, asleep);
        let _neighbours: Vec<_> = (0..count).map(start).collect::<Result<_>>()?;
        for (query, requests, cpu) in [
            ("?cpu_time=200ms", 15, 0.2),
            ("?cpu=500m&duration=5s", 1, 2.5),
        ] {
            let started = Instant::now();
            let cost = cost(&server, query, 1, requests).await?;
            let idle = idle * started.elapsed().as_secs_f64() / requests as f64;
            let off = percent_off(cost.cpu_ms / 1000.0 - idle, cpu);
            let measure = format!("CPU off `{}`, {place}", &query[1..]);
            report.add(measure, Percent(off), Within(5.0, 3.0));
        }
    }
    report.add(IDLE, Plain(idle), Reported);
    Ok(())
}

async fn alone(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let used = cores_used(testbed, "?cpu_time=50ms", 1).await?;
    report.add("cores used, `cpu_time=50ms`, c=1", used, AtLeast(0.9, 0.97));
    Ok(())
}

async fn saturated(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let used = cores_used(testbed, "", 40).await?;
    let measure = "cores used of 2, default load, c=40";
    report.add(measure, used, AtLeast(1.8, 1.97));
    Ok(())
}

async fn cores_used(testbed: &Testbed, query: &str, connections: usize) -> Result<Figure> {
    let server = component(testbed, Share::TwoCores).await?;
    let load = load(&server, query, connections);
    let mut used = Vec::new();
    for _ in 0..3 {
        let window = Window::new(Duration::from_secs(2), Duration::from_secs(10));
        let (cores, _) = try_join!(cores(&server, window), load.run(Answered(window)))?;
        used.push(cores);
    }
    Ok(Plain(median(&used)))
}

async fn tutorial(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::Limited).await?;
    let crowd = crowd(&server, "", 40, [3, 90], Answered).await?;
    let measure = "requests that time out after 5 s, default load, c=40, limited to 500m";
    report.add(measure, crowd.late(), AtMost(0.0, 0.0));
    report.add("requests, in all", Count(crowd.tally.requests()), Reported);
    report.add("latency p50", crowd.latency(0.5), Reported);
    report.add("latency p95", crowd.latency(0.95), Reported);
    report.add("health p99", crowd.health(), AtMost(150.0, 80.0));
    report.add("CPU used, of the limit", crowd.used(), AtLeast(0.95, 0.98));
    let measure = "answered in time, of what the limit allows";
    report.add(measure, crowd.answered(20), AtLeast(0.88, 0.95));
    Ok(())
}

async fn control(testbed: &Testbed, report: &mut Report) -> Result<()> {
    // As many iterations as a request of the tutorial makes.
    let server = component(testbed, Share::TwoCores).await?;
    let body = Client::new(server.url("/?cpu_time=20ms"))?.get().await?;
    drop(server);
    let answer: serde_json::Value = serde_json::from_str(&body)?;
    let iterations = answer["iterations"].as_u64().context("no iterations")?;
    let server = testbed.other("control", Share::Limited)?;
    for (target, name) in [
        (format!("chain?{iterations}"), "20 ms without a wait"),
        ("fib".to_owned(), "`fib(43)`"),
    ] {
        let crowd = crowd(&server, &target, 40, [0, 20], Answered).await?;
        let late = crowd.tally.late as f64 / crowd.tally.requests() as f64;
        let measure = format!("{name}: share of requests that time out");
        report.add(measure, Plain(late), Reported);
        // A kubelet, which waits for a second by default, takes these for failed.
        let failed = crowd.health.iter().filter(|&&took| took > 1000.0).count();
        let failed = failed as f64 / crowd.health.len() as f64;
        let measure = format!("{name}: share of probes not answered within 1 s");
        report.add(measure, Plain(failed), Reported);
    }
    Ok(())
}

async fn just_fits(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::Limited).await?;
    let crowd = crowd(&server, "?cpu_time=48ms", 40, [5, 30], Answered).await?;
    let measure = "answered in time, of what the limit allows: `cpu_time=48ms`, c=40";
    report.add(measure, crowd.answered(48), AtLeast(0.85, 0.95));
    report.add("requests that time out", crowd.late(), Reported);
    report.add("health p99", crowd.health(), Reported);
    Ok(())
}

async fn overload(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::Limited).await?;
    for (millis, c, answered, health) in [
        (100, 40, AtLeast(0.6, 0.8), AtMost(250.0, 120.0)),
        (20, 125, AtLeast(0.75, 0.9), AtMost(300.0, 120.0)),
    ] {
        let what = format!("`cpu_time={millis}ms`, c={c}");
        let query = format!("?cpu_time={millis}ms");
        let crowd = crowd(&server, &query, c, [5, 30], Dropped).await?;
        let measure = format!("answered in time, of what the limit allows: {what}");
        report.add(measure, crowd.answered(millis), answered);
        report.add(format!("health p99: {what}"), crowd.health(), health);
        let measure = format!("time until the CPU is idle once the load is gone: {what}");
        report.add(measure, Seconds(crowd.until_idle), AtMost(2.0, 1.2));
    }
    Ok(())
}

async fn few(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::Limited).await?;
    for c in [2, 8] {
        let crowd = crowd(&server, "?cpu_time=20ms", c, [2, 20], Answered).await?;
        let measure = format!("CPU used, of the limit: `cpu_time=20ms`, c={c}");
        report.add(measure, crowd.used(), AtLeast(0.96, 0.99));
        if c == 8 {
            report.add("latency p95, c=8", crowd.latency(0.95), AtMost(1.1, 0.5));
        }
    }
    Ok(())
}

async fn no_limit(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TwoCores).await?;
    let crowd = crowd(&server, "", 40, [2, 20], Answered).await?;
    let measure = "health p99, default load, c=40";
    report.add(measure, crowd.health(), AtMost(50.0, 15.0));
    report.add("latency p95", crowd.latency(0.95), Reported);
    Ok(())
}

async fn leaving(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TwoCores).await?;
    let idle = idle(&server, 2).await?;
    for query in ["cpu_time=10s", "cpu=150m&duration=60s"] {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let client = Client::new(server.url(&format!("/?{query}")))?;
            let mut request = Box::pin(timeout(ENDLESS, client.get()));
            select! {
                answer = &mut request => bail!("`{query}` ended before its client left: {answer:?}"),
                () = sleep(Duration::from_secs(2)) => {}
            }
            let (left, before) = (Instant::now(), server.cpu_time()?);
            drop(request);
            until_idle(&server, left).await?;
            let used = (server.cpu_time()? - before).as_secs_f64();
            rounds.push(1000.0 * (used - idle * left.elapsed().as_secs_f64()));
        }
        let measure = format!("CPU used after the client of `{query}` left");
        report.add(measure, Milliseconds(median(&rounds)), AtMost(50.0, 10.0));
    }
    Ok(())
}

async fn overhead(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let component = component(testbed, Share::TwoCores).await?;
    let hello = testbed.other("hello", Share::TwoCores)?;
    let loads = [&component, &hello].map(|server| load(server, "?iterations=0", 8));
    let mut ratios = Vec::new();
    for _ in 0..15 {
        let ours = requests_per_second(&loads[0]).await?;
        ratios.push(ours / requests_per_second(&loads[1]).await?);
    }
    let measure = "requests per second of `iterations=0` against hello-world, c=8";
    report.add(measure, Plain(median(&ratios)), AtLeast(0.95, 0.98));
    Ok(())
}

async fn requests_per_second(load: &Load) -> Result<f64> {
    let window = Window::new(Duration::from_millis(200), Duration::from_secs(1));
    Ok(load.run(Answered(window)).await?.rate(window))
}

async fn hash_rate(testbed: &Testbed, report: &mut Report) -> Result<()> {
    // Short rounds, and many: what slows the machine down meets both sides.
    const HASHES: u32 = 1_000_000;
    let server = component(testbed, Share::TwoCores).await?;
    let empty = cost(&server, "?iterations=0", 1, 200).await?;
    let mut ratios = Vec::new();
    for _ in 0..20 {
        let burn = cost(&server, &format!("?iterations={HASHES}"), 1, 2).await?;
        let ours = 1000.0 * f64::from(HASHES) / (burn.cpu_ms - empty.cpu_ms);
        ratios.push(ours / testbed.native_hash_rate(2 * HASHES)?);
    }
    let measure = "hashes per CPU second against the usual loop of native `sha2` in software";
    report.add(measure, Plain(median(&ratios)), AtLeast(0.95, 1.0));
    Ok(())
}

fn size(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let [ours, hello] = testbed.sizes()?;
    let measure = "`.wasm` against that of hello-world";
    report.add(
        measure,
        Plain(ours as f64 / hello as f64),
        AtMost(1.25, 1.1),
    );
    Ok(())
}

async fn growth(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TwoCores).await?;
    let (mut cpu, mut health) = (Vec::new(), Vec::new());
    for connections in [1, 4, 16, 64] {
        let before = server.cpu_time()?;
        let crowd = crowd(&server, "", connections, [0, 15], Answered).await?;
        let used = server.cpu_time()? - before;
        cpu.push(used.as_secs_f64() / crowd.tally.requests() as f64);
        health.push(quantile(&crowd.health, 0.99) / connections as f64);
    }
    let lowest = quantile(&cpu, 0.0);
    let spread = largest(cpu.iter().map(|&used| percent_off(used, lowest)));
    let measure = "spread of CPU per request, default load, c=1, 4, 16, 64";
    report.add(measure, Percent(spread), AtMost(5.0, 5.0));
    let growth = quantile(&health[1..], 1.0) / health[0];
    let measure = "growth of health p99 against that of c";
    report.add(measure, Plain(growth), ShouldBeAtMost(1.0));
    Ok(())
}

async fn crowds(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::Limited).await?;
    for c in [1, 2, 4, 8, 16, 40, 80, 125] {
        let crowd = crowd(&server, "?cpu_time=20ms", c, [5, 20], Answered).await?;
        report.add(format!("latency p50, c={c}"), crowd.latency(0.5), Reported);
        report.add(format!("latency p95, c={c}"), crowd.latency(0.95), Reported);
        let measure = format!("requests that time out, c={c}");
        report.add(measure, crowd.late(), Reported);
        report.add(format!("health p99, c={c}"), crowd.health(), Reported);
    }
    Ok(())
}
