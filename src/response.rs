//! How a response is sent: in one piece, or the head first and the body later.

use anyhow::{Context, Error, Result, anyhow};
use spin_sdk::http::{Headers, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::{OutputStream, StreamError};

/// The header fields of a response, by name and value.
pub type Fields = Vec<(&'static str, String)>;

/// The client has disconnected, so that nobody would read the rest of the response.
#[derive(Debug, thiserror::Error)]
#[error("the client has disconnected")]
pub struct Disconnected;

/// Sends a response in one piece; without `content` in response to a HEAD request.
pub fn send(
    out: ResponseOutparam,
    status: u16,
    mut fields: Fields,
    content: Option<&[u8]>,
) -> Result<()> {
    if let Some(content) = content {
        // A client of HTTP/1.0 can keep the connection only if it knows the length.
        fields.push(("content-length", content.len().to_string()));
    }
    let (response, body) = prepare(status, &fields)?;
    // The body is written before the head is sent, so that both are sent together.
    body.finish(content.unwrap_or_default())?;
    out.set(response);
    Ok(())
}

/// A response with status 200 whose body is not yet known.
pub struct Response {
    fields: Fields,
    /// Where the head is sent to; none once it has been sent.
    out: Option<ResponseOutparam>,
    /// The body; none until the head has been sent.
    body: Option<Body>,
}

impl Response {
    /// Prepares a response; nothing is sent yet.
    pub fn new(out: ResponseOutparam, fields: Fields) -> Self {
        Self {
            fields,
            out: Some(out),
            body: None,
        }
    }

    /// Fails if the client has disconnected, which is not noticed before the head has been sent.
    pub fn check(&self) -> Result<()> {
        if let Some(body) = &self.body {
            body.stream.check_write().map_err(disconnected)?;
        }
        Ok(())
    }

    /// Sends a space, with which JSON may begin (RFC 8259, section 2); with the first one, the
    /// head.
    pub fn send_space(&mut self) -> Result<()> {
        if let Some(out) = self.out.take() {
            // nginx would otherwise hold the spaces back.
            self.fields.push(("x-accel-buffering", "no".into()));
            let (response, body) = prepare(200, &self.fields)?;
            out.set(response);
            self.body = Some(body);
        }
        if let Some(body) = &self.body
            // A client that does not read what was sent needs no more of it.
            && body.stream.check_write().map_err(disconnected)? > 0
        {
            body.stream.write(b" ").map_err(disconnected)?;
            body.stream.flush().map_err(disconnected)?;
        }
        Ok(())
    }

    /// Sends the body, and the head with it unless that has been sent.
    pub fn finish(self, content: &[u8]) -> Result<()> {
        if let Some(out) = self.out {
            return send(out, 200, self.fields, Some(content));
        }
        let body = self.body.context("the head of the response was not sent")?;
        // A space may still be in transit.
        body.stream.subscribe().block();
        body.finish(content)
    }
}

struct Body {
    // Dropped in this order: a stream is a child of its body, and the host ends a guest that drops
    // a parent first.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Body {
    /// Writes all of the body. A host accepts at least 4 KiB; reports and problems are shorter
    /// unless `replica` is very long.
    fn finish(self, content: &[u8]) -> Result<()> {
        self.stream.check_write()?;
        self.stream.write(content)?;
        self.stream.flush()?;
        drop(self.stream);
        OutgoingBody::finish(self.body, None).map_err(|_| rejected("end"))
    }
}

fn prepare(status: u16, fields: &Fields) -> Result<(OutgoingResponse, Body)> {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).into(), value.as_str().into()));
    let headers = Headers::from_list(&fields.collect::<Vec<_>>())?;
    let response = OutgoingResponse::new(headers);
    response
        .set_status_code(status)
        .map_err(|()| rejected("status"))?;
    let body = response.body().map_err(|()| rejected("body"))?;
    let stream = body.write().map_err(|()| rejected("stream"))?;
    Ok((response, Body { stream, body }))
}

fn disconnected(_: StreamError) -> Disconnected {
    Disconnected
}

fn rejected(part: &str) -> Error {
    anyhow!("the host rejected the {part} of a response")
}
