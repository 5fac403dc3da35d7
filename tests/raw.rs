//! Raw HTTP that no client library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use testkit::Server;

/// A request: its name, the bytes before `LAST` and after it, and the statuses of its responses.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], &'a [u16]);

const LAST: &str = "Host: localhost\r\nConnection: close\r\n\r\n";

fn connect(server: &Server) -> TcpStream {
    let connection = TcpStream::connect(server.address()).expect("a connection");
    let longest = Some(Duration::from_secs(60));
    connection.set_read_timeout(longest).expect("a timeout");
    connection
}

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
    let mut connection = connect(server);
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
    let server = Server::start(&[]);
    let long = |length| [b"GET /?", "a".repeat(length).as_bytes(), b" HTTP/1.1\r\n"].concat();
    let cases: &[Case] = &[
        ("a query of 60 KiB", &long(60 << 10), b"", &[400]),
        ("a query of 64 KiB", &long(64 << 10), b"", &[414]),
        ("NUL", b"GET /?iterations=\0 HTTP/1.1\r\n", b"", &[400]),
        (
            "UTF-8",
            b"GET /?iterations=\xc3\xa4 HTTP/1.1\r\n",
            b"",
            &[400],
        ),
        ("8 bits", b"GET /?iterations=\xff HTTP/1.1\r\n", b"", &[400]),
        ("a space", b"GET /?iterations= 1 HTTP/1.1\r\n", b"", &[400]),
        ("no version", b"GET /?iterations=1\r\n", b"", &[400]),
        (
            "the absolute form",
            b"GET http://localhost/a?iterations=1 HTTP/1.1\r\n",
            b"",
            &[200],
        ),
        // Spin closes the connection if the host of the request is unclear.
        (
            "the absolute form of another host",
            b"GET http://elsewhere/a?iterations=1 HTTP/1.1\r\n",
            b"",
            &[],
        ),
        ("an asterisk", b"OPTIONS * HTTP/1.1\r\n", b"", &[405]),
        (
            "another method",
            b"BREW /?iterations=1 HTTP/1.1\r\n",
            b"",
            &[405],
        ),
        (
            "a fragment",
            b"GET /?iterations=1#2 HTTP/1.1\r\n",
            b"",
            &[200],
        ),
        (
            "a body",
            b"GET /?iterations=1 HTTP/1.1\r\nContent-Length: 5\r\n",
            b"hello",
            &[200],
        ),
        (
            "a body in chunks",
            b"GET /?iterations=1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            &[200],
        ),
        (
            "two lengths",
            b"GET /?iterations=1 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
            b"hello",
            &[400],
        ),
        (
            "a body that is asked for and not sent",
            b"GET /?iterations=1 HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n",
            b"",
            &[200],
        ),
    ];
    for (name, start, behind, expected) in cases {
        let request = [start, LAST.as_bytes(), behind].concat();
        let received = responses(&server, &request);
        assert_eq!(statuses(&received), *expected, "{name}: {received}");
    }
    let nowhere = responses(&server, b"GET /?iterations=1 HTTP/1.1\r\n\r\n");
    assert_eq!(nowhere, "", "no host at all");
    assert_eq!(server.get("/?iterations=1").status, 200);
}

#[test]
fn pipelined_requests_get_responses_in_their_order() {
    let server = Server::start(&[]);
    let request = |n, headers| format!("GET /?iterations={n} HTTP/1.1\r\n{headers}");
    let next = "Host: localhost\r\n\r\n";
    let requests = [request(1, next), request(2, next), request(3, LAST)].concat();
    let received = responses(&server, requests.as_bytes());
    assert_eq!(statuses(&received), [200; 3]);
    let position = |n| received.find(&format!(r#""load":"iterations={n}""#));
    let order = [1, 2, 3].map(|n| position(n).unwrap_or_else(|| panic!("no {n} in {received}")));
    assert!(order.is_sorted(), "{received}");
}

#[test]
fn a_request_may_arrive_in_pieces() {
    let server = Server::start(&[]);
    let mut connection = connect(&server);
    let request = format!("GET /?iterations=1 HTTP/1.1\r\n{LAST}");
    for piece in request.as_bytes().chunks(request.len().div_ceil(10)) {
        connection.write_all(piece).expect("a piece is sent");
        sleep(Duration::from_millis(20));
    }
    assert_eq!(statuses(&rest(connection)), [200]);
}
