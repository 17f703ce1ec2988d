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
const MOST_NODES: usize = 1 << 16;
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
    key: Nibbles,
    owner: B256,
    before: Option<TrieAccount>,
    /// None where it is gone.
    after: Option<AccountInfo>,
    /// Its storage, where that changes.
    storage: Option<Trie>,
}

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
    StateTries::<OneThread>::at(root).apply(root, diff, None, report, nodes)
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
    /// are half of that.
    pub(super) fn shed(&mut self, most: usize) {
        if self.nodes <= most {
            return;
        }
        self.nodes = self.loaded();
        for depth in (0..DEEPEST).rev() {
            if self.nodes <= most / 2 {
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
        before: Option<&StateDiff>,
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
        before: Option<&StateDiff>,
        report: &[Address],
        nodes: &mut N,
    ) -> Result<(B256, TrieDiff, StorageRoots), ExecuteError<N::Error>> {
        let mut nodes = Counted { nodes, count: 0 };
        self.accounts.checked = N::CHECKED;
        let mut slots: BTreeMap<Address, Vec<(U256, U256)>> = BTreeMap::new();
        for ((address, slot), value) in &diff.storage {
            slots.entry(*address).or_default().push((*slot, *value));
        }
        for address in diff.accounts.keys() {
            slots.entry(*address).or_default();
        }
        let mut changes = Vec::with_capacity(slots.len());
        for (address, slots) in slots {
            changes.push(self.read(address, &slots, diff, before, &mut nodes)?);
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
            let after = TrieAccount {
                nonce: info.nonce,
                balance: info.balance,
                storage_root,
                code_hash: info.code_hash,
            };
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

    /// Reads what changes at an address, and changes its storage.
    fn read<N: TrieNodes>(
        &mut self,
        address: Address,
        slots: &[(U256, U256)],
        diff: &StateDiff,
        known: Option<&StateDiff>,
        nodes: &mut N,
    ) -> Result<Change, ExecuteError<N::Error>> {
        let (key, owner) = account_key(address);
        let kept = self.storages.remove(&owner);
        let likely = known.and_then(|known| known.accounts.get(&address).copied().flatten());
        let likely = likely.map(|info| {
            alloy_rlp::encode(TrieAccount {
                nonce: info.nonce,
                balance: info.balance,
                storage_root: kept.as_ref().map_or(EMPTY_ROOT_HASH, |(root, _)| *root),
                code_hash: info.code_hash,
            })
        });
        let before = recall_account(&mut self.accounts, &key, likely.as_deref(), nodes)
            .map_err(|e| corrupt(None, e))?;
        let after = match diff.accounts.get(&address) {
            Some(info) => *info,
            None => before.map(|account| AccountInfo {
                nonce: account.nonce,
                balance: account.balance,
                code_hash: account.code_hash,
            }),
        };
        let mut change = Change { key, owner, before, after, storage: None };
        let root = before.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
        let kept = kept.filter(|(of, _)| *of == root);
        // An account that is gone had no storage before the block (EIP-6780, EIP-161).
        if slots.is_empty() || after.is_none() {
            if let (Some(kept), Some(_)) = (kept, after) {
                self.storages.insert(owner, kept);
            }
            return Ok(change);
        }
        let mut storage = kept.map_or_else(|| Trie::new(root), |(_, trie)| trie);
        storage.checked = N::CHECKED;
        for (slot, value) in slots {
            let before = known.and_then(|known| known.storage.get(&(address, *slot)));
            let before = before.map(|value| slot_value(*value));
            let before = before.as_deref().filter(|value| !value.is_empty());
            storage
                .replace(&slot_key(*slot), before, slot_value(*value), |path, hash| {
                    nodes.trie_node(Some(owner), path, hash)
                })
                .map_err(|e| corrupt(Some(owner), e))?;
        }
        change.storage = Some(storage);
        Ok(change)
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
