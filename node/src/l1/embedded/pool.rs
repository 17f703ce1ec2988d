//! The embedded chain's mempool: consensus through Bitcoin Core's own checks, and those of its relay
//! policies that a correct wallet can run into (fees, replacement, dust, chains of unconfirmed
//! transactions, locks), so that what is accepted here is accepted by Bitcoin Core.

use super::coins::{Coin, Coins};
use super::rules::{self, Refusal, Tip, code, missing, refuse};
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Lowest fee rate for relay and for the bandwidth of a replacement, sat per 1,000 vB.
pub const MIN_RELAY_FEE: u64 = 100;
/// Unconfirmed ancestors, or descendants, of a transaction, itself included.
const MAX_CHAIN: usize = 25;
/// Virtual bytes of a transaction and all that it is connected to.
const MAX_CLUSTER_VSIZE: u64 = 101_000;
/// The most transactions that one replacement may evict.
const MAX_EVICTED: usize = 100;
/// Virtual bytes in the mempool altogether.
const MAX_POOL_VSIZE: u64 = 100_000_000;

/// A transaction that waits for a block.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Itself.
    pub tx: Arc<Transaction>,
    /// What it pays, satoshis.
    pub fee: u64,
    /// Virtual bytes.
    pub vsize: u64,
    /// Weight units.
    pub weight: u64,
    /// Order of arrival.
    pub order: u64,
    /// Unix seconds at arrival.
    pub time: u64,
    /// Height of the tip at arrival.
    pub height: u32,
    parents: BTreeSet<Txid>,
    children: BTreeSet<Txid>,
}

impl Entry {
    /// The transactions of the mempool that it spends.
    pub fn parents(&self) -> &BTreeSet<Txid> {
        &self.parents
    }

    /// The transactions of the mempool that spend it.
    pub fn children(&self) -> &BTreeSet<Txid> {
        &self.children
    }
}

/// The transactions that wait for a block.
#[derive(Debug, Default)]
pub struct Pool {
    entries: BTreeMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    arrivals: u64,
    vsize: u64,
}

impl Pool {
    /// A transaction that waits.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// The transaction that spends an output.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Txid> {
        self.spends.get(outpoint)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Virtual bytes of all.
    pub const fn vsize(&self) -> u64 {
        self.vsize
    }

    /// The transactions in order of arrival, so parents first.
    pub fn in_order(&self) -> Vec<Arc<Transaction>> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.order);
        entries.into_iter().map(|entry| entry.tx.clone()).collect()
    }

    /// Their ids, in ascending order.
    pub fn txids(&self) -> impl Iterator<Item = &Txid> {
        self.entries.keys()
    }

    /// Everything reachable from `from` by `next`, itself included.
    pub fn closure<'a>(
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
    ///
    /// # Errors
    /// Why Bitcoin Core would refuse it.
    pub fn accept(
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
        let kernel = rules::well_formed(&tx)?;
        rules::standard(&tx)?;
        rules::is_final(&tx, tip)?;
        let spent = self.spent(&tx, txid, coins, tip)?;
        let fee = rules::spendable(&tx, &spent, tip)?;
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
        rules::scripts_pass(&kernel, &spent)?;
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
    pub fn confirm(&mut self, txs: &[Transaction]) {
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
    pub fn evict(&mut self, txid: &Txid) {
        for txid in self.closure([*txid], |entry| vec![&entry.children]) {
            self.remove(&txid);
        }
    }

    /// The transactions of the next block, best paying first, each with the ancestors it needs, up to
    /// `max_weight`; and their fees.
    pub fn select(&self, max_weight: u64) -> (Vec<Arc<Transaction>>, u64) {
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
