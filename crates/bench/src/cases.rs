//! The cases, with their values, required bounds and targets.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value as Json;
use testkit::Server;
use tokio::{
    select,
    time::{Instant, sleep, timeout},
    try_join,
};

use crate::{
    bombardier,
    measure::{
        Crowd, LONG_TIMEOUT, Outcome, component, cores, cost, idle_cores, traffic, until_idle,
    },
    peers,
    report::Report,
    testbed::{Share, Testbed},
    traffic::{Client, Clients, Stop, Traffic, Window},
    value::{Goal, Value, deviation, largest, median},
};

/// The last value of the cases that subtract it.
const IDLE: &str = "CPU of the idle server, which is subtracted here";

/// Values that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Case {
    /// A request uses the CPU time that it asks for
    Accuracy,
    /// A paced load uses its share of a core, and ends on time
    Pacing,
    /// Both are exact beside other processes on the same core
    Neighbours,
    /// One connection keeps a core busy
    Alone,
    /// A crowd keeps all cores busy
    Saturated,
    /// The crowd of the tutorial on its one replica, and bombardier itself
    Tutorial,
    /// The tutorial's crowd with components that burn without a wait
    Control,
    /// Crowds that fit the limit are served evenly
    Fair,
    /// The same for loads and limits for which nothing was tuned
    Untuned,
    /// A crowd that only just fits the limit
    JustFits,
    /// Crowds that ask for more than the limit
    Overload,
    /// Few connections use up the limit
    Few,
    /// Health beside a crowd without a limit
    NoLimit,
    /// A burn ends when its client disconnects
    Disconnect,
    /// A request without a load costs no more than hello-world
    Overhead,
    /// The rate of hashes is that of a native program
    HashRate,
    /// The component is not much larger than hello-world
    Size,
    /// A request costs the same in a crowd
    Growth,
    /// The same requests to other load generators: PEERS=FOLDER with `autoscale-go`, `resource-consumer`
    Peers,
}

impl Case {
    /// All cases that need only this repository.
    pub fn default_cases() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|&case| case != Self::Peers).collect()
    }

    /// Measures the case, or reports why that is not possible.
    pub async fn measure(self, testbed: &Testbed, report: &mut Report) {
        let value = self.to_possible_value().expect("no case is skipped");
        report.begin_case(value.get_name());
        let measured = match self {
            Self::Accuracy => accuracy(testbed, report).await,
            Self::Pacing => pacing(testbed, report).await,
            Self::Neighbours => neighbours(testbed, report).await,
            Self::Alone => alone(testbed, report).await,
            Self::Saturated => saturated(testbed, report).await,
            Self::Tutorial => tutorial(testbed, report).await,
            Self::Control => control(testbed, report).await,
            Self::Fair => fair(testbed, report).await,
            Self::Untuned => untuned(testbed, report).await,
            Self::JustFits => just_fits(testbed, report).await,
            Self::Overload => overload(testbed, report).await,
            Self::Few => few(testbed, report).await,
            Self::NoLimit => no_limit(testbed, report).await,
            Self::Disconnect => disconnect(testbed, report).await,
            Self::Overhead => overhead(testbed, report).await,
            Self::HashRate => hash_rate(testbed, report).await,
            Self::Size => size(testbed, report),
            Self::Growth => growth(testbed, report).await,
            Self::Peers => peers::measure(testbed, report).await,
        };
        if let Err(error) = measured {
            report.not_measured(&error);
        }
    }
}

async fn accuracy(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let mut reports = Vec::new();
    for (millis, connections, requests, goal) in [
        (20, 1, 100, Goal::within(8.0, 3.0)),
        (20, 8, 200, Goal::within(8.0, 3.0)),
        (50, 1, 40, Goal::within(5.0, 2.0)),
        (50, 8, 160, Goal::within(5.0, 2.0)),
        (200, 1, 15, Goal::within(5.0, 2.0)),
        (200, 8, 40, Goal::within(5.0, 2.0)),
    ] {
        let (used, reported) = deviations(&server, millis, connections, requests).await?;
        let measure = format!("deviation of CPU per request from {millis} ms, c={connections}");
        report.add(measure, Value::Percent(used), goal);
        reports.push(reported);
    }
    drop(server);
    let server = component(testbed, Share::LIMITED).await?;
    let (used, reported) = deviations(&server, 50, 8, 80).await?;
    let measure = "deviation of CPU per request from 50 ms, c=8, limited to 500m";
    report.add(measure, Value::Percent(used), Goal::within(8.0, 3.0));
    reports.push(reported);
    let measure =
        "largest deviation of `cpu_time_ms` from CPU per request less that of `iterations=0`";
    report.add(
        measure,
        Value::Percent(largest(reports)),
        Goal::within(5.0, 2.0),
    );
    Ok(())
}

/// The deviations, in percent, of CPU per request from the CPU time that it asks for, and of its report from that.
async fn deviations(
    server: &Server,
    millis: u32,
    connections: usize,
    requests: usize,
) -> Result<(f64, f64)> {
    let target = format!("/?cpu_time={millis}ms");
    let (mut cpu, mut burn, mut reported) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let empty = cost(server, "/?iterations=0", connections, 200).await?;
        let load = cost(server, &target, connections, requests).await?;
        cpu.push(load.cpu_ms);
        burn.push(load.cpu_ms - empty.cpu_ms);
        reported.push(load.reported_ms);
    }
    let used = deviation(median(&cpu), millis.into());
    Ok((used, deviation(median(&reported), median(&burn))))
}

async fn pacing(testbed: &Testbed, report: &mut Report) -> Result<()> {
    const DURATION_MS: f64 = 5000.0;
    let server = component(testbed, Share::TWO_CORES).await?;
    let idle = idle_cores(&server, 5).await?;
    let mut ends = Vec::new();
    for (millicores, connections) in [(100, 1), (500, 1), (900, 1), (250, 3)] {
        let target = format!("/?cpu={millicores}m&duration=5s");
        let traffic = traffic(&server, &target, connections);
        let mut shares = Vec::new();
        for _ in 0..3 {
            let before = server.cpu_time()?;
            let tally = traffic.run(Stop::After(connections)).await?;
            let used = 1000.0 * (server.cpu_time()? - before).as_secs_f64();
            shares.push((used / DURATION_MS - idle) / connections as f64);
            ends.extend([0.0, 1.0].map(|share| 1000.0 * tally.seconds(share) - DURATION_MS));
        }
        let used = deviation(1000.0 * median(&shares), millicores.into());
        let measure = format!("deviation of mean CPU from {millicores}m, 5 s, c={connections}");
        report.add(measure, Value::Percent(used), Goal::within(5.0, 2.0));
    }
    let measure = "largest deviation of the duration from 5 s";
    report.add(
        measure,
        Value::Milliseconds(largest(ends)),
        Goal::within(50.0, 20.0),
    );
    report.add(IDLE, Value::Plain(idle), Goal::NONE);
    Ok(())
}

async fn neighbours(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::ONE_CORE).await?;
    let idle = idle_cores(&server, 5).await?;
    // How many neighbours, and for how many microseconds each is busy and then asleep.
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
        for (target, requests, cpu) in [
            ("/?cpu_time=200ms", 15, 0.2),
            ("/?cpu=500m&duration=5s", 1, 2.5),
        ] {
            let started = Instant::now();
            let cost = cost(&server, target, 1, requests).await?;
            let idle = idle * started.elapsed().as_secs_f64() / requests as f64;
            let used = deviation(cost.cpu_ms / 1000.0 - idle, cpu);
            let measure = format!("deviation of CPU from `{}`, {place}", &target[2..]);
            report.add(measure, Value::Percent(used), Goal::within(5.0, 3.0));
        }
    }
    report.add(IDLE, Value::Plain(idle), Goal::NONE);
    Ok(())
}

async fn alone(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let used = cores_used(testbed, "/?cpu_time=50ms", 1).await?;
    let measure = "cores used, `cpu_time=50ms`, c=1";
    report.add(measure, used, Goal::at_least(0.9, 0.97));
    Ok(())
}

async fn saturated(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let used = cores_used(testbed, "/", 40).await?;
    let measure = "cores used of 2, default load, c=40";
    report.add(measure, used, Goal::at_least(1.8, 1.97));
    Ok(())
}

async fn cores_used(testbed: &Testbed, target: &str, connections: usize) -> Result<Value> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let traffic = traffic(&server, target, connections);
    let mut used = Vec::new();
    for _ in 0..3 {
        let window = Window::new(Duration::from_secs(2), Duration::from_secs(10));
        let (cores, _) = try_join!(cores(&server, window), traffic.run(Stop::Answered(window)))?;
        used.push(cores);
    }
    Ok(Value::Plain(median(&used)))
}

/// Both kinds of clients, and how the measures name them.
const CLIENTS: [(Clients, &str); 2] = [
    (Clients::Disconnect, "clients that disconnect after 5 s"),
    (Clients::Wait, "clients that wait"),
];

/// The crowd of the tutorial: the default load from 40 connections.
fn tutorials_crowd() -> Crowd<'static> {
    Crowd {
        target: "/",
        connections: 40,
        clients: Clients::Disconnect,
        ramp: 3,
        length: 60,
        stop: Stop::Answered,
    }
}

async fn tutorial(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let share = Share::LIMITED;
    let server = component(testbed, share).await?;
    for (clients, name) in CLIENTS {
        let crowd = Crowd {
            clients,
            ..tutorials_crowd()
        };
        let outcome = crowd.run(&server).await?;
        let measure = format!("late requests, default load, c=40, limited to 500m, {name}");
        report.add(measure, outcome.late(), Goal::at_most(0.0, 0.0));
        let requests = Value::Count(outcome.tally.requests());
        report.add(format!("all requests, {name}"), requests, Goal::NONE);
        report.add(
            format!("latency p50, {name}"),
            outcome.latency(0.5),
            Goal::NONE,
        );
        let (measure, goal) = (format!("latency p95, {name}"), Goal::target_at_most(2.24));
        report.add(measure, outcome.latency(0.95), goal);
        let (measure, goal) = (format!("health p99, {name}"), Goal::at_most(150.0, 80.0));
        report.add(measure, outcome.health_p99(), goal);
        let (measure, goal) = (
            format!("CPU used, of the limit, {name}"),
            Goal::at_least(0.95, 0.98),
        );
        report.add(measure, outcome.used(share), goal);
        let measure = format!("answered in time, of the limit, {name}");
        report.add(
            measure,
            outcome.answered(20, share),
            Goal::at_least(0.88, 0.95),
        );
    }
    // bombardier retries a request that timed out, up to four times, and counts only the last response: only the longest
    // latency shows that.
    let result = bombardier::run(&server.url("/"), 40, Duration::from_secs(60)).await?;
    let failed = Value::Count(result.failed);
    report.add(
        "failed requests, bombardier",
        failed,
        Goal::at_most(0.0, 0.0),
    );
    report.add(
        "all requests, bombardier",
        Value::Count(result.requests),
        Goal::NONE,
    );
    report.add(
        "latency p50, bombardier",
        Value::Seconds(result.p50),
        Goal::NONE,
    );
    report.add(
        "latency p95, bombardier",
        Value::Seconds(result.p95),
        Goal::target_at_most(2.24),
    );
    let measure = "longest latency, bombardier; above 5 s, a request was sent again";
    report.add(
        measure,
        Value::Seconds(result.max),
        Goal::target_at_most(5.0),
    );
    Ok(())
}

async fn control(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let iterations = iterations_of(testbed, "/?cpu_time=20ms").await?;
    let server = testbed.other("control", Share::LIMITED)?;
    for (target, name) in [
        (format!("/chain?{iterations}"), "20 ms without a wait"),
        ("/fib".to_owned(), "`fib(43)`"),
    ] {
        let crowd = Crowd {
            target: &target,
            ramp: 0,
            length: 20,
            ..tutorials_crowd()
        };
        let outcome = crowd.run(&server).await?;
        let late = outcome.tally.late as f64 / outcome.tally.requests() as f64;
        let measure = format!("{name}: share of late requests");
        report.add(measure, Value::Plain(late), Goal::NONE);
        let measure = format!("{name}: share of probes without a response within 1 s");
        report.add(measure, outcome.failed_probes(), Goal::NONE);
    }
    Ok(())
}

/// The iterations that a load makes without neighbours.
pub async fn iterations_of(testbed: &Testbed, target: &str) -> Result<u64> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let body = Client::new(server.url(target))?.get().await?;
    let body: Json = serde_json::from_str(&body)?;
    body["iterations"].as_u64().context("no iterations")
}

async fn fair(testbed: &Testbed, report: &mut Report) -> Result<()> {
    evenly(
        testbed,
        report,
        &[(30, 40, Share::LIMITED), (35, 40, Share::LIMITED)],
    )
    .await
}

async fn untuned(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let quarter = Share::limited(0.25);
    let crowds = [
        (25, 60, Share::LIMITED),
        (20, 40, quarter),
        (50, 80, Share::TWO_CORES),
    ];
    evenly(testbed, report, &crowds).await
}

/// Crowds that fit: the CPU time of a request in milliseconds, connections, and the CPU of the server.
async fn evenly(
    testbed: &Testbed,
    report: &mut Report,
    crowds: &[(u32, usize, Share)],
) -> Result<()> {
    for &(millis, connections, share) in crowds {
        let server = component(testbed, share).await?;
        // The latency of each request if all were served at the same rate.
        let fair = f64::from(millis) / 1000.0 * connections as f64 / share.cpu();
        for (clients, name) in CLIENTS {
            let target = format!("/?cpu_time={millis}ms");
            let crowd = Crowd {
                length: 20,
                ..growing_crowd(&target, connections, clients)
            };
            let outcome = crowd.run(&server).await?;
            let what = format!("`cpu_time={millis}ms`, c={connections}, {share}, {name}");
            report.add(
                format!("late requests: {what}"),
                outcome.late(),
                Goal::target_at_most(0.0),
            );
            let p95 = Value::Plain(outcome.tally.seconds(0.95) / fair);
            let measure = format!("latency p95, of that of fair sharing: {what}");
            report.add(measure, p95, Goal::target_at_most(1.4));
            report.add(
                format!("answered in time, of the CPU: {what}"),
                outcome.answered(millis, share),
                Goal::target_at_least(0.95),
            );
            let measure = format!("health p99: {what}");
            report.add(measure, outcome.health_p99(), Goal::target_at_most(80.0));
        }
    }
    Ok(())
}

/// A crowd that is measured for 30 seconds, from five seconds after its start.
fn growing_crowd(target: &str, connections: usize, clients: Clients) -> Crowd<'_> {
    Crowd {
        target,
        connections,
        clients,
        ramp: 5,
        length: 30,
        ..tutorials_crowd()
    }
}

async fn just_fits(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let share = Share::LIMITED;
    let server = component(testbed, share).await?;
    for (clients, name) in CLIENTS {
        let outcome = growing_crowd("/?cpu_time=48ms", 40, clients)
            .run(&server)
            .await?;
        let measure = format!("answered in time, of the limit: `cpu_time=48ms`, c=40, {name}");
        let goal = match clients {
            Clients::Disconnect => Goal::at_least(0.85, 0.95),
            Clients::Wait => Goal::target_at_least(0.95),
        };
        report.add(measure, outcome.answered(48, share), goal);
        report.add(format!("late requests, {name}"), outcome.late(), Goal::NONE);
        report.add(
            format!("health p99, {name}"),
            outcome.health_p99(),
            Goal::NONE,
        );
    }
    Ok(())
}

async fn overload(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let share = Share::LIMITED;
    let server = component(testbed, share).await?;
    for (millis, connections, answered, health) in [
        (
            100,
            40,
            Goal::at_least(0.6, 0.8),
            Goal::at_most(250.0, 120.0),
        ),
        (
            20,
            125,
            Goal::at_least(0.75, 0.9),
            Goal::at_most(300.0, 120.0),
        ),
    ] {
        for (clients, name) in CLIENTS {
            let target = format!("/?cpu_time={millis}ms");
            let crowd = Crowd {
                stop: Stop::Dropped,
                ..growing_crowd(&target, connections, clients)
            };
            let outcome = crowd.run(&server).await?;
            let what = format!("`cpu_time={millis}ms`, c={connections}, {name}");
            let goal = match clients {
                Clients::Disconnect => answered,
                Clients::Wait => Goal::NONE,
            };
            let measure = format!("answered in time, of the limit: {what}");
            report.add(measure, outcome.answered(millis, share), goal);
            report.add(format!("health p99: {what}"), outcome.health_p99(), health);
            let measure = format!("time until the CPU is idle after the traffic: {what}");
            report.add(
                measure,
                Value::Seconds(outcome.until_idle),
                Goal::at_most(2.0, 1.2),
            );
        }
    }
    Ok(())
}

async fn few(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let share = Share::LIMITED;
    let server = component(testbed, share).await?;
    for connections in [2, 8] {
        let outcome = small_crowd("/?cpu_time=20ms", connections)
            .run(&server)
            .await?;
        let measure = format!("CPU used, of the limit: `cpu_time=20ms`, c={connections}");
        report.add(measure, outcome.used(share), Goal::at_least(0.96, 0.99));
        if connections == 8 {
            report.add(
                "latency p95, c=8",
                outcome.latency(0.95),
                Goal::at_most(1.1, 0.5),
            );
        }
    }
    Ok(())
}

fn small_crowd(target: &str, connections: usize) -> Crowd<'_> {
    Crowd {
        target,
        connections,
        ramp: 2,
        length: 20,
        ..tutorials_crowd()
    }
}

async fn no_limit(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let outcome = small_crowd("/", 40).run(&server).await?;
    let measure = "health p99, default load, c=40";
    report.add(measure, outcome.health_p99(), Goal::at_most(50.0, 15.0));
    report.add("latency p95", outcome.latency(0.95), Goal::NONE);
    Ok(())
}

async fn disconnect(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let idle = idle_cores(&server, 2).await?;
    for query in ["cpu_time=10s", "cpu=150m&duration=60s"] {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let client = Client::new(server.url(&format!("/?{query}")))?;
            let mut request = Box::pin(timeout(LONG_TIMEOUT, client.get()));
            select! {
                response = &mut request => bail!("`{query}` ended early: {response:?}"),
                () = sleep(Duration::from_secs(2)) => {}
            }
            let (disconnected, before) = (Instant::now(), server.cpu_time()?);
            drop(request);
            until_idle(&server, disconnected).await?;
            let used = (server.cpu_time()? - before).as_secs_f64();
            let own = idle * disconnected.elapsed().as_secs_f64();
            rounds.push(1000.0 * (used - own));
        }
        let measure = format!("CPU used after the client of `{query}` disconnected");
        report.add(
            measure,
            Value::Milliseconds(median(&rounds)),
            Goal::at_most(50.0, 10.0),
        );
    }
    Ok(())
}

async fn overhead(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let component = component(testbed, Share::TWO_CORES).await?;
    let hello = testbed.other("hello", Share::TWO_CORES)?;
    let [ours, theirs] = [&component, &hello].map(|server| traffic(server, "/?iterations=0", 8));
    let mut ratios = Vec::new();
    for _ in 0..15 {
        let rate = requests_per_second(&ours).await?;
        ratios.push(rate / requests_per_second(&theirs).await?);
    }
    let measure = "requests per second of `iterations=0`, of those of hello-world, c=8";
    report.add(
        measure,
        Value::Plain(median(&ratios)),
        Goal::at_least(0.95, 0.98),
    );
    Ok(())
}

async fn requests_per_second(traffic: &Traffic) -> Result<f64> {
    let window = Window::new(Duration::from_millis(200), Duration::from_secs(1));
    Ok(traffic.run(Stop::Answered(window)).await?.rate(window))
}

async fn hash_rate(testbed: &Testbed, report: &mut Report) -> Result<()> {
    // Many short rounds, so that other work on the machine slows both sides down.
    const HASHES: u32 = 1_000_000;
    let server = component(testbed, Share::TWO_CORES).await?;
    let empty = cost(&server, "/?iterations=0", 1, 200).await?;
    let mut ratios = Vec::new();
    for _ in 0..20 {
        let burn = cost(&server, &format!("/?iterations={HASHES}"), 1, 2).await?;
        let rate = 1000.0 * f64::from(HASHES) / (burn.cpu_ms - empty.cpu_ms);
        ratios.push(rate / testbed.native_hash_rate(2 * HASHES)?);
    }
    let measure =
        "hashes per CPU second, of those of the usual loop with native `sha2` in software";
    report.add(
        measure,
        Value::Plain(median(&ratios)),
        Goal::at_least(0.95, 1.0),
    );
    Ok(())
}

fn size(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let [component, hello] = testbed.sizes()?;
    let ratio = component as f64 / hello as f64;
    let measure = "size of `.wasm`, of that of hello-world";
    report.add(measure, Value::Plain(ratio), Goal::at_most(1.25, 1.1));
    Ok(())
}

async fn growth(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let (mut cpu, mut health) = (Vec::new(), Vec::new());
    for connections in [1, 4, 16, 64] {
        let before = server.cpu_time()?;
        let crowd = Crowd {
            connections,
            ramp: 0,
            length: 15,
            ..tutorials_crowd()
        };
        let outcome: Outcome = crowd.run(&server).await?;
        let used = server.cpu_time()? - before;
        cpu.push(used.as_secs_f64() / outcome.tally.requests() as f64);
        let p99 = outcome.health.quantile(0.99).context("no probes")?;
        health.push(p99.as_secs_f64() / connections as f64);
    }
    let lowest = cpu.iter().copied().fold(f64::INFINITY, f64::min);
    let spread = largest(cpu.iter().map(|&used| deviation(used, lowest)));
    let measure = "spread of CPU per request, default load, c=1, 4, 16, 64";
    report.add(measure, Value::Percent(spread), Goal::at_most(5.0, 5.0));
    let growth = largest(health[1..].iter().copied()) / health[0];
    let measure = "growth of health p99, of that of c";
    report.add(measure, Value::Plain(growth), Goal::target_at_most(1.0));
    Ok(())
}
