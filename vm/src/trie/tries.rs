//! The tries of a state as they change from block to block.

use super::{
    EMPTY_ROOT_HASH, Nibbles, TrieAccount, account_key,
    ops::{Leaves, Trie, TrieError},
    slot_key,
    state::recall_account,
    threads::{OneThread, Threads},
};
use crate::{AccountInfo, ExecuteError, StateDiff, TrieDiff, TrieNodes};
use alloc::{collections::BTreeMap, vec::Vec};
use alloy_primitives::{Address, B256, Bytes, U256};
use core::marker::PhantomData;

/// Storage roots of the accounts that were asked for.
pub type StorageRoots = BTreeMap<Address, B256>;

/// Nodes that are kept in memory at most. A branch with all its children takes 900 bytes.
const MOST_NODES: usize = 1 << 18;
/// Nodes further below a root than this go first, all at once.
const DEEPEST: usize = 8;

/// The tries of one state, as far as they have been read: their branches stay in memory from block to block, so
/// that blocks which change much read little. Hashes on the threads of `T`.
#[derive(Debug)]
pub struct StateTries<T = OneThread> {
    root: B256,
    accounts: Trie,
    /// Storage tries with their roots, by hashed address.
    storages: BTreeMap<B256, (B256, Trie)>,
    /// Not fewer than there are nodes in memory.
    nodes: usize,
    threads: PhantomData<T>,
}

impl<T> Default for StateTries<T> {
    fn default() -> Self {
        Self::at(EMPTY_ROOT_HASH)
    }
}

/// An account that changes, or whose storage does.
struct Change {
    address: Address,
    key: Nibbles,
    owner: B256,
    /// What its leaf is likely to hold.
    likely: Option<Vec<u8>>,
    /// None where there is none.
    before: Option<TrieAccount>,
    /// None where it is gone.
    after: Option<AccountInfo>,
    /// Its slots that change.
    slots: Vec<SlotChange>,
    /// Its storage, where that changes.
    storage: Option<Trie>,
}

/// A slot that changes: what its leaf is likely to hold, and what it is to hold; nothing for none.
struct SlotChange {
    key: Nibbles,
    likely: Vec<u8>,
    after: Vec<u8>,
}

impl SlotChange {
    fn likely(&self) -> Option<&[u8]> {
        (!self.likely.is_empty()).then_some(&*self.likely)
    }
}

/// A node that is asked for: owner, path and hash.
type Wanted = (Option<B256>, Nibbles, B256);

/// A storage trie that was committed, by the index of its change.
type Committed = (usize, B256, BTreeMap<Nibbles, Option<Bytes>>);

/// Applies `diff` to the state with that root. Gives the new root, the changed nodes, and the storage
/// roots of the accounts in `report`.
///
/// # Errors
/// When a node that the change needs cannot be read.
pub fn apply<N: TrieNodes>(
    root: B256,
    diff: &StateDiff,
    report: &[Address],
    nodes: &mut N,
) -> Result<(B256, TrieDiff, StorageRoots), ExecuteError<N::Error>> {
    StateTries::<OneThread>::at(root).apply(root, diff, &StateDiff::default(), report, nodes)
}

impl<T> StateTries<T> {
    /// The tries of the state with that root, of which nothing has been read.
    pub fn at(root: B256) -> Self {
        Self {
            root,
            accounts: Trie::new(root),
            storages: BTreeMap::new(),
            nodes: 0,
            threads: PhantomData,
        }
    }

    /// How many nodes are in memory.
    pub(super) fn loaded(&self) -> usize {
        let storages = self.storages.values().map(|(_, trie)| trie.loaded());
        storages.fold(self.accounts.loaded(), usize::saturating_add)
    }

    /// Where there are more than `most` nodes in memory, leaves out what is furthest from the roots, until there
    /// are three quarters of that.
    pub(super) fn shed(&mut self, most: usize) {
        if self.nodes <= most {
            return;
        }
        self.nodes = self.loaded();
        let enough = most.saturating_sub(most / 4);
        for depth in (0..DEEPEST).rev() {
            if self.nodes <= enough {
                return;
            }
            self.accounts.shed(depth);
            self.storages.retain(|_, (_, trie)| {
                trie.shed(depth);
                trie.loaded() > 0
            });
            self.nodes = self.loaded();
        }
    }
}

impl<T: Threads> StateTries<T> {
    /// As [`apply`]: these are the tries of the state after it then. Where they are those of another state than
    /// that of `root`, they are read again. `before` are values that `diff` changes, as far as they are known.
    ///
    /// # Errors
    /// As [`apply`]; they are those of the empty state then.
    pub fn apply<N: TrieNodes>(
        &mut self,
        root: B256,
        diff: &StateDiff,
        before: &StateDiff,
        report: &[Address],
        nodes: &mut N,
    ) -> Result<(B256, TrieDiff, StorageRoots), ExecuteError<N::Error>> {
        let mut tries = core::mem::take(self);
        if tries.root != root {
            tries = Self::at(root);
        }
        let applied = tries.advance(diff, before, report, nodes)?;
        tries.shed(MOST_NODES);
        *self = tries;
        Ok(applied)
    }

    fn advance<N: TrieNodes>(
        &mut self,
        diff: &StateDiff,
        before: &StateDiff,
        report: &[Address],
        nodes: &mut N,
    ) -> Result<(B256, TrieDiff, StorageRoots), ExecuteError<N::Error>> {
        let mut nodes = Counted { nodes, count: 0 };
        self.accounts.checked = N::CHECKED;
        let mut changes = self.changes(diff, before);
        if N::SLOW {
            self.fetch_accounts(&changes, &mut nodes)?;
        }
        for change in &mut changes {
            self.open(change, diff, &mut nodes)?;
        }
        if N::SLOW {
            fetch_slots(&mut changes, &mut nodes)?;
        }
        for change in &mut changes {
            set_slots(change, &mut nodes)?;
        }

        let mut changed = TrieDiff::default();
        let mut roots = BTreeMap::new();
        let mut storages: Vec<(usize, &mut Trie)> = changes
            .iter_mut()
            .enumerate()
            .filter_map(|(index, change)| Some((index, change.storage.as_mut()?)))
            .collect();
        for (index, root, diff) in commit_all::<T>(&mut storages) {
            roots.insert(index, (root, diff));
        }
        for (index, change) in changes.into_iter().enumerate() {
            let (key, owner) = (change.key, change.owner);
            let Some(info) = change.after else {
                self.set_account(&key, None, &mut nodes)?;
                continue;
            };
            let mut storage_root = change.before.map_or(EMPTY_ROOT_HASH, |it| it.storage_root);
            if let (Some(trie), Some((root, diff))) = (change.storage, roots.remove(&index)) {
                nodes.count = nodes.count.saturating_add(diff.len());
                let diff = diff.into_iter().map(|(path, node)| ((Some(owner), path), node));
                changed.nodes.extend(diff);
                storage_root = root;
                if root != EMPTY_ROOT_HASH {
                    self.storages.insert(owner, (root, trie));
                }
            }
            let after = with_storage(info, storage_root);
            if change.before != Some(after) {
                self.set_account(&key, Some(after), &mut nodes)?;
            }
        }

        let mut reported = StorageRoots::new();
        for address in report {
            let (key, _) = account_key(*address);
            let account = recall_account(&mut self.accounts, &key, None, &mut nodes);
            let account = account.map_err(|e| corrupt(None, e))?;
            reported.insert(*address, account.map_or(EMPTY_ROOT_HASH, |it| it.storage_root));
        }
        let (root, diff) = self.accounts.commit_on::<T>(Leaves::Drop);
        nodes.count = nodes.count.saturating_add(diff.len());
        changed.nodes.extend(diff.into_iter().map(|(path, node)| ((None, path), node)));
        self.root = root;
        self.nodes = self.nodes.saturating_add(nodes.count);
        Ok((root, changed, reported))
    }

    /// What changes, as far as it is known without the tries.
    fn changes(&self, diff: &StateDiff, known: &StateDiff) -> Vec<Change> {
        let mut all: BTreeMap<Address, Vec<SlotChange>> =
            diff.accounts.keys().map(|address| (*address, Vec::new())).collect();
        for ((address, slot), value) in &diff.storage {
            let likely = known.storage.get(&(*address, *slot));
            all.entry(*address).or_default().push(SlotChange {
                key: slot_key(*slot),
                likely: likely.map(|value| slot_value(*value)).unwrap_or_default(),
                after: slot_value(*value),
            });
        }
        let changes = all.into_iter().map(|(address, mut slots)| {
            slots.sort_unstable_by_key(|slot| slot.key);
            let (key, owner) = account_key(address);
            let info = known.accounts.get(&address).copied().flatten();
            let storage_root = self.storages.get(&owner).map_or(EMPTY_ROOT_HASH, |(root, _)| *root);
            let likely = info.map(|info| alloy_rlp::encode(with_storage(info, storage_root)));
            let (before, after, storage) = (None, None, None);
            Change { address, key, owner, likely, before, after, slots, storage }
        });
        let mut changes: Vec<Change> = changes.collect();
        // What is next to each other in the tries is so in memory, and in the database.
        changes.sort_unstable_by_key(|change| change.key);
        changes
    }

    /// Brings what is on the paths of accounts into memory, level by level.
    fn fetch_accounts<N: TrieNodes>(
        &mut self,
        changes: &[Change],
        nodes: &mut Counted<'_, N>,
    ) -> Result<(), ExecuteError<N::Error>> {
        let mut open: Vec<&Change> = changes.iter().collect();
        while !open.is_empty() {
            let mut wanted = BTreeMap::new();
            open.retain(|change| {
                let gap = self.accounts.gap(&change.key, change.likely.as_deref());
                wanted.extend(gap);
                gap.is_some()
            });
            let wanted: Vec<Wanted> =
                wanted.into_iter().map(|(path, hash)| (None, path, hash)).collect();
            nodes.fetch(&wanted, |(_, path, hash), node| self.accounts.fill(path, *hash, node))?;
        }
        Ok(())
    }

    /// Reads an account, and finds its storage where that changes.
    fn open<N: TrieNodes>(
        &mut self,
        change: &mut Change,
        diff: &StateDiff,
        nodes: &mut N,
    ) -> Result<(), ExecuteError<N::Error>> {
        let Change { address, key, owner, likely, before, after, slots, storage } = change;
        *before = recall_account(&mut self.accounts, key, likely.as_deref(), nodes)
            .map_err(|e| corrupt(None, e))?;
        *after = match diff.accounts.get(address) {
            Some(info) => *info,
            None => before.map(|account| AccountInfo {
                nonce: account.nonce,
                balance: account.balance,
                code_hash: account.code_hash,
            }),
        };
        let kept = self.storages.remove(owner);
        let root = before.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
        let kept = kept.filter(|(of, _)| *of == root);
        // An account that is gone had no storage before the block (EIP-6780, EIP-161).
        if slots.is_empty() || after.is_none() {
            if let (Some(kept), Some(_)) = (kept, after) {
                self.storages.insert(*owner, kept);
            }
            return Ok(());
        }
        let mut trie = kept.map_or_else(|| Trie::new(root), |(_, trie)| trie);
        trie.checked = N::CHECKED;
        *storage = Some(trie);
        Ok(())
    }

    fn set_account<N: TrieNodes>(
        &mut self,
        key: &Nibbles,
        account: Option<TrieAccount>,
        nodes: &mut N,
    ) -> Result<(), ExecuteError<N::Error>> {
        let value = account.map_or_else(Vec::new, alloy_rlp::encode);
        self.accounts
            .set(key, value, |path, hash| nodes.trie_node(None, path, hash))
            .map_err(|e| corrupt(None, e))
    }
}

/// Brings what is on the paths of slots into memory, level by level.
fn fetch_slots<N: TrieNodes>(
    changes: &mut [Change],
    nodes: &mut Counted<'_, N>,
) -> Result<(), ExecuteError<N::Error>> {
    let mut open: BTreeMap<B256, (&mut Trie, Vec<&SlotChange>)> = BTreeMap::new();
    for change in changes {
        if let Some(storage) = &mut change.storage {
            open.insert(change.owner, (storage, change.slots.iter().collect()));
        }
    }
    loop {
        let mut wanted = BTreeMap::new();
        for (owner, (storage, slots)) in &mut open {
            slots.retain(|slot| {
                let gap = storage.gap(&slot.key, slot.likely());
                wanted.extend(gap.map(|(path, hash)| ((*owner, path), hash)));
                gap.is_some()
            });
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<Wanted> =
            wanted.into_iter().map(|((owner, path), hash)| (Some(owner), path, hash)).collect();
        nodes.fetch(&wanted, |(owner, path, hash), node| {
            let trie = owner.and_then(|owner| open.get_mut(&owner));
            trie.is_some_and(|(storage, _)| storage.fill(path, *hash, node))
        })?;
    }
}

/// Changes the storage of an account.
fn set_slots<N: TrieNodes>(
    change: &mut Change,
    nodes: &mut N,
) -> Result<(), ExecuteError<N::Error>> {
    let Change { owner, slots, storage: Some(storage), .. } = change else { return Ok(()) };
    let owner = Some(*owner);
    for slot in slots {
        let after = core::mem::take(&mut slot.after);
        let load = |path: &Nibbles, hash| nodes.trie_node(owner, path, hash);
        storage.replace(&slot.key, slot.likely(), after, load).map_err(|e| corrupt(owner, e))?;
    }
    Ok(())
}

fn with_storage(info: AccountInfo, storage_root: B256) -> TrieAccount {
    TrieAccount {
        nonce: info.nonce,
        balance: info.balance,
        storage_root,
        code_hash: info.code_hash,
    }
}

/// What a slot's leaf holds; nothing for zero, which has none.
fn slot_value(value: U256) -> Vec<u8> {
    if value.is_zero() { Vec::new() } else { alloy_rlp::encode(value) }
}

fn commit_all<T: Threads>(tries: &mut [(usize, &mut Trie)]) -> Vec<Committed> {
    match tries {
        [] => Vec::new(),
        [(index, trie)] => {
            let (root, diff) = trie.commit_on::<T>(Leaves::Drop);
            alloc::vec![(*index, root, diff)]
        }
        many => {
            let (left, right) = many.split_at_mut(many.len() / 2);
            let (mut all, mut more) = T::join(|| commit_all::<T>(left), || commit_all::<T>(right));
            all.append(&mut more);
            all
        }
    }
}

fn corrupt<E>(owner: Option<B256>, error: TrieError<E>) -> ExecuteError<E> {
    match error {
        TrieError::Load(error) => ExecuteError::Database(error),
        TrieError::Corrupt(path) => ExecuteError::CorruptTrie { owner, path },
    }
}

/// Counts the nodes that are loaded.
struct Counted<'n, N> {
    nodes: &'n mut N,
    count: usize,
}

impl<N: TrieNodes> Counted<'_, N> {
    /// Gets nodes and has `fill` put each in its place.
    fn fetch(
        &mut self,
        wanted: &[Wanted],
        mut fill: impl FnMut(&Wanted, &[u8]) -> bool,
    ) -> Result<(), ExecuteError<N::Error>> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.count = self.count.saturating_add(wanted.len());
        let nodes = self.nodes.trie_nodes(wanted).map_err(ExecuteError::Database)?;
        for (wanted, node) in wanted.iter().zip(nodes) {
            if !fill(wanted, &node) {
                let (owner, path, _) = *wanted;
                return Err(ExecuteError::CorruptTrie { owner, path });
            }
        }
        Ok(())
    }
}

impl<N: TrieNodes> TrieNodes for Counted<'_, N> {
    type Error = N::Error;
    const CHECKED: bool = N::CHECKED;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        self.count = self.count.saturating_add(1);
        self.nodes.trie_node(owner, path, hash)
    }
}
