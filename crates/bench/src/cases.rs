//! The cases, with the bounds of their values. Those of crowds are in `crowds.rs`.

use std::{array, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use testkit::Server;
use tokio::time::Instant;

use crate::{
    bombardier, chart,
    crowds::{self, Crowd},
    measure::{component, cost, disconnect, idle_cores, traffic},
    peers,
    report::Report,
    testbed::{Share, Testbed},
    traffic::{OnTimeout, Period, Stop, Traffic},
    value::{count, deviation, largest, median, milliseconds, percent, plain, seconds},
};

/// Values that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Case {
    /// A request uses the CPU time that it asks for
    Accuracy,
    /// A paced load uses its share of a core, and ends on time
    Pacing,
    /// Both are exact beside other processes on the same core
    Neighbours,
    /// A few connections share the CPU evenly
    Few,
    /// The crowd of the tutorial on its one replica, and bombardier itself
    Tutorial,
    /// Crowds that fit are served evenly
    Fair,
    /// The same for loads and limits for which nothing was tuned
    Untuned,
    /// Crowds that ask for more than the limit
    Overload,
    /// Crowds whose clients wait longer than 5 s
    Waiting,
    /// The tutorial's crowd with components that burn without a wait
    Control,
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
    /// The growing crowds of docs/crowds.svg
    Crowds,
    /// The tutorial's crowd with other load generators: PEERS=FOLDER with `autoscale-go`,
    /// `resource-consumer`
    Peers,
}

impl Case {
    /// The cases of the bounds; `crowds` only draws, and `peers` needs other programs.
    pub fn default_cases() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|case| ![Self::Crowds, Self::Peers].contains(case))
            .collect()
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no case is skipped");
        value.get_name().to_owned()
    }

    /// Measures the case, or reports why that is not possible.
    pub async fn measure(self, testbed: &Testbed, report: &mut Report) {
        let measured = match self {
            Self::Accuracy => accuracy(testbed, report).await,
            Self::Pacing => pacing(testbed, report).await,
            Self::Neighbours => neighbours(testbed, report).await,
            Self::Few | Self::Fair | Self::Untuned | Self::Overload | Self::Waiting => {
                crowds::measure(self, testbed, report).await
            }
            Self::Tutorial => tutorial(testbed, report).await,
            Self::Control => crowds::control(testbed, report).await,
            Self::Disconnect => disconnected(testbed, report).await,
            Self::Overhead => overhead(testbed, report).await,
            Self::HashRate => hash_rate(testbed, report).await,
            Self::Size => size(testbed, report),
            Self::Growth => growth(testbed, report).await,
            Self::Crowds => chart::measure(testbed, report).await,
            Self::Peers => peers::measure(testbed, report).await,
        };
        if let Err(error) = measured {
            report.not_measured(&error);
        }
    }
}

/// The CPU time of a request in milliseconds, connections, requests, and the bound in percent.
type Load = (u32, usize, usize, f64);

async fn accuracy(testbed: &Testbed, report: &mut Report) -> Result<()> {
    const ON_TWO_CORES: [Load; 6] = [
        (20, 1, 100, 8.0),
        (20, 8, 200, 8.0),
        (50, 1, 40, 5.0),
        (50, 8, 160, 5.0),
        (200, 1, 15, 5.0),
        (200, 8, 40, 5.0),
    ];
    const LIMITED: [Load; 1] = [(50, 8, 80, 8.0)];
    const REPORTED: f64 = 12.0;
    for (share, loads) in [
        (Share::TWO_CORES, &ON_TWO_CORES[..]),
        (Share::LIMITED, &LIMITED),
    ] {
        let server = component(testbed, share).await?;
        for &(millis, connections, requests, bound) in loads {
            let (used, reported) = deviations(&server, millis, connections, requests).await?;
            report.add(
                format!("`cpu_time={millis}ms`, c={connections} {share}"),
                &[
                    ("CPU per request", percent(used).within(bound)),
                    ("`cpu_time_ms`", percent(reported).within(REPORTED)),
                ],
            );
        }
    }
    Ok(())
}

/// The deviations in percent of CPU per request from the CPU time that it asks for, and of the
/// report from CPU per request less that of `iterations=0`.
async fn deviations(
    server: &Server,
    millis: u32,
    connections: usize,
    requests: usize,
) -> Result<(f64, f64)> {
    let target = format!("/?cpu_time={millis}ms");
    let [cpu, burn, reported] = medians(3, async || {
        let empty = cost(server, "/?iterations=0", connections, 200).await?;
        let load = cost(server, &target, connections, requests).await?;
        Ok([load.cpu_ms, load.cpu_ms - empty.cpu_ms, load.reported_ms])
    })
    .await?;
    Ok((deviation(cpu, millis.into()), deviation(reported, burn)))
}

/// The medians of values that are measured together, this many times.
async fn medians<const N: usize>(
    times: usize,
    measure: impl AsyncFn() -> Result<[f64; N]>,
) -> Result<[f64; N]> {
    let mut rounds = Vec::new();
    for _ in 0..times {
        rounds.push(measure().await?);
    }
    Ok(array::from_fn(|index| {
        median(rounds.iter().map(|round| round[index]))
    }))
}

async fn pacing(testbed: &Testbed, report: &mut Report) -> Result<()> {
    const USED: f64 = 5.0;
    const END_MS: f64 = 50.0;
    const DURATION_MS: f64 = 5000.0;
    let server = component(testbed, Share::TWO_CORES).await?;
    let idle = idle_cores(&server, 5).await?;
    for (millicores, connections) in [(100, 1), (500, 1), (900, 1), (250, 3)] {
        let target = format!("/?cpu={millicores}m&duration=5s");
        let traffic = traffic(&server, &target, connections);
        let (mut shares, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let before = server.cpu_time()?;
            let tally = traffic.run(Stop::After(connections)).await?;
            let used = 1000.0 * (server.cpu_time()? - before).as_secs_f64();
            shares.push((used / DURATION_MS - idle) / connections as f64);
            ends.extend([0.0, 1.0].map(|share| 1000.0 * tally.seconds(share) - DURATION_MS));
        }
        let used = deviation(1000.0 * median(shares), millicores.into());
        let end = largest(ends);
        report.add(
            format!("`cpu={millicores}m&duration=5s`, c={connections}"),
            &[
                ("mean CPU", percent(used).within(USED)),
                ("duration", milliseconds(end).within(END_MS)),
            ],
        );
    }
    add_idle(report, idle);
    Ok(())
}

/// Adds what the case subtracts.
fn add_idle(report: &mut Report, cores: f64) {
    let subject = "idle server, subtracted here";
    report.add(subject, &[("millicores", plain(1000.0 * cores))]);
}

async fn neighbours(testbed: &Testbed, report: &mut Report) -> Result<()> {
    const USED: f64 = 10.0;
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
        let mut used = Vec::new();
        for (target, requests, asked) in [
            ("/?cpu_time=200ms", 15, 0.2),
            ("/?cpu=500m&duration=5s", 1, 2.5),
        ] {
            let started = Instant::now();
            let cost = cost(&server, target, 1, requests).await?;
            let idle = idle * started.elapsed().as_secs_f64() / requests as f64;
            used.push(percent(deviation(cost.cpu_ms / 1000.0 - idle, asked)));
        }
        report.add(
            place,
            &[
                ("`cpu_time=200ms`", used[0].within(USED)),
                ("`cpu=500m&duration=5s`", used[1].within(USED)),
            ],
        );
    }
    add_idle(report, idle);
    Ok(())
}

async fn tutorial(testbed: &Testbed, report: &mut Report) -> Result<()> {
    crowds::measure(Case::Tutorial, testbed, report).await?;
    let server = component(testbed, Share::LIMITED).await?;
    let result = bombardier::run(&server.url("/"), 40, Duration::from_secs(30)).await?;
    let micros = |latency: f64| seconds(latency / 1e6);
    let percentiles = result.latency.percentiles.as_ref();
    let percentiles = percentiles.context("bombardier printed no percentiles")?;
    report.add(
        "bombardier -c 40",
        &[
            ("failed", count(result.not_2xx() as usize).at_most(0.0)),
            ("requests", count(result.requests() as usize)),
            ("p50", micros(percentiles.p50)),
            ("p95", micros(percentiles.p95)),
            // It sends a request that timed out again, up to four times, and counts only the last
            // response: only this shows it.
            ("longest", micros(result.latency.max).at_most(5.0)),
        ],
    );
    Ok(())
}

async fn disconnected(testbed: &Testbed, report: &mut Report) -> Result<()> {
    // The query, connections, the CPU of the server, and the bounds in milliseconds and seconds.
    for (query, connections, share, most_ms, most_seconds) in [
        ("cpu_time=10s", 1, Share::TWO_CORES, 50.0, 0.5),
        ("cpu=150m&duration=60s", 1, Share::TWO_CORES, 50.0, 0.5),
        ("cpu_time=100ms", 40, Share::LIMITED, 1000.0, 2.0),
    ] {
        let server = component(testbed, share).await?;
        let target = format!("/?{query}");
        let [cpu, idle] = medians(3, async || {
            let after = disconnect(&server, &target, connections).await?;
            Ok([after.cpu_ms, after.seconds])
        })
        .await?;
        let (cpu, idle) = (milliseconds(cpu), seconds(idle));
        report.add(
            format!("`{query}`, c={connections} {share}"),
            &[
                ("CPU used afterwards", cpu.at_most(most_ms)),
                ("time until idle", idle.at_most(most_seconds)),
            ],
        );
    }
    Ok(())
}

async fn overhead(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let component = component(testbed, Share::TWO_CORES).await?;
    let hello = testbed.other("hello", Share::TWO_CORES)?;
    let [ours, theirs] = [&component, &hello].map(|server| traffic(server, "/?iterations=0", 8));
    let [ratio] = medians(15, async || {
        let rate = requests_per_second(&ours).await?;
        Ok([rate / requests_per_second(&theirs).await?])
    })
    .await?;
    let measure = "requests per second ÷ those of hello-world";
    let ratio = plain(ratio).at_least(0.95);
    report.add("`iterations=0`, c=8", &[(measure, ratio)]);
    Ok(())
}

async fn requests_per_second(traffic: &Traffic) -> Result<f64> {
    let period = Period::new(Duration::from_millis(200), Duration::from_secs(1));
    Ok(traffic.run(Stop::AtEnd(period)).await?.rate(period))
}

async fn hash_rate(testbed: &Testbed, report: &mut Report) -> Result<()> {
    // Many short rounds, so that other work on the machine slows both sides down.
    const HASHES: u32 = 1_000_000;
    let server = component(testbed, Share::TWO_CORES).await?;
    let empty = cost(&server, "/?iterations=0", 1, 200).await?;
    let target = format!("/?iterations={HASHES}");
    let [ratio] = medians(20, async || {
        let burn = cost(&server, &target, 1, 2).await?;
        let rate = 1000.0 * f64::from(HASHES) / (burn.cpu_ms - empty.cpu_ms);
        Ok([rate / testbed.native_hash_rate(2 * HASHES)?])
    })
    .await?;
    let measure = "hashes per CPU second ÷ those of native `sha2` in software";
    let ratio = plain(ratio).at_least(0.75);
    report.add(format!("`iterations={HASHES}`"), &[(measure, ratio)]);
    Ok(())
}

fn size(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let [component, hello] = testbed.sizes()?;
    let ratio = plain(component as f64 / hello as f64).at_most(1.25);
    report.add("the component", &[("size ÷ that of hello-world", ratio)]);
    Ok(())
}

async fn growth(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let (mut cpu, mut health) = (Vec::new(), Vec::new());
    for connections in [1, 4, 16, 64] {
        let before = server.cpu_time()?;
        let crowd = Crowd {
            cpu_time_ms: 20.0,
            connections,
            share: Share::TWO_CORES,
        };
        let outcome = crowd
            .run(&server, "/?cpu_time=20ms", OnTimeout::Disconnect)
            .await?;
        let used = server.cpu_time()? - before;
        cpu.push(used.as_secs_f64() / outcome.tally.requests() as f64);
        let p99 = outcome.health.quantile(0.99).context("no probes")?;
        health.push(p99.as_secs_f64() / connections as f64);
    }
    let lowest = cpu.iter().copied().fold(f64::INFINITY, f64::min);
    let spread = largest(cpu.iter().map(|&used| deviation(used, lowest)));
    let growth = largest(health[1..].iter().copied()) / health[0];
    let growth = plain(growth).at_most(1.0);
    report.add(
        "`cpu_time=20ms`, c=1, 4, 16, 64",
        &[
            ("spread of CPU per request", percent(spread).at_most(5.0)),
            ("growth of health p99 ÷ that of c", growth),
        ],
    );
    Ok(())
}
