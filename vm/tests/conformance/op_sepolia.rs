//! Real blocks of OP Sepolia on nothing but the preimages that they need, under the rules of their own chain
//! configuration.

use crate::{config, rocksdb};
use alloy_primitives::{B256, Bytes, U64, keccak256};
use alloy_rlp::Decodable;
use kedge_vectors::Vectors;
use kedge_vm::{
    EvmConfig, Header, PayloadTx, TrieDb, TxDeposit, Witness,
    exec::{BlockAttributes, Known, Senders, execute_block},
    next_base_fee,
    trie::{OneThread, StateTries},
};
use op_revm::OpSpecId;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, path::Path, process::Command, str::FromStr};

/// The rules of the OP Stack with the times from which a chain configuration has them.
const FORKS: [(&str, OpSpecId); 9] = [
    ("regolith_time", OpSpecId::REGOLITH),
    ("canyon_time", OpSpecId::CANYON),
    ("ecotone_time", OpSpecId::ECOTONE),
    ("fjord_time", OpSpecId::FJORD),
    ("granite_time", OpSpecId::GRANITE),
    ("holocene_time", OpSpecId::HOLOCENE),
    ("isthmus_time", OpSpecId::ISTHMUS),
    ("jovian_time", OpSpecId::JOVIAN),
    ("karst_time", OpSpecId::KARST),
];

fn field<T: FromStr<Err: Debug>>(value: &Value, name: &str) -> T {
    value[name].as_str().unwrap_or_else(|| panic!("{name}")).parse().unwrap()
}

fn number(value: &Value, name: &str) -> u64 {
    field::<U64>(value, name).to()
}

#[test]
fn real_blocks_of_op_sepolia_have_their_hashes() {
    let Some(vectors) = Vectors::find("op-sepolia-blocks", &[]) else { return };
    let tally = vectors.run(|file, tally| {
        let unpacked = tempfile::tempdir().unwrap();
        let archive = vectors.open(file);
        let mut tar = Command::new("tar");
        let status = tar.arg("xf").arg(&archive).arg("-C").arg(unpacked.path()).status();
        assert!(status.unwrap().success(), "{file}: cannot be unpacked");
        let folder = unpacked.path().join(archive.file_stem().unwrap());
        tally.case(|| file.to_owned(), None, block_has_its_hash(&folder));
    });
    vectors.finish(tally);
}

fn block_has_its_hash(folder: &Path) -> Result<(), String> {
    let fixture = std::fs::read(folder.join("fixture.json")).unwrap();
    let fixture: Value = serde_json::from_slice(&fixture).unwrap();
    let preimages: BTreeMap<B256, Bytes> = rocksdb::values(&folder.join("kv"))
        .into_iter()
        .map(|value| (keccak256(&value), value.into()))
        .collect();
    let parent = &fixture["parent_header"];
    let payload = &fixture["executing_payload"];

    // Headers are preimages too: the parent is the one with the number that the fixture states.
    let headers: Vec<Header> =
        preimages.values().filter_map(|bytes| Header::decode(&mut &bytes[..]).ok()).collect();
    let header = |value: &Value| Header {
        parent_hash: field(value, "parentHash"),
        ommers_hash: field(value, "sha3Uncles"),
        beneficiary: field(value, "miner"),
        state_root: field(value, "stateRoot"),
        transactions_root: field(value, "transactionsRoot"),
        receipts_root: field(value, "receiptsRoot"),
        logs_bloom: field(value, "logsBloom"),
        number: number(value, "number"),
        gas_limit: number(value, "gasLimit"),
        gas_used: number(value, "gasUsed"),
        timestamp: number(value, "timestamp"),
        extra_data: field(value, "extraData"),
        mix_hash: field(value, "mixHash"),
        base_fee_per_gas: Some(number(value, "baseFeePerGas")),
        withdrawals_root: Some(field(value, "withdrawalsRoot")),
        blob_gas_used: Some(number(value, "blobGasUsed")),
        excess_blob_gas: Some(number(value, "excessBlobGas")),
        parent_beacon_block_root: Some(field(value, "parentBeaconBlockRoot")),
        ..Default::default()
    };
    let parent = header(parent);
    let parent_hash = parent.hash_slow();

    let rollup = &fixture["rollup_config"];
    let timestamp = number(payload, "timestamp");
    let (_, spec) = FORKS
        .into_iter()
        .rfind(|(fork, _)| rollup[fork].as_u64().is_some_and(|time| time <= timestamp))
        .unwrap();
    let config = EvmConfig {
        chain_id: rollup["l2_chain_id"].as_u64().unwrap(),
        gas_limit: number(payload, "gasLimit"),
        beneficiary: field(payload, "suggestedFeeRecipient"),
        ..config(spec)
    };
    let mut extra_data = vec![0];
    extra_data.extend_from_slice(&field::<Bytes>(payload, "eip1559Params"));
    let attributes = BlockAttributes {
        number: parent.number + 1,
        timestamp,
        beneficiary: config.beneficiary,
        prev_randao: field(payload, "prevRandao"),
        gas_limit: config.gas_limit,
        base_fee: next_base_fee(&parent).unwrap(),
        parent_beacon_block_root: field(payload, "parentBeaconBlockRoot"),
        extra_data: extra_data.into(),
    };
    let transactions: Vec<PayloadTx> = payload["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tx| {
            let bytes: Bytes = tx.as_str().unwrap().parse().unwrap();
            if bytes.first() == Some(&0x7e) {
                PayloadTx::System(TxDeposit::rlp_decode(&mut &bytes[1..]).unwrap())
            } else {
                PayloadTx::User(bytes)
            }
        })
        .collect();

    let witness = Witness { nodes: preimages.clone(), codes: preimages, headers };
    let mut db = TrieDb::new(&witness, parent.clone());
    let tries = &mut StateTries::<OneThread>::default();
    let known = Known { senders: &Senders::default(), tries };
    let block =
        execute_block(&config, &attributes, &parent, parent_hash, &transactions, known, &mut db)
            .unwrap();
    let expected: B256 = field(&fixture, "expected_block_hash");
    if block.hash == expected {
        Ok(())
    } else {
        Err(format!("{spec:?}: {}, not {expected}; skipped: {:?}", block.hash, block.skipped))
    }
}
