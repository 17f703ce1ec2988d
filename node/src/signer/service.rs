//! The signing service: what one signer asks of another. It listens on a port of its own, apart from the
//! public RPC. Asking is harmless: a signer signs only what its own node finds right.

use super::Signer;
use alloy_primitives::Bytes;
use jsonrpsee::{
    core::{RpcResult, async_trait},
    http_client::{HttpClient, HttpClientBuilder},
    proc_macros::rpc,
    types::ErrorObjectOwned,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// JSON-RPC error code of a refusal to sign.
const REFUSED: i32 = -32_000;

/// A signer's share of a payout.
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
}

/// The service over one signer.
#[derive(Debug)]
pub struct SigningService(pub Arc<Signer>);

#[async_trait]
impl SigningApiServer for SigningService {
    async fn sign_payout(&self, unsigned: Bytes) -> RpcResult<Share> {
        let proposal = bitcoin::consensus::deserialize(&unsigned).map_err(|error| {
            ErrorObjectOwned::owned(
                -32_602,
                format!("not a Bitcoin transaction: {error}"),
                None::<()>,
            )
        })?;
        self.0.sign(&proposal).await.map_err(|error| {
            ErrorObjectOwned::owned(REFUSED, format!("not signed: {error:#}"), None::<()>)
        })
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
    pub async fn sign_payout(&self, unsigned: &bitcoin::Transaction) -> anyhow::Result<Share> {
        match self {
            Self::Local(signer) => signer.sign(unsigned).await,
            Self::Remote { url, client } => {
                let bytes = Bytes::from(bitcoin::consensus::serialize(unsigned));
                SigningApiClient::sign_payout(client, bytes)
                    .await
                    .map_err(|error| anyhow::anyhow!("{url}: {error}"))
            }
        }
    }
}
