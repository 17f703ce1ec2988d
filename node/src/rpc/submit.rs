//! `eth_sendRawTransaction`: into the mempool on the sequencer, to the sequencer elsewhere.

use super::error::RpcError;
use crate::mempool::Mempool;
use alloy_primitives::{B256, Bytes};
use jsonrpsee::{
    core::client::{ClientT, Error as ClientError},
    http_client::{HttpClient, HttpClientBuilder},
    rpc_params,
};
use std::{sync::Arc, time::Duration};

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

/// The sequencer, as another node reaches it.
#[derive(Clone, Debug)]
pub struct Sequencer {
    client: HttpClient,
    url: String,
}

impl Sequencer {
    /// The sequencer at `url`, HTTP or HTTPS. Nothing is sent yet.
    ///
    /// # Errors
    /// When `url` is no such URL.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let client = HttpClientBuilder::default()
            .request_timeout(Duration::from_secs(10))
            .build(url)
            .map_err(|error| anyhow::anyhow!("sequencer URL {url}: {error}"))?;
        Ok(Self { client, url: url.to_owned() })
    }

    async fn send(&self, encoded: &Bytes) -> Result<B256, RpcError> {
        match self.client.request("eth_sendRawTransaction", rpc_params![encoded]).await {
            Ok(hash) => Ok(hash),
            Err(ClientError::Call(answer)) => Err(RpcError::Sequencer(answer)),
            Err(error) => {
                tracing::warn!(url = self.url, %error, "sequencer did not take a transaction");
                Err(RpcError::Unavailable("the sequencer does not answer, try again".into()))
            }
        }
    }
}

impl Submission {
    /// Hands in an encoded transaction (EIP-2718) and returns its hash.
    pub(super) async fn send(&self, encoded: Bytes) -> Result<B256, RpcError> {
        match self {
            Self::Mempool(mempool) => {
                let mempool = mempool.clone();
                // Recovering the sender takes as long as several requests.
                tokio::task::spawn_blocking(move || mempool.add(encoded))
                    .await
                    .map_err(|error| RpcError::Internal(error.into()))?
                    .map_err(RpcError::Pool)
            }
            Self::Forward(sequencer) => sequencer.send(&encoded).await,
            Self::Refused => Err(RpcError::NoSequencer(
                "this node does not take transactions: send them to the sequencer, or start the \
                 node with --sequencer-rpc URL"
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
