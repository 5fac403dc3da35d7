//! Measures the latency of the app with one request a second.

use std::{
    cell::OnceCell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use reqwest::{Client, Url};
use tokio::{
    sync::mpsc::UnboundedSender,
    task::spawn_local,
    time::{MissedTickBehavior, interval},
};

use crate::{
    format::{root_cause, without_login},
    observations::Seen,
    record::Response,
};

const EVERY: Duration = Duration::from_secs(1);
/// The query with which cpu-load-gen does no work.
const NO_WORK: &str = "iterations=0";
/// Header fields of its response to HEAD.
const FIELDS: [&str; 2] = ["load", "max-cpu-time"];

/// A request on its own connection, as from a new user, with a query that costs almost nothing.
pub struct Probe {
    client: Client,
    url: Url,
    /// The URL with its query, once that is known.
    asked: OnceCell<Url>,
}

impl Probe {
    /// Without a query, neither here nor in the URL, the app's response to HEAD decides about it.
    pub fn new(url: &str, query: Option<&str>, timeout: Duration) -> Result<Self> {
        let mut url =
            Url::parse(url).with_context(|| format!("the URL is {:?}", without_login(url)))?;
        let asked = OnceCell::new();
        if url.query().is_some() || query.is_some() {
            if url.query().is_none() {
                url.set_query(query.filter(|query| !query.is_empty()));
            }
            let _ = asked.set(url.clone());
        }
        let client = Client::builder()
            .pool_max_idle_per_host(0)
            // bombardier, which sends the load, takes none.
            .no_proxy()
            .timeout(timeout)
            .build()?;
        Ok(Self { client, url, asked })
    }

    pub async fn ask(&self) -> Response {
        let mut sent = Instant::now();
        let status = async {
            let url = self.url().await?;
            sent = Instant::now();
            let response = self.client.get(url).send().await?;
            let status = response.status();
            response.bytes().await?;
            Ok::<_, reqwest::Error>(status)
        };
        let failed = match status.await {
            Ok(status) if status.is_success() => None,
            Ok(status) => Some(status.to_string()),
            Err(error) if error.is_timeout() => Some("no response in time".into()),
            Err(error) => Some(root_cause(&error)),
        };
        Response {
            seconds: sent.elapsed().as_secs_f64(),
            failed,
        }
    }

    /// cpu-load-gen is known by its response to HEAD. Any other app is asked as it is, once it
    /// responds with success: before that, a proxy may respond in place of the app.
    async fn url(&self) -> Result<Url, reqwest::Error> {
        if let Some(url) = self.asked.get() {
            return Ok(url.clone());
        }
        let head = self.client.head(self.url.clone()).send().await?;
        let mut url = self.url.clone();
        if FIELDS.iter().all(|name| head.headers().contains_key(*name)) {
            url.set_query(Some(NO_WORK));
        } else if !head.status().is_success() {
            return Ok(url);
        }
        let _ = self.asked.set(url.clone());
        Ok(url)
    }

    /// Sends a request every second, however long the earlier ones take, until the receiver is
    /// dropped.
    pub async fn run(self, seen: UnboundedSender<Seen>) {
        let probe = Rc::new(self);
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !seen.is_closed() {
            ticks.tick().await;
            let (probe, seen) = (probe.clone(), seen.clone());
            spawn_local(async move {
                // The receiver was dropped: the recording has ended.
                let _ = seen.send(Seen::Response(probe.ask().await));
            });
        }
    }
}
