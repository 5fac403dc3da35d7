//! Faults, each with a server of its own.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::clients::ask_and_keep;
use crate::server::Server;

/// Within which a burn ends whose client has left: that of the last turn, and of a second of looks.
const LEAVING: Duration = Duration::from_secs(10);

/// What goes wrong: it prints what was seen, and returns what is out of bounds.
type Fault = fn(Option<&Path>) -> Result<Option<String>>;

pub const ALL: [(&str, Fault); 4] = [
    ("2000 idle connections", idle_connections),
    ("no descriptors left", no_descriptors),
    ("200 of the largest at once", the_largest_at_once),
    ("SIGTERM in mid-burn", terminated),
];

fn connections(server: &Server, count: usize) -> Result<Vec<TcpStream>> {
    let connect = |_| Ok(TcpStream::connect(server.address())?);
    (0..count).map(connect).collect()
}

/// The longest of fifty requests, one after the other.
fn slowest(server: &Server) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        let url = format!("http://{}/?iterations=1000", server.address());
        ensure!(ureq::get(&url).call()?.status() == 200);
        slowest = slowest.max(start.elapsed());
    }
    Ok(slowest)
}

fn idle_connections(spin: Option<&Path>) -> Result<Option<String>> {
    let server = Server::start(spin, None)?;
    let alone = slowest(&server)?;
    let _idle = connections(&server, 2000)?;
    let beside = slowest(&server)?;
    println!(
        "2000 idle connections: the slowest of 50 requests takes {beside:.1?}, {alone:.1?} without; {}",
        server.usage()?
    );
    Ok((beside > Duration::from_secs(1)).then(|| format!("{beside:?}")))
}

fn no_descriptors(spin: Option<&Path>) -> Result<Option<String>> {
    const MOST: u32 = 256;
    let server = Server::start(spin, Some(MOST))?;
    let address = server.address().parse()?;
    // Until the server takes no more.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok();
    let idle: Vec<_> = (0..2 * MOST).map_while(connect).collect();
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
            println!("no descriptors left: it does not answer again");
            return Ok(spin.is_none().then(|| "it does not answer again".into()));
        }
    }
    let again = start.elapsed();
    println!(
        "no descriptors left: with {MOST} of them and {count} connections its health does not \
         answer; again {again:.1?} after they close"
    );
    Ok(None)
}

fn the_largest_at_once(spin: Option<&Path>) -> Result<Option<String>> {
    let server = Server::start(spin, None)?;
    let ask = |_| ask_and_keep(server.address(), "cpu_time=10s");
    let clients: Vec<_> = (0..200).map(ask).collect::<Result<_>>()?;
    sleep(Duration::from_secs(5));
    let healthy = Instant::now();
    if !server.is_healthy() {
        return Ok(Some("its health does not answer within a second".into()));
    }
    let healthy = healthy.elapsed();
    let full = server.usage()?;
    drop(clients);
    let start = Instant::now();
    let mut used = full.cpu_time;
    let idle = loop {
        sleep(Duration::from_secs(1));
        let now = server.usage()?.cpu_time;
        if now.saturating_sub(used) < Duration::from_millis(100) {
            break start.elapsed() - Duration::from_secs(1);
        }
        used = now;
        if start.elapsed() > LEAVING {
            return Ok(Some("it burns on after all clients have left".into()));
        }
    };
    let after = used - full.cpu_time;
    println!(
        "200 of the largest at once: health answers within {healthy:.1?}, {full}; all clients leave after 5 s: idle {idle:.0?} later, {after:.1?} of CPU"
    );
    Ok(None)
}

fn terminated(spin: Option<&Path>) -> Result<Option<String>> {
    let mut server = Server::start(spin, None)?;
    let ask = |_| ask_and_keep(server.address(), "cpu_time=10s");
    let clients: Vec<_> = (0..8).map(ask).collect::<Result<_>>()?;
    sleep(Duration::from_secs(2));
    let ended = server.terminate()?;
    let mut whole = 0;
    for mut client in clients {
        let mut answer = Vec::new();
        client.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Closed or reset: either way there is no more to come.
        let _ = client.read_to_end(&mut answer);
        whole += usize::from(String::from_utf8_lossy(&answer).contains("digest"));
    }
    let Some(ended) = ended else {
        return Ok(Some("it does not end within a minute".into()));
    };
    println!(
        "SIGTERM in mid-burn: it ends after {ended:.1?}; {whole} of 8 requests under way are answered"
    );
    Ok((ended > Duration::from_secs(30)).then(|| format!("{ended:?}, and Kubernetes gives 30 s")))
}
