//! The operator's Bitcoin wallet: a Taproot descriptor wallet (BIP-86) on BDK. It learns of coins from
//! blocks alone, and what it signs is on disk before anybody sees it.

mod sign;
mod slim;
mod sync;

use crate::clock::Clock;
use crate::l1::records::RecordWrite;
use crate::l1::{Bitcoin, Broadcast, L1Error, MemoryRecords, RecordTable, Records, rust_network};
use bdk_wallet::chain::{ChainPosition, Merge};
use bdk_wallet::coin_selection::LargestFirstCoinSelection;
use bdk_wallet::error::{BuildFeeBumpError, CreateTxError};
use bdk_wallet::{ChangeSet, KeychainKind, TxOrdering};
use bitcoin::bip32::Xpriv;
use bitcoin::hashes::Hash as _;
use bitcoin::{Address, Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use kedge_genesis::{BitcoinNetwork, L1Height, L1Ref};
use parking_lot::Mutex;
use std::sync::Arc;

/// Why the wallet cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The node did not answer.
    #[error(transparent)]
    Bitcoin(#[from] L1Error),
    /// The storage failed.
    #[error("the wallet's records: {0}")]
    Records(#[source] anyhow::Error),
    /// A record does not read back.
    #[error("the wallet's record {key} is damaged: {reason}")]
    Damaged {
        /// The record's key, hex.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The descriptors are none, or are others than those the records were made with.
    #[error(
        "the wallet's key does not fit its records: {reason}; use the key it was created with, or another data directory"
    )]
    Keys {
        /// What BDK says.
        reason: String,
    },
    /// Too little money.
    #[error(
        "the bitcoin wallet holds {available} that can be spent but {needed} is needed; pay to {address}"
    )]
    Funds {
        /// What the transaction needs.
        needed: Amount,
        /// What can be spent now.
        available: Amount,
        /// Where to send more.
        address: Address,
    },
    /// The transaction cannot be built.
    #[error("the wallet cannot build this transaction: {reason}")]
    Build {
        /// What BDK says.
        reason: String,
    },
    /// The wallet's signature does not complete the transaction.
    #[error("the wallet cannot sign this transaction: {reason}")]
    Sign {
        /// What is wrong.
        reason: String,
    },
    /// The node refuses the transaction.
    #[error("bitcoind refuses transaction {txid}: {reason} (code {code})")]
    Refused {
        /// The transaction.
        txid: Txid,
        /// Bitcoin Core's error code.
        code: i64,
        /// Bitcoin Core's reason.
        reason: String,
    },
    /// The blocks of the node do not connect to those the wallet knows.
    #[error("bitcoin's block at height {height} does not connect to the wallet's chain")]
    Disconnected {
        /// The height.
        height: L1Height,
    },
}

/// The descriptors of a wallet, with private keys.
#[derive(Clone)]
pub struct WalletKeys {
    /// For addresses handed out.
    pub external: String,
    /// For change.
    pub internal: String,
}

impl std::fmt::Debug for WalletKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WalletKeys(..)")
    }
}

impl WalletKeys {
    /// BIP-86 descriptors of the BIP-32 master key whose seed is `seed`: `tr(xprv/86'/coin'/0'/0/*)` and
    /// `…/1/*`.
    pub fn from_seed(network: BitcoinNetwork, seed: &[u8; 32]) -> Self {
        let key = Xpriv::new_master(rust_network(network), seed)
            .expect("HMAC of a 32-byte seed is a valid key but for a chance of 2^-127");
        let coin = u8::from(network != BitcoinNetwork::Main);
        let branch = |change: u8| format!("tr({key}/86'/{coin}'/0'/{change}/*)");
        Self { external: branch(0), internal: branch(1) }
    }

    /// The first address, without opening a wallet.
    ///
    /// # Errors
    /// When the descriptors are none.
    pub fn first_address(&self, network: BitcoinNetwork) -> Result<Address, WalletError> {
        let records = Arc::new(MemoryRecords::default());
        Wallet::open(records, "first", self, network, L1Height(0))?.address()
    }
}

/// What a wallet holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalletBalance {
    /// In confirmed outputs that can be spent.
    pub confirmed: Amount,
    /// In change of transactions of our own that wait for a block.
    pub pending: Amount,
    /// Paid by others in transactions that wait for a block.
    pub untrusted: Amount,
    /// In block rewards below 100 confirmations.
    pub immature: Amount,
}

/// Where a transaction of the wallet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxPlace {
    /// In the block at this height.
    Confirmed(L1Height),
    /// In no block, as far as this wallet is synchronised.
    Unconfirmed,
}

/// The wallet. Cheap calls; only [`Wallet::sync`], [`Wallet::send`] and [`Wallet::rebroadcast`] ask the
/// node.
pub struct Wallet {
    name: String,
    birthday: L1Height,
    records: Arc<dyn Records>,
    inner: Mutex<Inner>,
    syncing: tokio::sync::Mutex<()>,
}

struct Inner {
    bdk: bdk_wallet::Wallet,
    /// Number of the next changeset.
    next: u64,
    /// The last time given to an unconfirmed transaction: the latest of rivals is the valid one.
    seen: u64,
    clock: Clock,
}

impl Wallet {
    /// Opens the wallet `name` of these records, or creates it. A new one looks at blocks from
    /// `birthday` on.
    ///
    /// # Errors
    /// [`WalletError::Keys`] when the records are another key's, [`WalletError::Damaged`], or when the
    /// storage fails.
    #[expect(deprecated, reason = "the private keys are in the descriptors, which BDK signs with")]
    pub fn open(
        records: Arc<dyn Records>,
        name: &str,
        keys: &WalletKeys,
        network: BitcoinNetwork,
        birthday: L1Height,
    ) -> Result<Self, WalletError> {
        let prefix = format!("{name}/").into_bytes();
        let rows = records.load(RecordTable::Wallet, &prefix).map_err(WalletError::Records)?;
        let mut stored: Option<ChangeSet> = None;
        for (key, value) in &rows {
            let change: ChangeSet = serde_json::from_slice(value).map_err(|error| {
                WalletError::Damaged { key: hex::encode(key), reason: error.to_string() }
            })?;
            match &mut stored {
                Some(all) => all.merge(change),
                None => stored = Some(change),
            }
        }
        let bad = |reason: String| WalletError::Keys { reason };
        let kind = rust_network(network);
        let mut next = rows.len() as u64;
        let bdk = match stored {
            Some(mut all) => {
                if slim::keep_shortest(&mut all) || rows.len() > 1 {
                    // One record instead of many, in one step.
                    let mut writes: Vec<RecordWrite> =
                        rows.into_iter().map(|(key, _)| (RecordTable::Wallet, key, None)).collect();
                    writes.push((RecordTable::Wallet, record_key(name, 0), Some(encode(&all))));
                    records.write(writes).map_err(WalletError::Records)?;
                    next = 1;
                }
                bdk_wallet::Wallet::load()
                    .descriptor(KeychainKind::External, Some(keys.external.clone()))
                    .descriptor(KeychainKind::Internal, Some(keys.internal.clone()))
                    .extract_keys()
                    .check_network(kind)
                    .load_wallet_no_persist(all)
                    .map_err(|error| bad(error.to_string()))?
                    .ok_or_else(|| bad("they are empty".into()))?
            }
            None => bdk_wallet::Wallet::create(keys.external.clone(), keys.internal.clone())
                .network(kind)
                .create_wallet_no_persist()
                .map_err(|error| bad(error.to_string()))?,
        };
        let seen = bdk
            .transactions()
            .filter_map(|tx| match tx.chain_position {
                ChainPosition::Unconfirmed { last_seen, .. } => last_seen,
                ChainPosition::Confirmed { .. } => None,
            })
            .max()
            .unwrap_or_default();
        let wallet = Self {
            name: name.into(),
            birthday,
            records,
            inner: Mutex::new(Inner { bdk, next, seen, clock: Clock::system() }),
            syncing: tokio::sync::Mutex::new(()),
        };
        wallet.persist(&mut wallet.inner.lock(), Vec::new())?;
        Ok(wallet)
    }

    /// The same wallet with another clock, which says when it first saw its transactions.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        self.inner.lock().clock = clock;
        self
    }

    /// Writes what changed, together with other records.
    fn persist(&self, inner: &mut Inner, mut writes: Vec<RecordWrite>) -> Result<(), WalletError> {
        if let Some(change) = inner.bdk.staged() {
            let key = record_key(&self.name, inner.next);
            writes.push((RecordTable::Wallet, key, Some(encode(change))));
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.records.write(writes).map_err(WalletError::Records)?;
        if inner.bdk.take_staged().is_some() {
            inner.next += 1;
        }
        Ok(())
    }

    /// An address to pay to; the same one until it was paid.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn address(&self) -> Result<Address, WalletError> {
        self.unused(KeychainKind::External)
    }

    /// The address of that number, handed out or not.
    pub fn address_at(&self, index: u32) -> Address {
        self.inner.lock().bdk.peek_address(KeychainKind::External, index).address
    }

    /// The script of an address for change, the same one until it was paid.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn change_script(&self) -> Result<ScriptBuf, WalletError> {
        Ok(self.unused(KeychainKind::Internal)?.script_pubkey())
    }

    fn unused(&self, keychain: KeychainKind) -> Result<Address, WalletError> {
        let mut inner = self.inner.lock();
        let address = inner.bdk.next_unused_address(keychain).address;
        self.persist(&mut inner, Vec::new())?;
        Ok(address)
    }

    /// What it holds as of the last [`Self::sync`].
    pub fn balance(&self) -> WalletBalance {
        let balance = self.inner.lock().bdk.balance();
        WalletBalance {
            confirmed: balance.confirmed,
            pending: balance.trusted_pending,
            untrusted: balance.untrusted_pending,
            immature: balance.immature,
        }
    }

    /// A transaction that pays these outputs first and in this order, its change after them. It is
    /// signed and stored, its coins are taken; broadcast it with [`Bitcoin::broadcast`], and
    /// [`Self::rebroadcast`] sees to it from then on. Confirmed coins are preferred.
    ///
    /// # Errors
    /// [`WalletError::Funds`], [`WalletError::Build`], or when the storage fails.
    pub fn pay(&self, outputs: &[TxOut], rate: FeeRate) -> Result<Transaction, WalletError> {
        self.pay_recorded(outputs, rate, &[], |_| Ok(Vec::new()))
    }

    /// As [`Self::pay`], spending `conflict` among others so that the transaction excludes its rivals,
    /// and writing what `also` makes of it in the same step.
    ///
    /// # Errors
    /// As [`Self::pay`], or what `also` answers.
    pub fn pay_recorded(
        &self,
        outputs: &[TxOut],
        rate: FeeRate,
        conflict: &[OutPoint],
        also: impl FnOnce(&Transaction) -> Result<Vec<RecordWrite>, WalletError>,
    ) -> Result<Transaction, WalletError> {
        let mut inner = self.inner.lock();
        let mut psbt = match inner.build(outputs, rate, conflict, true) {
            Err(CreateTxError::CoinSelection(_)) => inner.build(outputs, rate, conflict, false),
            built => built,
        }
        .map_err(|error| match error {
            CreateTxError::CoinSelection(funds) => WalletError::Funds {
                needed: funds.needed,
                available: funds.available,
                address: inner.bdk.peek_address(KeychainKind::External, 0).address,
            },
            other => WalletError::Build { reason: other.to_string() },
        })?;
        let tx = inner.finish(&mut psbt)?;
        self.keep(&mut inner, tx, also)
    }

    /// A transaction that replaces an unconfirmed one of this wallet at a higher fee rate (BIP-125),
    /// signed and stored.
    ///
    /// # Errors
    /// [`WalletError::Build`] when there is nothing to replace, or when the storage fails.
    pub fn bump(&self, txid: Txid, rate: FeeRate) -> Result<Transaction, WalletError> {
        let build = |reason: String| WalletError::Build { reason };
        let mut inner = self.inner.lock();
        let mut psbt = {
            let mut builder = inner
                .bdk
                .build_fee_bump(txid)
                .map_err(|error: BuildFeeBumpError| build(error.to_string()))?;
            builder.fee_rate(rate).ordering(TxOrdering::Untouched);
            builder.finish().map_err(|error| build(error.to_string()))?
        };
        let tx = inner.finish(&mut psbt)?;
        self.keep(&mut inner, tx, |_| Ok(Vec::new()))
    }

    fn keep(
        &self,
        inner: &mut Inner,
        tx: Transaction,
        also: impl FnOnce(&Transaction) -> Result<Vec<RecordWrite>, WalletError>,
    ) -> Result<Transaction, WalletError> {
        let writes = also(&tx)?;
        inner.insert(tx.clone());
        self.persist(inner, writes)?;
        Ok(tx)
    }

    /// Takes note of a transaction made elsewhere that spends or pays this wallet; of rivals the one
    /// noted last counts.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn insert(&self, tx: Transaction, also: Vec<RecordWrite>) -> Result<(), WalletError> {
        let mut inner = self.inner.lock();
        inner.insert(tx);
        self.persist(&mut inner, also)
    }

    /// Gives up an unconfirmed transaction and all that spends it: its coins can be spent again.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn forget(&self, txid: Txid) -> Result<(), WalletError> {
        let mut inner = self.inner.lock();
        let at = inner.seen.max(inner.clock.now());
        inner.seen = at;
        let descendants: Vec<Txid> =
            inner.bdk.tx_graph().walk_descendants(txid, |_, txid| Some(txid)).collect();
        inner.bdk.apply_evicted_txs(descendants.into_iter().chain([txid]).map(|txid| (txid, at)));
        self.persist(&mut inner, Vec::new())
    }

    /// Where a transaction is, none when the wallet does not know it or a rival of it is confirmed.
    pub fn place(&self, txid: Txid) -> Option<TxPlace> {
        let inner = self.inner.lock();
        Some(match inner.bdk.get_tx(txid)?.chain_position {
            ChainPosition::Confirmed { anchor, .. } => {
                TxPlace::Confirmed(L1Height(anchor.block_id.height))
            }
            ChainPosition::Unconfirmed { .. } => TxPlace::Unconfirmed,
        })
    }

    /// Whether this output is the wallet's and unspent.
    pub fn owns(&self, outpoint: OutPoint) -> bool {
        self.inner.lock().bdk.get_utxo(outpoint).is_some_and(|output| !output.is_spent)
    }

    /// The best block that the wallet has seen.
    pub fn tip(&self) -> L1Height {
        L1Height(self.inner.lock().bdk.latest_checkpoint().height())
    }

    /// Whether this block is in the best chain as the wallet has seen it.
    pub fn has_block(&self, at: L1Ref) -> bool {
        let chain = self.inner.lock().bdk.latest_checkpoint();
        chain.get(at.height.0).is_some_and(|block| block.hash().to_byte_array() == at.hash.0)
    }

    /// Pays and broadcasts.
    ///
    /// # Errors
    /// As [`Self::pay`], [`WalletError::Refused`], or when the node does not answer; unless refused the
    /// transaction is stored then, and [`Self::rebroadcast`] sends it.
    pub async fn send(
        &self,
        bitcoin: &dyn Bitcoin,
        outputs: &[TxOut],
        rate: FeeRate,
    ) -> Result<Transaction, WalletError> {
        let tx = self.pay(outputs, rate)?;
        if let Broadcast::Rejected { code, reason } = bitcoin.broadcast(&tx).await? {
            let txid = tx.compute_txid();
            self.forget(txid)?;
            return Err(WalletError::Refused { txid, code, reason });
        }
        Ok(tx)
    }
}

impl Inner {
    fn build(
        &mut self,
        outputs: &[TxOut],
        rate: FeeRate,
        conflict: &[OutPoint],
        confirmed_only: bool,
    ) -> Result<bitcoin::Psbt, CreateTxError> {
        // Anybody can pay any number of small coins to the wallet's addresses: a search for coins that need no
        // change would take thousands of them, more than a transaction that is relayed can spend. Nor is
        // anything random: the same wallet makes the same transaction.
        let mut builder = self.bdk.build_tx().coin_selection(LargestFirstCoinSelection);
        builder.ordering(TxOrdering::Untouched).fee_rate(rate);
        for output in outputs {
            builder.add_recipient(output.script_pubkey.clone(), output.value);
        }
        if confirmed_only {
            builder.exclude_unconfirmed();
        }
        // Those that are gone need no conflict.
        for outpoint in conflict {
            let _ = builder.add_utxo(*outpoint);
        }
        builder.finish()
    }

    #[expect(deprecated, reason = "the private keys are in the descriptors, which BDK signs with")]
    fn finish(&self, psbt: &mut bitcoin::Psbt) -> Result<Transaction, WalletError> {
        let failed = |reason: String| WalletError::Sign { reason };
        let complete = self
            .bdk
            .sign(psbt, bdk_wallet::SignOptions::default())
            .map_err(|error| failed(error.to_string()))?;
        if !complete {
            return Err(failed("a key is missing".into()));
        }
        Ok(psbt.clone().extract_tx_unchecked_fee_rate())
    }

    fn insert(&mut self, tx: Transaction) {
        self.seen = self.clock.now().max(self.seen + 1);
        self.bdk.apply_unconfirmed_txs([(tx, self.seen)]);
    }
}

fn record_key(name: &str, number: u64) -> Vec<u8> {
    let mut key = format!("{name}/").into_bytes();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn encode(change: &ChangeSet) -> Vec<u8> {
    serde_json::to_vec(change).expect("a changeset has string keys only")
}
