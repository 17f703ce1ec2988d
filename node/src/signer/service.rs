//! The signing service: what one signer asks of another. It listens on a port of its own, apart from the
//! public RPC. Asking is harmless: a signer signs only what its own node finds right.

use super::Signer;
use alloy_primitives::Bytes;
use bitcoin::Transaction;
use jsonrpsee::{
    core::{RpcResult, async_trait},
    http_client::{HttpClient, HttpClientBuilder},
    proc_macros::rpc,
    server::{BatchRequestConfig, ServerConfig},
    types::ErrorObjectOwned,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// JSON-RPC error code of a refusal to sign.
const REFUSED: i32 = -32_000;
/// The largest request, bytes: a transaction that Bitcoin relays has 100,000 without its witnesses.
const MAX_REQUEST_BYTES: u32 = 512 * 1024;

/// What a signer is asked to sign.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// A payout of withdrawals.
    Payout,
    /// The slash of a bond.
    Slash,
}

/// A signer's share of a transaction.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// X-only public key of the signer.
    pub key: Bytes,
    /// BIP-340 signatures, one per input in order.
    pub signatures: Vec<Bytes>,
}

/// Methods of the signing service.
#[rpc(server, client, namespace = "signer")]
pub trait SigningApi {
    /// Signs an unsigned payout, given as Bitcoin serialises it, if this signer's own node agrees.
    #[method(name = "signPayout")]
    async fn sign_payout(&self, unsigned: Bytes) -> RpcResult<Share>;

    /// Signs an unsigned transaction that gives the bond of an assertion proven wrong to its challenger, if
    /// this signer's own node agrees.
    #[method(name = "signSlash")]
    async fn sign_slash(&self, unsigned: Bytes) -> RpcResult<Share>;
}

/// The service over one signer.
#[derive(Debug)]
pub struct SigningService(pub Arc<Signer>);

impl SigningService {
    /// What the service allows: other signers ask for one signature at a time.
    pub fn limits() -> ServerConfig {
        ServerConfig::builder()
            .max_request_body_size(MAX_REQUEST_BYTES)
            .set_batch_request_config(BatchRequestConfig::Disabled)
            .build()
    }
}

fn transaction(unsigned: &[u8]) -> Result<Transaction, ErrorObjectOwned> {
    bitcoin::consensus::deserialize(unsigned).map_err(|error| {
        let reason = format!("not a Bitcoin transaction: {error}");
        ErrorObjectOwned::owned(-32_602, reason, None::<()>)
    })
}

fn refused(error: anyhow::Error) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(REFUSED, format!("not signed: {error:#}"), None::<()>)
}

#[async_trait]
impl SigningApiServer for SigningService {
    async fn sign_payout(&self, unsigned: Bytes) -> RpcResult<Share> {
        self.0.sign_payout(&transaction(&unsigned)?).await.map_err(refused)
    }

    async fn sign_slash(&self, unsigned: Bytes) -> RpcResult<Share> {
        self.0.sign_slash(&transaction(&unsigned)?).await.map_err(refused)
    }
}

/// Another signer.
#[derive(Clone, Debug)]
pub enum Peer {
    /// In this process.
    Local(Arc<Signer>),
    /// At a URL.
    Remote {
        /// The URL, for messages.
        url: String,
        /// The connection.
        client: HttpClient,
    },
}

impl Peer {
    /// A signer at a URL. It need not answer yet.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn remote(url: &str) -> anyhow::Result<Self> {
        let client = HttpClientBuilder::default()
            .request_timeout(Duration::from_secs(10))
            .build(url)
            .map_err(|error| anyhow::anyhow!("--peer {url}: {error}"))?;
        Ok(Self::Remote { url: url.to_owned(), client })
    }

    /// Asks for a share.
    ///
    /// # Errors
    /// When the signer refuses or does not answer.
    pub(super) async fn ask(
        &self,
        request: Request,
        unsigned: &Transaction,
    ) -> anyhow::Result<Share> {
        match (self, request) {
            (Self::Local(signer), Request::Payout) => signer.sign_payout(unsigned).await,
            (Self::Local(signer), Request::Slash) => signer.sign_slash(unsigned).await,
            (Self::Remote { url, client }, request) => {
                let bytes = Bytes::from(bitcoin::consensus::serialize(unsigned));
                match request {
                    Request::Payout => SigningApiClient::sign_payout(client, bytes).await,
                    Request::Slash => SigningApiClient::sign_slash(client, bytes).await,
                }
                .map_err(|error| anyhow::anyhow!("{url}: {error}"))
            }
        }
    }
}
