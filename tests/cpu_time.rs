//! The CPU time that burns use, as the kernel accounts it: of a request, and of one whose client
//! disconnects.

use std::io::Read;
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest, handshake};
use http::Request;
use testkit::Server;
use tokio::runtime::Runtime;

/// What a burn uses at most after its client has disconnected half a second after its start: a host
/// reports that only when the head is due, at the end of the first second.
const FIRST_SECOND: Duration = Duration::from_millis(900);
/// The same after the head, between two spaces, when the server sends nothing.
const LATER: Duration = Duration::from_millis(300);

/// [`FIRST_SECOND`] for the burns of many clients, which use all cores.
fn first_second_of_all_cores() -> Duration {
    let cores = available_parallelism().expect("the number of cores");
    FIRST_SECOND * cores.get() as u32
}

// One test, so that nothing else burns meanwhile.
#[test]
fn a_burn_uses_the_cpu_time_that_it_reports_and_ends_when_its_client_disconnects() {
    let server = Server::start(&[
        ("max_iterations", "99999999999"),
        ("max_cpu_time", "1h"),
        ("max_duration", "1h"),
    ]);
    a_request_uses_the_cpu_time_that_it_asks_for(&server);
    clients_that_disconnect_end_their_burns(&server);
    streams_of_http2_get_responses_and_a_reset_ends_their_burns(&server);
}

/// Within 30 %: the kernel counts in ticks of up to 10 ms, and the server uses some CPU of its own,
/// while a meter that is broken is off by a half and more.
fn a_request_uses_the_cpu_time_that_it_asks_for(server: &Server) {
    for (query, asked) in [("cpu_time=1s", 1.0), ("cpu=500m&duration=2s", 1.0)] {
        let before = cpu_time(server);
        assert_eq!(server.get(&format!("/?{query}")).status, 200);
        let used = cpu_time(server) - before;
        let deviation = used.as_secs_f64() / asked - 1.0;
        assert!(deviation.abs() <= 0.3, "{query} used {used:?}");
    }
}

fn clients_that_disconnect_end_their_burns(server: &Server) {
    for (query, count, after_head, limit) in [
        ("cpu_time=1h", 1, false, FIRST_SECOND),
        ("cpu_time=1h", 1, true, LATER),
        ("iterations=99999999999", 1, true, LATER),
        ("cpu=1&duration=1h", 1, true, LATER),
        ("cpu_time=1h", 40, false, first_second_of_all_cores()),
    ] {
        let what = format!("{query}, {count}");
        let request = |_| server.send(&format!("/?{query}")).expect("it is sent");
        let mut clients: Vec<_> = (0..count).map(request).collect();
        if after_head {
            let mut start = [0; 12];
            clients[0].read_exact(&mut start).expect("a head");
            assert_eq!(&start, b"HTTP/1.1 200", "{what}");
        }
        assert_burning(server, &what);
        drop(clients);
        assert_burns_at_most(server, limit, &what);
    }
    assert_eq!(server.get("/?iterations=1").status, 200);
    assert_eq!(server.get("/.well-known/spin/health").body, "OK");
}

fn streams_of_http2_get_responses_and_a_reset_ends_their_burns(server: &Server) {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // With prior knowledge: HTTP/2 from the first byte.
        let connection = tokio::net::TcpStream::connect(server.address()).await;
        let connection = handshake(connection.expect("a connection")).await;
        let (client, connection) = connection.expect("HTTP/2");
        tokio::spawn(connection);
        let get = async |query, count| {
            for response in streams(&client, query, count).await {
                assert_eq!(response.await.expect("a response").status(), 200);
            }
        };
        get("cpu_time=5ms", 40).await;
        let burning = streams(&client, "cpu_time=1h", 40).await;
        assert_burning(server, "40 streams");
        // That resets them.
        drop(burning);
        assert_burns_at_most(server, first_second_of_all_cores(), "40 streams");
        get("iterations=1", 1).await;
    });
}

/// Requests on this many streams at once.
async fn streams(client: &SendRequest<Bytes>, query: &str, count: usize) -> Vec<ResponseFuture> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let request = Request::get(format!("http://localhost/?{query}")).body(());
        let client = client.clone().ready().await;
        let mut client = client.expect("room for a stream");
        let stream = client.send_request(request.expect("a request"), true);
        let (response, _) = stream.expect("a stream");
        streams.push(response);
    }
    streams
}

fn cpu_time(server: &Server) -> Duration {
    server.cpu_time().expect("the CPU time of the server")
}

/// For half a second, or for as long as a busy machine needs.
fn assert_burning(server: &Server, what: &str) {
    let before = cpu_time(server);
    for _ in 0..20 {
        sleep(Duration::from_millis(500));
        if cpu_time(server) - before > Duration::from_millis(150) {
            return;
        }
    }
    panic!("{what}: hardly any CPU within ten seconds");
}

/// After its clients have disconnected. An idle server uses next to nothing.
fn assert_burns_at_most(server: &Server, limit: Duration, what: &str) {
    let before = cpu_time(server);
    sleep(Duration::from_secs(2));
    let used = cpu_time(server) - before;
    assert!(used <= limit, "{what}: {used:?} of CPU after disconnecting");
}
