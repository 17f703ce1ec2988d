//! The challenger: sees to it that no wrong assertion settles.
//!
//! It watches the assertions that its own node's engine follows. On each branch it proves the first wrong one
//! wrong: builds the proof, checks it as everybody will, publishes it, and sees to it that it is confirmed by the
//! deadline. When somebody else was first it stops. A bond that its proof won goes to its wallet.
//!
//! Anybody can run one: it needs Bitcoin fees and nothing else.
//!
//! | file | the question it answers |
//! | --- | --- |
//! | `decide` | what to do, as a function of what is known |
//! | `prove` | which proof to publish, and whether everybody will accept it |
//! | `reward` | where a bond went, and how it gets into the wallet |
//! | `record` | what must not be forgotten, and what is new about it |
//! | `event` | what is told |
//! | `report` | who is told |
//!
//! Every step follows from Bitcoin, from the store and from what a record or the publisher noted before
//! acting; whatever is done twice has one effect. So a crash at any instant and a reorganisation of any part
//! are harmless.

mod decide;
mod event;
mod prove;
mod record;
mod report;
mod reward;
#[cfg(test)]
mod tests;

pub use event::{Abandonment, Alert, ChallengerEvent};
pub use report::{Reporter, Webhook};

use crate::{
    engine::Engine,
    l1::Bitcoin,
    publisher::{FeePolicy, PublicationStatus, PublishError, Publisher, Urgency},
    wallet::{Wallet, WalletError},
};
use alloy_primitives::B256;
use bitcoin::{Address, Amount, XOnlyPublicKey, key::Keypair};
use decide::{Action, View, decide, short_of_funds};
use kedge_bridge::envelope::Kind;
use kedge_fraud_proof::{AssertionNode, AssertionStatus, AssertionTracker};
use kedge_genesis::{L1Ref, Params};
use kedge_store::L1Rows as _;
use prove::Built;
use record::{Book, Record, Verdict, reference, tell_progress};
use report::Gauges;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Between looks when no block comes: Bitcoin may be out of reach, or have lost what was broadcast.
const PATIENCE: Duration = Duration::from_secs(10);
/// Blocks that this node or its Bitcoin node may lag behind, and for how long they may lag further before that
/// is an alert: many blocks at once are worked off in a moment.
const MAX_LAG: u32 = 6;
const LAG_PATIENCE: Duration = Duration::from_secs(60);
/// The largest reveal, virtual bytes: what a proof of one envelope costs at most.
const LARGEST_REVEAL: u64 = 100_000;

/// How a challenger behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChallengerOptions {
    /// Report only: publish nothing.
    pub dry_run: bool,
    /// How fees are chosen besides the deadline.
    pub fees: FeePolicy,
}

/// A challenger over its own node.
pub struct Challenger {
    params: &'static Params,
    engine: Arc<Engine>,
    bitcoin: Arc<dyn Bitcoin>,
    publisher: Arc<Publisher>,
    wallet: Arc<Wallet>,
    key: Keypair,
    options: ChallengerOptions,
    report: Reporter,
    state: tokio::sync::Mutex<State>,
}

/// What it keeps between steps.
#[derive(Debug)]
struct State {
    /// As stored.
    book: Book,
    /// Proofs that could not be built at a tip: tried again at the next.
    failed: BTreeMap<B256, (L1Ref, Alert)>,
    /// Alerts that were told and are not over.
    alerts: Alerts,
    /// Those of them that have not reached the webhook.
    unposted: Vec<ChallengerEvent>,
    /// Since when more blocks are not processed than may be.
    behind: Lasting,
}

/// Since when something holds without a pause.
#[derive(Debug, Default)]
struct Lasting(Option<Instant>);

impl Lasting {
    /// Notes whether it holds now. Whether it has held for `patience`.
    fn note(&mut self, holds: bool, now: Instant, patience: Duration) -> bool {
        self.0 = if holds { self.0.or(Some(now)) } else { None };
        self.0.is_some_and(|since| now.duration_since(since) >= patience)
    }
}

/// Alerts by kind and assertion.
type Alerts = BTreeMap<(&'static str, Option<B256>), Alert>;

/// What one step told.
struct Round<'a> {
    report: &'a Reporter,
    events: Vec<ChallengerEvent>,
    alerts: Alerts,
}

impl Round<'_> {
    fn tell(&mut self, event: ChallengerEvent) {
        self.report.event(&event);
        self.events.push(event);
    }

    fn alert(&mut self, alert: Alert) {
        self.alerts.insert((alert.label(), alert.assertion()), alert);
    }
}

/// Whether a step looked at everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    All,
    /// The node's tip is not in Bitcoin's chain, so nothing about assertions can be said at the moment.
    BetweenChains,
}

impl std::fmt::Debug for Challenger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenger").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Challenger {
    /// A challenger over an engine that somebody keeps on Bitcoin's chain. `publisher` is its alone and signs
    /// with `key`, to which rewards are paid too; `wallet` pays, and takes the rewards in.
    ///
    /// # Errors
    /// When its records cannot be read.
    #[expect(clippy::too_many_arguments, reason = "the parts of a node, each of another kind")]
    pub fn new(
        params: &'static Params,
        engine: Arc<Engine>,
        bitcoin: Arc<dyn Bitcoin>,
        publisher: Arc<Publisher>,
        wallet: Arc<Wallet>,
        key: Keypair,
        options: ChallengerOptions,
        report: Reporter,
    ) -> anyhow::Result<Self> {
        let book = record::load(&**publisher.records())?;
        let state = State {
            book,
            failed: BTreeMap::new(),
            alerts: Alerts::new(),
            unposted: Vec::new(),
            behind: Lasting::default(),
        };
        let state = tokio::sync::Mutex::new(state);
        Ok(Self { params, engine, bitcoin, publisher, wallet, key, options, report, state })
    }

    /// Whether it publishes nothing.
    pub const fn is_dry_run(&self) -> bool {
        self.options.dry_run
    }

    /// The key that its proofs name, to which rewards are paid.
    pub fn public_key(&self) -> XOnlyPublicKey {
        self.publisher.key()
    }

    /// The wallet that pays for its proofs.
    pub const fn wallet(&self) -> &Arc<Wallet> {
        &self.wallet
    }

    /// Where to pay the bitcoin that its proofs cost.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn address(&self) -> Result<Address, WalletError> {
        self.wallet.address()
    }

    /// Challenges until `stop`. What goes wrong is logged, reported and tried again.
    pub async fn run(&self, stop: CancellationToken) {
        let mut heads = self.engine.watch_heads();
        loop {
            let seen = heads.borrow_and_update().l1_tip;
            let round = async {
                if let Err(error) = self.step().await {
                    tracing::error!("challenger: {error:#}");
                }
                // The follower waits while Bitcoin does not answer, so blocks alone are no clock.
                let moved = heads.wait_for(|heads| heads.l1_tip != seen);
                !matches!(tokio::time::timeout(PATIENCE, moved).await, Ok(Err(_)))
            };
            tokio::select! {
                () = stop.cancelled() => return,
                goes_on = round => if !goes_on { return },
            }
        }
    }

    /// Does everything that is to do for the present state of Bitcoin and of the store, and says what it saw,
    /// decided and did. That Bitcoin does not answer is an alert, not an error.
    ///
    /// # Errors
    /// When this machine failed; the next step goes on where this one stopped.
    pub async fn step(&self) -> anyhow::Result<Vec<ChallengerEvent>> {
        let mut state = self.state.lock().await;
        let mut round = Round { report: &self.report, events: Vec::new(), alerts: Alerts::new() };
        let outcome = self.act(&mut state, &mut round).await;
        let (complete, outcome) = match outcome {
            Ok(extent) => (extent == Extent::All, Ok(())),
            Err(error) => match bitcoin_failure(&error) {
                Some(reason) => {
                    round.alert(Alert::BitcoinUnreachable { reason });
                    (false, Ok(()))
                }
                None => {
                    round.alert(Alert::Failed { reason: format!("{error:#}") });
                    (false, Err(error))
                }
            },
        };
        let raised = settle_alerts(&mut round, &mut state.alerts, complete);
        let State { alerts, unposted, .. } = &mut *state;
        unposted.extend(raised);
        unposted.retain(|event| match event {
            ChallengerEvent::Alert { alert, .. } => {
                alerts.contains_key(&(alert.label(), alert.assertion()))
            }
            _ => false,
        });
        *unposted = self.report.deliver(std::mem::take(unposted)).await;
        outcome.map(|()| round.events)
    }

    /// Tells that the node ends because of an error: nobody challenges any more, and nobody tells so later.
    pub async fn report_end(&self, error: &anyhow::Error) {
        let event = ChallengerEvent::alert(Alert::Failed { reason: format!("{error:#}") });
        self.report.event(&event);
        // There is no other time to try.
        let _ = self.report.deliver(vec![event]).await;
    }

    async fn act(&self, state: &mut State, round: &mut Round<'_>) -> anyhow::Result<Extent> {
        let info = self.bitcoin.chain_info().await?;
        let publications = self.publisher.look().await?;
        let engine = self.engine.clone();
        let (tip, tracker) = tokio::task::spawn_blocking(move || {
            let reader = engine.store().reader();
            anyhow::Ok((reader.l1_tip()?.unwrap_or_default(), reader.tracker()?))
        })
        .await??;
        let best = info.headers.max(info.height);
        let lag = best.0.saturating_sub(tip.height.0);
        let lags = lag > MAX_LAG.min(self.params.challenge_window / 2);
        if state.behind.note(lags, Instant::now(), LAG_PATIENCE) {
            round.alert(Alert::Behind { processed: tip.height.0, best: best.0 });
        }
        let balance = self.wallet.balance();
        let available = balance.confirmed + balance.pending;
        self.report.observe(&gauges(&tracker, tip, available, lag));
        if !self.wallet.has_block(tip) {
            return Ok(Extent::BetweenChains);
        }

        let view = View {
            tip: tip.height,
            own: self.own(),
            assertions: tracker.nodes(),
            book: &state.book,
            publications: &publications,
            channel_timeout: self.params.channel_timeout,
            final_depth: self.params.finality_depth,
            dry_run: self.options.dry_run,
        };
        for action in decide(&view) {
            self.perform(action, tip, &tracker, state, round).await?;
        }
        if !self.options.dry_run {
            let publications = self.publisher.tick().await?;
            self.follow_publications(&publications, state, round)?;
            let rate = self.options.fees.now(&*self.bitcoin).await?;
            let needed = rate.fee_vb(LARGEST_REVEAL).unwrap_or(Amount::MAX_MONEY);
            let address = self.wallet.address()?.to_string();
            if let Some(alert) = short_of_funds(&publications, available, needed, &address) {
                round.alert(alert);
            }
        }
        self.follow_verdicts(&tracker, state, round)?;
        Ok(Extent::All)
    }

    /// The publisher's key as the rules name a challenger.
    fn own(&self) -> B256 {
        B256::new(self.publisher.key().serialize())
    }

    /// Keeps a record, then in memory too.
    fn keep(&self, book: &mut Book, id: B256, record: Record) -> anyhow::Result<()> {
        self.publisher.records().write(vec![record::write(id, Some(&record))])?;
        book.insert(id, record);
        Ok(())
    }

    async fn perform(
        &self,
        action: Action,
        tip: L1Ref,
        tracker: &AssertionTracker,
        state: &mut State,
        round: &mut Round<'_>,
    ) -> anyhow::Result<()> {
        match action {
            Action::Note { id, falls_with_parent } => {
                let Some(node) = tracker.get(&id) else { return Ok(()) };
                self.note(node, falls_with_parent, state, round).await
            }
            Action::Rehearse { id } => {
                let Some(mut record) = state.book.get(&id).cloned() else { return Ok(()) };
                let Some(_) = self.proof(id, tip, state, round).await? else { return Ok(()) };
                record.told.would_publish = true;
                let deadline = record.deadline;
                self.keep(&mut state.book, id, record)?;
                round.tell(ChallengerEvent::WouldPublish { assertion: id, deadline });
                Ok(())
            }
            Action::Publish { id, attempt, by } => {
                let Some(mut record) = state.book.get(&id).cloned() else { return Ok(()) };
                let Some(built) = self.proof(id, tip, state, round).await? else { return Ok(()) };
                record.attempt = attempt;
                record.told.progress = record::Progress::default();
                self.keep(&mut state.book, id, record)?;
                let name = reference(id, attempt);
                let urgency = Urgency::By(by);
                let publisher = &self.publisher;
                let publication =
                    publisher.publish_once(&name, Kind::Proof, built.parts, urgency).await?;
                let commit = publisher.status(publication).await.and_then(|status| status.commit);
                let deadline = by.0;
                round.tell(ChallengerEvent::Published { assertion: id, attempt, commit, deadline });
                Ok(())
            }
            Action::Press { publication, by } => {
                Ok(self.publisher.urge(publication, Urgency::By(by)).await?)
            }
            Action::Hold { publication } => {
                Ok(self.publisher.urge(publication, Urgency::Held).await?)
            }
            Action::Abandon { id, publication, reason } => {
                self.publisher.abandon(publication).await?;
                round.tell(ChallengerEvent::Abandoned { assertion: id, reason });
                Ok(())
            }
            Action::Reward { id } => self.reward(id, tip, state, round).await,
            Action::Forget { id } => {
                self.publisher.records().write(vec![record::write(id, None)])?;
                state.book.remove(&id);
                Ok(())
            }
            Action::Alert(alert) => {
                round.alert(alert);
                Ok(())
            }
        }
    }

    /// Takes note of an assertion and says what it is, once.
    async fn note(
        &self,
        node: &AssertionNode,
        falls_with_parent: bool,
        state: &mut State,
        round: &mut Round<'_>,
    ) -> anyhow::Result<()> {
        let (assertion, l1_height, deadline) = (node.id, node.l1.height.0, node.deadline.0);
        let known = state.book.get(&assertion).cloned();
        let told = known.is_some();
        let mut record = known.unwrap_or_else(|| Record::new(node));
        record.place(node);
        self.keep(&mut state.book, assertion, record)?;
        if told {
            return Ok(());
        }
        if node.agrees {
            round.tell(ChallengerEvent::AssertionRight { assertion, l1_height, deadline });
            return Ok(());
        }
        let engine = self.engine.clone();
        let segment =
            tokio::task::spawn_blocking(move || engine.first_wrong_segment(assertion)).await??;
        round.tell(ChallengerEvent::AssertionWrong {
            assertion,
            l1_height,
            deadline,
            segment,
            falls_with_parent,
        });
        Ok(())
    }

    /// The proof against an assertion, checked. None, with an alert, when there is none that can be published.
    async fn proof(
        &self,
        id: B256,
        tip: L1Ref,
        state: &mut State,
        round: &mut Round<'_>,
    ) -> anyhow::Result<Option<Built>> {
        if let Some((at, alert)) = state.failed.get(&id)
            && *at == tip
        {
            round.alert(alert.clone());
            return Ok(None);
        }
        let (params, engine) = (self.params, self.engine.clone());
        match tokio::task::spawn_blocking(move || prove::prove(params, &engine, id)).await? {
            Ok(built) => {
                state.failed.remove(&id);
                round.tell(built.event(id));
                Ok(Some(built))
            }
            Err(alert) => {
                state.failed.insert(id, (tip, alert.clone()));
                round.alert(alert);
                Ok(None)
            }
        }
    }

    /// Tells how publications came on.
    fn follow_publications(
        &self,
        publications: &[PublicationStatus],
        state: &mut State,
        round: &mut Round<'_>,
    ) -> anyhow::Result<()> {
        for id in state.book.keys().copied().collect::<Vec<_>>() {
            let Some(mut record) = state.book.get(&id).cloned() else { continue };
            let name = reference(id, record.attempt);
            let status = publications.iter().find(|of| of.reference.as_deref() == Some(&name));
            let Some(status) = status else { continue };
            let before = record.told.progress.clone();
            let events = tell_progress(id, &mut record.told.progress, status);
            if record.told.progress != before {
                self.keep(&mut state.book, id, record)?;
            }
            events.into_iter().for_each(|event| round.tell(event));
        }
        Ok(())
    }

    /// Tells what became of wrong assertions.
    fn follow_verdicts(
        &self,
        tracker: &AssertionTracker,
        state: &mut State,
        round: &mut Round<'_>,
    ) -> anyhow::Result<()> {
        for node in tracker.nodes() {
            let now = match node.status {
                AssertionStatus::Rejected { proof: Some(proof), .. } => {
                    Some(Verdict::Proof(B256::new(proof.challenger)))
                }
                AssertionStatus::Rejected { proof: None, .. } => Some(Verdict::Parent),
                AssertionStatus::Proposed
                | AssertionStatus::Challenged
                | AssertionStatus::Settled { .. } => None,
            };
            let known = state.book.get(&node.id).filter(|known| known.told.rejected != now);
            let Some(mut record) = known.cloned() else { continue };
            record.told.rejected = now;
            self.keep(&mut state.book, node.id, record)?;
            let AssertionStatus::Rejected { proof, .. } = node.status else { continue };
            let ours = now == Some(Verdict::Proof(self.own()));
            round.tell(ChallengerEvent::Rejected {
                assertion: node.id,
                ours,
                challenger: proof.map(|proof| B256::new(proof.challenger)),
                segment: proof.map(|proof| proof.segment),
                kind: proof.map(|proof| proof.kind.label()),
                committed: proof.map(|proof| proof.committed.0),
            });
            if ours {
                round.tell(ChallengerEvent::RewardExpected {
                    assertion: node.id,
                    amount: node.bond_value.0,
                    from_height: node.deadline.plus(self.params.finality_depth).0,
                });
            }
        }
        Ok(())
    }
}

/// Why Bitcoin did not answer, when that is what an error says.
fn bitcoin_failure(error: &anyhow::Error) -> Option<String> {
    let is_bitcoin = error.is::<crate::l1::L1Error>()
        || matches!(error.downcast_ref(), Some(WalletError::Bitcoin(_)))
        || matches!(
            error.downcast_ref(),
            Some(PublishError::Bitcoin(_) | PublishError::Wallet(WalletError::Bitcoin(_)))
        );
    is_bitcoin.then(|| format!("{error:#}"))
}

/// Tells the alerts that are new and those that are over. A step that did not look at everything ends none but
/// those that it contradicts. Answers the events of the new ones.
fn settle_alerts(
    round: &mut Round<'_>,
    known: &mut Alerts,
    complete: bool,
) -> Vec<ChallengerEvent> {
    let now = std::mem::take(&mut round.alerts);
    let mut raised = Vec::new();
    for (key, alert) in &now {
        if !known.contains_key(key) {
            let event = ChallengerEvent::alert(alert.clone());
            raised.push(event.clone());
            round.tell(event);
        }
    }
    let over: Vec<_> =
        known.keys().filter(|key| complete && !now.contains_key(*key)).copied().collect();
    for key in over {
        if let Some(alert) = known.remove(&key) {
            round.tell(ChallengerEvent::AlertOver { alert });
        }
    }
    known.extend(now);
    round.report.alerts(known.values());
    raised
}

fn gauges(tracker: &AssertionTracker, tip: L1Ref, balance: Amount, lag: u32) -> Gauges {
    let wrong = || tracker.nodes().iter().filter(|node| !node.agrees && node.is_open());
    let nearest = wrong().map(|node| node.deadline.0.saturating_sub(tip.height.0)).min();
    Gauges { open_wrong: wrong().count(), nearest, balance: balance.to_sat(), lag }
}
