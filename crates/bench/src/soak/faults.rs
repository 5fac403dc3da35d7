//! Faults, each with a server of its own.

use std::{
    io::Read,
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use testkit::{Launch, Method, Runner, Server, manifest, send};

/// Returns what was seen, or fails if that is out of bounds.
type Fault = fn(&Runner) -> Result<String>;

pub const ALL: [(&str, Fault); 4] = [
    ("2000 idle connections", idle_connections),
    ("no descriptors left", no_descriptors),
    ("200 of the largest requests at once", the_largest_at_once),
    ("SIGTERM in mid-burn", terminated),
];

fn start(runner: &Runner) -> Result<Server> {
    Launch::new(runner, manifest())?.start()
}

/// Sends this many of the largest requests.
fn largest(server: &Server, count: usize) -> Result<Vec<TcpStream>> {
    let send = |_| Ok(send(server.address(), "/?cpu_time=10s")?);
    (0..count).map(send).collect()
}

/// The longest of fifty requests, one after the other.
fn slowest(server: &Server) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        let response = server.request(Method::GET, "/?iterations=1000")?;
        ensure!(response.status == 200, "{response:?}");
        slowest = slowest.max(start.elapsed());
    }
    Ok(slowest)
}

fn idle_connections(runner: &Runner) -> Result<String> {
    let server = start(runner)?;
    let alone = slowest(&server)?;
    let connect = |_| TcpStream::connect(server.address());
    let _idle: Vec<_> = (0..2000).map(connect).collect::<Result<_, _>>()?;
    let beside = slowest(&server)?;
    ensure!(
        beside <= Duration::from_secs(1),
        "a request takes {beside:.1?}"
    );
    let usage = server.usage()?;
    Ok(format!(
        "a request takes at most {beside:.1?}, {alone:.1?} without; {usage}"
    ))
}

fn no_descriptors(runner: &Runner) -> Result<String> {
    const LIMIT: u32 = 256;
    let launch = Launch::new(runner, manifest())?;
    let server = launch.descriptors(LIMIT).start()?;
    let address = server.address().parse()?;
    // Until the server accepts no more.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let idle: Vec<_> = (0..2 * LIMIT).map_while(connect).collect();
    sleep(Duration::from_secs(1));
    ensure!(!server.is_healthy(), "there were descriptors left");
    let count = idle.len();
    drop(idle);
    let start = Instant::now();
    while !server.is_healthy() {
        if start.elapsed() > Duration::from_secs(30) {
            // Spin ends when it cannot accept a connection; a kubelet starts it again.
            ensure!(matches!(runner, Runner::Spin(_)), "it does not recover");
            return Ok("it does not recover".into());
        }
    }
    let recovered = start.elapsed();
    Ok(format!(
        "with {LIMIT} of them and {count} connections its health does not answer; it answers \
         {recovered:.1?} after they close"
    ))
}

fn the_largest_at_once(runner: &Runner) -> Result<String> {
    /// The time within which all burns end: the last of them notices in its next slice that its
    /// client has disconnected.
    const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);
    let server = start(runner)?;
    let clients = largest(&server, 200)?;
    sleep(5 * SECOND);
    let probed = Instant::now();
    ensure!(
        server.is_healthy(),
        "its health does not answer within a second"
    );
    let health = probed.elapsed();
    let usage = server.usage()?;
    let at_end = server.cpu_time()?;
    drop(clients);
    let start = Instant::now();
    let mut used = at_end;
    let idle = loop {
        sleep(SECOND);
        let now = server.cpu_time()?;
        if now - used < Duration::from_millis(100) {
            break start.elapsed() - SECOND;
        }
        used = now;
        if start.elapsed() > IDLE_TIMEOUT {
            bail!("it still burns after all clients have disconnected");
        }
    };
    let after = used - at_end;
    Ok(format!(
        "health answers within {health:.1?}, {usage}; all clients disconnect after 5 s: idle \
         {idle:.0?} later, {after:.1?} of CPU"
    ))
}

fn terminated(runner: &Runner) -> Result<String> {
    let mut server = start(runner)?;
    let clients = largest(&server, 8)?;
    sleep(Duration::from_secs(2));
    let ended = server.terminate(Duration::from_secs(60))?;
    let mut whole = 0;
    for mut client in clients {
        let mut response = Vec::new();
        // Closed or reset: either way this is all.
        let _ = client.read_to_end(&mut response);
        whole += usize::from(String::from_utf8_lossy(&response).contains("digest"));
    }
    let Some(ended) = ended else {
        bail!("it does not end within a minute");
    };
    let is_in_time = ended <= Duration::from_secs(30);
    ensure!(
        is_in_time,
        "it ends after {ended:.1?}, and Kubernetes gives 30 s"
    );
    Ok(format!(
        "it ends after {ended:.1?}; {whole} of 8 requests under way get their responses"
    ))
}
