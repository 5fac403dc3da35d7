//! How the rows are measured. CPU is always what the kernel accounts to the server.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::{
    select,
    time::{Instant, interval, sleep, sleep_until},
    try_join,
};

use crate::{
    lab::Lab,
    load::{self, Client, Health, Load, Stop, Tally, Window},
    report::{
        Figure,
        Unit::{self, *},
    },
    server::Server,
};

/// The limit of the rows that have one: 500m.
const LIMIT: f64 = 0.5;
/// What the tutorial's clients wait for an answer.
const PATIENCE: Duration = seconds(5);
/// What clients wait whose requests are all to be answered.
const ENDLESS: Duration = seconds(60);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub async fn accuracy(lab: &Lab) -> Result<Vec<Result<Figure>>> {
    let server = component(lab, None).await?;
    let loads = [(50, 1, 40), (50, 8, 160), (200, 1, 15), (200, 8, 40)];
    let long = prices(&server, "", &loads).await?;
    let short = prices(&server, "", &[(20, 1, 100), (20, 8, 200)]).await?;
    drop(server);
    let limited = match component(lab, Some(LIMIT)).await {
        Ok(server) => prices(&server, " limited", &[(50, 8, 80)]).await,
        Err(error) => Err(error),
    };
    let own = match &limited {
        Ok(limited) => Ok(own_report([&long[..], &short, limited].concat())),
        Err(error) => Err(anyhow!("{error:#}")),
    };
    let limited = limited.map(cpu_per_request);
    Ok(vec![
        Ok(cpu_per_request(long)),
        Ok(cpu_per_request(short)),
        limited,
        own,
    ])
}

/// What a request of `cpu_time` costs, in milliseconds.
#[derive(Clone)]
struct Price {
    name: String,
    asked: f64,
    cpu: f64,
    /// Less what a request costs without a load.
    burn: f64,
    reported: f64,
}

/// Prices loads of (milliseconds, connections, requests), in turns.
async fn prices(
    server: &Server,
    suffix: &str,
    loads: &[(u32, usize, usize)],
) -> Result<Vec<Price>> {
    let mut rounds = vec![[Vec::new(), Vec::new(), Vec::new()]; loads.len()];
    for _ in 0..3 {
        for (&(millis, connections, requests), round) in loads.iter().zip(&mut rounds) {
            let idle = cost(server, "iterations=0", connections, 200).await?;
            let query = format!("cpu_time={millis}ms");
            let load = cost(server, &query, connections, requests).await?;
            round[0].push(load.cpu_ms);
            round[1].push(load.cpu_ms - idle.cpu_ms);
            round[2].push(load.reported_ms);
        }
    }
    let price = |(&(millis, connections, _), round): (&(u32, usize, usize), [Vec<f64>; 3])| {
        let [cpu, burn, reported] = round.map(median);
        let name = format!("{millis}ms c={connections}{suffix}");
        Price {
            name,
            asked: millis.into(),
            cpu,
            burn,
            reported,
        }
    };
    Ok(loads.iter().zip(rounds).map(price).collect())
}

fn cpu_per_request(prices: Vec<Price>) -> Figure {
    let off = prices
        .iter()
        .map(|price| percent_off(price.cpu, price.asked));
    let beside =
        |figure: Figure, price: &Price| figure.beside(&price.name, price.cpu, Milliseconds);
    prices.iter().fold(Figure::largest(off), beside)
}

fn own_report(prices: Vec<Price>) -> Figure {
    let off = |price: &Price| percent_off(price.reported, price.burn);
    let beside = |figure: Figure, price: &Price| figure.beside(&price.name, off(price), Percent);
    prices
        .iter()
        .fold(Figure::largest(prices.iter().map(off)), beside)
}

pub async fn pacing(lab: &Lab) -> Result<Vec<Figure>> {
    const DURATION_MS: f64 = 5000.0;
    let server = component(lab, None).await?;
    let idle = cores(&server, Window::new(Duration::ZERO, seconds(5))).await?;
    let mut paces = Vec::new();
    for (millicores, connections) in [(100, 1), (500, 1), (900, 1), (250, 3)] {
        let query = format!("cpu={millicores}m&duration=5s");
        let (mut cores, mut late) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let before = server.used()?;
            let load = load(&server, &query, connections);
            let tally = load.run(Stop::After(connections)).await?;
            let used = 1000.0 * (server.used()? - before).as_secs_f64();
            cores.push((used / DURATION_MS - idle) / connections as f64);
            late.extend([0.0, 1.0].map(|quantile| tally.millis(quantile) - DURATION_MS));
        }
        late.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
        let name = format!("{connections} × {millicores}m");
        paces.push((name, f64::from(millicores), median(cores), late[0]));
    }
    let off = paces
        .iter()
        .map(|pace| percent_off(1000.0 * pace.2, pace.1));
    let mut cpu = Figure::largest(off);
    let mut end = Figure::largest(paces.iter().map(|pace| pace.3));
    for (name, _, cores, late) in paces {
        cpu = cpu.beside(&name, cores, Cores);
        end = end.beside(&name, late, Milliseconds);
    }
    Ok(vec![cpu.beside("idle server", idle, Cores), end])
}

pub async fn alone(lab: &Lab) -> Result<Vec<Figure>> {
    cores_used(lab, "cpu_time=50ms", 1).await
}

pub async fn saturated(lab: &Lab) -> Result<Vec<Figure>> {
    cores_used(lab, "", 40).await
}

async fn cores_used(lab: &Lab, query: &str, connections: usize) -> Result<Vec<Figure>> {
    let server = component(lab, None).await?;
    let load = load(&server, query, connections);
    let (mut used, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let window = Window::new(seconds(2), seconds(10));
        let (cores, tally) = try_join!(cores(&server, window), load.run(Stop::Answered(window)))?;
        used.push(cores);
        rates.push(tally.rate(window));
    }
    let answers = median(rates);
    Ok(vec![
        Figure::new(median(used)).beside("answers", answers, PerSecond),
    ])
}

pub async fn tutorial(lab: &Lab) -> Result<Vec<Figure>> {
    let server = component(lab, Some(LIMIT)).await?;
    let load = Load {
        timeout: PATIENCE,
        ..load(&server, "", 40)
    };
    let mut total: Option<Crowd> = None;
    let (mut cores, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let window = Window::new(seconds(3), seconds(30));
        let round = crowd(&server, load.clone(), Stop::Answered(window), window).await?;
        cores.push(round.cores);
        rates.push(round.tally.rate(window));
        match &mut total {
            None => total = Some(round),
            Some(total) => {
                total.tally.add(round.tally)?;
                total.health.add(round.health)?;
            }
        }
    }
    let Crowd { tally, health, .. } = total.context("no rounds")?;
    let (cores, per_second) = (median(cores), median(rates));
    drop(server);

    let server = lab.baseline("fib", Some(LIMIT)).await?;
    let window = Window::new(Duration::ZERO, seconds(15));
    let load = Load {
        timeout: PATIENCE,
        reports: false,
        ..self::load(&server, "", 40)
    };
    let fib = crowd(&server, load, Stop::Answered(window), window).await?;

    Ok(vec![
        Figure::new(tally.late as f64)
            .beside("requests", tally.requests() as f64, Count)
            .beside("p50", tally.millis(0.5) / 1000.0, Seconds)
            .beside("p95", tally.millis(0.95) / 1000.0, Seconds)
            .beside("fib(43) late", fib.tally.late as f64, Count)
            .beside("fib(43) requests", fib.tally.requests() as f64, Count),
        health_figure(&health)
            .beside("fib(43) unanswered", fib.health.unanswered as f64, Count)
            .beside("fib(43) probes", fib.health.probes as f64, Count),
        Figure::new(100.0 * cores / LIMIT).beside("cores", cores, Cores),
        Figure::new(per_second * 0.020 / LIMIT).beside("answers", per_second, PerSecond),
    ])
}

pub async fn overload(lab: &Lab) -> Result<Vec<Figure>> {
    let server = component(lab, Some(LIMIT)).await?;
    let window = Window::new(PATIENCE, seconds(60));
    let load = Load {
        timeout: PATIENCE,
        ..load(&server, "cpu_time=100ms", 40)
    };
    let run = async {
        let tally = load.run(Stop::Dropped(window)).await?;
        Ok((tally, until_idle(&server).await?))
    };
    let probes = load::probe(server.health(), window.end);
    let ((tally, idle), cores, health) = try_join!(run, cores(&server, window), probes)?;
    let per_second = tally.rate(window);
    Ok(vec![
        Figure::new(per_second * 0.100 / LIMIT)
            .beside("answers", per_second, PerSecond)
            .beside("late", tally.late as f64, Count)
            .beside("cores", cores, Cores),
        health_figure(&health),
        Figure::new(idle.as_secs_f64()),
    ])
}

pub async fn leaving(lab: &Lab) -> Result<Vec<Figure>> {
    let server = component(lab, None).await?;
    let idle = cores(&server, Window::new(Duration::ZERO, seconds(2))).await?;
    let mut burns = Vec::new();
    for query in ["cpu_time=10s", "cpu=500m&duration=60s"] {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            let client = Client::new(server.url(query))?;
            let mut request = Box::pin(client.get(ENDLESS));
            select! {
                answer = &mut request => bail!("{query} ended before its client left: {answer:?}"),
                () = sleep(seconds(2)) => {}
            }
            let (left, before) = (Instant::now(), server.used()?);
            drop(request);
            until_idle(&server).await?;
            let used = (server.used()? - before).as_secs_f64();
            rounds.push(1000.0 * (used - idle * left.elapsed().as_secs_f64()));
        }
        burns.push((query, median(rounds)));
    }
    let figure = Figure::largest(burns.iter().map(|burn| burn.1));
    let beside =
        |figure: Figure, (query, used)| figure.beside(format!("`{query}`"), used, Milliseconds);
    Ok(vec![burns.into_iter().fold(figure, beside)])
}

pub async fn no_limit(lab: &Lab) -> Result<Vec<Figure>> {
    let server = component(lab, None).await?;
    let window = Window::new(seconds(2), seconds(20));
    let load = load(&server, "", 40);
    let Crowd { tally, health, .. } = crowd(&server, load, Stop::Answered(window), window).await?;
    let p95 = tally.millis(0.95) / 1000.0;
    Ok(vec![health_figure(&health).beside(
        "answers p95",
        p95,
        Seconds,
    )])
}

pub async fn overhead(lab: &Lab) -> Result<Vec<Figure>> {
    let component = component(lab, None).await?;
    let hello = lab.baseline("hello", None).await?;
    let loads = [(&component, true), (&hello, false)].map(|(server, reports)| Load {
        reports,
        ..load(server, "iterations=0", 8)
    });
    let [ours, theirs] = &loads;
    let mut rounds = Vec::new();
    for _ in 0..15 {
        rounds.push((
            requests_per_second(ours).await?,
            requests_per_second(theirs).await?,
        ));
    }
    Ok(vec![ratio(&rounds, "component", "hello", PerSecond)])
}

async fn requests_per_second(load: &Load) -> Result<f64> {
    let window = Window::new(Duration::from_millis(200), seconds(1));
    Ok(load.run(Stop::Answered(window)).await?.rate(window))
}

/// The median of ratios measured in turns, beside the median of each side.
fn ratio(rounds: &[(f64, f64)], ours: &str, theirs: &str, unit: Unit) -> Figure {
    let median = |side: fn(&(f64, f64)) -> f64| median(rounds.iter().map(side).collect());
    Figure::new(median(|(ours, theirs)| ours / theirs))
        .beside(ours, median(|round| round.0), unit)
        .beside(theirs, median(|round| round.1), unit)
}

pub async fn hash_rate(lab: &Lab) -> Result<Vec<Figure>> {
    // Short rounds, and many: what slows the machine down meets both sides.
    const HASHES: u32 = 1_000_000;
    let server = component(lab, None).await?;
    let idle = cost(&server, "iterations=0", 1, 200).await?;
    let mut rounds = Vec::new();
    for _ in 0..20 {
        let burn = cost(&server, &format!("iterations={HASHES}"), 1, 2).await?;
        let ours = f64::from(HASHES) / (burn.cpu_ms - idle.cpu_ms) / 1000.0;
        rounds.push((ours, lab.native_hash_rate(2 * HASHES).await? / 1e6));
    }
    Ok(vec![ratio(
        &rounds,
        "component",
        "native",
        MillionPerSecond,
    )])
}

pub fn size(lab: &Lab) -> Result<Vec<Figure>> {
    let sizes = (lab.size("cpu_load_gen")? as f64, lab.size("hello")? as f64);
    Ok(vec![ratio(&[sizes], "component", "hello", Bytes)])
}

pub async fn growth(lab: &Lab) -> Result<Vec<Figure>> {
    let server = component(lab, None).await?;
    let mut steps = Vec::new();
    for connections in [1, 4, 16, 64] {
        let window = Window::new(Duration::ZERO, seconds(15));
        let before = server.used()?;
        let load = load(&server, "", connections);
        let crowd = crowd(&server, load, Stop::Answered(window), window).await?;
        let used = 1000.0 * (server.used()? - before).as_secs_f64();
        steps.push((
            connections,
            used / crowd.tally.requests() as f64,
            crowd.health.p99(),
        ));
    }
    let lowest = steps
        .iter()
        .map(|step| step.1)
        .fold(f64::INFINITY, f64::min);
    let spread = steps.iter().map(|step| percent_off(step.1, lowest));
    let alone = steps[0].2;
    let growth = steps[1..].iter().map(|step| step.2 / alone / step.0 as f64);
    let (mut cpu, mut health) = (Figure::largest(spread), Figure::largest(growth));
    for (connections, used, p99) in &steps {
        cpu = cpu.beside(format!("c={connections}"), *used, Milliseconds);
        health = health.beside(format!("c={connections}"), *p99, Milliseconds);
    }
    Ok(vec![cpu, health])
}

/// Starts the component and lets its first requests go by.
async fn component(lab: &Lab, cores: Option<f64>) -> Result<Server> {
    let server = lab.component(cores).await?;
    load(&server, "iterations=0", 8)
        .run(Stop::After(100))
        .await?;
    load(&server, "cpu_time=20ms", 2)
        .run(Stop::After(20))
        .await?;
    Ok(server)
}

/// A load of the component whose every request is to be answered.
fn load(server: &Server, query: &str, connections: usize) -> Load {
    Load {
        url: server.url(query),
        connections,
        timeout: ENDLESS,
        reports: true,
    }
}

/// What a request costs, in milliseconds, and what it reports.
struct Cost {
    cpu_ms: f64,
    reported_ms: f64,
}

async fn cost(server: &Server, query: &str, connections: usize, requests: usize) -> Result<Cost> {
    let before = server.used()?;
    let tally = load(server, query, connections)
        .run(Stop::After(requests))
        .await?;
    let used = server.used()? - before;
    ensure!(
        tally.late == 0,
        "{} of {requests} requests of {query} were not answered",
        tally.late
    );
    let requests = requests as f64;
    Ok(Cost {
        cpu_ms: 1000.0 * used.as_secs_f64() / requests,
        reported_ms: tally.reported_cpu_ms / requests,
    })
}

/// What a load did to a server: to its requests, the CPU, and the health endpoint.
struct Crowd {
    tally: Tally,
    cores: f64,
    health: Health,
}

async fn crowd(server: &Server, load: Load, stop: Stop, window: Window) -> Result<Crowd> {
    let probes = load::probe(server.health(), window.end);
    let (tally, cores, health) = try_join!(load.run(stop), cores(server, window), probes)?;
    Ok(Crowd {
        tally,
        cores,
        health,
    })
}

fn health_figure(health: &Health) -> Figure {
    Figure::new(health.p99())
        .beside("unanswered", health.unanswered as f64, Count)
        .beside("probes", health.probes as f64, Count)
}

/// The cores that a server uses within a window.
async fn cores(server: &Server, window: Window) -> Result<f64> {
    sleep_until(window.start).await;
    let (start, before) = (Instant::now(), server.used()?);
    sleep_until(window.end).await;
    let used = server.used()? - before;
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// How long from now a server goes on using CPU: until it uses under 2 % of a core over 200 ms.
async fn until_idle(server: &Server) -> Result<Duration> {
    const SAMPLE: Duration = Duration::from_millis(50);
    const SAMPLES: usize = 4;
    const IDLE: f64 = 0.02;
    const CAP: Duration = seconds(20);
    let started = Instant::now();
    let mut schedule = interval(SAMPLE);
    let mut samples = VecDeque::new();
    while started.elapsed() < CAP {
        schedule.tick().await;
        samples.push_back((started.elapsed(), server.used()?));
        let (from, used) = samples[0];
        let (now, now_used) = samples[samples.len() - 1];
        if samples.len() > SAMPLES {
            if (now_used - used).as_secs_f64() < IDLE * (now - from).as_secs_f64() {
                return Ok(from);
            }
            samples.pop_front();
        }
    }
    Ok(CAP)
}

/// How far `value` is off `expected`, in percent.
fn percent_off(value: f64, expected: f64) -> f64 {
    100.0 * (value / expected - 1.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert!(median(Vec::new()).is_nan());
    }
}
