//! The CPU time that burns use, as the kernel accounts it: what a request costs, and what one costs
//! whose client left. In one test, since it watches all that its process started.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::Server;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

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
        let before = cpu_time_ms();
        sleep(Duration::from_secs(1));
        let used = cpu_time_ms() - before;
        assert!(used > 300, "{query} used {used} ms before its client left");
        drop(client);

        // A burn that goes on uses a core, an idle server next to nothing.
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let before = cpu_time_ms();
            sleep(Duration::from_secs(1));
            if cpu_time_ms().saturating_sub(before) < 200 {
                break;
            }
            assert!(
                Instant::now() < end,
                "{query} still burns without its client"
            );
        }
    }
}
