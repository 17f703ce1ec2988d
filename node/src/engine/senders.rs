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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::account;
    use alloy_consensus::{SignableTransaction, TxEip1559};
    use alloy_eips::Encodable2718;
    use alloy_primitives::{B256, Bytes, Signature, U256};
    use alloy_signer::SignerSync;
    use kedge_genesis::{L1Ref, L2Number};

    fn signed(nonce: u64) -> (OpTxEnvelope, B256) {
        let tx = TxEip1559 { chain_id: 1, nonce, ..Default::default() };
        let hash = tx.signature_hash();
        let signature = account().sign_hash_sync(&hash).unwrap();
        (OpTxEnvelope::from(tx.into_signed(signature)), hash)
    }

    fn payload(count: u64) -> Payload {
        let user = |tx: OpTxEnvelope| PayloadTx::User(tx.encoded_2718().into());
        let mut transactions: Vec<_> = (0..count).map(|nonce| user(signed(nonce).0)).collect();
        transactions.push(PayloadTx::User(Bytes::from_static(b"no transaction")));
        let (number, origin) = (L2Number(1), L1Ref::default());
        Payload { number, timestamp: 1, origin, sequence_number: 0, transactions }
    }

    fn parts(signature: &Signature) -> [u8; 65] {
        let mut bytes = signature.as_bytes();
        bytes[64] = u8::from(signature.v());
        bytes
    }

    #[test]
    fn all_senders_of_a_block_are_known_while_it_executes_and_no_longer() {
        let count = || KNOWN.with_borrow(|known| known.as_ref().map(HashMap::len));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let expected = if cores > 1 { 100 } else { 0 };
        assert_eq!(with_senders(&payload(100), count), Some(expected));
        assert_eq!(with_senders(&payload(3), count), Some(0), "too few for threads");
        assert_eq!(count(), None);
        let senders = with_senders(&payload(100), || {
            [0, 57, 99].map(|nonce| signed(nonce).0.recover_signer().unwrap())
        });
        assert_eq!(senders, [account().address(); 3]);
    }

    #[test]
    fn signatures_are_recovered_and_verified_as_by_the_library() {
        let (tx, hash) = signed(7);
        let signature = *tx.signature().unwrap();
        let provider = Remembering;
        let found = provider.recover_signer_unchecked(&parts(&signature), &hash.0).unwrap();
        assert_eq!(found, account().address());
        assert_eq!(signature.recover_address_from_prehash(&hash).unwrap(), found);
        // Of another message or parity it is somebody else's, and beyond the order nobody's.
        let other = provider.recover_signer_unchecked(&parts(&signature), &[9; 32]).unwrap();
        assert_ne!(other, found);
        let odd = parts(&signature.with_parity(!signature.v()));
        assert_ne!(provider.recover_signer_unchecked(&odd, &hash.0).ok(), Some(found));
        let large = parts(&Signature::new(U256::MAX, signature.s(), false));
        assert!(provider.recover_signer_unchecked(&large, &hash.0).is_err());
        let mut unknown = parts(&signature);
        unknown[64] = 4;
        assert!(provider.recover_signer_unchecked(&unknown, &hash.0).is_err());

        let key = signature.recover_from_prehash(&hash).unwrap().to_encoded_point(false);
        let key: [u8; 65] = key.as_bytes().try_into().unwrap();
        let rs: [u8; 64] = parts(&signature)[..64].try_into().unwrap();
        let verify =
            |hash: &[u8; 32]| provider.verify_and_compute_signer_unchecked(&key, &rs, hash).ok();
        assert_eq!((verify(&hash.0), verify(&[9; 32])), (Some(found), None));
    }
}
