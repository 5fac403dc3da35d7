//! Crowds: clients that send the same request again and again, while the health endpoint is probed.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use testkit::{Latencies, Method, Server};
use tokio::try_join;

use crate::{
    cases::Case::{self, Fair, Few, Overload, Tutorial, Untuned, Waiting},
    measure::{component, cores, cost},
    report::{Figure, Report},
    testbed::{Share, Testbed},
    traffic::{OnTimeout, Period, Stop, Tally, Traffic, probe_health},
    value::{count, milliseconds, plain, seconds},
};

/// The timeout of the clients: bombardier's in the tutorial.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The time before the measured period, and its length.
pub const RAMP: Duration = Duration::from_secs(3);
pub const LENGTH: Duration = Duration::from_secs(18);

/// Clients that send requests for this CPU time to a server with this CPU.
#[derive(Clone, Copy)]
pub struct Crowd {
    pub cpu_time_ms: f64,
    pub connections: usize,
    pub share: Share,
}

/// Of the CPU that the crowd can use, the share that the server used, and that of responses in
/// time: at least. Latency p95 ÷ that of fair sharing, late requests, and health p99 in
/// milliseconds: at most.
type Bounds = [f64; 5];
/// No bound.
pub const NO: f64 = f64::INFINITY;
const UNBOUNDED: Bounds = [-NO, -NO, NO, NO, NO];

const QUARTER: Share = Share::QUARTER;
const HALF: Share = Share::LIMITED;
const TWO: Share = Share::TWO_CORES;

/// The crowds of the component: case, CPU time of a request in milliseconds, connections, CPU of
/// the server, bounds.
const CROWDS: [(Case, Crowd, Bounds); 28] = [
    (Few, crowd(20, 2, HALF), [0.96, 0.9, 1.9, 0.0, 100.0]),
    (Few, crowd(20, 3, HALF), [0.96, 0.9, 1.9, 0.0, 100.0]),
    (Few, crowd(20, 4, HALF), [0.96, 0.9, 1.9, 0.0, 100.0]),
    (Few, crowd(20, 8, HALF), [0.96, 0.9, 2.2, 0.0, 100.0]),
    (Few, crowd(20, 16, HALF), [0.96, 0.9, 2.2, 0.0, 100.0]),
    (Few, crowd(200, 4, HALF), [0.96, 0.9, 1.3, 0.0, 100.0]),
    (Few, crowd(50, 1, TWO), [0.85, 0.8, 1.6, 0.0, 50.0]),
    (Few, crowd(20, 3, TWO), [0.75, 0.75, 2.2, 0.0, 50.0]),
    (Few, crowd(20, 8, TWO), [0.85, 0.8, 1.9, 0.0, 50.0]),
    (Few, crowd(200, 4, TWO), [0.9, 0.9, 1.5, 0.0, 50.0]),
    (Tutorial, crowd(20, 40, HALF), [0.95, 0.88, 1.5, 0.0, 150.0]),
    (Fair, crowd(30, 40, HALF), [0.95, 0.88, 1.4, 0.0, 150.0]),
    (Fair, crowd(35, 40, HALF), [0.95, 0.88, 1.35, 0.0, 150.0]),
    (Fair, crowd(48, 40, HALF), [0.95, 0.85, NO, NO, 150.0]),
    (Fair, crowd(20, 40, TWO), [0.9, 0.85, 3.0, 0.0, 50.0]),
    (Untuned, crowd(25, 60, HALF), [0.95, 0.85, NO, NO, 150.0]),
    (Untuned, crowd(20, 40, QUARTER), [0.95, 0.7, NO, NO, 250.0]),
    (Untuned, crowd(50, 80, TWO), [0.9, 0.88, 1.7, 0.0, 80.0]),
    (Overload, crowd(20, 125, HALF), [0.95, 0.75, NO, NO, 150.0]),
    (Overload, crowd(100, 40, HALF), [0.95, 0.65, NO, NO, 150.0]),
    (Waiting, crowd(20, 40, HALF), [0.95, 0.88, 1.5, 0.0, 150.0]),
    (Waiting, crowd(35, 40, HALF), [0.95, 0.85, 1.4, 2.0, 150.0]),
    (Waiting, crowd(48, 40, HALF), [0.95, 0.75, NO, NO, 150.0]),
    (Waiting, crowd(25, 60, HALF), [0.95, 0.8, NO, NO, 150.0]),
    (Waiting, crowd(20, 40, QUARTER), [0.95, 0.65, NO, NO, 250.0]),
    (Waiting, crowd(50, 80, TWO), [0.9, 0.85, 1.7, 0.0, 80.0]),
    (Waiting, crowd(20, 125, HALF), [0.95, 0.6, NO, NO, 150.0]),
    (Waiting, crowd(100, 40, HALF), [0.95, 0.4, NO, NO, 150.0]),
];

const fn crowd(millis: u32, connections: usize, share: Share) -> Crowd {
    Crowd {
        cpu_time_ms: millis as f64,
        connections,
        share,
    }
}

/// Measures the crowds of a case.
pub async fn measure(case: Case, testbed: &Testbed, report: &mut Report) -> Result<()> {
    let on_timeout = match case {
        Waiting => OnTimeout::Wait,
        _ => OnTimeout::Disconnect,
    };
    for (_, crowd, bounds) in CROWDS.iter().filter(|it| it.0 == case) {
        let server = component(testbed, crowd.share).await?;
        let target = format!("/?cpu_time={}ms", crowd.cpu_time_ms);
        let outcome = crowd.run(&server, &target, on_timeout).await?;
        report.add(crowd.to_string(), &outcome.figures(bounds));
    }
    Ok(())
}

/// Measures the tutorial's crowd with components that burn in one go.
pub async fn control(testbed: &Testbed, report: &mut Report) -> Result<()> {
    for tool in tools(testbed).await? {
        tool.measure(40, report).await?;
    }
    Ok(())
}

pub const OWN: &str = "cpu-load-gen, 20 ms";
pub const CHAIN: &str = "the same 20 ms, first come, first served";
pub const FIB: &str = "fib(43)";

/// A server to compare the component with, limited to 500m.
pub struct Tool {
    pub name: &'static str,
    pub server: Server,
    /// The path of a request, with its query.
    pub target: String,
    /// The CPU time of a request.
    pub cpu_time_ms: f64,
}

impl Tool {
    /// The component with its default load.
    pub async fn component(testbed: &Testbed) -> Result<Self> {
        Ok(Self {
            name: OWN,
            server: component(testbed, HALF).await?,
            target: "/".to_owned(),
            cpu_time_ms: 20.0,
        })
    }

    pub async fn measure(&self, connections: usize, report: &mut Report) -> Result<()> {
        let crowd = Crowd {
            cpu_time_ms: self.cpu_time_ms,
            connections,
            share: HALF,
        };
        let outcome = crowd.run(&self.server, &self.target, OnTimeout::Disconnect);
        let figures = outcome.await?.figures(&UNBOUNDED);
        report.add(format!("{} × {connections}", self.name), &figures);
        Ok(())
    }
}

/// How many requests of the component show the iterations of one.
const SAMPLES: u64 = 20;

/// The component, and two that burn in one go.
pub async fn tools(testbed: &Testbed) -> Result<[Tool; 3]> {
    let own = Tool::component(testbed).await?;
    let mut iterations = 0;
    for _ in 0..SAMPLES {
        let report = own.server.request(Method::GET, &own.target)?.json();
        iterations += report["iterations"].as_u64().context("no iterations")? / SAMPLES;
    }
    let chain = Tool {
        name: CHAIN,
        server: testbed.other("control", HALF)?,
        target: format!("/chain?{iterations}"),
        cpu_time_ms: own.cpu_time_ms,
    };
    let server = testbed.other("control", HALF)?;
    let fib = Tool {
        name: FIB,
        cpu_time_ms: cost(&server, "/fib", 1, 1).await?.cpu_ms,
        server,
        target: "/fib".to_owned(),
    };
    Ok([own, chain, fib])
}

/// The results of a crowd.
pub struct Outcome {
    crowd: Crowd,
    pub tally: Tally,
    pub health: Latencies,
    /// Responses in time per second.
    rate: f64,
    /// The cores that the server used.
    cores: f64,
}

impl Crowd {
    pub async fn run(
        &self,
        server: &Server,
        target: &str,
        on_timeout: OnTimeout,
    ) -> Result<Outcome> {
        let traffic = Traffic {
            url: server.url(target),
            connections: self.connections,
            timeout: TIMEOUT,
            on_timeout,
        };
        let period = Period::new(RAMP, LENGTH);
        let (tally, health, cores) = try_join!(
            traffic.run(Stop::AtEnd(period)),
            probe_health(server.health_url(), period.end),
            cores(server, period),
        )?;
        Ok(Outcome {
            crowd: *self,
            rate: tally.rate(period),
            tally,
            health,
            cores,
        })
    }

    /// The cores that the crowd can use at a time.
    fn cores(&self) -> f64 {
        self.share.cpu().min(self.connections as f64)
    }

    /// The latency in seconds if all requests were served at the same rate, each by at most one
    /// core.
    fn fair_latency(&self) -> f64 {
        let alone = self.cpu_time_ms / 1000.0;
        alone.max(alone * self.connections as f64 / self.share.cpu())
    }
}

impl Outcome {
    pub fn figures(&self, bounds: &Bounds) -> [Figure; 9] {
        let [used, in_time, fair, late, health] = *bounds;
        let of_crowd = |cores: f64| plain(cores / self.crowd.cores());
        let answered = self.rate * self.crowd.cpu_time_ms / 1000.0;
        let [p50, p95] = [0.5, 0.95].map(|quantile| self.tally.seconds(quantile));
        let p95_of_fair = plain(p95 / self.crowd.fair_latency()).at_most(fair);
        let [health_p99, failed_probes] = health_figures(&self.health, health);
        [
            ("p95", seconds(p95)),
            ("p95 ÷ fair", p95_of_fair),
            ("in time, of the CPU", of_crowd(answered).at_least(in_time)),
            ("late", count(self.tally.late).at_most(late)),
            health_p99,
            ("CPU used", of_crowd(self.cores).at_least(used)),
            ("p50", seconds(p50)),
            ("requests", count(self.tally.requests())),
            failed_probes,
        ]
    }
}

/// The p99 of probes, with a bound in milliseconds, and the share of them that a kubelet counts as
/// failed: by default it waits for a second.
pub fn health_figures(health: &Latencies, bound: f64) -> [Figure; 2] {
    let p99 = health.quantile(0.99);
    let p99 = p99.map_or(f64::NAN, |it| 1000.0 * it.as_secs_f64());
    let failed = health.share_above(Duration::from_secs(1));
    [
        ("health p99", milliseconds(p99).at_most(bound)),
        ("probes over 1 s", plain(failed)),
    ]
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (millis, share) = (self.cpu_time_ms, self.share);
        write!(f, "{millis} ms × {} {share}", self.connections)
    }
}
