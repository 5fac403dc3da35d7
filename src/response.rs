//! How a response is sent: in one piece, or the head first and the body later.

use anyhow::{Result, anyhow};
use spin_sdk::http::{Headers, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::OutputStream;

use crate::burn::Disconnected;

/// A response whose head is fixed and whose body is not yet known.
pub struct Response {
    unsent: Option<(ResponseOutparam, OutgoingResponse)>,
    // Dropped in this order: a stream is a child of its body, and the host ends a guest that drops
    // a parent first.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Response {
    /// Prepares a response; nothing is sent yet.
    pub fn new(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> Result<Self> {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let headers = Headers::from_list(&headers.collect::<Vec<_>>())?;
        let response = OutgoingResponse::new(headers);
        let refused = |part| move |()| anyhow!("the host refused the {part} of a response");
        response
            .set_status_code(status)
            .map_err(refused("status"))?;
        let body = response.body().map_err(refused("body"))?;
        let stream = body.write().map_err(refused("stream"))?;
        Ok(Self {
            unsent: Some((out, response)),
            stream,
            body,
        })
    }

    /// Sends the head, unless it has been sent. Only afterwards can a disconnected client be noticed.
    pub fn send_head(&mut self) {
        if let Some((out, response)) = self.unsent.take() {
            out.set(response);
        }
    }

    /// Fails if the client has disconnected.
    pub fn check(&self) -> Result<(), Disconnected> {
        match self.stream.check_write() {
            Ok(_) => Ok(()),
            Err(_) => Err(Disconnected),
        }
    }

    /// Sends a space, with which JSON may begin (RFC 8259, section 2). Fails if the client has
    /// disconnected.
    pub fn send_space(&self) -> Result<(), Disconnected> {
        match self.stream.check_write() {
            // A client that does not read what was sent needs no more of it.
            Ok(0) => Ok(()),
            Ok(_) => self
                .stream
                .write(b" ")
                .and_then(|()| self.stream.flush())
                .map_err(|_| Disconnected),
            Err(_) => Err(Disconnected),
        }
    }

    /// Sends the body, and the head before it unless that has been sent.
    pub fn finish(self, body: &[u8]) -> Result<()> {
        // A space may still be in transit.
        self.stream.subscribe().block();
        // The body is written before the head is sent, so that both are sent together where the head
        // is still unsent. A host permits at least 4 KiB, and no report or problem is longer.
        self.stream.check_write()?;
        self.stream.write(body)?;
        self.stream.flush()?;
        drop(self.stream);
        OutgoingBody::finish(self.body, None)
            .map_err(|_| anyhow!("the host refused the end of a body"))?;
        if let Some((out, response)) = self.unsent {
            out.set(response);
        }
        Ok(())
    }
}
