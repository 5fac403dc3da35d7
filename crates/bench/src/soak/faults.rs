//! Faults, each with a server of its own.

use std::{
    io::Read,
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use testkit::{Launch, Runner, Server, manifest};

use super::clients::send;

/// The time within which all burns end whose clients have disconnected: the last of them notices it
/// in its next slice.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Prints the results, and returns those that are out of bounds.
type Fault = fn(&Runner) -> Result<Option<String>>;

pub const ALL: [(&str, Fault); 4] = [
    ("2000 idle connections", idle_connections),
    ("no descriptors left", no_descriptors),
    ("200 of the largest requests at once", the_largest_at_once),
    ("SIGTERM in mid-burn", terminated),
];

fn launch(runner: &Runner) -> Result<Launch> {
    Launch::new(runner, manifest())
}

/// The longest of fifty requests, one after the other.
fn slowest(server: &Server) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        let response = server.request(testkit::Method::GET, "/?iterations=1000")?;
        ensure!(response.status == 200, "{response:?}");
        slowest = slowest.max(start.elapsed());
    }
    Ok(slowest)
}

fn idle_connections(runner: &Runner) -> Result<Option<String>> {
    let server = launch(runner)?.start()?;
    let alone = slowest(&server)?;
    let connect = |_| TcpStream::connect(server.address());
    let _idle: Vec<_> = (0..2000).map(connect).collect::<Result<_, _>>()?;
    let beside = slowest(&server)?;
    println!(
        "2000 idle connections: a request takes at most {beside:.1?}, {alone:.1?} without; {}",
        server.usage()?
    );
    Ok((beside > Duration::from_secs(1)).then(|| format!("{beside:?}")))
}

fn no_descriptors(runner: &Runner) -> Result<Option<String>> {
    const LIMIT: u32 = 256;
    let server = launch(runner)?.descriptors(LIMIT).start()?;
    let address = server.address().parse()?;
    // Until the server accepts no more.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let idle: Vec<_> = (0..2 * LIMIT).map_while(connect).collect();
    sleep(Duration::from_secs(1));
    if server.is_healthy() {
        return Ok(Some("there were descriptors left".into()));
    }
    let count = idle.len();
    drop(idle);
    let start = Instant::now();
    while !server.is_healthy() {
        if start.elapsed() > Duration::from_secs(30) {
            // Spin ends when it cannot accept a connection; a kubelet starts it again.
            println!("no descriptors left: it does not recover");
            let is_spin = matches!(runner, Runner::Spin(_));
            return Ok((!is_spin).then(|| "it does not recover".into()));
        }
    }
    let recovered = start.elapsed();
    println!(
        "no descriptors left: with {LIMIT} of them and {count} connections its health does not \
         answer; it answers {recovered:.1?} after they close"
    );
    Ok(None)
}

fn the_largest_at_once(runner: &Runner) -> Result<Option<String>> {
    let server = launch(runner)?.start()?;
    let send = |_| send(&server, "cpu_time=10s");
    let clients: Vec<_> = (0..200).map(send).collect::<Result<_>>()?;
    sleep(Duration::from_secs(5));
    let probed = Instant::now();
    if !server.is_healthy() {
        return Ok(Some("its health does not answer within a second".into()));
    }
    let health = probed.elapsed();
    let usage = server.usage()?;
    let at_end = server.cpu_time()?;
    drop(clients);
    let start = Instant::now();
    let mut used = at_end;
    let idle = loop {
        sleep(Duration::from_secs(1));
        let now = server.cpu_time()?;
        if now - used < Duration::from_millis(100) {
            break start.elapsed() - Duration::from_secs(1);
        }
        used = now;
        if start.elapsed() > IDLE_TIMEOUT {
            return Ok(Some(
                "it still burns after all clients have disconnected".into(),
            ));
        }
    };
    let after = used - at_end;
    println!(
        "200 of the largest requests at once: health answers within {health:.1?}, {usage}; all \
         clients disconnect after 5 s: idle {idle:.0?} later, {after:.1?} of CPU"
    );
    Ok(None)
}

fn terminated(runner: &Runner) -> Result<Option<String>> {
    let mut server = launch(runner)?.start()?;
    let send = |_| send(&server, "cpu_time=10s");
    let clients: Vec<_> = (0..8).map(send).collect::<Result<_>>()?;
    sleep(Duration::from_secs(2));
    let ended = server.terminate(Duration::from_secs(60))?;
    let mut whole = 0;
    for mut client in clients {
        let mut response = Vec::new();
        client.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Closed or reset: either way this is all.
        let _ = client.read_to_end(&mut response);
        whole += usize::from(String::from_utf8_lossy(&response).contains("digest"));
    }
    let Some(ended) = ended else {
        return Ok(Some("it does not end within a minute".into()));
    };
    println!(
        "SIGTERM in mid-burn: it ends after {ended:.1?}; {whole} of 8 requests under way get their \
         responses"
    );
    Ok((ended > Duration::from_secs(30)).then(|| format!("{ended:?}, and Kubernetes gives 30 s")))
}
