//! The Bitcoin trait, the wallet and the publisher, on the embedded chain and on Bitcoin Core alike.

use alloy_primitives::B256;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::{Address, Amount, FeeRate, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use kedge::l1::{
    Auth, Bitcoin, Broadcast, Embedded, L1Error, MISSING_INPUTS, MemoryRecords, RpcClient,
    check_ready, facade,
};
use kedge::publisher::{FeePolicy, Part, PublicationStatus, Publisher};
use kedge::wallet::{TxPlace, Wallet, WalletError, WalletKeys};
use kedge_bridge::envelope::{EnvelopeHeader, Kind, envelopes, sign_batch, split};
use kedge_genesis::params::dev_secrets;
use kedge_genesis::{BitcoinNetwork, L1Height, Network as Kedge};
use kedge_tests::bitcoind::Bitcoind;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

type Result<T = ()> = anyhow::Result<T>;

/// A regtest chain that a test can drive.
struct Chain {
    bitcoin: Arc<dyn Bitcoin>,
    node: Node,
}

enum Node {
    Embedded(Arc<Embedded>, #[expect(dead_code, reason = "removed when dropped")] TempDir),
    Core(Box<Bitcoind>),
}

impl Chain {
    fn embedded() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let chain = Embedded::open(dir.path())?;
        Ok(Self { bitcoin: chain.clone(), node: Node::Embedded(chain, dir) })
    }

    async fn core() -> Result<Self> {
        let core = Bitcoind::start().await?;
        let rpc = RpcClient::new(&core.url(), Auth::Cookie(core.cookie()))?;
        Ok(Self { bitcoin: Arc::new(rpc), node: Node::Core(Box::new(core)) })
    }

    async fn mine(&self, count: u32, to: &Address) -> Result {
        match &self.node {
            Node::Embedded(chain, _) => drop(chain.mine(count, &to.script_pubkey())?),
            Node::Core(core) => drop(core.mine(count, to).await?),
        }
        Ok(())
    }

    /// Replaces the last `depth` blocks by one more without transactions.
    async fn reorg(&self, depth: u32, to: &Address) -> Result {
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
        }
        Ok(())
    }

    /// A wallet with mature coins, `coins` of them.
    async fn wallet(&self, coins: u32) -> Result<(Arc<MemoryRecords>, Arc<Wallet>)> {
        let records = Arc::new(MemoryRecords::default());
        let wallet = open_wallet(&records)?;
        self.mine(coins, &wallet.address()?).await?;
        self.mine(100, &nobody()).await?;
        wallet.sync(&*self.bitcoin).await?;
        Ok((records, wallet))
    }

    async fn publisher(&self, coins: u32, fees: FeePolicy) -> Result<(Arc<Wallet>, Publisher)> {
        let (records, wallet) = self.wallet(coins).await?;
        let publisher = open_publisher(self, &records, &wallet, fees)?;
        Ok((wallet, publisher))
    }

    /// All envelopes of the best chain in their order.
    async fn published(&self) -> Result<Vec<EnvelopeHeader>> {
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

fn open_wallet(records: &Arc<MemoryRecords>) -> Result<Arc<Wallet>> {
    let keys = WalletKeys::from_seed(BitcoinNetwork::Regtest, &[7; 32]).expect("a good seed");
    let network = BitcoinNetwork::Regtest;
    Ok(Arc::new(Wallet::open(records.clone(), "operator", &keys, network, L1Height(0))?))
}

fn open_publisher(
    chain: &Chain,
    records: &Arc<MemoryRecords>,
    wallet: &Arc<Wallet>,
    fees: FeePolicy,
) -> Result<Publisher> {
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &[9; 32])?;
    let bitcoin = chain.bitcoin.clone();
    Ok(Publisher::open("test", records.clone(), wallet.clone(), bitcoin, key, fees, 3)?)
}

fn nobody() -> Address {
    let script = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([5; 32]));
    Address::from_script(&script, Network::Regtest).expect("it is a standard script")
}

fn output(sats: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sats), script_pubkey: nobody().script_pubkey() }
}

fn vb(rate: u32) -> FeeRate {
    FeeRate::from_sat_per_vb_u32(rate)
}

/// A signed batch whose body has so many bytes.
fn batch(index: u64, len: usize) -> Result<Vec<Part>> {
    let params = Kedge::Regtest.params();
    let body: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect();
    let mut parts = split(Kind::Batch, params.chain_id, index, B256::ZERO, &body, params)?;
    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &dev_secrets::SEQUENCER)?;
    sign_batch(&mut parts, &key);
    Ok(parts.into_iter().map(Part::from).collect())
}

async fn a_node_answers_what_the_chain_is(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let genesis = Kedge::Regtest.params().l1_start;
    let hash = bitcoin.block_hash(L1Height(0)).await?.expect("there is a genesis block");
    assert_eq!(hash.to_byte_array(), genesis.hash.0);
    let before = bitcoin.chain_info().await?;
    assert_eq!((before.chain.as_str(), before.height), ("regtest", L1Height(0)));

    let wait = tokio::time::timeout(Duration::from_secs(20), bitcoin.wait_tip_change(before.best));
    let to = nobody();
    let (waited, mined) = tokio::join!(wait, chain.mine(3, &to));
    waited??;
    mined?;
    let info = check_ready(bitcoin, BitcoinNetwork::Regtest, L1Height(1)).await?;
    assert_eq!(info.height, L1Height(3));
    let block = bitcoin.block(&info.best).await?;
    assert_eq!(block.block_hash(), info.best);
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    assert_eq!(bitcoin.header(&info.best).await?, block.header);
    assert_eq!(bitcoin.block_hash(L1Height(4)).await?, None);

    let unknown = bitcoin::BlockHash::all_zeros();
    assert!(matches!(bitcoin.block(&unknown).await, Err(L1Error::BlockNotFound { .. })));
    assert!(matches!(bitcoin.header(&unknown).await, Err(L1Error::BlockNotFound { .. })));
    let missing = OutPoint::new(Txid::all_zeros(), 0);
    assert_eq!(bitcoin.tx_out(&missing, true).await?, None);
    assert!(!bitcoin.in_mempool(&missing.txid).await?);
    let other = check_ready(bitcoin, BitcoinNetwork::Signet, L1Height(0)).await;
    assert!(matches!(other, Err(L1Error::WrongNetwork { .. })));

    let coinbase = block.txdata.first().expect("a block has a coinbase").compute_txid();
    let unspent = bitcoin.tx_out(&OutPoint::new(coinbase, 0), false).await?.expect("unspent");
    assert_eq!(unspent.output.value, Amount::from_btc(50.0)?);
    assert!(unspent.coinbase && unspent.confirmations == 1);
    Ok(())
}

async fn a_payment_goes_through_mempool_and_block(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let (records, wallet) = chain.wallet(2).await?;
    assert_eq!(wallet.balance().confirmed, Amount::from_btc(100.0)?);
    let tx = wallet.send(bitcoin, &[output(70_000), output(80_000)], vb(3)).await?;
    let txid = tx.compute_txid();
    assert_eq!(tx.output.get(1), Some(&output(80_000)));
    assert!(bitcoin.in_mempool(&txid).await?);
    assert_eq!(bitcoin.tx_out(&OutPoint::new(txid, 0), false).await?, None);
    let waiting = bitcoin.tx_out(&OutPoint::new(txid, 0), true).await?.expect("in the mempool");
    assert_eq!((waiting.output, waiting.confirmations), (output(70_000), 0));
    bitcoin.broadcast(&tx).await?;

    // A wallet reopened from its records knows it.
    let again = open_wallet(&records)?;
    assert_eq!(again.balance(), wallet.balance());
    assert_eq!(again.place(txid), Some(TxPlace::Unconfirmed));

    let bumped = wallet.bump(txid, vb(20))?;
    assert_eq!(bitcoin.broadcast(&bumped).await?, Broadcast::Accepted);
    assert!(!bitcoin.in_mempool(&txid).await?);
    let back = bitcoin.broadcast(&tx).await?;
    assert!(matches!(back, Broadcast::Rejected { code: -26, .. }), "{back:?}");

    chain.mine(1, &nobody()).await?;
    wallet.sync(bitcoin).await?;
    let at = wallet.tip();
    assert_eq!(wallet.place(bumped.compute_txid()), Some(TxPlace::Confirmed(at)));
    assert_eq!(wallet.place(txid), None);
    assert_eq!(bitcoin.broadcast(&bumped).await?, Broadcast::AlreadyKnown);
    let gone = bitcoin.broadcast(&tx).await?;
    assert!(matches!(gone, Broadcast::Rejected { code: MISSING_INPUTS, .. }), "{gone:?}");

    let poor = wallet.pay(&[output(200_000_000_000)], vb(1));
    assert!(matches!(poor, Err(WalletError::Funds { .. })));
    Ok(())
}

async fn a_wallet_follows_a_reorg(chain: Chain) -> Result {
    let (_, wallet) = chain.wallet(2).await?;
    let tx = wallet.send(&*chain.bitcoin, &[output(70_000)], vb(3)).await?;
    chain.mine(2, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    assert!(matches!(wallet.place(tx.compute_txid()), Some(TxPlace::Confirmed(_))));
    chain.reorg(2, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    assert_eq!(wallet.place(tx.compute_txid()), Some(TxPlace::Unconfirmed));
    wallet.rebroadcast(&*chain.bitcoin).await?;
    assert!(chain.bitcoin.in_mempool(&tx.compute_txid()).await?);
    chain.mine(1, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    assert!(matches!(wallet.place(tx.compute_txid()), Some(TxPlace::Confirmed(_))));
    Ok(())
}

fn confirmed(status: Option<PublicationStatus>) -> Option<L1Height> {
    status.and_then(|status| status.confirmed())
}

async fn a_batch_is_published_and_survives_a_reorg(chain: Chain) -> Result {
    let (wallet, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let status = publisher.status(id).await.expect("published");
    assert_eq!(status.problem, None);
    assert!(status.commit.is_some() && status.reveals[0].txid.is_some());
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    let at = confirmed(publisher.status(id).await).expect("in the block");
    assert_eq!(at, wallet.tip());
    assert_eq!(chain.published().await?.len(), 1);

    chain.reorg(1, &nobody()).await?;
    assert_eq!(chain.published().await?.len(), 0);
    publisher.tick().await?;
    assert_eq!(confirmed(publisher.status(id).await), None);
    chain.mine(3, &nobody()).await?;
    publisher.tick().await?;
    assert_eq!(chain.published().await?.len(), 1);
    assert!(publisher.status(id).await.expect("published").is_final);
    assert!(publisher.pending().await.is_empty());
    Ok(())
}

async fn chunks_arrive_in_order(chain: Chain) -> Result {
    let (_, publisher) = chain.publisher(2, FeePolicy::default()).await?;
    let parts = batch(0, 3 * 390_000 - 1_000)?;
    assert_eq!(parts.len(), 3);
    let id = publisher.publish(Kind::Batch, parts).await?;
    // Three reveals of almost 100 kvB wait for their commit.
    assert_eq!(publisher.status(id).await.expect("published").reveals[0].txid, None);
    for _ in 0..3 {
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
    }
    let found: Vec<u16> = chain.published().await?.iter().map(|header| header.chunk).collect();
    assert_eq!(found, [0, 1, 2]);
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

async fn a_large_batch_follows_another(chain: Chain) -> Result {
    let (_, publisher) = chain.publisher(1, FeePolicy::default()).await?;
    let first = publisher.publish(Kind::Batch, batch(0, 380_000)?).await?;
    let second = publisher.publish(Kind::Batch, batch(1, 380_000)?).await?;
    for _ in 0..4 {
        chain.mine(1, &nobody()).await?;
        publisher.tick().await?;
    }
    let (first, second) = (publisher.status(first).await, publisher.status(second).await);
    assert!(confirmed(first).is_some() && confirmed(second).is_some());
    let found: Vec<u64> = chain.published().await?.iter().map(|header| header.index).collect();
    assert_eq!(found, [0, 1]);
    Ok(())
}

async fn an_assertions_bond_is_at_the_index_of_its_input(chain: Chain) -> Result {
    let (_, publisher) = chain.publisher(1, FeePolicy::default()).await?;
    let params = Kedge::Regtest.params();
    let mut parts = split(Kind::Assertion, params.chain_id, 0, B256::ZERO, b"claims", params)?;
    let (header, body) = parts.remove(0);
    let bond = output(params.proposer_bond.0);
    let part = Part { header, body, output: Some(bond.clone()) };
    publisher.publish(Kind::Assertion, vec![part]).await?;
    chain.mine(1, &nobody()).await?;
    let tip = chain.bitcoin.chain_info().await?.best;
    let block = chain.bitcoin.block(&tip).await?;
    let reveal: &Transaction =
        block.txdata.iter().find(|tx| !envelopes(tx).is_empty()).expect("the reveal is in it");
    assert_eq!(envelopes(reveal)[0].0, 0);
    assert_eq!(reveal.output[0], bond);
    Ok(())
}

async fn nothing_is_forgotten_when_the_publisher_restarts(chain: Chain) -> Result {
    let (records, wallet) = chain.wallet(1).await?;
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    let id = publisher.publish(Kind::Batch, batch(0, 500)?).await?;
    let before = publisher.status(id).await;
    drop((publisher, wallet));
    let wallet = open_wallet(&records)?;
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    assert_eq!(publisher.status(id).await, before);
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    assert_eq!(publisher.publish(Kind::Batch, batch(1, 500)?).await?.0, id.0 + 1);
    Ok(())
}

macro_rules! on_both {
    ($($law:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $law() -> super::Result {
                super::$law(super::Chain::embedded()?).await
            })*
        }
        mod core {
            $(#[tokio::test]
            async fn $law() -> super::Result {
                super::$law(super::Chain::core().await?).await
            })*
        }
    };
}

on_both! {
    a_node_answers_what_the_chain_is
    a_payment_goes_through_mempool_and_block
    a_wallet_follows_a_reorg
    a_batch_is_published_and_survives_a_reorg
    chunks_arrive_in_order
    a_large_batch_follows_another
    an_assertions_bond_is_at_the_index_of_its_input
    nothing_is_forgotten_when_the_publisher_restarts
    a_commit_whose_coin_was_taken_back_is_made_anew
    a_reveal_that_no_block_takes_is_replaced
}

#[tokio::test]
async fn a_reveal_that_waits_is_replaced_by_one_that_pays_more_up_to_the_ceiling() -> Result {
    let chain = Chain::embedded()?;
    let Node::Embedded(embedded, _) = &chain.node else { unreachable!() };
    let fees = FeePolicy { ceiling: vb(50), bump_after: 1, ..FeePolicy::default() };
    let (_, publisher) = chain.publisher(3, fees).await?;
    embedded.set_fee_rate(None);
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let mut paid = Vec::new();
    for round in 0..6_u32 {
        let status = publisher.status(id).await.expect("published");
        assert_eq!(status.problem, None);
        paid.push(status.reveals[0].fee.expect("signed"));
        embedded.set_fee_rate(Some(vb(20 * (round + 1))));
        // A block that took nothing from the mempool.
        let tip = embedded.tip().1;
        embedded.mine_on(tip, 1, &nobody().script_pubkey())?;
        publisher.tick().await?;
    }
    assert!(paid.windows(2).all(|pair| pair[0] <= pair[1]) && paid[0] < paid[2], "{paid:?}");
    let vsize = 3_000 / 4 + 400;
    assert!(paid.last().expect("some").to_sat() < 50 * 2 * vsize, "{paid:?}");
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

#[tokio::test]
async fn what_the_mempool_lost_is_broadcast_again() -> Result {
    let chain = Chain::embedded()?;
    let Node::Embedded(embedded, _) = &chain.node else { unreachable!() };
    let (_, publisher) = chain.publisher(1, FeePolicy::default()).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let commit = publisher.status(id).await.and_then(|status| status.commit).expect("paid");
    embedded.evict(&commit);
    assert!(embedded.pool_txids().is_empty());
    publisher.tick().await?;
    assert_eq!(embedded.pool_txids().len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_a_reorg_orphaned_comes_back_in_order() -> Result {
    let chain = Chain::embedded()?;
    let (wallet, publisher) = chain.publisher(3, FeePolicy::default()).await?;
    let address = wallet.address()?;
    let all = wallet.balance().confirmed - Amount::from_sat(10_000);
    let one = TxOut { value: all, script_pubkey: address.script_pubkey() };
    wallet.send(&*chain.bitcoin, &[one], vb(1)).await?;
    chain.mine(1, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 1_000)?).await?;
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    // The payment that made the only coin, the commit and the reveal are orphaned and lost.
    chain.reorg(2, &nobody()).await?;
    let Node::Embedded(embedded, _) = &chain.node else { unreachable!() };
    for txid in embedded.pool_txids() {
        embedded.evict(&txid);
    }
    publisher.tick().await?;
    assert_eq!(embedded.pool_txids().len(), 3);
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

async fn a_commit_whose_coin_was_taken_back_is_made_anew(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let (_, payer) = chain.wallet(1).await?;
    let records = Arc::new(MemoryRecords::default());
    let keys = WalletKeys::from_seed(BitcoinNetwork::Regtest, &[8; 32]).expect("a good seed");
    let network = BitcoinNetwork::Regtest;
    let wallet = Arc::new(Wallet::open(records.clone(), "w", &keys, network, L1Height(0))?);
    let coin = |value| -> Result<TxOut> {
        let script_pubkey = wallet.address()?.script_pubkey();
        Ok(TxOut { value: Amount::from_sat(value), script_pubkey })
    };
    let publisher = open_publisher(&chain, &records, &wallet, FeePolicy::default())?;
    let first = payer.send(bitcoin, &[coin(1_000_000)?], vb(2)).await?;
    chain.mine(1, &nobody()).await?;
    wallet.sync(bitcoin).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 1_000)?).await?;
    let old = publisher.status(id).await.and_then(|status| status.commit).expect("paid");
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());

    // The payment, the commit and the reveal are orphaned, and the payer pays another way instead.
    chain.reorg(2, &nobody()).await?;
    payer.sync(bitcoin).await?;
    let instead = payer.bump(first.compute_txid(), vb(50))?;
    let mut other = instead.clone();
    other.output.retain(|output| output.value != Amount::from_sat(1_000_000));
    let prevouts: Vec<TxOut> = vec![TxOut {
        value: Amount::from_btc(50.0)?,
        script_pubkey: payer.address_at(0).script_pubkey(),
    }];
    payer.forget(instead.compute_txid())?;
    payer.forget(first.compute_txid())?;
    payer.sign_inputs(&mut other, &prevouts)?;
    assert_eq!(bitcoin.broadcast(&other).await?, Broadcast::Accepted);
    payer.insert(other, Vec::new())?;
    chain.mine(1, &nobody()).await?;
    payer.sync(bitcoin).await?;
    payer.send(bitcoin, &[coin(2_000_000)?], vb(2)).await?;
    chain.mine(1, &nobody()).await?;
    for _ in 0..2 {
        publisher.tick().await?;
        chain.mine(1, &nobody()).await?;
    }
    publisher.tick().await?;
    let status = publisher.status(id).await.expect("published");
    assert!(status.confirmed().is_some(), "{status:?}");
    assert_ne!(status.commit, Some(old));
    assert_eq!(chain.published().await?.len(), 1);
    Ok(())
}

async fn a_reveal_that_no_block_takes_is_replaced(chain: Chain) -> Result {
    let fees = FeePolicy { bump_after: 1, ..FeePolicy::default() };
    let (_, publisher) = chain.publisher(2, fees).await?;
    let id = publisher.publish(Kind::Batch, batch(0, 3_000)?).await?;
    let mut seen = Vec::new();
    for round in 1..=4 {
        let status = publisher.status(id).await.expect("published");
        assert_eq!((status.problem, status.reveals[0].versions), (None, round));
        let reveal = status.reveals[0].txid.expect("signed");
        assert!(chain.bitcoin.in_mempool(&reveal).await?);
        seen.push(reveal);
        chain.reorg(0, &nobody()).await?;
        publisher.tick().await?;
    }
    for old in seen {
        assert!(!chain.bitcoin.in_mempool(&old).await?);
    }
    chain.mine(1, &nobody()).await?;
    publisher.tick().await?;
    assert!(confirmed(publisher.status(id).await).is_some());
    Ok(())
}

#[tokio::test]
async fn an_embedded_chain_is_ready_within_a_second_and_reopens_as_it_was() -> Result {
    let dir = tempfile::tempdir()?;
    let started = Instant::now();
    let chain = Embedded::open(dir.path())?;
    chain.mine(120, &nobody().script_pubkey())?;
    println!("opened and mined 120 blocks in {:?}", started.elapsed());
    let tip = chain.tip();
    assert!(matches!(Embedded::open(dir.path()), Err(L1Error::Locked { .. })));

    let records = Arc::new(MemoryRecords::default());
    let wallet = open_wallet(&records)?;
    chain.mine(1, &wallet.address()?.script_pubkey())?;
    chain.mine(100, &nobody().script_pubkey())?;
    wallet.sync(&*chain).await?;
    let paid = wallet.send(&*chain, &[output(50_000)], vb(2)).await?.compute_txid();

    // What a process that is killed leaves: the files as they are, nothing closed.
    let killed = tempfile::tempdir()?;
    copy(dir.path(), killed.path())?;
    let started = Instant::now();
    let again = Embedded::open(killed.path())?;
    println!("reopened after a kill in {:?}", started.elapsed());
    assert_eq!(again.tip(), chain.tip());
    assert_eq!(again.pool_txids(), [paid]);
    again.mine(1, &nobody().script_pubkey())?;
    assert!(again.pool_txids().is_empty());

    let last = chain.tip();
    drop(chain);
    let started = Instant::now();
    let closed = Embedded::open(dir.path())?;
    println!("reopened after closing in {:?}", started.elapsed());
    assert_eq!(closed.tip(), last);
    assert_eq!(closed.pool_txids(), [paid]);
    assert!(closed.hash_at(tip.0) == Some(tip.1));
    Ok(())
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

struct Served {
    chain: Arc<Embedded>,
    port: u16,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Served {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let chain = Embedded::open(dir.path())?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        tokio::spawn(facade::serve(chain.clone(), listener, stop.clone()));
        Ok(Self { chain, port, stop, _dir: dir })
    }

    fn client(&self) -> Result<RpcClient> {
        Ok(RpcClient::new(&format!("http://127.0.0.1:{}", self.port), Auth::None)?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_chain_is_served_like_bitcoin_core() -> Result {
    let served = Served::start().await?;
    let client = served.client()?;
    served.chain.mine(3, &nobody().script_pubkey())?;
    let (height, best) = served.chain.tip();
    let info = check_ready(&client, BitcoinNetwork::Regtest, L1Height(1)).await?;
    assert_eq!((info.height, info.best), (height, best));
    assert_eq!(client.block(&best).await?, served.chain.block_now(&best)?);
    assert_eq!(client.header(&best).await?, served.chain.header_now(&best)?);
    assert_eq!(client.block_hash(height.next()).await?, None);
    assert!(client.fee_rate(6).await?.is_some());

    // The wallet and the publisher through the wire.
    let chain = Chain {
        bitcoin: Arc::new(served.client()?),
        node: Node::Embedded(served.chain.clone(), tempfile::tempdir()?),
    };
    a_payment_goes_through_mempool_and_block(chain).await?;

    for (method, params, code) in [
        ("getblockhash", json!([1_000_000]), -8),
        ("getblock", json!(["00"]), -8),
        ("getblock", json!(["00".repeat(32)]), -5),
        ("getblockhash", json!(["one"]), -3),
        ("getblockhash", json!([]), -1),
        ("sendrawtransaction", json!(["zz"]), -22),
        ("getmempoolentry", json!(["00".repeat(32)]), -5),
        ("nosuch", json!([]), -32601),
    ] {
        let answer = client.call::<Value>(method_name(method), params).await;
        let Err(L1Error::Rpc { code: found, .. }) = answer else { panic!("{method}: {answer:?}") };
        assert_eq!(found, code, "{method}");
    }
    Ok(())
}

fn method_name(name: &str) -> &'static str {
    ["getblockhash", "getblock", "sendrawtransaction", "getmempoolentry", "nosuch"]
        .into_iter()
        .find(|known| *known == name)
        .expect("listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn bitcoin_cli_talks_to_the_embedded_chain() -> Result {
    let served = Served::start().await?;
    let cli = kedge_tests::bitcoind::executable("bitcoin-cli")?;
    let run = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&cli);
        command.arg("-regtest").arg(format!("-rpcport={}", served.port));
        command.args(["-rpcuser=any", "-rpcpassword=thing"]).args(arguments);
        async move {
            let output = command.output().await?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            anyhow::Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
        }
    };
    let to = nobody().to_string();
    let (status, _, error) = run(&["generatetoaddress", "2", &to]).await?;
    assert_eq!((status, error.as_str()), (Some(0), ""));
    let best = served.chain.tip().1.to_string();
    assert_eq!(run(&["getbestblockhash"]).await?.1, best);
    assert_eq!(run(&["getblockcount"]).await?.1, "2");
    let header: Value = serde_json::from_str(&run(&["getblockheader", &best]).await?.1)?;
    assert_eq!((&header["height"], &header["confirmations"]), (&json!(2), &json!(1)));
    let info: Value = serde_json::from_str(
        &run(&["-named", "getblock", &format!("blockhash={best}"), "verbosity=1"]).await?.1,
    )?;
    assert_eq!(info["nTx"], json!(1));
    let (status, _, error) = run(&["getblockhash", "9"]).await?;
    assert_eq!(status, Some(8));
    assert!(error.contains("Block height out of range"), "{error}");
    assert!(run(&["-getinfo"]).await?.1.contains("Blocks: 2"));
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_the_connection_is_said() -> Result {
    let dir = tempfile::tempdir()?;
    let cookie = dir.path().join(".cookie");
    let at = |url: &str, auth| RpcClient::new(url, auth);
    let missing = at("http://127.0.0.1:1", Auth::Cookie(cookie.clone()));
    assert!(matches!(missing, Err(L1Error::CookieFile { .. })));
    std::fs::write(&cookie, "not a cookie")?;
    let bad = at("http://127.0.0.1:1", Auth::Cookie(cookie));
    assert!(matches!(bad, Err(L1Error::CookieFile { .. })));
    assert!(matches!(at("127.0.0.1:8332", Auth::None), Err(L1Error::BadUrl { .. })));
    assert!(matches!(at("https://127.0.0.1", Auth::None), Err(L1Error::BadUrl { .. })));
    let silent = at("http://127.0.0.1:1", Auth::None)?.chain_info().await;
    assert!(matches!(&silent, Err(error @ L1Error::Unreachable { .. }) if error.is_temporary()));

    let core = Bitcoind::start().await?;
    let password = "wrong".into();
    let wrong = Auth::Password { user: "nobody".into(), password };
    let refused = at(&core.url(), wrong)?.chain_info().await;
    assert!(matches!(refused, Err(L1Error::Unauthorized { status: 401, .. })), "{refused:?}");
    let none = at(&core.url(), Auth::None)?.chain_info().await;
    assert!(matches!(none, Err(L1Error::Unauthorized { .. })), "{none:?}");
    Ok(())
}
