//! `eth_sendRawTransaction`: into the mempool on the sequencer, to the sequencer elsewhere.

use super::error::{RpcError, code};
use crate::{mempool::Mempool, stream};
use alloy_consensus::transaction::SignerRecoverable as _;
use alloy_eips::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use jsonrpsee::{
    core::{
        client::{ClientT, Error as ClientError},
        params::ArrayParams,
    },
    http_client::{HttpClient, HttpClientBuilder},
    rpc_params,
};
use op_alloy_rpc_types::Transaction;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Where transactions go that users send to this node.
#[derive(Clone, Debug)]
pub enum Submission {
    /// This node is the sequencer.
    Mempool(Arc<Mempool>),
    /// To the sequencer's JSON-RPC.
    Forward(Sequencer),
    /// Nowhere.
    Refused,
}

/// The way to the sequencer, as another node has it: directly, or through nodes that pass on in turn.
#[derive(Clone, Debug)]
pub struct Sequencer(Arc<Way>);

#[derive(Debug)]
struct Way {
    /// The nodes to ask, in this order, and how they are shown.
    nodes: Vec<(HttpClient, String)>,
    /// What is being asked now, and the answer once it is there. Nodes that follow each other in a circle
    /// would ask forever.
    asking: Mutex<BTreeMap<Question, watch::Receiver<Asked>>>,
}

/// A method and what it is about.
type Question = (&'static str, B256);

/// None until the question has been asked; then what was answered, if anybody answered.
type Asked = Option<Option<Value>>;

/// How long a question waits for the answer to the same question. In a circle there will be none.
const PATIENCE: Duration = Duration::from_secs(1);

/// A question that is being asked until this is dropped.
struct Asking<'a>(&'a Way, Question);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.lock().remove(&self.1);
    }
}

impl Sequencer {
    /// The sequencer behind any of these URLs, HTTP or HTTPS. Nothing is sent yet.
    ///
    /// # Errors
    /// When one of them is no such URL, or there is none.
    pub fn new(urls: &[String]) -> anyhow::Result<Self> {
        anyhow::ensure!(!urls.is_empty(), "no URL of the sequencer");
        let nodes = urls.iter().map(|url| {
            let shown = stream::shown_url(url).unwrap_or_else(|| "URL".to_owned());
            let client = HttpClientBuilder::default()
                .request_timeout(Duration::from_secs(10))
                .build(url)
                .map_err(|error| anyhow::anyhow!("sequencer {shown}: {error}"))?;
            Ok((client, shown))
        });
        let nodes = nodes.collect::<anyhow::Result<_>>()?;
        Ok(Self(Arc::new(Way { nodes, asking: Mutex::default() })))
    }

    /// Marks a question as being asked; fails with where its answer will be when it is already.
    fn ask_once(
        &self,
        question: Question,
    ) -> Result<(Asking<'_>, watch::Sender<Asked>), watch::Receiver<Asked>> {
        let mut asking = self.0.asking.lock();
        if let Some(answer) = asking.get(&question) {
            return Err(answer.clone());
        }
        let (tell, answer) = watch::channel(None);
        asking.insert(question, answer);
        Ok((Asking(&self.0, question), tell))
    }

    async fn send(&self, encoded: &Bytes) -> Result<B256, RpcError> {
        let (method, hash) = ("eth_sendRawTransaction", keccak256(encoded));
        let Ok(_asking) = self.ask_once((method, hash)) else {
            let text = "this transaction is on its way to the sequencer; look for its receipt";
            return Err(RpcError::Unavailable(text.into()));
        };
        let mut refusal = None;
        for (client, name) in &self.0.nodes {
            let answer: Result<B256, _> = client.request(method, rpc_params![encoded]).await;
            match answer {
                Ok(found) if found == hash => return Ok(hash),
                Ok(_) => tracing::warn!(url = name, "sequencer answered with another hash"),
                // Another node may know a way that this one does not.
                Err(ClientError::Call(answer))
                    if matches!(answer.code(), code::UNAVAILABLE | code::UNSUPPORTED) =>
                {
                    refusal = Some(RpcError::Sequencer(answer));
                }
                Err(ClientError::Call(answer)) => return Err(RpcError::Sequencer(answer)),
                Err(error) => {
                    tracing::warn!(url = name, %error, "sequencer did not take a transaction");
                }
            }
        }
        Err(refusal.unwrap_or_else(|| {
            RpcError::Unavailable("the sequencer does not answer, try again".into())
        }))
    }

    /// The nonce after all of an account's transactions that wait at the sequencer; none when it does not say.
    pub(super) async fn next_nonce(&self, address: Address) -> Option<u64> {
        let params = rpc_params![address, "pending"];
        let nonce: U64 = self.read("eth_getTransactionCount", address.into_word(), params).await?;
        Some(nonce.to())
    }

    /// A transaction that waits at the sequencer; none when there is none or it does not say.
    pub(super) async fn transaction(&self, hash: B256) -> Option<Transaction> {
        let found: Option<Transaction> =
            self.read("eth_getTransactionByHash", hash, rpc_params![hash]).await?;
        // The hash and sender that are written there say nothing.
        let mut found = found.filter(|found| {
            let tx = &found.inner.inner;
            keccak256(tx.encoded_2718()) == hash
                && tx.inner().recover_signer().is_ok_and(|sender| sender == tx.signer())
        })?;
        // It may be in a block there that is not here yet.
        found.inner.block_hash = None;
        found.inner.block_number = None;
        found.inner.transaction_index = None;
        Some(found)
    }

    /// The EIP-2718 bytes of a transaction that waits at the sequencer.
    pub(super) async fn raw_transaction(&self, hash: B256) -> Option<Bytes> {
        let found: Option<Bytes> =
            self.read("eth_getRawTransactionByHash", hash, rpc_params![hash]).await?;
        found.filter(|bytes| keccak256(bytes) == hash)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        method: &'static str,
        about: B256,
        params: ArrayParams,
    ) -> Option<T> {
        let answer = match self.ask_once((method, about)) {
            Ok((_asking, tell)) => {
                let answer = self.ask(method, params).await;
                tell.send_replace(Some(answer.clone()));
                answer
            }
            Err(mut answer) => {
                let told = tokio::time::timeout(PATIENCE, answer.wait_for(Option::is_some));
                told.await.ok()?.ok()?.clone()?
            }
        };
        serde_json::from_value(answer?).ok()
    }

    /// The first answer of a node.
    async fn ask(&self, method: &'static str, params: ArrayParams) -> Option<Value> {
        for (client, name) in &self.0.nodes {
            match client.request(method, params.clone()).await {
                Ok(answer) => return Some(answer),
                Err(error) => tracing::debug!(url = name, method, %error, "no answer"),
            }
        }
        None
    }
}

impl Submission {
    /// Hands in an encoded transaction (EIP-2718) and returns its hash.
    pub(super) async fn send(&self, encoded: Bytes) -> Result<B256, RpcError> {
        match self {
            Self::Mempool(mempool) => mempool.submit(encoded).await.map_err(RpcError::Pool),
            Self::Forward(sequencer) => sequencer.send(&encoded).await,
            Self::Refused => Err(RpcError::NoSequencer(
                "this node does not take transactions: send them to the sequencer, or start the \
                 node with --follow or --sequencer-rpc"
                    .into(),
            )),
        }
    }

    /// The mempool, on the sequencer.
    pub(super) const fn mempool(&self) -> Option<&Arc<Mempool>> {
        match self {
            Self::Mempool(mempool) => Some(mempool),
            Self::Forward(_) | Self::Refused => None,
        }
    }
}
