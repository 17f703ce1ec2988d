//! Who is told what a challenger does: the log or standard output, metrics, a webhook.

use super::event::{Alert, ChallengerEvent};
use crate::console;
use anyhow::{Context, bail, ensure};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use reqwest::{Response, Url};
use std::time::Duration;
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};

/// The longest that a webhook may take to answer.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// Where events go. The default is the log alone.
#[derive(Debug, Default)]
pub struct Reporter {
    json: bool,
    metrics: Option<Metrics>,
    webhook: Option<Webhook>,
    listener: Option<UnboundedSender<ChallengerEvent>>,
}

impl Reporter {
    /// Prints every event as a line of JSON on standard output instead of logging it.
    #[must_use]
    pub fn with_json(mut self) -> Self {
        self.json = true;
        self
    }

    /// Counts events, and shows the challenger's state, in a registry of metrics.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn with_metrics(mut self, registry: &Registry) -> anyhow::Result<Self> {
        self.metrics = Some(Metrics::new(registry)?);
        Ok(self)
    }

    /// Posts every alert to an address.
    #[must_use]
    pub fn with_webhook(mut self, webhook: Webhook) -> Self {
        self.webhook = Some(webhook);
        self
    }

    /// Sends every event to somebody in this process too.
    #[must_use]
    pub fn with_listener(mut self, listener: UnboundedSender<ChallengerEvent>) -> Self {
        self.listener = Some(listener);
        self
    }

    pub(super) fn event(&self, event: &ChallengerEvent) {
        if let Some(listener) = &self.listener {
            // That nobody listens any more is fine.
            let _ = listener.send(event.clone());
        }
        if let Some(metrics) = &self.metrics {
            metrics.events.with_label_values(&[event.label()]).inc();
        }
        if self.json {
            match serde_json::to_string(event) {
                Ok(line) => console::line(line),
                Err(error) => tracing::error!(%error, "an event that is no JSON"),
            }
        } else {
            log(event);
        }
    }

    pub(super) fn observe(&self, gauges: &Gauges) {
        let Some(metrics) = &self.metrics else { return };
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.open_wrong.set(signed(gauges.open_wrong as u64));
        metrics.nearest.set(gauges.nearest.map_or(-1, i64::from));
        metrics.balance.set(signed(gauges.balance));
        metrics.lag.set(i64::from(gauges.lag));
    }

    /// Shows which alerts are not over.
    pub(super) fn alerts<'a>(&self, alerts: impl Iterator<Item = &'a Alert>) {
        let Some(metrics) = &self.metrics else { return };
        let mut counts = Alert::LABELS.map(|label| (label, 0));
        for alert in alerts {
            for (label, count) in &mut counts {
                *count += i64::from(*label == alert.label());
            }
        }
        for (label, count) in counts {
            metrics.alerts.with_label_values(&[label]).set(count);
        }
    }

    /// Posts alerts, all at once; waits for [`WEBHOOK_TIMEOUT`] at most. Answers those that the webhook did not
    /// take.
    pub(super) async fn deliver(&self, alerts: Vec<ChallengerEvent>) -> Vec<ChallengerEvent> {
        let Some(webhook) = &self.webhook else { return Vec::new() };
        let mut posts = JoinSet::new();
        for alert in alerts {
            let request = webhook.http.post(webhook.url.clone()).json(&alert);
            posts.spawn(async move {
                let answer = request.send().await.and_then(Response::error_for_status);
                answer.map(drop).map_err(|error| (error, alert))
            });
        }
        let mut refused = Vec::new();
        while let Some(done) = posts.join_next().await {
            if let Ok(Err((error, alert))) = done {
                refused.push(alert);
                // The address may hold a secret.
                let error = error.without_url();
                tracing::error!(
                    "an alert did not reach the webhook: {:#}",
                    anyhow::Error::new(error)
                );
            }
        }
        refused
    }
}

/// Where alerts are posted to as JSON, over plain HTTP.
#[derive(Clone)]
pub struct Webhook {
    url: Url,
    http: reqwest::Client,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhook(..)")
    }
}

impl Webhook {
    /// A webhook at this address.
    ///
    /// # Errors
    /// When it is no `http` address.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let url = Url::parse(url).context("the address of --alert-webhook is not a URL")?;
        match url.scheme() {
            "http" => {}
            "https" => bail!(
                "--alert-webhook takes http:// only; point it at a relay on this machine that speaks https"
            ),
            other => bail!("--alert-webhook takes http://, not {other}://"),
        }
        ensure!(url.has_host(), "the address of --alert-webhook names no host");
        let http = reqwest::Client::builder()
            .timeout(WEBHOOK_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { url, http })
    }
}

/// The challenger's state in numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauges {
    /// Wrong assertions that are neither rejected nor settled.
    pub(super) open_wrong: usize,
    /// Blocks to the nearest of their deadlines.
    pub(super) nearest: Option<u32>,
    /// What the wallet can spend, sat.
    pub(super) balance: u64,
    /// L1 blocks that are not processed.
    pub(super) lag: u32,
}

#[derive(Debug)]
struct Metrics {
    events: IntCounterVec,
    alerts: IntGaugeVec,
    open_wrong: IntGauge,
    nearest: IntGauge,
    balance: IntGauge,
    lag: IntGauge,
}

impl Metrics {
    fn new(registry: &Registry) -> anyhow::Result<Self> {
        let gauge = |name: &str, help: &str| -> anyhow::Result<IntGauge> {
            let gauge = IntGauge::new(format!("kedge_challenger_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let events = IntCounterVec::new(
            Opts::new("kedge_challenger_events_total", "Events since the start, by kind"),
            &["event"],
        )?;
        registry.register(Box::new(events.clone()))?;
        let alerts = IntGaugeVec::new(
            Opts::new("kedge_challenger_alerts", "Alerts that are not over, by kind"),
            &["alert"],
        )?;
        registry.register(Box::new(alerts.clone()))?;
        for label in Alert::LABELS {
            alerts.with_label_values(&[label]).set(0);
        }
        Ok(Self {
            events,
            alerts,
            open_wrong: gauge("open_wrong_assertions", "Wrong assertions that can still settle")?,
            nearest: gauge(
                "blocks_to_deadline",
                "L1 blocks to the nearest deadline of a wrong assertion, -1 without one",
            )?,
            balance: gauge("wallet_sats", "What the wallet can spend, satoshis")?,
            lag: gauge("l1_lag_blocks", "L1 blocks that are known and not processed")?,
        })
    }
}

fn log(event: &ChallengerEvent) {
    use ChallengerEvent as E;
    match event {
        E::AssertionRight { assertion, l1_height, deadline } => {
            tracing::info!(%assertion, l1_height, deadline, "an assertion is right");
        }
        E::AssertionWrong { assertion, l1_height, deadline, segment, falls_with_parent } => {
            tracing::warn!(
                %assertion, l1_height, deadline, segment, falls_with_parent, "an assertion is wrong"
            );
        }
        E::ProofBuilt { assertion, segment, kind, bytes, chunks, millis } => {
            tracing::info!(%assertion, segment, kind, bytes, chunks, millis, "built a proof");
        }
        E::WouldPublish { assertion, deadline } => {
            tracing::warn!(%assertion, deadline, "a dry run publishes nothing: here it would");
        }
        E::Published { assertion, attempt, commit, deadline } => {
            tracing::info!(%assertion, attempt, ?commit, deadline, "publishing a proof");
        }
        E::CommitConfirmed { assertion, txid, height } => {
            tracing::info!(%assertion, %txid, height, "the proof's commit is confirmed");
        }
        E::Revealed { assertion, txids, committed } => {
            tracing::info!(%assertion, ?txids, committed, "revealed the proof");
        }
        E::Raised { assertion, raises, fee } => {
            tracing::info!(%assertion, raises, fee, "raised the proof's fee");
        }
        E::Confirmed { assertion, height } => {
            tracing::info!(%assertion, height, "the proof is confirmed");
        }
        E::Rejected { assertion, ours, challenger, segment, kind, committed } => {
            tracing::info!(
                %assertion, ours, ?challenger, segment, kind, committed, "an assertion is rejected"
            );
        }
        E::Abandoned { assertion, reason } => {
            tracing::info!(%assertion, ?reason, "gave a publication up");
        }
        E::RewardExpected { assertion, amount, from_height } => {
            tracing::info!(%assertion, amount, from_height, "the bond is ours");
        }
        E::RewardLost { assertion, txid } => {
            tracing::warn!(%assertion, %txid, "the bond went elsewhere");
        }
        E::RewardTaken { assertion, amount, txid, height } => {
            tracing::info!(%assertion, amount, %txid, height, "the reward is in the wallet");
        }
        E::Alert { alert, message } => tracing::error!(alert = alert.label(), "{message}"),
        E::AlertOver { alert } => tracing::info!(alert = alert.label(), "an alert is over"),
    }
}
