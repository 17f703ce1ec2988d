//! What only `kedge dev` offers: mining, and deposits from the wallet that it mines to.

use crate::{
    batcher::Batcher,
    engine::Engine,
    l1::{Bitcoin, Embedded},
    wallet::Wallet,
};
use alloy_primitives::Address;
use bitcoin::{Amount, BlockHash, FeeRate, ScriptBuf, TxOut, Txid};
use jsonrpsee::{
    core::{RpcResult, async_trait},
    proc_macros::rpc,
    types::ErrorObjectOwned,
};
use kedge_bridge::deposit::deposit_outputs;
use kedge_genesis::Sats;
use std::sync::Arc;

/// Most blocks mined by one request.
const MAX_BLOCKS: u32 = 1_000;

/// A role whose wallet holds less is paid.
const ROLE_LEAST: Amount = Amount::from_sat(300_000_000);
/// What it is paid: several coins, so that several transactions can be under way.
const ROLE_COIN: Amount = Amount::from_sat(400_000_000);
const ROLE_COINS: usize = 4;

/// Methods of a development rollup.
#[rpc(server, client, namespace = "dev")]
pub trait DevApi {
    /// Mines Bitcoin blocks now and returns their hashes.
    #[method(name = "mine")]
    async fn mine(&self, blocks: u32) -> RpcResult<Vec<BlockHash>>;

    /// Pays satoshis from the dev wallet into the vault for an L2 address; returns the Bitcoin
    /// transaction.
    #[method(name = "deposit")]
    async fn deposit(&self, to: Address, sats: u64) -> RpcResult<Txid>;
}

/// The parts that the methods need.
pub(super) struct DevMethods {
    pub(super) chain: Arc<Embedded>,
    pub(super) wallet: Arc<Wallet>,
    pub(super) vault: ScriptBuf,
    pub(super) least: Sats,
    pub(super) engine: Arc<Engine>,
    pub(super) batcher: Arc<Batcher>,
    /// Held by whoever mines, so that each block finds the rollup quiet.
    pub(super) mining: tokio::sync::Mutex<()>,
}

/// The methods, shared with the rest of the rollup.
pub(super) struct Shared(pub(super) Arc<DevMethods>);

impl DevMethods {
    /// Pays deposits in one transaction.
    pub(super) async fn pay(&self, deposits: &[(Address, Sats)]) -> anyhow::Result<Txid> {
        self.wallet.sync(&*self.chain).await?;
        let rate = self.chain.fee_rate(2).await?.unwrap_or(FeeRate::from_sat_per_vb_u32(2));
        let outputs = deposit_outputs(&self.vault, deposits);
        Ok(self.wallet.send(&*self.chain, &outputs, rate).await?.compute_txid())
    }

    /// Pays the wallet of a role if it has little left.
    pub(super) async fn provide(&self, wallet: &Wallet) -> anyhow::Result<()> {
        let balance = wallet.balance();
        let held = balance.confirmed + balance.pending + balance.untrusted;
        if held >= ROLE_LEAST {
            return Ok(());
        }
        self.wallet.sync(&*self.chain).await?;
        let rate = self.chain.fee_rate(2).await?.unwrap_or(FeeRate::from_sat_per_vb_u32(2));
        let coin = TxOut { value: ROLE_COIN, script_pubkey: wallet.address()?.script_pubkey() };
        let tx = self.wallet.send(&*self.chain, &vec![coin; ROLE_COINS], rate).await?;
        // So that it is not paid again before the next block.
        Ok(wallet.insert(tx, Vec::new())?)
    }

    /// Whether a payment into the vault waits for a block.
    pub(super) fn deposit_is_waiting(&self) -> bool {
        self.chain
            .pool_txids()
            .iter()
            .filter_map(|txid| self.chain.pool_entry(txid))
            .any(|entry| entry.tx.output.iter().any(|output| output.script_pubkey == self.vault))
    }

    /// Mines to the dev wallet. Each block waits until the rollup has reacted to the one before, so that
    /// many at once are to it what as many one by one are.
    pub(super) async fn mine_blocks(&self, blocks: u32) -> anyhow::Result<Vec<BlockHash>> {
        let _mining = self.mining.lock().await;
        let mut hashes = Vec::new();
        for _ in 0..blocks {
            self.quiet().await;
            let script = self.wallet.address()?.script_pubkey();
            let chain = self.chain.clone();
            hashes.extend(tokio::task::spawn_blocking(move || chain.mine(1, &script)).await??);
        }
        Ok(hashes)
    }
}

fn invalid(message: String) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32_602, message, None::<()>)
}

fn failed(error: &anyhow::Error) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32_000, format!("{error:#}"), None::<()>)
}

#[async_trait]
impl DevApiServer for Shared {
    async fn mine(&self, blocks: u32) -> RpcResult<Vec<BlockHash>> {
        if blocks == 0 || blocks > MAX_BLOCKS {
            return Err(invalid(format!("mine between 1 and {MAX_BLOCKS} blocks")));
        }
        self.0.mine_blocks(blocks).await.map_err(|error| failed(&error))
    }

    async fn deposit(&self, to: Address, sats: u64) -> RpcResult<Txid> {
        if sats < self.0.least.0 {
            return Err(invalid(format!("the smallest deposit is {}", self.0.least)));
        }
        self.0.pay(&[(to, Sats(sats))]).await.map_err(|error| failed(&error))
    }
}
