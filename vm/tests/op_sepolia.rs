//! Four real blocks of OP Sepolia (Holocene rules) on nothing but the preimages that they need.
//!
//! The preimages are in RocksDB folders. What this test needs of that format (write-ahead logs, and
//! table files with Snappy blocks) is read here, so that the crate's tests do not link a database.

use alloy_primitives::{Address, B256, Bytes, keccak256};
use alloy_rlp::Decodable;
use kedge_genesis::Network;
use kedge_vm::{
    EvmConfig, Header, PayloadTx, TrieDb, TxDeposit, Witness,
    exec::{BlockAttributes, execute_block},
    next_base_fee,
};
use op_revm::OpSpecId;
use std::{collections::BTreeMap, path::Path, process::Command};

fn varint(data: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = data.split_first().unwrap();
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

fn take<'a>(data: &mut &'a [u8], length: u64) -> &'a [u8] {
    let (head, rest) = data.split_at(length as usize);
    *data = rest;
    head
}

/// The values that a write-ahead log puts.
fn log_values(log: &[u8], values: &mut Vec<Vec<u8>>) {
    let mut record = Vec::new();
    for block in log.chunks(32_768) {
        let mut block = block;
        while block.len() >= 7 {
            let length = u16::from_le_bytes([block[4], block[5]]);
            let kind = block[6];
            if kind == 0 {
                break;
            }
            take(&mut block, 7);
            record.extend_from_slice(take(&mut block, length.into()));
            // Full records and last parts end a write batch; first and middle parts do not.
            if kind == 1 || kind == 4 {
                let batch = std::mem::take(&mut record);
                let count = u32::from_le_bytes(batch[8..12].try_into().unwrap());
                let mut rest = &batch[12..];
                for _ in 0..count {
                    assert_eq!(take(&mut rest, 1), [1], "only puts");
                    let length = varint(&mut rest);
                    take(&mut rest, length);
                    let length = varint(&mut rest);
                    values.push(take(&mut rest, length).to_vec());
                }
            }
        }
    }
}

fn snappy(mut data: &[u8]) -> Vec<u8> {
    let length = varint(&mut data);
    let mut out: Vec<u8> = Vec::new();
    while !data.is_empty() {
        let tag = take(&mut data, 1)[0];
        let (count, distance) = match tag & 3 {
            0 => {
                let mut count = u64::from(tag >> 2);
                if count >= 60 {
                    let mut bytes = [0; 8];
                    let size = count - 59;
                    bytes[..size as usize].copy_from_slice(take(&mut data, size));
                    count = u64::from_le_bytes(bytes);
                }
                out.extend_from_slice(take(&mut data, count + 1));
                continue;
            }
            1 => {
                let low = take(&mut data, 1)[0];
                (4 + (tag >> 2 & 7), usize::from(tag >> 5) << 8 | usize::from(low))
            }
            2 => {
                let bytes = take(&mut data, 2).try_into().unwrap();
                (1 + (tag >> 2), usize::from(u16::from_le_bytes(bytes)))
            }
            _ => {
                let bytes = take(&mut data, 4).try_into().unwrap();
                (1 + (tag >> 2), u32::from_le_bytes(bytes) as usize)
            }
        };
        for _ in 0..count {
            out.push(out[out.len() - distance]);
        }
    }
    assert_eq!(out.len() as u64, length);
    out
}

/// The block at `offset` of a table file, whose type byte follows it.
fn table_block(file: &[u8], offset: u64, size: u64) -> Vec<u8> {
    let (start, end) = (offset as usize, (offset + size) as usize);
    match file[end] {
        0 => file[start..end].to_vec(),
        1 => snappy(&file[start..end]),
        other => panic!("compression {other}"),
    }
}

/// The entries of a block without its restart points.
fn entries(block: &[u8]) -> &[u8] {
    let (rest, count) = block.split_at(block.len() - 4);
    // The highest bit says which index the block has.
    let count = u32::from_le_bytes(count.try_into().unwrap()) & 0x7fff_ffff;
    &rest[..rest.len() - 4 * count as usize]
}

/// Where the index of a table file is, offset and size (format 6): the block before the footer says so,
/// and the footer says how long that block is.
fn index_handle(file: &[u8]) -> (u64, u64) {
    let (body, footer) = file.split_at(file.len() - 53);
    let size = u32::from_le_bytes(footer[13..17].try_into().unwrap()).into();
    let meta = table_block(file, body.len() as u64 - 5 - size, size);
    let mut rest = entries(&meta);
    let mut key = Vec::new();
    loop {
        let shared = varint(&mut rest);
        let unshared = varint(&mut rest);
        let length = varint(&mut rest);
        key.truncate(shared as usize);
        key.extend_from_slice(take(&mut rest, unshared));
        let mut value = take(&mut rest, length);
        if key == b"rocksdb.index" {
            return (varint(&mut value), varint(&mut value));
        }
    }
}

/// The values of a table file.
fn table_values(file: &[u8], values: &mut Vec<Vec<u8>>) {
    let (offset, size) = index_handle(file);
    let index = table_block(file, offset, size);
    let mut rest = entries(&index);
    let (mut offset, mut size) = (0, 0);
    while !rest.is_empty() {
        let shared = varint(&mut rest);
        let unshared = varint(&mut rest);
        take(&mut rest, unshared);
        if shared == 0 {
            offset = varint(&mut rest);
            size = varint(&mut rest);
        } else {
            // Blocks follow each other, with a trailer of five bytes; sizes are zigzag differences.
            offset += size + 5;
            let delta = varint(&mut rest);
            size = size.wrapping_add_signed((delta >> 1) as i64 ^ -((delta & 1) as i64));
        }
        let block = table_block(file, offset, size);
        let mut rest = entries(&block);
        while !rest.is_empty() {
            varint(&mut rest);
            let unshared = varint(&mut rest);
            let length = varint(&mut rest);
            take(&mut rest, unshared);
            values.push(take(&mut rest, length).to_vec());
        }
    }
}

fn preimages(folder: &Path) -> BTreeMap<B256, Bytes> {
    let mut values = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("log") => log_values(&std::fs::read(&path).unwrap(), &mut values),
            Some("sst") => table_values(&std::fs::read(&path).unwrap(), &mut values),
            _ => {}
        }
    }
    values.into_iter().map(|value| (keccak256(&value), value.into())).collect()
}

fn field<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &serde_json::Value, name: &str) -> T {
    value[name].as_str().unwrap_or_else(|| panic!("{name}")).parse().unwrap()
}

fn number(value: &serde_json::Value, name: &str) -> u64 {
    field::<alloy_primitives::U64>(value, name).to()
}

#[test]
fn real_blocks_of_op_sepolia_have_their_hashes() {
    let vectors = std::env::var_os("KEDGE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        Into::into,
    );
    let folder = vectors.join("op-sepolia-blocks");
    if !folder.is_dir() {
        println!("skipped: no vectors at {} (set KEDGE_VECTORS)", folder.display());
        return;
    }
    let mut blocks = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let archive = entry.unwrap().path();
        let name = archive.file_stem().unwrap().to_owned();
        let unpacked = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        let status = tar.arg("xf").arg(&archive).arg("-C").arg(unpacked.path()).status();
        assert!(status.unwrap().success());
        block_has_its_hash(&unpacked.path().join(name));
        blocks += 1;
    }
    assert_eq!(blocks, 4);
}

fn block_has_its_hash(folder: &Path) {
    let fixture = std::fs::read(folder.join("fixture.json")).unwrap();
    let fixture: serde_json::Value = serde_json::from_slice(&fixture).unwrap();
    let preimages = preimages(&folder.join("kv"));
    let parent = &fixture["parent_header"];
    let payload = &fixture["executing_payload"];

    // Headers are preimages too: the parent is the one with the number that the fixture states.
    let headers: Vec<Header> =
        preimages.values().filter_map(|bytes| Header::decode(&mut &bytes[..]).ok()).collect();
    let header = |value: &serde_json::Value| Header {
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

    let config = EvmConfig {
        chain_id: 11_155_420,
        spec: OpSpecId::HOLOCENE,
        gas_limit: number(payload, "gasLimit"),
        beneficiary: field::<Address>(payload, "suggestedFeeRecipient"),
        fees: Network::Dev.params().fees,
        meter: None,
        schnorr: false,
        history_from_state: false,
    };
    let mut extra_data = vec![0];
    extra_data.extend_from_slice(&field::<Bytes>(payload, "eip1559Params"));
    let attributes = BlockAttributes {
        number: parent.number + 1,
        timestamp: number(payload, "timestamp"),
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
    let block =
        execute_block(&config, &attributes, &parent, parent_hash, &transactions, &mut db).unwrap();
    assert_eq!(block.skipped, []);
    assert_eq!(block.hash, field::<B256>(&fixture, "expected_block_hash"), "{}", folder.display());
}
