//! The senders of a block's transactions, recovered on all cores.
//!
//! Recovering a sender takes many times longer than a transfer's execution, and nothing else has to be known
//! for it. Execution asks for one sender after the other where it gets to its transaction, through the provider
//! that `alloy-consensus` has for this; here that is one which knows what was recovered before.

use alloy_consensus::crypto::backend::{CryptoProvider, install_default_provider};
use alloy_consensus::{crypto::RecoveryError, transaction::SignerRecoverable};
use alloy_eips::Decodable2718;
use alloy_primitives::{Address, keccak256};
use kedge_vm::{OpTxEnvelope, Payload, PayloadTx};
use revm::precompile::crypto;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Once};
use std::thread;

/// r, s, parity, and the hash that is signed.
type Signed = ([u8; 65], [u8; 32]);

/// Fewer transactions than this for each core are not worth a thread.
const PER_THREAD: usize = 16;

thread_local! {
    /// What this thread knows, while it executes or recovers.
    static KNOWN: RefCell<Option<HashMap<Signed, Address>>> = const { RefCell::new(None) };
}

/// Runs `work` on this thread with the senders that are `known`, and gives those that are known after it.
fn knowing<T>(
    known: HashMap<Signed, Address>,
    work: impl FnOnce() -> T,
) -> (T, HashMap<Signed, Address>) {
    KNOWN.set(Some(known));
    let done = work();
    (done, KNOWN.take().unwrap_or_default())
}

/// Recovers like the libraries do, unless the thread knows the sender.
struct Remembering;

fn recover(signature: &[u8; 65], hash: &[u8; 32]) -> Result<Address, RecoveryError> {
    let [rs @ .., parity] = signature;
    if *parity > 3 {
        return Err(RecoveryError::new());
    }
    let word = crypto().secp256k1_ecrecover(rs, *parity, hash).map_err(|_| RecoveryError::new())?;
    Ok(Address::from_word(word.into()))
}

impl CryptoProvider for Remembering {
    fn recover_signer_unchecked(
        &self,
        signature: &[u8; 65],
        hash: &[u8; 32],
    ) -> Result<Address, RecoveryError> {
        let key = (*signature, *hash);
        let known = KNOWN.with_borrow(|known| known.as_ref()?.get(&key).copied());
        if let Some(address) = known {
            return Ok(address);
        }
        let address = recover(signature, hash)?;
        KNOWN.with_borrow_mut(|known| known.as_mut().map(|known| known.insert(key, address)));
        Ok(address)
    }

    fn verify_and_compute_signer_unchecked(
        &self,
        key: &[u8; 65],
        signature: &[u8; 64],
        hash: &[u8; 32],
    ) -> Result<Address, RecoveryError> {
        let [_, point @ ..] = key;
        let address = Address::from_word(keccak256(point));
        // A signature is one under a key exactly if the key is one of the four at most that recover from it.
        let recovers = |id: u8| {
            let mut signed = [id; 65];
            signed[..64].copy_from_slice(signature);
            recover(&signed, hash).is_ok_and(|found| found == address)
        };
        if (0..4).any(recovers) { Ok(address) } else { Err(RecoveryError::new()) }
    }
}

/// Runs `execute` on this thread, where the senders of `payload` are known.
pub(super) fn with_senders<T>(payload: &Payload, execute: impl FnOnce() -> T) -> T {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // Another one only recovers what is known again.
        let _ = install_default_provider(Arc::new(Remembering));
    });
    knowing(recover_all(payload), execute).0
}

fn recover_all(payload: &Payload) -> HashMap<Signed, Address> {
    let users = payload.transactions.iter().filter_map(|tx| match tx {
        PayloadTx::System(_) => None,
        PayloadTx::User(bytes) => Some(bytes.as_ref()),
    });
    let users: Vec<&[u8]> = users.collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(users.len() / PER_THREAD);
    if threads < 2 {
        return HashMap::new();
    }
    let recover_each = |part: &[&[u8]]| {
        let recover = || {
            for bytes in part {
                // What is no transaction, or has no sender, is for execution to skip.
                let tx = OpTxEnvelope::decode_2718_exact(bytes);
                let _ = tx.map(|tx| tx.recover_signer());
            }
        };
        knowing(HashMap::with_capacity(part.len()), recover).1
    };
    let (own, others) = users.split_at(users.len().div_ceil(threads));
    thread::scope(|scope| {
        let size = users.len().div_ceil(threads);
        let others: Vec<_> =
            others.chunks(size).map(|part| scope.spawn(move || recover_each(part))).collect();
        let mut known = recover_each(own);
        for thread in others {
            // A thread that failed leaves its part to execution.
            known.extend(thread.join().unwrap_or_default());
        }
        known
    })
}
