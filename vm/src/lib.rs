//! Execution of one payload on any database, the state trie, block and transaction types.
#![no_std]
