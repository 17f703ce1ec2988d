//! Accounts, slots and tries at `latest`.

use super::{Verifier, VerifyStep};
use crate::codec::decode;
use crate::error::Result;
use crate::l2::{AccountRow, L2Rows, SlotRow};
use crate::read::Rows;
use crate::state::LatestState;
use crate::table::Table;
use crate::tries::node_key;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::nodes::{RlpNode, TrieNode};
use kedge_vm::trie::{EMPTY_ROOT_HASH, TrieAccount, account_key, prove_account};
use kedge_vm::{AccountInfo, Nibbles, TrieNodes};

/// Slots that are proven together.
const SLOTS_AT_ONCE: usize = 256;

/// What a trie consists of.
#[derive(Default)]
struct Walked {
    leaves: u64,
    stored: u64,
}

/// Address and slot of a row's key.
pub(super) fn split_slot(key: &[u8]) -> Option<(Address, U256)> {
    let (address, slot) = key.split_at_checked(20)?;
    Some((Address::from_slice(address), U256::try_from_be_slice(slot)?))
}

impl Verifier<'_, '_> {
    /// The state at `latest`.
    pub(super) fn state(&mut self) -> Result<()> {
        let Some(latest) = self.reader.latest()? else { return Ok(()) };
        let key = latest.0.to_be_bytes();
        let header = self.reader.header(latest);
        let Some(header) = self.readable(header, Table::Headers, &key)?.flatten() else {
            return Ok(());
        };
        self.codes()?;
        let root = header.state_root;
        let accounts = self.walk(None, root)?;
        let mut storage = Walked::default();
        let addresses = self.reader.all(Table::Accounts).map(|row| row.map(|(key, _)| key));
        for key in addresses.collect::<Result<Vec<_>>>()? {
            let row = self.reader.get(Table::Accounts, &key)?.unwrap_or_default();
            let info = decode::<AccountRow>(Table::Accounts, &key, &row);
            let Some(AccountRow(info)) = self.readable(info, Table::Accounts, &key)? else {
                continue;
            };
            if key.len() != 20 {
                self.fault(Table::Accounts, &key, "is not the key of an account");
                continue;
            }
            let address = Address::from_slice(&key);
            let storage_root = self.account(root, address, &info)?;
            let walked = self.walk(Some(account_key(address).1), storage_root)?;
            storage.leaves = storage.leaves.saturating_add(walked.leaves);
            storage.stored = storage.stored.saturating_add(walked.stored);
            self.found.accounts = self.found.accounts.saturating_add(1);
            (self.progress)(VerifyStep::State, self.found.accounts);
        }
        self.found.trie_nodes = accounts.stored.saturating_add(storage.stored);
        self.check_rows(Table::Accounts, accounts.leaves)?;
        self.check_rows(Table::Storage, storage.leaves)?;
        let (nodes, reached) = (self.reader.count_nodes()?, self.found.trie_nodes);
        if nodes != reached {
            self.fault(
                Table::Tries,
                &[],
                format!("has {nodes} nodes at the latest block, expected {reached}"),
            );
        }
        Ok(())
    }

    /// Every code is what its hash says.
    fn codes(&mut self) -> Result<()> {
        let wrong = self.reader.all(Table::Codes).filter_map(|row| match row {
            Ok((hash, code)) => (keccak256(&code).as_slice() != &*hash).then_some(Ok(hash)),
            Err(error) => Some(Err(error)),
        });
        for hash in wrong.collect::<Result<Vec<_>>>()? {
            self.fault(Table::Codes, &hash, "is not the hash of the code");
        }
        Ok(())
    }

    /// An account with its slots against the state root. Gives its storage root.
    fn account(&mut self, root: B256, address: Address, info: &AccountInfo) -> Result<B256> {
        let key = address.as_slice();
        if info.code_hash != KECCAK256_EMPTY
            && self.reader.get(Table::Codes, info.code_hash.as_slice())?.is_none()
        {
            self.fault(Table::Accounts, key, "its code is missing");
        }
        let rows = self.reader.prefixed(Table::Storage, key);
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let mut storage_root = EMPTY_ROOT_HASH;
        let mut first = true;
        let mut chunks = rows.chunks(SLOTS_AT_ONCE);
        // Once even where there are no slots.
        while let Some(chunk) = chunks.next().or(first.then_some(&[])) {
            first = false;
            let slots: Vec<U256> =
                chunk.iter().filter_map(|(key, _)| split_slot(key)).map(|(_, slot)| slot).collect();
            let proven = prove_account(root, address, &slots, &mut LatestState(&self.reader));
            let proof = match proven {
                Ok(proof) => proof,
                Err(error) => {
                    self.fault(Table::Accounts, key, format!("cannot be proven: {error}"));
                    break;
                }
            };
            storage_root = proof.account.storage_root;
            let same = holds(&proof.account, Some(info));
            self.check(same, Table::Accounts, key, "is not the account in the trie");
            for ((key, value), (_, proven, _)) in chunk.iter().zip(&proof.slots) {
                let stored = decode::<SlotRow>(Table::Storage, key, value);
                let stored = self.readable(stored, Table::Storage, key)?;
                let same = stored.is_some_and(|stored| stored.0 == *proven);
                self.check(same, Table::Storage, key, "is not the value in the trie");
                self.found.slots = self.found.slots.saturating_add(1);
            }
        }
        Ok(storage_root)
    }

    /// All nodes of a trie, from the root down.
    fn walk(&mut self, owner: Option<B256>, root: B256) -> Result<Walked> {
        let mut walked = Walked::default();
        let mut open = Vec::new();
        if root != EMPTY_ROOT_HASH {
            open.push((Nibbles::new(), RlpNode::word_rlp(&root)));
        }
        while let Some((path, reference)) = open.pop() {
            let (table, key) = (Table::Tries, node_key(owner, &path));
            let node = match reference.as_hash() {
                Some(hash) => {
                    let bytes = LatestState(&self.reader).trie_node(owner, &path, hash);
                    let Some(bytes) = self.readable(bytes, table, &key)? else { continue };
                    walked.stored = walked.stored.saturating_add(1);
                    if keccak256(&bytes) != hash {
                        self.fault(table, &key, "is not the node that its parent names");
                        continue;
                    }
                    TrieNode::decode(&mut bytes.as_ref())
                }
                // Shorter than its hash, so the parent has it itself.
                None => TrieNode::decode(&mut reference.as_slice()),
            };
            match node {
                Ok(TrieNode::EmptyRoot) | Err(_) => self.fault(table, &key, "is not a node"),
                Ok(TrieNode::Leaf(_)) => walked.leaves = walked.leaves.saturating_add(1),
                Ok(TrieNode::Extension(node)) => {
                    let mut path = path;
                    path.extend(&node.key);
                    open.push((path, node.child));
                }
                Ok(TrieNode::Branch(node)) => {
                    for (nibble, child) in node.as_ref().children() {
                        if let Some(child) = child {
                            let mut path = path;
                            path.push(nibble);
                            open.push((path, child.clone()));
                        }
                    }
                }
            }
        }
        Ok(walked)
    }
}

/// Whether a proven account is the stored one; none is the absent one.
pub(super) fn holds(proven: &TrieAccount, stored: Option<&AccountInfo>) -> bool {
    let stored = stored.copied().unwrap_or_default();
    proven.nonce == stored.nonce
        && proven.balance == stored.balance
        && proven.code_hash == stored.code_hash
}
