//! A regtest chain that a test can drive, and what is built on it.

use crate::Result;
use bitcoin::{
    Address, Amount, FeeRate, Network, ScriptBuf, TxOut,
    hashes::Hash,
    key::{Keypair, Secp256k1},
};
use kedge::{
    l1::{Auth, Bitcoin, Embedded, MemoryRecords, RpcClient},
    publisher::{FeePolicy, Publisher},
    wallet::{Wallet, WalletKeys},
};
use kedge_bridge::envelope::{EnvelopeHeader, envelopes};
use kedge_genesis::{BitcoinNetwork, L1Height};
use kedge_tests::bitcoind::Bitcoind;
use kedge_tests::sim_bitcoin::SimBitcoin;
use serde_json::json;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) struct Chain {
    pub(crate) bitcoin: Arc<dyn Bitcoin>,
    pub(crate) node: Node,
}

pub(crate) enum Node {
    Embedded(Arc<Embedded>, #[expect(dead_code, reason = "removed when dropped")] TempDir),
    Core(Box<Bitcoind>),
    Sim(Arc<SimBitcoin>),
}

impl Chain {
    pub(crate) fn embedded() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let chain = Embedded::open(dir.path())?;
        Ok(Self { bitcoin: chain.clone(), node: Node::Embedded(chain, dir) })
    }

    pub(crate) async fn core() -> Result<Self> {
        let core = Bitcoind::start().await?;
        let rpc = RpcClient::new(&core.url(), Auth::Cookie(core.cookie()))?;
        Ok(Self { bitcoin: Arc::new(rpc), node: Node::Core(Box::new(core)) })
    }

    pub(crate) fn simulated() -> Result<Self> {
        let chain = Arc::new(SimBitcoin::new());
        Ok(Self { bitcoin: chain.clone(), node: Node::Sim(chain) })
    }

    pub(crate) async fn mine(&self, count: u32, to: &Address) -> Result {
        match &self.node {
            Node::Embedded(chain, _) => drop(chain.mine(count, &to.script_pubkey())?),
            Node::Core(core) => drop(core.mine(count, to).await?),
            Node::Sim(chain) => {
                for _ in 0..count {
                    chain.mine_now(&to.script_pubkey())?;
                }
            }
        }
        Ok(())
    }

    /// Replaces the last `depth` blocks by one more without transactions.
    pub(crate) async fn reorg(&self, depth: u32, to: &Address) -> Result {
        let tip = self.bitcoin.chain_info().await?.height;
        let fork = L1Height(tip.0 - depth);
        match &self.node {
            Node::Embedded(chain, _) => {
                let parent = chain.hash_at(fork).expect("it is below the tip");
                chain.mine_on(parent, depth + 1, &to.script_pubkey())?;
            }
            Node::Core(core) => {
                if let Some(first) = self.bitcoin.block_hash(fork.next()).await? {
                    core.rpc().call("invalidateblock", json!([first])).await?;
                }
                for _ in 0..=depth {
                    let params = json!([to.to_string(), []]);
                    core.rpc().call("generateblock", params).await?;
                }
            }
            Node::Sim(chain) => {
                chain.take_back_now(depth)?;
                for _ in 0..=depth {
                    chain.mine_exactly_now(&to.script_pubkey(), &[])?;
                }
            }
        }
        Ok(())
    }

    /// A wallet with mature coins, `coins` of them.
    pub(crate) async fn wallet(&self, coins: u32) -> Result<(Arc<MemoryRecords>, Arc<Wallet>)> {
        let records = Arc::new(MemoryRecords::default());
        let wallet = open_wallet(&records)?;
        self.mine(coins, &wallet.address()?).await?;
        self.mine(100, &nobody()).await?;
        wallet.sync(&*self.bitcoin).await?;
        Ok((records, wallet))
    }

    pub(crate) async fn publisher(
        &self,
        coins: u32,
        fees: FeePolicy,
    ) -> Result<(Arc<Wallet>, Publisher)> {
        let (records, wallet) = self.wallet(coins).await?;
        let publisher = open_publisher(self, &records, &wallet, fees)?;
        Ok((wallet, publisher))
    }

    /// All envelopes of the best chain in their order.
    pub(crate) async fn published(&self) -> Result<Vec<EnvelopeHeader>> {
        let tip = self.bitcoin.chain_info().await?.height;
        let mut found = Vec::new();
        for height in 1..=tip.0 {
            let hash = self.bitcoin.block_hash(L1Height(height)).await?.expect("below the tip");
            for tx in self.bitcoin.block(&hash).await?.txdata {
                found.extend(envelopes(&tx).into_iter().map(|(_, envelope)| envelope.header));
            }
        }
        Ok(found)
    }
}

pub(crate) fn open_wallet(records: &Arc<MemoryRecords>) -> Result<Arc<Wallet>> {
    let keys = WalletKeys::from_seed(BitcoinNetwork::Regtest, &[7; 32]);
    let network = BitcoinNetwork::Regtest;
    Ok(Arc::new(Wallet::open(records.clone(), "operator", &keys, network, L1Height(0))?))
}

pub(crate) fn open_publisher(
    chain: &Chain,
    records: &Arc<MemoryRecords>,
    wallet: &Arc<Wallet>,
    fees: FeePolicy,
) -> Result<Publisher> {
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &[9; 32])?;
    let bitcoin = chain.bitcoin.clone();
    Ok(Publisher::open("test", records.clone(), wallet.clone(), bitcoin, key, fees, 3)?)
}

pub(crate) fn nobody() -> Address {
    let script = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([5; 32]));
    Address::from_script(&script, Network::Regtest).expect("it is a standard script")
}

pub(crate) fn output(sats: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sats), script_pubkey: nobody().script_pubkey() }
}

pub(crate) fn vb(rate: u32) -> FeeRate {
    FeeRate::from_sat_per_vb_u32(rate)
}
