//! The Merkle Patricia trie of the yellow paper (appendix D), loaded lazily.
//!
//! A [`Trie`] starts as a root hash. Reading or changing a key asks a *loader* for the nodes on its path
//! and for nothing else, checks each against the hash that refers to it, and keeps it. [`Trie::commit`]
//! hashes what changed and tells it by path, so that cost follows the change and not the state.

mod node;
mod ops;
mod state;
mod threads;
mod tries;

pub use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount};
pub use ops::{Trie, TrieError};
pub use state::{AccountProof, account_key, prove_account, slot_key};
pub(crate) use state::{read_account, read_slot};
pub use threads::{OneThread, Threads};
pub use tries::{StateTries, StorageRoots, apply};

#[cfg(test)]
mod tests;
