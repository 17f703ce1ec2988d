//! Wire formats: fixed vectors, round trips as laws, and tables of hostile input.

mod batch;
mod bond;
mod deposit;
mod envelope;
mod messages;
mod payout;

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, XOnlyPublicKey,
    absolute::LockTime, hashes::Hash, key::Keypair, secp256k1::Secp256k1, transaction::Version,
};
use kedge_genesis::{Network, Params, params::dev_secrets};

fn params() -> &'static Params {
    Network::Regtest.params()
}

fn sequencer() -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &dev_secrets::SEQUENCER).unwrap()
}

fn publisher() -> XOnlyPublicKey {
    sequencer().x_only_public_key().0
}

fn outpoint(byte: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([byte; 32]), u32::from(byte))
}

/// A P2WPKH script that somebody else holds.
fn elsewhere() -> ScriptBuf {
    ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap()
}

fn pay(script_pubkey: ScriptBuf, sats: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sats), script_pubkey }
}

fn tx(witnesses: Vec<Witness>, output: Vec<TxOut>) -> Transaction {
    let input = witnesses
        .into_iter()
        .zip(1..)
        .map(|(witness, byte)| TxIn {
            previous_output: outpoint(byte),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness,
        })
        .collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}
