//! The cases, with the bounds of their values. Those of crowds are in `crowds.rs`.

use std::{array, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use testkit::Server;
use tokio::time::Instant;

use crate::{
    chart::CONNECTIONS,
    crowds::{self, Subject, UNBOUNDED},
    measure::{bombardier, component, cost, disconnect, idle_cores, traffic},
    peers,
    report::{Report, figure},
    testbed::{Share, Testbed},
    traffic::{Behaviour, Period, Stop},
    value::{count, deviation, largest, milliseconds, percent, plain, quantile, seconds},
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
            Self::Control => crowds::compare(&[40], testbed, report).await,
            Self::Disconnect => disconnected(testbed, report).await,
            Self::Overhead => overhead(testbed, report).await,
            Self::HashRate => hash_rate(testbed, report).await,
            Self::Size => size(testbed, report),
            Self::Growth => growth(testbed, report).await,
            Self::Crowds => crowds::compare(&CONNECTIONS, testbed, report).await,
            Self::Peers => peers::measure(testbed, report).await,
        };
        report.check(measured);
    }
}

async fn accuracy(testbed: &Testbed, report: &mut Report) -> Result<()> {
    // The CPU time of a request in milliseconds, connections, the CPU of the server, requests.
    for (millis, connections, share, requests) in [
        (20, 1, Share::TWO_CORES, 100),
        (20, 8, Share::TWO_CORES, 200),
        (50, 1, Share::TWO_CORES, 40),
        (50, 8, Share::TWO_CORES, 160),
        (200, 1, Share::TWO_CORES, 15),
        (200, 8, Share::TWO_CORES, 40),
        (50, 8, Share::LIMITED, 80),
    ] {
        let server = component(testbed, share).await?;
        let target = format!("/?cpu_time={millis}ms");
        let [cpu, burn, reported] = medians(3, async || {
            let empty = cost(&server, "/?iterations=0", connections, 200).await?;
            let load = cost(&server, &target, connections, requests).await?;
            Ok([load.cpu_ms, load.cpu_ms - empty.cpu_ms, load.reported_ms])
        })
        .await?;
        let used = percent(deviation(cpu, millis.into()));
        // A request without a load costs the rest.
        let reported = percent(deviation(reported, burn));
        report.add(
            format!("`cpu_time={millis}ms`, c={connections} {share}"),
            &[
                ("CPU per request", used.within(5.0)),
                ("`cpu_time_ms`", reported.within(12.0)),
            ],
        );
    }
    Ok(())
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
        let values: Vec<_> = rounds.iter().map(|round| round[index]).collect();
        quantile(&values, 0.5)
    }))
}

async fn pacing(testbed: &Testbed, report: &mut Report) -> Result<()> {
    let server = component(testbed, Share::TWO_CORES).await?;
    let idle = idle_cores(&server, 5).await?;
    for (millicores, connections) in [(100, 1), (500, 1), (900, 1), (250, 3)] {
        let load = format!("cpu={millicores}m&duration=5s");
        let traffic = traffic(&server, &format!("/?{load}"), connections);
        let (mut shares, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let before = server.cpu_time()?;
            let tally = traffic.run(Stop::After(connections)).await?;
            let used = (server.cpu_time()? - before).as_secs_f64();
            shares.push((used / 5.0 - idle) / connections as f64);
            ends.extend(tally.latencies.iter().map(|latency| latency - 5.0));
        }
        let used = deviation(1000.0 * quantile(&shares, 0.5), millicores.into());
        let end = milliseconds(1000.0 * largest(ends));
        report.add(
            format!("`{load}`, c={connections}"),
            &[
                ("mean CPU", percent(used).within(5.0)),
                ("duration", end.within(50.0)),
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
        let used = async |target, requests, asked| {
            let started = Instant::now();
            let cost = cost(&server, target, 1, requests).await?;
            let idle = idle * started.elapsed().as_secs_f64() / requests as f64;
            let used = deviation(cost.cpu_ms / 1000.0 - idle, asked);
            anyhow::Ok(percent(used).within(10.0))
        };
        let figures = [
            ("`cpu_time=200ms`", used("/?cpu_time=200ms", 15, 0.2).await?),
            (
                "`cpu=500m&duration=5s`",
                used("/?cpu=500m&duration=5s", 1, 2.5).await?,
            ),
        ];
        report.add(place, &figures);
    }
    add_idle(report, idle);
    Ok(())
}

async fn tutorial(testbed: &Testbed, report: &mut Report) -> Result<()> {
    crowds::measure(Case::Tutorial, testbed, report).await?;
    let server = component(testbed, Share::LIMITED).await?;
    let result = bombardier(&server.url("/"), 40, Duration::from_secs(30)).await?;
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
    // The rate of one start of a server differs from that of another by a tenth.
    let [ratio] = medians(9, async || {
        let ours = component(testbed, Share::TWO_CORES).await?;
        let ours = requests_per_second(&ours).await?;
        let hello = testbed.other("hello", Share::TWO_CORES)?;
        Ok([ours / requests_per_second(&hello).await?])
    })
    .await?;
    let measure = "requests per second ÷ those of hello-world";
    let ratio = plain(ratio).at_least(0.95);
    report.add("`iterations=0`, c=8", &[(measure, ratio)]);
    Ok(())
}

async fn requests_per_second(server: &Server) -> Result<f64> {
    let period = Period::new(Duration::from_millis(500), Duration::from_secs(2));
    let traffic = traffic(server, "/?iterations=0", 8);
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
    let subject = Subject::component(testbed, 20, Share::TWO_CORES).await?;
    let (mut cpu, mut health) = (Vec::new(), Vec::new());
    for connections in [1, 4, 16, 64] {
        let before = subject.server.cpu_time()?;
        let crowd = subject.crowd(connections, Behaviour::Disconnects, UNBOUNDED);
        let figures = crowd.await?;
        let number = |measure| figure(&figures, measure).1.number;
        let used = (subject.server.cpu_time()? - before).as_secs_f64();
        cpu.push(used / number("requests"));
        health.push(number("health p99") / connections as f64);
    }
    let lowest = quantile(&cpu, 0.0);
    let spread = largest(cpu.iter().map(|&used| deviation(used, lowest)));
    let growth = largest(health[1..].iter().copied()) / health[0];
    report.add(
        "`cpu_time=20ms`, c=1, 4, 16, 64",
        &[
            ("spread of CPU per request", percent(spread).at_most(12.0)),
            (
                "growth of health p99 ÷ that of c",
                plain(growth).at_most(1.0),
            ),
        ],
    );
    Ok(())
}
