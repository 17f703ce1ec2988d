//! What Bitcoin's best chain says, read by other code than the node's: what the vault holds, who was paid,
//! who spent what.

use crate::sim_bitcoin::SimBitcoin;
use alloy_primitives::B256;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use kedge_bridge::envelope::{Envelope, Kind, envelopes};
use kedge_genesis::L1Height;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One payment.
#[derive(Clone, Debug)]
pub(super) struct Paid {
    pub(super) sats: u64,
    /// Where, for people.
    #[expect(dead_code, reason = "shown when a payment is one too many")]
    txid: Txid,
}

/// A chunk of a proof and where it is.
#[derive(Clone, Debug)]
pub(super) struct ProofChunk {
    pub(super) envelope: Envelope,
    /// Height of its reveal.
    pub(super) height: u32,
    /// Height of the transaction that the reveal spends.
    pub(super) committed: u32,
}

/// A proof that is not complete.
#[derive(Debug, Default)]
struct Channel {
    opened: u32,
    chunks: u16,
    body: Vec<u8>,
    committed: u32,
}

/// The best chain above the rollup's start.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    start: u32,
    /// Hashes of the blocks read, from the one above the start.
    blocks: Vec<bitcoin::BlockHash>,
    vault: ScriptBuf,
    vault_coins: HashMap<OutPoint, u64>,
    /// Payments by script.
    paid: BTreeMap<ScriptBuf, Vec<Paid>>,
    /// What spent an output.
    spent: HashMap<OutPoint, Arc<Transaction>>,
    /// Transactions with their heights.
    transactions: HashMap<Txid, (u32, Arc<Transaction>)>,
    proofs: Vec<ProofChunk>,
}

impl Ledger {
    pub(super) fn new(start: L1Height, vault: ScriptBuf) -> Self {
        Self { start: start.0, vault, ..Self::default() }
    }

    /// Reads what is new on the best chain, all of it again after a reorganisation.
    pub(super) fn read(&mut self, bitcoin: &SimBitcoin) {
        let tip = bitcoin.tip().height.0;
        let known = |ledger: &Self| u32::try_from(ledger.blocks.len()).unwrap_or_default();
        let last = bitcoin.block_at(L1Height(self.start + known(self)));
        let same = match (self.blocks.last(), last) {
            (Some(last), Some(block)) => block.block_hash() == *last,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if !same {
            *self = Self::new(L1Height(self.start), std::mem::take(&mut self.vault));
        }
        for height in self.start + known(self) + 1..=tip {
            let block = bitcoin.block_at(L1Height(height)).expect("it is not above the tip");
            self.take(&block, height);
        }
    }

    fn take(&mut self, block: &Block, height: u32) {
        self.blocks.push(block.block_hash());
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            let shared = Arc::new(tx.clone());
            self.transactions.insert(txid, (height, shared.clone()));
            for input in &tx.input {
                self.vault_coins.remove(&input.previous_output);
                self.spent.insert(input.previous_output, shared.clone());
            }
            for (vout, TxOut { value, script_pubkey }) in (0..).zip(&tx.output) {
                let sats = value.to_sat();
                if *script_pubkey == self.vault {
                    self.vault_coins.insert(OutPoint { txid, vout }, sats);
                }
                self.paid.entry(script_pubkey.clone()).or_default().push(Paid { sats, txid });
            }
            for (input, envelope) in envelopes(tx) {
                if envelope.kind == Kind::Proof {
                    let from = tx.input.get(input as usize).map(|input| input.previous_output.txid);
                    let committed = from.and_then(|txid| self.height(&txid));
                    let committed = committed.unwrap_or(height);
                    self.proofs.push(ProofChunk { envelope, height, committed });
                }
            }
        }
    }

    /// What the vault holds, satoshis.
    pub(super) fn vault(&self) -> u64 {
        self.vault_coins.values().sum()
    }

    /// Whether an output is an unspent one of the vault.
    pub(super) fn is_vaults(&self, outpoint: &OutPoint) -> bool {
        self.vault_coins.contains_key(outpoint)
    }

    /// The height of a transaction's block.
    pub(super) fn height(&self, txid: &Txid) -> Option<u32> {
        self.transactions.get(txid).map(|(height, _)| *height)
    }

    /// A transaction.
    pub(super) fn transaction(&self, txid: &Txid) -> Option<&Arc<Transaction>> {
        self.transactions.get(txid).map(|(_, tx)| tx)
    }

    /// All payments to a script.
    pub(super) fn paid(&self, script: &ScriptBuf) -> &[Paid] {
        self.paid.get(script).map_or(&[], Vec::as_slice)
    }

    /// What spent an output.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<&Arc<Transaction>> {
        self.spent.get(outpoint)
    }

    /// Who published complete and genuine proofs against an assertion that was confirmed at `from`, up to
    /// its deadline, and at which height they had committed to all of it; in the order in which Bitcoin
    /// completes them. Chunks that come out of order or too late complete nothing.
    pub(super) fn proofs_of(
        &self,
        genuine: impl Fn(&[u8]) -> bool,
        from: u32,
        deadline: u32,
        timeout: u32,
    ) -> Vec<([u8; 32], u32)> {
        let mut channels: BTreeMap<([u8; 32], B256), Channel> = BTreeMap::new();
        let mut complete = Vec::new();
        for chunk in self.proofs.iter().filter(|chunk| (from..=deadline).contains(&chunk.height)) {
            let header = &chunk.envelope.header;
            let publisher = chunk.envelope.publisher.serialize();
            let id = (publisher, header.channel_id(Kind::Proof));
            if channels.get(&id).is_some_and(|open| chunk.height > open.opened + timeout) {
                channels.remove(&id);
            }
            if header.chunk != channels.get(&id).map_or(0, |open| open.chunks) {
                continue;
            }
            let opened = Channel { opened: chunk.height, ..Channel::default() };
            let channel = channels.entry(id).or_insert(opened);
            channel.chunks += 1;
            channel.body.extend_from_slice(&chunk.envelope.body);
            // What was committed to before there was an assertion counts from its reveal.
            let committed = if chunk.committed < from { chunk.height } else { chunk.committed };
            channel.committed = channel.committed.max(committed);
            if usize::from(channel.chunks) == header.chunks.len() {
                if genuine(&channel.body) {
                    complete.push((publisher, channel.committed));
                }
                channels.remove(&id);
            }
        }
        complete
    }
}
