//! One node that blocks are taken from.

use super::{
    SignedBlock, Verdict, VerifiedBlock,
    backlog::{Backlog, Bounded},
    pause::Pauses,
    queue::{Queue, Waiting, runs},
};
use crate::{
    engine::{Adoption, Engine, EngineError, NotAdopted},
    rpc::types::{SourceStatus, Topic},
};
use jsonrpsee::{
    client_transport::ws::{Url, WsTransportClientBuilder},
    core::client::{
        ClientT, Error as ClientError, Subscription, SubscriptionClientT, SubscriptionCloseReason,
    },
    rpc_params,
    ws_client::{WsClient, WsClientBuilder},
};
use kedge_genesis::{L1Ref, L2Number};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Largest message that is taken, bytes: the largest block as JSON, and then some.
pub const MAX_MESSAGE: u32 = 12 << 20;
/// Most blocks of one answer of `kedge_signedBlocks`.
pub const PAGE_BLOCKS: usize = 64;
/// Most bytes of transactions of one such answer, unless it has one block.
pub const PAGE_BYTES: usize = 2 << 20;

/// How long an answer may take, and how often a source is asked for what it has not pushed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages that the connection holds back before they are looked at, whose bytes the [`Backlog`] bounds.
const BUFFER: usize = 1_024;
/// Blocks that a source may push in a row without going beyond what it pushed before.
const MAX_REPEATS: u32 = 1_024;
/// Blocks of another chain of the sequencer's that are looked at to find where it leaves this node's.
const MAX_BRANCH: usize = 1_024;
/// The same in bytes of transactions.
const MAX_BRANCH_BYTES: usize = 32 << 20;
/// Longest account of why a connection ended, characters.
const MAX_PROBLEM: usize = 256;

/// A node that blocks are taken from.
#[derive(Debug)]
pub(super) struct Source {
    url: String,
    /// What it is shown and counted as.
    name: String,
    counts: IntCounterVec,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connected: bool,
    latest: Option<u64>,
    problem: Option<String>,
}

/// Why a connection is given up.
enum End {
    /// For what the source did or did not do.
    Dropped(Verdict, String),
    /// This machine failed.
    Failed(anyhow::Error),
}

type Outcome<T> = Result<T, End>;

fn dropped(verdict: Verdict, why: impl ToString) -> End {
    // It goes into logs and answers, and may be in the source's words.
    End::Dropped(verdict, why.to_string().chars().take(MAX_PROBLEM).collect())
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ClientError> for End {
    fn from(error: ClientError) -> Self {
        let verdict = match error {
            ClientError::Call(_) => Verdict::Refused,
            ClientError::RequestTimeout => Verdict::Silent,
            ClientError::ParseError(_)
            | ClientError::InvalidSubscriptionId
            | ClientError::InvalidRequestId(_) => Verdict::Malformed,
            _ => Verdict::Disconnected,
        };
        dropped(verdict, error)
    }
}

impl Source {
    /// The node at a WebSocket address, shown and counted as `name`.
    pub(super) fn new(url: &str, name: String, counts: IntCounterVec) -> Self {
        Self { url: url.to_owned(), name, counts, state: Mutex::default() }
    }

    pub(super) fn status(&self) -> SourceStatus {
        let state = self.state.lock();
        let counts = Verdict::ALL.map(|verdict| (verdict.label().to_owned(), self.count(verdict)));
        SourceStatus {
            url: self.name.clone(),
            connected: state.connected,
            latest: state.latest,
            problem: state.problem.clone(),
            verdicts: counts.into_iter().filter(|(_, count)| *count > 0).collect(),
        }
    }

    fn count(&self, verdict: Verdict) -> u64 {
        self.counts.with_label_values(&[self.name.as_str(), verdict.label()]).get()
    }

    pub(super) fn note(&self, verdict: Verdict, times: usize) {
        self.counts.with_label_values(&[self.name.as_str(), verdict.label()]).inc_by(times as u64);
    }

    /// Takes blocks until `stop`.
    ///
    /// # Errors
    /// When this machine fails. What a source does is none.
    pub(super) async fn run(
        self: Arc<Self>,
        engine: Arc<Engine>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut pauses = Pauses::default();
        loop {
            let (before, began) = (self.count(Verdict::Adopted), Instant::now());
            let end = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                end = self.session(&engine) => end,
            };
            let (verdict, problem) = match end {
                Ok(never) => match never {},
                Err(End::Failed(error)) => return Err(error),
                Err(End::Dropped(verdict, problem)) => (verdict, problem),
            };
            self.note(verdict, 1);
            let adopted = self.count(Verdict::Adopted) > before;
            let pause = pauses.after(verdict, adopted, began.elapsed());
            tracing::warn!(
                source = self.name,
                verdict = verdict.label(),
                problem,
                ?pause,
                "no blocks from this node; trying again"
            );
            {
                let mut state = self.state.lock();
                state.connected = false;
                state.problem = Some(format!("{}: {problem}", verdict.label()));
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One connection, to its end.
    async fn session(&self, engine: &Arc<Engine>) -> Outcome<Infallible> {
        let unreachable = |error: &dyn ToString| dropped(Verdict::Unreachable, error.to_string());
        let transport = WsTransportClientBuilder {
            max_response_size: MAX_MESSAGE,
            connection_timeout: PATIENCE,
            ..Default::default()
        };
        let url = Url::parse(&self.url).map_err(|error| unreachable(&error))?;
        let (sender, inner) = transport.build(url).await.map_err(|error| unreachable(&error))?;
        let backlog = Backlog::default();
        let client = WsClientBuilder::default()
            .max_buffer_capacity_per_subscription(BUFFER)
            .request_timeout(PATIENCE)
            .build_with_transport(sender, Bounded { inner, backlog: backlog.clone() });
        let topic = rpc_params![Topic::SignedBlocks];
        let blocks = client.subscribe("kedge_subscribe", topic, "kedge_unsubscribe").await?;
        self.state.lock().connected = true;
        let queue = Queue::default();
        let mut follow = Following { source: self, client: &client, engine, waits: false };
        tokio::select! {
            end = self.receive(engine, &client, blocks, &backlog, &queue) => end,
            end = follow.run(&queue) => end,
        }
    }

    /// Checks what is pushed and puts it into the queue.
    async fn receive(
        &self,
        engine: &Engine,
        client: &WsClient,
        mut blocks: Subscription<SignedBlock>,
        backlog: &Backlog,
        queue: &Queue,
    ) -> Outcome<Infallible> {
        let (mut highest, mut repeats) = (0, 0);
        loop {
            let block = match backlog.look(blocks.next()).await {
                Some(Ok(block)) => self.check(engine, block)?,
                Some(Err(error)) => return Err(dropped(Verdict::Malformed, error)),
                None => {
                    return Err(match blocks.close_reason() {
                        Some(SubscriptionCloseReason::Lagged) => {
                            dropped(Verdict::Lagged, "blocks come faster than they can be taken")
                        }
                        _ if client.is_connected() => {
                            dropped(Verdict::Disconnected, "the node ended the subscription")
                        }
                        _ => dropped(Verdict::Disconnected, client.on_disconnect().await),
                    });
                }
            };
            if block.number().0 > highest {
                (highest, repeats) = (block.number().0, 0);
            } else {
                repeats += 1;
                if repeats > MAX_REPEATS {
                    return Err(dropped(Verdict::Repeats, "old blocks again and again"));
                }
            }
            queue.push(block);
        }
    }

    fn check(&self, engine: &Engine, block: SignedBlock) -> Outcome<VerifiedBlock> {
        let number = block.number;
        let block = block
            .verify(engine.params())
            .map_err(|fault| End::Dropped(fault.into(), format!("block {number}: {fault}")))?;
        self.state.lock().latest = Some(number);
        Ok(block)
    }
}

/// What is to be done after blocks were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Nothing,
    /// The blocks before them are needed.
    Earlier,
}

/// The part of a connection that adds blocks to the chain.
struct Following<'a> {
    source: &'a Source,
    client: &'a WsClient,
    engine: &'a Arc<Engine>,
    /// Whether the source's next block can be added when this node's Bitcoin chain has moved, and not before.
    waits: bool,
}

impl Following<'_> {
    async fn run(&mut self, queue: &Queue) -> Outcome<Infallible> {
        let mut heads = self.engine.watch_heads();
        let bitcoin = |heads: &crate::engine::Heads| (heads.l1_tip, heads.safe.number);
        let mut seen: (L1Ref, L2Number) = bitcoin(&heads.borrow_and_update());
        let mut ask = interval(PATIENCE);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The first at once: what was missed before.
                _ = ask.tick() => self.catch_up().await?,
                changed = heads.changed() => {
                    changed.map_err(|error| End::Failed(error.into()))?;
                    let now = bitcoin(&heads.borrow_and_update());
                    if seen != now && self.waits {
                        self.catch_up().await?;
                    }
                    seen = now;
                }
                Waiting { blocks, mut lost, .. } = queue.take() => {
                    for run in runs(blocks) {
                        lost |= self.add(run).await? == Next::Earlier;
                    }
                    if lost && !self.waits {
                        self.catch_up().await?;
                    }
                }
            }
        }
    }

    /// Asks for what comes after the latest block until there is no more.
    async fn catch_up(&mut self) -> Outcome<()> {
        self.waits = false;
        loop {
            let next = self.engine.heads().latest.number.next();
            let page = self.page(next, PAGE_BLOCKS).await?;
            if page.is_empty() {
                return Ok(());
            }
            if self.add(page.clone()).await? == Next::Earlier {
                self.rejoin(page).await?;
            }
            if self.waits {
                return Ok(());
            }
        }
    }

    /// Finds where the source's chain leaves this node's, and adds it from there on. `branch` is the part of
    /// it above this node's latest block.
    async fn rejoin(&mut self, mut branch: Vec<VerifiedBlock>) -> Outcome<()> {
        loop {
            let safe = self.engine.heads().safe.number;
            let Some(first) = branch.first().map(VerifiedBlock::number) else { return Ok(()) };
            let size = |blocks: &[VerifiedBlock]| -> usize {
                blocks.iter().map(|block| block.block().size()).sum()
            };
            let mut bytes = size(&branch);
            let room = MAX_BRANCH.saturating_sub(branch.len());
            let missing = usize::try_from(first.0.saturating_sub(safe.next().0));
            let count = missing.unwrap_or(usize::MAX).min(branch.len()).min(room);
            if count == 0 {
                self.give_up(Verdict::Unresolved);
                return Ok(());
            }
            let mut earlier = Vec::new();
            while earlier.len() < count {
                let done = earlier.len();
                let from = L2Number(first.0.saturating_sub((count - done) as u64));
                let page = self.page(from, (count - done).min(PAGE_BLOCKS)).await?;
                bytes = bytes.saturating_add(size(&page));
                // Empty where it is not signed, or no longer there: what is derived is not passed on.
                if page.is_empty() || bytes > MAX_BRANCH_BYTES {
                    self.give_up(Verdict::Unresolved);
                    return Ok(());
                }
                earlier.extend(page);
            }
            earlier.append(&mut branch);
            branch = earlier;
            // The source may have gone another way between two answers.
            if runs(branch.clone()).len() > 1 {
                self.give_up(Verdict::Unresolved);
                return Ok(());
            }
            if self.add(branch.clone()).await? == Next::Nothing {
                return Ok(());
            }
        }
    }

    /// A page of the source's blocks from `from` on.
    async fn page(&self, from: L2Number, count: usize) -> Outcome<Vec<VerifiedBlock>> {
        let page: Vec<SignedBlock> =
            self.client.request("kedge_signedBlocks", rpc_params![from.0, count]).await?;
        if page.len() > count {
            return Err(dropped(Verdict::Malformed, "more blocks than were asked for"));
        }
        let numbers = from.0..;
        page.into_iter()
            .zip(numbers)
            .map(|(block, number)| {
                if block.number == number {
                    self.source.check(self.engine, block)
                } else {
                    let why = format!("block {} instead of {number}", block.number);
                    Err(dropped(Verdict::Malformed, why))
                }
            })
            .collect()
    }

    /// Hands a run of blocks to the engine.
    async fn add(&mut self, run: Vec<VerifiedBlock>) -> Outcome<Next> {
        let engine = self.engine.clone();
        // Execution is work for a processor, not for the event loop.
        let adopted = tokio::task::spawn_blocking(move || engine.adopt(&run)).await;
        let Adoption { added, rest } = adopted.map_err(|error| End::Failed(error.into()))??;
        if added > 0 {
            self.source.note(Verdict::Adopted, added);
            self.source.state.lock().problem = None;
            self.waits = false;
        }
        match rest {
            None | Some(NotAdopted::Known) => {}
            Some(NotAdopted::Gap | NotAdopted::Fork) => return Ok(Next::Earlier),
            Some(NotAdopted::Conflict) => self.source.note(Verdict::Conflict, 1),
            Some(NotAdopted::Contradicted) => self.give_up(Verdict::Contradicted),
            Some(NotAdopted::WaitsForOrigin(_)) => self.give_up(Verdict::Waiting),
            Some(NotAdopted::Invalid(reason)) => return Err(dropped(Verdict::Invalid, reason)),
        }
        Ok(Next::Nothing)
    }

    /// Leaves it until Bitcoin moves.
    fn give_up(&mut self, verdict: Verdict) {
        self.source.note(verdict, 1);
        self.waits = true;
    }
}
