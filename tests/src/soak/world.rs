//! What all clients of a soak share: the nodes, what is known of their chain, and every answer so far.

use crate::rpc::Rpc;
use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::{net::TcpStream, sync::RwLock};

/// Wrong answers that are told; a run ends when there are more.
const MOST_WRONG: usize = 20;

/// A transaction that is in a block.
#[derive(Clone, Debug)]
pub(super) struct Included {
    pub(super) hash: String,
    pub(super) from: String,
    pub(super) nonce: u64,
    pub(super) block: u64,
    pub(super) block_hash: String,
}

/// What is known of the chain.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Transactions in the order in which they were seen in blocks.
    pub(super) transactions: Vec<Included>,
    /// Contracts that were deployed, with the block.
    pub(super) contracts: Vec<(String, u64)>,
    /// The newest block that every node has.
    pub(super) common: u64,
    /// The newest block that is final at every node: what is asked of it never changes.
    pub(super) finalized: u64,
}

/// The nodes, and what was asked and answered.
#[derive(Debug)]
pub(super) struct World {
    /// `kedge dev` first.
    pub(super) nodes: Vec<Rpc>,
    /// The Bitcoin underneath.
    pub(super) bitcoin: Rpc,
    pub(super) chain_id: u64,
    /// The token that is transferred.
    pub(super) token: String,
    /// The contract that logs.
    pub(super) logger: String,
    pub(super) known: Mutex<Known>,
    /// Written while blocks are taken back, read by whoever asks.
    pub(super) chain: RwLock<()>,
    /// Digests of answers that never change, by what was asked, whichever node was.
    settled: Mutex<HashMap<u64, u64>>,
    /// Answers by method.
    counts: Mutex<BTreeMap<String, u64>>,
    answered: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// Connections that nobody reads.
    pub(super) silent: Mutex<VecDeque<TcpStream>>,
}

impl World {
    pub(super) fn new(nodes: Vec<Rpc>, bitcoin: Rpc, chain_id: u64) -> Self {
        Self {
            nodes,
            bitcoin,
            chain_id,
            token: String::new(),
            logger: String::new(),
            known: Mutex::default(),
            chain: RwLock::default(),
            settled: Mutex::default(),
            counts: Mutex::default(),
            answered: AtomicU64::new(0),
            wrong: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    /// Requests that were answered so far. A batch counts as its requests.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Answers so far, by method.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().clone()
    }

    /// Counts from here on.
    pub(super) fn restart(&self) {
        self.answered.store(0, Ordering::Relaxed);
        self.counts.lock().clear();
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().clone()
    }

    /// How many answers were compared with an earlier one.
    pub(super) fn digests(&self) -> usize {
        self.settled.lock().len()
    }

    pub(super) fn is_over(&self) -> bool {
        self.wrong.lock().len() >= MOST_WRONG
    }

    /// Notes an answer that is wrong.
    pub(super) fn blame(&self, kind: &str, error: &anyhow::Error) {
        let text = format!("{kind}: {error:#}");
        println!("wrong: {text}");
        self.wrong.lock().push(text);
    }

    pub(super) fn count(&self, method: &str) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut counts = self.counts.lock();
        match counts.get_mut(method) {
            Some(count) => *count += 1,
            None => drop(counts.insert(method.to_owned(), 1)),
        }
    }

    /// The whole answer of a node.
    pub(super) async fn post(&self, node: usize, method: &str, params: &Value) -> Result<Value> {
        let id = self.answered();
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let rpc = self.nodes.get(node).context("there is such a node")?;
        let answer = rpc.post(request.to_string()).await.context(method.to_owned())?;
        self.count(method);
        ensure!(answer["id"] == id, "{method}: the answer is to another request: {answer}");
        Ok(answer)
    }

    /// A result.
    pub(super) async fn ask(&self, node: usize, method: &str, params: Value) -> Result<Value> {
        let mut answer = self.post(node, method, &params).await?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => bail!("{method}: {} to {}", answer["error"], short(&params)),
        }
    }

    /// A result that follows from blocks up to `number` alone: once they are final it is always the same,
    /// at every node.
    pub(super) async fn ask_of(
        &self,
        node: usize,
        number: u64,
        method: &str,
        params: Value,
    ) -> Result<Value> {
        let is_final = number <= self.known.lock().finalized;
        let question = digest(&(method, params.to_string()));
        let result = self.ask(node, method, params.clone()).await?;
        if is_final {
            let found = digest(&result.to_string());
            let before = *self.settled.lock().entry(question).or_insert(found);
            ensure!(before == found, "{method} {} has changed: {}", short(&params), short(&result));
        }
        Ok(result)
    }

    /// An error with this code.
    pub(super) async fn refused(
        &self,
        node: usize,
        method: &str,
        params: Value,
        code: i64,
    ) -> Result<Value> {
        let mut answer = self.post(node, method, &params).await?;
        let found = &answer["error"]["code"];
        ensure!(
            *found == code,
            "{method} {}: {} instead of {code}",
            short(&params),
            short(&answer)
        );
        Ok(answer["error"].take())
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// JSON as far as it helps a reader.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(600) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// That two answers which have to agree do.
pub(super) fn same(what: &str, one: &Value, other: &Value) -> Result<()> {
    ensure!(one == other, "{what} differ: {} and {}", short(one), short(other));
    Ok(())
}

/// A quantity as the interface writes it.
pub(super) fn hex(number: u64) -> String {
    format!("{number:#x}")
}

/// A list.
pub(super) fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("not a list: {}", short(value)))
}

/// A text.
pub(super) fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("not a text: {}", short(value)))
}

/// The first bytes of a list's element as keccak-256 has them: what nodes of tries and RLP are known by.
pub(super) fn keccak(value: &Value) -> Result<String> {
    let bytes = alloy_primitives::hex::decode(text(value)?)?;
    Ok(alloy_primitives::keccak256(bytes).to_string())
}

/// A hexadecimal quantity below 2^64.
pub(super) fn number(value: &Value) -> Result<u64> {
    Ok(crate::kedge::quantity(value)?.try_into()?)
}
