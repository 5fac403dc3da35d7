//! Measures the latency of the app with one request a second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{MissedTickBehavior, interval},
};

use crate::{format::root_cause, observations::RawObservation, record::Answer};

const EVERY: Duration = Duration::from_secs(1);

/// A request on its own connection, as from a new user, with a query that costs almost nothing.
pub struct Probe {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl Probe {
    pub fn new(url: &str, query: &str, timeout: Duration) -> Result<Self> {
        let mut url = reqwest::Url::parse(url).with_context(|| format!("the URL is {url:?}"))?;
        if url.query().is_none() && !query.is_empty() {
            url.set_query(Some(query));
        }
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(timeout)
            .build()?;
        Ok(Self { client, url })
    }

    pub async fn ask(&self) -> Answer {
        let asked = Instant::now();
        let failed = self.whole_answer().await.err();
        Answer {
            took: asked.elapsed(),
            failed,
        }
    }

    async fn whole_answer(&self) -> Result<(), String> {
        let whole = async {
            let answer = self.client.get(self.url.clone()).send().await?;
            let status = answer.status();
            answer.bytes().await?;
            Ok::<_, reqwest::Error>(status)
        };
        match whole.await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("status {status}")),
            Err(error) if error.is_timeout() => Err("no response in time".into()),
            Err(error) => Err(root_cause(&error)),
        }
    }

    /// Sends a request every second, however long the earlier ones take, until the receiver is dropped.
    pub async fn run(self, seen: UnboundedSender<RawObservation>) {
        let probe = std::rc::Rc::new(self);
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !seen.is_closed() {
            ticks.tick().await;
            let (probe, seen) = (probe.clone(), seen.clone());
            tokio::task::spawn_local(async move {
                // The receiver was dropped: the recording has ended.
                let _ = seen.send(RawObservation::Answer(probe.ask().await));
            });
        }
    }
}
