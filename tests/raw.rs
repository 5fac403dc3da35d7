//! Raw HTTP that no client library would send, and what one would hide.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use testkit::Server;

/// The last headers of a request.
const LAST: &str = "Host: localhost\r\nConnection: close\r\n\r\n";

/// All bytes until the server closes the connection.
fn rest(mut connection: TcpStream) -> String {
    let mut bytes = Vec::new();
    match connection.read_to_end(&mut bytes) {
        Ok(_) => {}
        // Closed while there was still a body to read.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The responses to these bytes, until the server closes the connection.
fn responses(server: &Server, request: &[u8]) -> String {
    let mut connection = server.connect().expect("a connection");
    connection.write_all(request).expect("a request is sent");
    rest(connection)
}

/// The statuses of the responses.
fn statuses(responses: &str) -> Vec<u16> {
    let heads = responses.split("HTTP/1.1 ").skip(1);
    heads
        .map(|head| head[..3].parse().expect("a status"))
        .collect()
}

#[test]
fn each_request_has_its_status() {
    const ONE: &[u8] = b"GET /?iterations=1";
    let server = Server::start(&[]);
    let long = |length| [b"GET /?", "a".repeat(length).as_bytes()].concat();
    let length = |length: usize| format!("Content-Length: {length}\r\n");
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    // A body that is announced and not sent.
    let expecting = length(5) + "Expect: 100-continue\r\n";
    // The method and the target, headers, a body, and the statuses of the responses.
    let cases: [(&[u8], &str, &str, &[u16]); 17] = [
        (&long(60 << 10), "", "", &[400]),
        (&long(64 << 10), "", "", &[414]),
        (b"GET /?iterations=\0", "", "", &[400]),
        (b"GET /?iterations=\xc3\xa4", "", "", &[400]),
        (b"GET /?iterations=\xff", "", "", &[400]),
        (b"GET /?cpu_time=1\xc2\xb5s", "", "", &[400]),
        (b"GET /?cpu_time=1%C2%B5s", "", "", &[200]),
        (b"GET /?iterations= 1", "", "", &[400]),
        (b"GET http://localhost/?iterations=1", "", "", &[200]),
        // Spin closes the connection if the host of the request is unclear.
        (b"GET http://elsewhere/?iterations=1", "", "", &[]),
        (b"OPTIONS *", "", "", &[405]),
        (b"BREW /?iterations=1", "", "", &[405]),
        (b"GET /?iterations=1#2", "", "", &[200]),
        (ONE, &length(5), "hello", &[200]),
        (ONE, "Transfer-Encoding: chunked\r\n", chunks, &[200]),
        (ONE, &(length(5) + &length(6)), "hello", &[400]),
        (ONE, &expecting, "", &[200]),
    ];
    for (line, headers, body, expected) in cases {
        let rest = format!(" HTTP/1.1\r\n{headers}{LAST}{body}");
        let received = responses(&server, &[line, rest.as_bytes()].concat());
        let request = String::from_utf8_lossy(line);
        let request = request.get(..40).unwrap_or(&request);
        assert_eq!(
            statuses(&received),
            expected,
            "{request} {headers}: {received}"
        );
    }
    let no_version = responses(&server, &[ONE, b"\r\n", LAST.as_bytes()].concat());
    assert_eq!(statuses(&no_version), [400], "{no_version}");
    let no_host = responses(&server, &[ONE, b" HTTP/1.1\r\n\r\n"].concat());
    assert_eq!(no_host, "");
    assert_eq!(server.get("/?iterations=1").status, 200);
}

#[test]
fn pipelined_requests_in_pieces_get_responses_in_their_order() {
    let server = Server::start(&[]);
    let request = |n, headers| format!("GET /?iterations={n} HTTP/1.1\r\n{headers}");
    let next = "Host: localhost\r\n\r\n";
    let requests = [request(1, next), request(2, next), request(3, LAST)].concat();
    let mut connection = server.connect().expect("a connection");
    for piece in requests.as_bytes().chunks(requests.len().div_ceil(10)) {
        connection.write_all(piece).expect("a piece is sent");
        sleep(Duration::from_millis(20));
    }
    let received = rest(connection);
    assert_eq!(statuses(&received), [200; 3]);
    let position = |n| received.find(&format!(r#""load":"iterations={n}""#));
    let order = [1, 2, 3].map(|n| position(n).unwrap_or_else(|| panic!("no {n} in {received}")));
    assert!(order.is_sorted(), "{received}");
}

/// It reads only heads and the bytes that `content-length` announces, as ab does.
#[test]
fn an_http_1_0_client_can_keep_its_connection() {
    let server = Server::start(&[]);
    let mut connection = BufReader::new(server.connect().expect("a connection"));
    // None of them burns, so that even a slow machine sends each in one piece.
    for target in ["/?iterations=0", "/?nonsense", "/robots.txt", "/healthz"] {
        let request =
            format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\n\r\n");
        let sent = connection.get_mut().write_all(request.as_bytes());
        sent.expect("a request is sent");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = connection.read_line(&mut head).expect("a line");
            assert!(read > 0, "{target}: closed after {head:?}");
        }
        assert!(head.starts_with("HTTP/1.0 "), "{target}: {head}");
        assert!(head.contains("connection: keep-alive"), "{target}: {head}");
        let mut headers = head.lines();
        let length = headers.find_map(|line| line.strip_prefix("content-length: "));
        let length = length.unwrap_or_else(|| panic!("{target}: no length in {head}"));
        let mut body = vec![0; length.parse().expect("a number")];
        connection.read_exact(&mut body).expect("a body");
    }
}

/// It is read as by a proxy that closes an idle connection.
#[test]
fn a_long_response_sends_a_space_each_second() {
    const IDLE: Duration = Duration::from_secs(3);
    let server = Server::start(&[]);
    let connection = server.send("/?cpu=10m&duration=5.5s").expect("it is sent");
    connection.set_read_timeout(Some(IDLE)).expect("a timeout");
    let response = rest(connection);
    assert!(response.contains("x-accel-buffering: no\r\n"), "{response}");
    // Each is a chunk of one byte.
    assert!(response.matches("1\r\n \r\n").count() >= 4, "{response}");
    let load = r#""load":"cpu=10m&duration=5.5s""#;
    assert!(response.contains(load), "{response}");
}
