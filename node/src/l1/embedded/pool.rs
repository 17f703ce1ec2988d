//! The embedded chain's mempool: consensus through Bitcoin Core's own checks, and those of its relay
//! policies that a correct wallet can run into (fees, replacement, dust, chains of unconfirmed
//! transactions, locks), so that what is accepted here is accepted by Bitcoin Core.

use super::coins::{Coin, Coins};
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxOut, Txid, absolute, consensus};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{PrecomputedTransactionData, ScriptPubkey, TxCheckResult, VERIFY_ALL, verify};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Lowest fee rate for relay and for the bandwidth of a replacement, sat per 1,000 vB.
pub(super) const MIN_RELAY_FEE: u64 = 100;
/// The largest standard transaction, weight units.
const MAX_TX_WEIGHT: u64 = 400_000;
/// The smallest transaction without its witness: 64 bytes look like a merkle node.
const MIN_STRIPPED_SIZE: usize = 65;
/// Unconfirmed ancestors, or descendants, of a transaction, itself included.
const MAX_CHAIN: usize = 25;
/// Virtual bytes of a transaction and all that it is connected to.
const MAX_CLUSTER_VSIZE: u64 = 101_000;
/// The most transactions that one replacement may evict.
const MAX_EVICTED: usize = 100;
const COINBASE_MATURITY: u32 = 100;
/// Virtual bytes in the mempool altogether.
const MAX_POOL_VSIZE: u64 = 100_000_000;

/// Why a transaction is not accepted, in Bitcoin Core's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) reason: String,
}

/// Bitcoin Core's RPC error codes for refused transactions.
pub(super) mod code {
    /// Inputs missing or spent.
    pub(in crate::l1) const MISSING: i64 = -25;
    /// Refused by policy or consensus.
    pub(in crate::l1) const REFUSED: i64 = -26;
    /// Confirmed already.
    pub(in crate::l1) const KNOWN: i64 = -27;
}

fn refuse(reason: impl Into<String>) -> Refusal {
    Refusal { code: code::REFUSED, reason: reason.into() }
}

/// The tip that a transaction would be built on.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    pub(super) height: u32,
    /// Median time past by height, for BIP-113 and BIP-68.
    pub(super) median_times: Arc<Vec<u32>>,
}

impl Tip {
    fn median_time(&self, height: u32) -> u32 {
        self.median_times.get(height as usize).copied().unwrap_or_default()
    }
}

/// A transaction that waits for a block.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) tx: Arc<Transaction>,
    pub(super) fee: u64,
    pub(super) vsize: u64,
    pub(super) weight: u64,
    /// Order of arrival.
    pub(super) order: u64,
    /// Unix seconds at arrival.
    pub(super) time: u64,
    /// Height of the tip at arrival.
    pub(super) height: u32,
    parents: BTreeSet<Txid>,
    children: BTreeSet<Txid>,
}

impl Entry {
    pub(super) fn parents(&self) -> &BTreeSet<Txid> {
        &self.parents
    }

    pub(super) fn children(&self) -> &BTreeSet<Txid> {
        &self.children
    }
}

/// The transactions that wait for a block.
#[derive(Debug, Default)]
pub(super) struct Pool {
    entries: BTreeMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    arrivals: u64,
    vsize: u64,
}

impl Pool {
    pub(super) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<&Txid> {
        self.spends.get(outpoint)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn vsize(&self) -> u64 {
        self.vsize
    }

    /// The transactions in order of arrival, so parents first.
    pub(super) fn in_order(&self) -> Vec<Arc<Transaction>> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.order);
        entries.into_iter().map(|entry| entry.tx.clone()).collect()
    }

    pub(super) fn txids(&self) -> impl Iterator<Item = &Txid> {
        self.entries.keys()
    }

    /// Everything reachable from `from` by `next`, itself included.
    pub(super) fn closure<'a>(
        &'a self,
        from: impl IntoIterator<Item = Txid>,
        next: impl Fn(&'a Entry) -> Vec<&'a BTreeSet<Txid>>,
    ) -> BTreeSet<Txid> {
        let mut found = BTreeSet::new();
        let mut open: Vec<Txid> = from.into_iter().collect();
        while let Some(txid) = open.pop() {
            if let Some(entry) = self.entries.get(&txid)
                && found.insert(txid)
            {
                open.extend(next(entry).into_iter().flatten());
            }
        }
        found
    }

    fn totals(&self, txids: &BTreeSet<Txid>) -> (u64, u64) {
        txids
            .iter()
            .filter_map(|txid| self.entries.get(txid))
            .fold((0, 0), |(fee, vsize), entry| (fee + entry.fee, vsize + entry.vsize))
    }

    /// Takes a transaction in, evicting what it replaces. True when it is new.
    pub(super) fn accept(
        &mut self,
        tx: Arc<Transaction>,
        coins: &Coins,
        tip: &Tip,
        now: u64,
    ) -> Result<bool, Refusal> {
        let txid = tx.compute_txid();
        if self.entries.contains_key(&txid) {
            return Ok(false);
        }
        let raw = consensus::serialize(&*tx);
        let kernel =
            bitcoinkernel::Transaction::new(&raw).map_err(|_| refuse("bad-txns-undecodable"))?;
        if let TxCheckResult::Invalid(_) = kernel.check() {
            return Err(refuse("bad-txns-invalid"));
        }
        if tx.is_coinbase() {
            return Err(refuse("coinbase"));
        }
        standard(&tx)?;
        let median_time = tip.median_time(tip.height);
        if !is_final(&tx, tip.height + 1, median_time) {
            return Err(refuse("non-final"));
        }
        let spent = self.spent(&tx, txid, coins, tip)?;
        if !sequence_locks_passed(&tx, &spent, tip) {
            return Err(refuse("non-BIP68-final"));
        }
        let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        let held: u64 = spent.iter().map(|coin| coin.output.value.to_sat()).sum();
        let fee = held.checked_sub(paid).ok_or_else(|| refuse("bad-txns-in-belowout"))?;
        let weight = tx.weight().to_wu();
        let vsize = weight.div_ceil(4);
        let relay = (vsize * MIN_RELAY_FEE).div_ceil(1000);
        if fee < relay {
            return Err(refuse(format!("min relay fee not met, {fee} < {relay}")));
        }
        let evicted = self.replaced(&tx, fee, vsize)?;
        let parents = self.within_limits(&tx, vsize, &evicted)?;
        if self.vsize + vsize > MAX_POOL_VSIZE {
            return Err(refuse("mempool full"));
        }
        scripts_pass(&kernel, &spent)?;
        for txid in &evicted {
            self.remove(txid);
        }
        for input in &tx.input {
            self.spends.insert(input.previous_output, txid);
        }
        for parent in &parents {
            if let Some(entry) = self.entries.get_mut(parent) {
                entry.children.insert(txid);
            }
        }
        self.arrivals += 1;
        self.vsize += vsize;
        let (order, height) = (self.arrivals, tip.height);
        let children = BTreeSet::new();
        let entry = Entry { tx, fee, vsize, weight, order, time: now, height, parents, children };
        self.entries.insert(txid, entry);
        Ok(true)
    }

    /// The coins that a transaction spends, from the chain or from the mempool.
    fn spent(
        &self,
        tx: &Transaction,
        txid: Txid,
        coins: &Coins,
        tip: &Tip,
    ) -> Result<Vec<Coin>, Refusal> {
        let mut spent = Vec::with_capacity(tx.input.len());
        for input in &tx.input {
            let outpoint = &input.previous_output;
            let coin = match (coins.get(outpoint), self.entries.get(&outpoint.txid)) {
                (Some(coin), _) => coin.clone(),
                (None, Some(parent)) => {
                    let output = parent.tx.output.get(outpoint.vout as usize).cloned();
                    let height = tip.height + 1;
                    match output {
                        Some(output) => Coin { output, height, coinbase: false },
                        None => return Err(missing()),
                    }
                }
                (None, None) => {
                    let known = (0..).zip(&tx.output).any(|(vout, _): (u32, &TxOut)| {
                        coins.get(&OutPoint { txid, vout }).is_some()
                    });
                    return Err(if known {
                        let reason = "Transaction outputs already in utxo set".into();
                        Refusal { code: code::KNOWN, reason }
                    } else {
                        missing()
                    });
                }
            };
            if coin.coinbase && tip.height + 1 < coin.height + COINBASE_MATURITY {
                return Err(refuse("bad-txns-premature-spend-of-coinbase"));
            }
            spent.push(coin);
        }
        Ok(spent)
    }

    /// What a transaction would evict: everything that spends the same coins, and its descendants.
    /// It has to pay more than them, and for its own relay, and at a better rate (BIP-125 rules 3
    /// and 4, signalling not required).
    fn replaced(&self, tx: &Transaction, fee: u64, vsize: u64) -> Result<BTreeSet<Txid>, Refusal> {
        let direct: BTreeSet<Txid> = tx
            .input
            .iter()
            .filter_map(|input| self.spends.get(&input.previous_output))
            .copied()
            .collect();
        let evicted = self.closure(direct.iter().copied(), |entry| vec![&entry.children]);
        if tx.input.iter().any(|input| evicted.contains(&input.previous_output.txid)) {
            return Err(refuse("bad-txns-spends-conflicting-tx"));
        }
        if evicted.len() > MAX_EVICTED {
            return Err(refuse("too many potential replacements"));
        }
        for rival in direct.iter().filter_map(|txid| self.entries.get(txid)) {
            if fee * rival.vsize <= rival.fee * vsize {
                return Err(refuse(
                    "replacement-failed, insufficient feerate: does not improve feerate diagram",
                ));
            }
        }
        let needed = self.totals(&evicted).0 + (vsize * MIN_RELAY_FEE).div_ceil(1000);
        if !evicted.is_empty() && fee < needed {
            return Err(refuse(format!(
                "insufficient fee, rejecting replacement, {fee} < {needed}"
            )));
        }
        Ok(evicted)
    }

    /// The parents of a transaction, when the family it joins stays within limits.
    fn within_limits(
        &self,
        tx: &Transaction,
        vsize: u64,
        evicted: &BTreeSet<Txid>,
    ) -> Result<BTreeSet<Txid>, Refusal> {
        let parents: BTreeSet<Txid> = tx
            .input
            .iter()
            .map(|input| input.previous_output.txid)
            .filter(|txid| self.entries.contains_key(txid))
            .collect();
        let ancestors = self.closure(parents.iter().copied(), |entry| vec![&entry.parents]);
        let too_long = |what: &str| Err(refuse(format!("too-long-mempool-chain, {what}")));
        if ancestors.len() >= MAX_CHAIN {
            return too_long("too many unconfirmed ancestors");
        }
        for ancestor in &ancestors {
            let family = self.closure([*ancestor], |entry| vec![&entry.children]);
            if family.difference(evicted).count() >= MAX_CHAIN {
                return too_long("too many descendants of an ancestor");
            }
        }
        let cluster =
            self.closure(parents.iter().copied(), |entry| vec![&entry.parents, &entry.children]);
        let others: BTreeSet<Txid> = cluster.difference(evicted).copied().collect();
        if self.totals(&others).1 + vsize > MAX_CLUSTER_VSIZE {
            return too_long("exceeds the size limit of connected transactions");
        }
        Ok(parents)
    }

    fn remove(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        self.vsize -= entry.vsize;
        for input in &entry.tx.input {
            self.spends.remove(&input.previous_output);
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(txid);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(txid);
            }
        }
        Some(entry)
    }

    /// Forgets what a block confirmed, and what it made impossible.
    pub(super) fn confirm(&mut self, txs: &[Transaction]) {
        for tx in txs {
            self.remove(&tx.compute_txid());
            for input in &tx.input {
                if let Some(rival) = self.spends.get(&input.previous_output).copied() {
                    for txid in self.closure([rival], |entry| vec![&entry.children]) {
                        self.remove(&txid);
                    }
                }
            }
        }
    }

    /// Forgets a transaction and its descendants.
    pub(super) fn evict(&mut self, txid: &Txid) {
        for txid in self.closure([*txid], |entry| vec![&entry.children]) {
            self.remove(&txid);
        }
    }

    /// The transactions of the next block, best paying first, each with the ancestors it needs, up to
    /// `max_weight`; and their fees.
    pub(super) fn select(&self, max_weight: u64) -> (Vec<Arc<Transaction>>, u64) {
        let mut taken = BTreeSet::new();
        let mut chosen = Vec::new();
        let (mut weight, mut fees) = (0, 0);
        let mut skipped = BTreeSet::new();
        loop {
            let best = self
                .entries
                .iter()
                .filter(|(txid, _)| !taken.contains(*txid) && !skipped.contains(*txid))
                .map(|(txid, entry)| {
                    let family = self.closure([*txid], |entry| vec![&entry.parents]);
                    let family: BTreeSet<Txid> = family.difference(&taken).copied().collect();
                    let (fee, vsize) = self.totals(&family);
                    // Higher rate first, then first come.
                    let rate = u128::from(fee) * 1_000_000 / u128::from(vsize.max(1));
                    (rate, std::cmp::Reverse(entry.order), *txid, family)
                })
                .max();
            let Some((_, _, txid, family)) = best else { break };
            let mut entries: Vec<_> =
                family.iter().filter_map(|txid| self.entries.get_key_value(txid)).collect();
            let more: u64 = entries.iter().map(|(_, entry)| entry.weight).sum();
            if weight + more > max_weight {
                skipped.insert(txid);
                continue;
            }
            entries.sort_by_key(|(_, entry)| entry.order);
            for (txid, entry) in entries {
                taken.insert(*txid);
                chosen.push(entry.tx.clone());
                fees += entry.fee;
            }
            weight += more;
        }
        (chosen, fees)
    }
}

fn missing() -> Refusal {
    Refusal { code: code::MISSING, reason: "bad-txns-inputs-missingorspent".into() }
}

/// The relay rules about the shape of a transaction.
fn standard(tx: &Transaction) -> Result<(), Refusal> {
    if !(1..=3).contains(&tx.version.0) {
        return Err(refuse("version"));
    }
    if tx.weight().to_wu() > MAX_TX_WEIGHT {
        return Err(refuse("tx-size"));
    }
    if tx.base_size() < MIN_STRIPPED_SIZE {
        return Err(refuse("tx-size-small"));
    }
    if tx.input.iter().any(|input| !input.script_sig.is_push_only()) {
        return Err(refuse("scriptsig-not-pushonly"));
    }
    let mut data = 0;
    for output in &tx.output {
        let script = &output.script_pubkey;
        if script.is_op_return() {
            data += script.len();
            continue;
        }
        let known = script.is_p2pk()
            || script.is_p2pkh()
            || script.is_p2sh()
            || script.is_witness_program()
            || script.is_multisig();
        if !known {
            return Err(refuse("scriptpubkey"));
        }
        if output.value < script.minimal_non_dust() {
            return Err(refuse("dust"));
        }
    }
    if data as u64 > MAX_TX_WEIGHT / 4 {
        return Err(refuse("datacarrier"));
    }
    Ok(())
}

/// BIP-113: a lock time is compared with the median time past.
fn is_final(tx: &Transaction, height: u32, median_time: u32) -> bool {
    if tx.input.iter().all(|input| input.sequence == Sequence::MAX) {
        return true;
    }
    match tx.lock_time {
        absolute::LockTime::Blocks(at) => at.to_consensus_u32() < height,
        absolute::LockTime::Seconds(at) => at.to_consensus_u32() < median_time,
    }
}

/// BIP-68.
fn sequence_locks_passed(tx: &Transaction, spent: &[Coin], tip: &Tip) -> bool {
    if tx.version.0 < 2 {
        return true;
    }
    tx.input.iter().zip(spent).all(|(input, coin)| {
        let bits = input.sequence.0;
        if bits & (1 << 31) != 0 {
            return true;
        }
        let count = bits & 0xffff;
        if bits & (1 << 22) == 0 {
            coin.height + count <= tip.height + 1
        } else {
            let since = tip.median_time(coin.height.saturating_sub(1));
            u64::from(since) + (u64::from(count) << 9) <= u64::from(tip.median_time(tip.height))
        }
    })
}

fn scripts_pass(tx: &bitcoinkernel::Transaction, spent: &[Coin]) -> Result<(), Refusal> {
    let failed = |_| refuse("mempool-script-verify-flag-failed");
    let mut outputs = Vec::with_capacity(spent.len());
    for coin in spent {
        let script = ScriptPubkey::new(coin.output.script_pubkey.as_bytes()).map_err(failed)?;
        outputs.push(bitcoinkernel::TxOut::new(&script, signed(coin.output.value)));
    }
    let data = PrecomputedTransactionData::new(tx, &outputs).map_err(failed)?;
    for (index, output) in outputs.iter().enumerate() {
        let script = output.script_pubkey();
        verify(&script, Some(output.value()), tx, index, Some(VERIFY_ALL), &data)
            .map_err(failed)?;
    }
    Ok(())
}

fn signed(amount: Amount) -> i64 {
    i64::try_from(amount.to_sat()).unwrap_or(i64::MAX)
}
