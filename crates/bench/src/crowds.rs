//! Crowds: clients that send the same request again and again, while the health endpoint is probed.

use std::time::Duration;

use anyhow::Result;
use testkit::Server;
use tokio::try_join;

use crate::{
    cases::Case::{self, Fair, Few, Overload, Tutorial, Untuned, Waiting},
    measure::{component, cores, cost},
    report::{Figure, Report},
    testbed::{Share, Testbed},
    traffic::{Behaviour, Period, Stop, Traffic, probe_health},
    value::{count, milliseconds, plain, quantile, seconds},
};

/// The timeout of the clients: bombardier's in the tutorial.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The time before the measured period, and its length.
const RAMP: Duration = Duration::from_secs(3);
const LENGTH: Duration = Duration::from_secs(18);

/// Of the CPU that the crowd can use, the share that the server used, and that of responses in
/// time: at least. Latency p95 ÷ that of fair sharing, late requests, and health p99 in
/// milliseconds: at most.
type Bounds = [f64; 5];
/// No bound.
const NO: f64 = f64::INFINITY;
pub const UNBOUNDED: Bounds = [-NO, -NO, NO, NO, NO];

const QUARTER: Share = Share::QUARTER;
const HALF: Share = Share::LIMITED;
const TWO: Share = Share::TWO_CORES;

/// The crowds of the component: case, CPU time of a request in milliseconds, connections, CPU of
/// the server, bounds.
const CROWDS: [(Case, u32, usize, Share, Bounds); 28] = [
    (Few, 20, 2, HALF, [0.96, 0.9, 1.9, 0.0, 100.0]),
    (Few, 20, 3, HALF, [0.96, 0.9, 1.9, 0.0, 100.0]),
    (Few, 20, 4, HALF, [0.96, 0.9, 1.9, 0.0, 100.0]),
    (Few, 20, 8, HALF, [0.96, 0.9, 2.2, 0.0, 100.0]),
    (Few, 20, 16, HALF, [0.96, 0.9, 2.0, 0.0, 100.0]),
    (Few, 200, 4, HALF, [0.96, 0.9, 1.3, 0.0, 100.0]),
    (Few, 50, 1, TWO, [0.85, 0.8, 1.6, 0.0, 50.0]),
    (Few, 20, 3, TWO, [0.85, 0.85, 1.9, 0.0, 50.0]),
    (Few, 20, 8, TWO, [0.85, 0.85, 1.8, 0.0, 50.0]),
    (Few, 200, 4, TWO, [0.9, 0.9, 1.3, 0.0, 50.0]),
    (Tutorial, 20, 40, HALF, [0.95, 0.88, 1.5, 0.0, 150.0]),
    (Fair, 30, 40, HALF, [0.95, 0.88, 1.4, 0.0, 150.0]),
    (Fair, 35, 40, HALF, [0.95, 0.88, 1.35, 0.0, 150.0]),
    (Fair, 48, 40, HALF, [0.95, 0.85, NO, NO, 150.0]),
    (Fair, 20, 40, TWO, [0.9, 0.85, 3.0, 0.0, 50.0]),
    (Untuned, 25, 60, HALF, [0.95, 0.85, NO, NO, 150.0]),
    (Untuned, 20, 40, QUARTER, [0.95, 0.7, NO, NO, 250.0]),
    (Untuned, 50, 80, TWO, [0.9, 0.88, 1.7, 0.0, 80.0]),
    (Overload, 20, 125, HALF, [0.95, 0.75, NO, NO, 150.0]),
    (Overload, 100, 40, HALF, [0.95, 0.65, NO, NO, 150.0]),
    (Waiting, 20, 40, HALF, [0.95, 0.88, 1.5, 0.0, 150.0]),
    (Waiting, 35, 40, HALF, [0.95, 0.85, 1.4, 2.0, 150.0]),
    (Waiting, 48, 40, HALF, [0.95, 0.75, NO, NO, 150.0]),
    (Waiting, 25, 60, HALF, [0.95, 0.8, NO, NO, 150.0]),
    (Waiting, 20, 40, QUARTER, [0.95, 0.65, NO, NO, 250.0]),
    (Waiting, 50, 80, TWO, [0.9, 0.85, 1.7, 0.0, 80.0]),
    (Waiting, 20, 125, HALF, [0.95, 0.6, NO, NO, 150.0]),
    (Waiting, 100, 40, HALF, [0.95, 0.4, NO, NO, 150.0]),
];

/// Measures the crowds of a case.
pub async fn measure(case: Case, testbed: &Testbed, report: &mut Report) -> Result<()> {
    let behaviour = match case {
        Waiting => Behaviour::Waits,
        _ => Behaviour::Disconnects,
    };
    for &(_, millis, connections, share, bounds) in CROWDS.iter().filter(|it| it.0 == case) {
        let subject = Subject::component(testbed, millis, share).await?;
        let figures = subject.crowd(connections, behaviour, bounds).await?;
        report.add(format!("{millis} ms × {connections} {share}"), &figures);
    }
    Ok(())
}

/// Measures crowds of these sizes with the component, and with two that burn in one go.
pub async fn compare(sizes: &[usize], testbed: &Testbed, report: &mut Report) -> Result<()> {
    for &connections in sizes {
        // New servers each time: a control still burns for clients that have disconnected.
        for subject in subjects(testbed).await? {
            subject.measure(connections, report).await?;
        }
    }
    Ok(())
}

pub const OWN: &str = "cpu-load-gen, 20 ms";
pub const CHAIN: &str = "the same 20 ms, first come, first served";
pub const FIB: &str = "fib(43)";

/// A server, and what a crowd requests of it.
pub struct Subject {
    pub name: String,
    pub server: Server,
    /// The CPU of the server.
    pub share: Share,
    /// The path of a request, with its query.
    pub target: String,
    /// The CPU time of a request.
    pub cpu_time_ms: f64,
}

impl Subject {
    /// The component.
    pub async fn component(testbed: &Testbed, millis: u32, share: Share) -> Result<Self> {
        Ok(Self {
            name: format!("cpu-load-gen, {millis} ms"),
            server: component(testbed, share).await?,
            share,
            target: format!("/?cpu_time={millis}ms"),
            cpu_time_ms: millis.into(),
        })
    }

    /// Adds a crowd, without bounds.
    pub async fn measure(&self, connections: usize, report: &mut Report) -> Result<()> {
        let figures = self.crowd(connections, Behaviour::Disconnects, UNBOUNDED);
        report.add(format!("{} × {connections}", self.name), &figures.await?);
        Ok(())
    }

    /// Measures a crowd.
    pub async fn crowd(
        &self,
        connections: usize,
        behaviour: Behaviour,
        bounds: Bounds,
    ) -> Result<[Figure; 9]> {
        let [used, in_time, fair, late, health] = bounds;
        let traffic = Traffic {
            url: self.server.url(&self.target),
            connections,
            timeout: TIMEOUT,
            behaviour,
        };
        let period = Period::new(RAMP, LENGTH);
        let (tally, probes, cores) = try_join!(
            traffic.run(Stop::AtEnd(period)),
            probe_health(self.server.health_url(), period.end),
            cores(&self.server, period),
        )?;
        // Each request by at most one core.
        let usable = self.share.cpu().min(connections as f64);
        let seconds_alone = self.cpu_time_ms / 1000.0;
        let answered = tally.rate(period) * seconds_alone;
        // If all requests were served at the same rate.
        let fair_latency = seconds_alone * connections as f64 / usable;
        let [p50, p95] = [0.5, 0.95].map(|share| quantile(&tally.latencies, share));
        let [health_p99, failed_probes] = health_figures(&probes, health);
        Ok([
            ("p95", seconds(p95)),
            ("p95 ÷ fair", plain(p95 / fair_latency).at_most(fair)),
            (
                "in time, of the CPU",
                plain(answered / usable).at_least(in_time),
            ),
            ("late", count(tally.late).at_most(late)),
            health_p99,
            ("CPU used", plain(cores / usable).at_least(used)),
            ("p50", seconds(p50)),
            ("requests", count(tally.latencies.len())),
            failed_probes,
        ])
    }
}

/// The component, and two that burn in one go, each limited to 500m.
async fn subjects(testbed: &Testbed) -> Result<[Subject; 3]> {
    let own = Subject::component(testbed, 20, HALF).await?;
    let iterations = cost(&own.server, &own.target, 1, 20).await?.iterations;
    let chain = Subject {
        name: CHAIN.to_owned(),
        server: testbed.other("control", HALF)?,
        target: format!("/chain?{iterations:.0}"),
        ..own
    };
    let server = testbed.other("control", HALF)?;
    let fib = Subject {
        name: FIB.to_owned(),
        cpu_time_ms: cost(&server, "/fib", 1, 1).await?.cpu_ms,
        server,
        share: HALF,
        target: "/fib".to_owned(),
    };
    Ok([own, chain, fib])
}

/// The p99 of probes, with a bound in milliseconds, and the share of them that a kubelet counts as
/// failed: by default it waits for a second.
pub fn health_figures(health: &[f64], bound: f64) -> [Figure; 2] {
    let p99 = 1000.0 * quantile(health, 0.99);
    let failed = health.iter().filter(|&&latency| latency > 1.0).count();
    let failed = failed as f64 / health.len() as f64;
    [
        ("health p99", milliseconds(p99).at_most(bound)),
        ("probes over 1 s", plain(failed)),
    ]
}
