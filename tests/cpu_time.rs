//! The CPU time that burns use, as the kernel accounts it: what a request costs, and what one costs
//! whose client left. In one test, since it watches all that its process started.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::Server;
use h2::Reason;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::runtime::Runtime;

/// The CPU time used so far by this process and its children, one of which serves; in milliseconds.
fn cpu_time_ms() -> u64 {
    let mut system = System::new();
    // Threads are part of their process.
    let what = ProcessRefreshKind::nothing().with_cpu().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    let this = sysinfo::get_current_pid().expect("the number of this process");
    let parent = |pid: &Pid| system.process(*pid).and_then(|process| process.parent());
    let is_ours = |pid: Pid| std::iter::successors(Some(pid), parent).any(|pid| pid == this);
    let ours = system.processes().iter().filter(|(pid, _)| is_ours(**pid));
    ours.map(|(_, process)| process.accumulated_cpu_time())
        .sum()
}

#[test]
fn a_burn_uses_what_it_says_and_ends_when_its_client_leaves() {
    let server = Server::start(&[
        ("max_iterations", "99999999999"),
        ("max_cpu_time", "1h"),
        ("max_duration", "1h"),
    ]);
    a_request_costs_what_it_asks_for(&server);
    a_client_that_leaves_ends_its_burn(&server);
    clients_that_leave_together_end_their_burns(&server);
    streams_that_are_reset_end_their_burns(&server);
}

/// Within 30 %: the kernel counts in ticks of up to 10 ms, and the server uses some CPU of its own,
/// while a meter that is broken is off by a half and more.
fn a_request_costs_what_it_asks_for(server: &Server) {
    for (query, asked) in [("cpu_time=1s", 1000), ("cpu=500m&duration=2s", 1000)] {
        let before = cpu_time_ms();
        assert_eq!(server.get(&format!("/?{query}")).status, 200);
        let used = cpu_time_ms() - before;
        assert!(
            (asked * 7 / 10..=asked * 13 / 10).contains(&used),
            "{query} used {used} ms"
        );
    }
}

fn a_client_that_leaves_ends_its_burn(server: &Server) {
    for query in ["iterations=99999999999", "cpu_time=1h", "cpu=1&duration=1h"] {
        let mut client = TcpStream::connect(server.address()).expect("a connection");
        let request = format!("GET /?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client
            .write_all(request.as_bytes())
            .expect("a request is sent");
        client
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        // The head comes while the load burns; its client leaves then.
        let mut start = [0; 12];
        client.read_exact(&mut start).expect("a head");
        assert_eq!(&start, b"HTTP/1.1 200", "{query}");
        assert_burning(query);
        drop(client);
        assert_idle_soon(query);
    }
}

fn clients_that_leave_together_end_their_burns(server: &Server) {
    let connect = |_| {
        let mut client = TcpStream::connect(server.address()).expect("a connection");
        let sent = client.write_all(b"GET /?cpu_time=1h HTTP/1.1\r\nHost: localhost\r\n\r\n");
        sent.expect("a request is sent");
        client
    };
    let clients: Vec<_> = (0..40).map(connect).collect();
    assert_burning("40 clients");
    drop(clients);
    assert_eq!(server.get("/?iterations=1").status, 200);
    assert_eq!(server.get("/.well-known/spin/health").body, "OK");
    assert_idle_soon("40 clients");
}

fn streams_that_are_reset_end_their_burns(server: &Server) {
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(server.http2());
    let streams = runtime.block_on(client.ask("cpu_time=1h", 40));
    assert_burning("40 streams");
    for (_, mut stream) in streams {
        stream.send_reset(Reason::CANCEL);
    }
    // On the same connection.
    let another = runtime.block_on(client.ask("iterations=1", 1));
    for (response, _) in another {
        let answer = runtime.block_on(response).expect("an answer");
        assert_eq!(answer.status(), 200);
    }
    assert_idle_soon("40 streams");
}

fn assert_burning(what: &str) {
    let before = cpu_time_ms();
    sleep(Duration::from_secs(1));
    let used = cpu_time_ms() - before;
    assert!(used > 300, "{what}: {used} ms of CPU within a second");
}

/// A burn that goes on uses a core, an idle server next to nothing.
fn assert_idle_soon(what: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    let mut before = cpu_time_ms();
    loop {
        sleep(Duration::from_secs(1));
        let now = cpu_time_ms();
        if now.saturating_sub(before) < 200 {
            break;
        }
        before = now;
        assert!(Instant::now() < end, "{what}: it still burns");
    }
}
