//! How an answer leaves: in one piece, or head first and body later.

use anyhow::{Result, anyhow};
use spin_sdk::http::{Headers, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::OutputStream;

/// An answer whose head is fixed and whose body is not yet known.
pub struct Answer {
    response: Option<(ResponseOutparam, OutgoingResponse)>,
    // Dropped in this order: a stream is a child of its body, and the host ends a guest that drops
    // a parent first.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Answer {
    /// Prepares an answer; nothing leaves yet.
    pub fn new(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> Result<Self> {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let headers = Headers::from_list(&headers.collect::<Vec<_>>())?;
        let response = OutgoingResponse::new(headers);
        let refused = |what| move |()| anyhow!("the host refused the {what} of an answer");
        response
            .set_status_code(status)
            .map_err(refused("status"))?;
        let body = response.body().map_err(refused("body"))?;
        let stream = body.write().map_err(refused("stream"))?;
        Ok(Self {
            response: Some((out, response)),
            stream,
            body,
        })
    }

    /// Sends the head, if it has not left yet. Only from then on can a client be seen to leave.
    pub fn start(&mut self) {
        if let Some((out, response)) = self.response.take() {
            out.set(response);
        }
    }

    /// Whether the client is gone, so that nobody will read the body.
    pub fn is_abandoned(&self) -> bool {
        self.stream.check_write().is_err()
    }

    /// Sends a space, which JSON may begin with (RFC 8259, section 2); not if the client is gone.
    pub fn send_space(&self) -> bool {
        match self.stream.check_write() {
            // A client that does not read what was sent needs no more of it.
            Ok(0) => true,
            Ok(_) => self
                .stream
                .write(b" ")
                .and_then(|()| self.stream.flush())
                .is_ok(),
            Err(_) => false,
        }
    }

    /// Sends what is still missing.
    pub fn finish(self, body: &[u8]) -> Result<()> {
        // A space may still be on its way.
        self.stream.subscribe().block();
        // The body is written before the head leaves, where it can be: both then leave together.
        // More than a host permits at least, 4 KiB, no report or problem is.
        self.stream.check_write()?;
        self.stream.write(body)?;
        self.stream.flush()?;
        drop(self.stream);
        OutgoingBody::finish(self.body, None)
            .map_err(|_| anyhow!("the host refused the body's end"))?;
        if let Some((out, response)) = self.response {
            out.set(response);
        }
        Ok(())
    }
}
