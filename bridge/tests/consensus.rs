//! Bitcoin Core's own script interpreter (`bitcoinkernel`) judges every spend that this crate builds.

use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid, Witness,
    consensus::serialize, hashes::Hash, key::Keypair, secp256k1::Secp256k1,
};
use bitcoinkernel::{PrecomputedTransactionData, VERIFY_ALL, verify};
use kedge_bridge::{
    bond::{Bond, BondSpend, reward_spend},
    commit::{Commit, CommitOutput, reveal, reveal_vsize},
    envelope::{Kind, envelopes, leaf_script, sign_batch, split},
    multisig::SignError,
    payout::{Withdrawal, build_payout},
    vault::{Vault, VaultHead, spends_vault},
};
use kedge_genesis::{Network, Params, Sats, params::dev_secrets};

fn params() -> &'static Params {
    Network::Regtest.params()
}

fn key(secret: &[u8; 32]) -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), secret).unwrap()
}

fn signers() -> Vec<Keypair> {
    dev_secrets::SIGNERS.iter().map(key).collect()
}

fn outpoint(byte: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([byte; 32]), u32::from(byte))
}

/// A script somebody else holds.
fn elsewhere() -> ScriptBuf {
    ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap()
}

/// Whether every input of `tx` is a valid spend of `prevouts` by all consensus rules.
fn valid(tx: &Transaction, prevouts: &[TxOut]) -> bool {
    let kernel_tx = bitcoinkernel::Transaction::new(&serialize(tx)).unwrap();
    let outputs: Vec<_> = prevouts
        .iter()
        .map(|output| {
            let script = bitcoinkernel::ScriptPubkey::new(output.script_pubkey.as_bytes()).unwrap();
            bitcoinkernel::TxOut::new(&script, output.value.to_sat() as i64)
        })
        .collect();
    let data = PrecomputedTransactionData::new(&kernel_tx, &outputs).unwrap();
    (0..tx.input.len()).all(|input| {
        let output = &prevouts[input];
        let script = bitcoinkernel::ScriptPubkey::new(output.script_pubkey.as_bytes()).unwrap();
        let amount = Some(output.value.to_sat() as i64);
        verify(&script, amount, &kernel_tx, input, Some(VERIFY_ALL), &data).is_ok()
    })
}

fn vault() -> Vault {
    Vault::of(params()).unwrap()
}

fn coin(byte: u8, sats: u64) -> VaultHead {
    VaultHead { outpoint: outpoint(byte), value: Sats(sats) }
}

fn run() -> Vec<Withdrawal> {
    [(7, 20_000), (8, 30_000)]
        .map(|(index, sats)| Withdrawal {
            index,
            script: elsewhere(),
            amount: Sats(sats),
            fee: Sats(300),
        })
        .to_vec()
}

fn rate(sat_per_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_per_vb).unwrap()
}

#[test]
fn a_reveal_of_two_chunks_is_valid_and_carries_both() {
    let publisher = key(&dev_secrets::SEQUENCER);
    let body: Vec<u8> = (0..400_000u32).map(|i| i as u8).collect();
    let mut parts =
        split(Kind::Batch, params().chain_id, 3, Default::default(), &body, params()).unwrap();
    sign_batch(&mut parts, &publisher);
    assert_eq!(parts.len(), 2);
    let x_only = publisher.x_only_public_key().0;
    let inputs: Vec<_> = parts
        .iter()
        .zip(1..)
        .map(|((header, chunk), byte)| {
            let leaf = leaf_script(&x_only, Kind::Batch, header, chunk).unwrap();
            let commit = Commit::new(x_only, leaf).unwrap();
            CommitOutput { outpoint: outpoint(byte), value: Amount::from_sat(200_000), commit }
        })
        .collect();
    let change = TxOut { value: Amount::from_sat(150_000), script_pubkey: elsewhere() };
    let tx = reveal(&inputs, vec![change.clone()], &publisher).unwrap();
    let prevouts: Vec<_> = inputs.iter().map(CommitOutput::tx_out).collect();
    assert!(valid(&tx, &prevouts));
    let commits: Vec<_> = inputs.iter().map(|input| input.commit.clone()).collect();
    assert_eq!(tx.vsize() as u64, reveal_vsize(&commits, &[change]));

    let found = envelopes(&tx);
    assert_eq!(found.iter().map(|(input, _)| *input).collect::<Vec<_>>(), [0, 1]);
    let joined: Vec<u8> = found.iter().flat_map(|(_, envelope)| envelope.body.clone()).collect();
    assert_eq!(joined, body);

    let mut altered = tx;
    altered.output[0].value += Amount::ONE_SAT;
    assert!(!valid(&altered, &prevouts));
}

#[test]
fn the_bond_pays_for_the_largest_proof_at_the_proof_fee_ceiling() {
    let challenger = key(&dev_secrets::RECOVERY).x_only_public_key().0;
    let body = vec![7; usize::from(params().max_chunks) * params().max_chunk_bytes as usize];
    let parts =
        split(Kind::Proof, params().chain_id, 0, Default::default(), &body, params()).unwrap();
    assert_eq!(parts.len(), usize::from(params().max_chunks));
    let change = TxOut { value: Amount::from_sat(1_000), script_pubkey: elsewhere() };
    let mut vbytes = 0;
    for (header, chunk) in &parts {
        let leaf = leaf_script(&challenger, Kind::Proof, header, chunk).unwrap();
        let commit = Commit::new(challenger, leaf).unwrap();
        let output = TxOut { value: Amount::ZERO, script_pubkey: commit.script_pubkey() };
        // A key-path input (57.5 virtual bytes), change, and version, counts and lock time.
        vbytes += output.size() as u64 + 58 + change.size() as u64 + 11;
        vbytes += reveal_vsize(&[commit], std::slice::from_ref(&change));
    }
    let most = params().max_proof_vbytes();
    assert!(vbytes <= most && most - vbytes < most / 100, "{vbytes} of {most}");
    let fee = FeeRate::from_sat_per_vb(params().proof_fee_rate / 1_000).unwrap();
    let fee = fee.fee_vb(vbytes).unwrap().to_sat();
    let (most, bond) = (params().max_proof_fee().0, params().proposer_bond.0);
    assert!(fee <= most && most <= bond, "{fee} {most} {bond}");
}

#[test]
fn any_two_of_three_signers_pay_and_one_does_not() {
    let vault = vault();
    let plan =
        build_payout(&vault, &coin(1, 100_000), &[coin(2, 50_000)], &run(), rate(2)).unwrap();
    let shares: Vec<_> =
        signers().iter().map(|signer| plan.multisig().sign(signer).unwrap()).collect();
    for pair in [[0, 1], [0, 2], [1, 2], [2, 0]] {
        let tx = plan.multisig().assemble(&pair.map(|number| shares[number].clone())).unwrap();
        assert!(valid(&tx, plan.multisig().prevouts()));
        assert_eq!(tx.weight(), plan.multisig().signed_weight());
        assert!(tx.input.iter().all(|input| spends_vault(&input.witness)));
    }
    // All three: only two are used, because NUMEQUAL takes no more.
    let tx = plan.multisig().assemble(&shares).unwrap();
    assert!(valid(&tx, plan.multisig().prevouts()));

    assert_eq!(
        plan.multisig().assemble(&shares[..1]),
        Err(SignError::TooFew { expected: 2, found: 1 })
    );
    // Bitcoin refuses it too: drop one of the two signatures.
    let mut lonely = plan.multisig().assemble(&shares[..2]).unwrap();
    for input in &mut lonely.input {
        let mut items = input.witness.to_vec();
        let signature = items.iter().position(|item| !item.is_empty()).unwrap();
        items[signature].clear();
        input.witness = Witness::from_slice(&items);
    }
    assert!(!valid(&lonely, plan.multisig().prevouts()));
    // And two signatures of one signer.
    let mut twice = plan.multisig().assemble(&shares[..2]).unwrap();
    for input in &mut twice.input {
        let mut items = input.witness.to_vec();
        items[1] = items[2].clone();
        input.witness = Witness::from_slice(&items);
    }
    assert!(!valid(&twice, plan.multisig().prevouts()));
}

#[test]
fn a_bond_returns_after_its_delay_only_and_only_to_its_proposer() {
    let proposer = key(&dev_secrets::SEQUENCER);
    let bond = Bond::of(params(), proposer.x_only_public_key().0).unwrap();
    let value = params().proposer_bond;
    let spend =
        |signer| bond.return_spend(outpoint(4), value, elsewhere(), rate(3), signer).unwrap();
    let tx = spend(&proposer);
    let prevouts = [bond.tx_out(value)];
    assert!(valid(&tx, &prevouts));
    assert_eq!(tx.input[0].sequence, Sequence::from_height(12));
    let fee = value.0 - tx.output[0].value.to_sat();
    assert_eq!(fee, rate(3).fee_wu(tx.weight()).unwrap().to_sat());
    assert_eq!(bond.spent_by(&tx.input[0].witness), Some(BondSpend::Return));

    assert!(!valid(&spend(&key(&dev_secrets::RECOVERY)), &prevouts));
    let mut early = tx;
    early.input[0].sequence = Sequence::from_height(11);
    assert!(!valid(&early, &prevouts));
}

#[test]
fn signers_slash_a_bond_at_once_and_its_challenger_takes_the_reward() {
    let (proposer, challenger) = (key(&dev_secrets::SEQUENCER), key(&[5; 32]));
    let bond = Bond::of(params(), proposer.x_only_public_key().0).unwrap();
    let value = params().proposer_bond;
    let rewarded = challenger.x_only_public_key().0;
    let plan = bond.slash_spend(outpoint(4), value, &rewarded, rate(3)).unwrap();
    let shares: Vec<_> =
        signers().iter().take(2).map(|signer| plan.sign(signer).unwrap()).collect();
    let slash = plan.assemble(&shares).unwrap();
    assert!(valid(&slash, &[bond.tx_out(value)]));
    assert_eq!(bond.spent_by(&slash.input[0].witness), Some(BondSpend::Slash));
    assert_eq!(plan.sign(&proposer), Err(SignError::NotASigner));

    let other = TxOut { value: Amount::from_sat(70_000), ..slash.output[0].clone() };
    let prevouts = [slash.output[0].clone(), other];
    let rewards: Vec<_> =
        prevouts.iter().zip(5..).map(|(it, n)| (outpoint(n), Sats(it.value.to_sat()))).collect();
    let spend = |by| reward_spend(&rewards, elsewhere(), rate(3), by).unwrap();
    let tx = spend(&challenger);
    assert!(valid(&tx, &prevouts));
    let held: Amount = prevouts.iter().map(|output| output.value).sum();
    assert_eq!(held - tx.output[0].value, rate(3).fee_wu(tx.weight()).unwrap());
    assert!(!valid(&spend(&proposer), &prevouts));
    assert!(signers().iter().all(|signer| !valid(&spend(signer), &prevouts)));
}

#[test]
fn recovery_spends_the_vault_after_its_delay_only() {
    let vault = vault();
    let coins = [coin(1, 100_000), coin(2, 40_000)];
    let recovery = key(&dev_secrets::RECOVERY);
    let tx = vault.recover(&coins, elsewhere(), rate(2), &recovery).unwrap();
    let prevouts: Vec<_> = coins.iter().map(|coin| vault.tx_out(coin.value)).collect();
    assert!(valid(&tx, &prevouts));
    assert!(spends_vault(&tx.input[0].witness));

    let mut early = tx;
    early.input[0].sequence = Sequence::from_height(params().recovery_delay - 1);
    assert!(!valid(&early, &prevouts));
    let thief = vault.recover(&coins, elsewhere(), rate(2), &signers()[0]).unwrap();
    assert!(!valid(&thief, &prevouts));
}
