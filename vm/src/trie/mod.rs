//! The Merkle Patricia trie.
pub use alloy_trie::Nibbles;
