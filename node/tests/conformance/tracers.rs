//! go-ethereum's tracer fixtures: its tracers' outputs, from the tracers that `debug_*` answers with.
//!
//! They are transactions of Ethereum under old rules, hence revm's mainnet handler.

use alloy_consensus::{EthereumTxEnvelope, TxEip4844, transaction::SignerRecoverable};
use alloy_eips::{Decodable2718, eip7840::BlobParams};
use alloy_evm::FromRecoveredTx;
use alloy_primitives::{Address, B256, Bytes, U256, map::HashMap};
use alloy_rpc_types_trace::geth::{
    GethDebugTracerConfig, GethDebugTracerType, GethDebugTracingOptions,
};
use anyhow::ensure;
use kedge::rpc::tracers::GethTracer;
use kedge_vectors::Vectors;
use revm::{
    Context, InspectEvm, MainBuilder, MainContext,
    bytecode::Bytecode,
    context::{BlockEnv, CfgEnv, TxEnv},
    context_interface::block::BlobExcessGasAndPrice,
    database::{CacheDB, EmptyDB},
    primitives::hardfork::SpecId,
    state::AccountInfo,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Which tracer made the fixtures of a folder.
const FOLDERS: [(&str, &str); 8] = [
    ("call_tracer", "callTracer"),
    ("call_tracer_flat", "flatCallTracer"),
    ("call_tracer_legacy", "callTracer"),
    ("call_tracer_withLog", "callTracer"),
    ("erc7562_tracer", "erc7562Tracer"),
    ("prestate_tracer", "prestateTracer"),
    ("prestate_tracer_legacy", "prestateTracer"),
    ("prestate_tracer_with_diff_mode", "prestateTracer"),
];

/// Fixtures of rules that the EVM here has in another way, with the reason.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "call_tracer_withLog/frontier_create_outofstorage.json",
    "before Homestead a contract that could not pay for its code was created without, and the EVM shows the \
     code that it has, where go-ethereum shows what it would have been",
)];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fixture {
    genesis: Genesis,
    context: BlockContext,
    input: Bytes,
    #[serde(default)]
    tracer_config: Value,
    result: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Genesis {
    alloc: BTreeMap<Address, GenesisAccount>,
    config: BTreeMap<String, Value>,
    excess_blob_gas: Option<Number>,
    blob_gas_used: Option<Number>,
}

#[derive(Deserialize)]
struct GenesisAccount {
    balance: U256,
    nonce: Option<Number>,
    #[serde(default)]
    code: Bytes,
    #[serde(default)]
    storage: BTreeMap<B256, B256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockContext {
    number: Number,
    difficulty: U256,
    timestamp: Number,
    gas_limit: Number,
    miner: Address,
    base_fee_per_gas: Option<Number>,
}

/// A number, or a decimal or hexadecimal string of one.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Value")]
struct Number(u64);

impl TryFrom<Value> for Number {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let number = text.parse::<U256>().map_err(|error| format!("{value}: {error}"))?;
        u64::try_from(number).map(Self).map_err(|error| format!("{value}: {error}"))
    }
}

/// The rules in force: the latest fork of the configuration that has begun.
fn rules(fixture: &Fixture) -> anyhow::Result<SpecId> {
    let forks = [
        ("homesteadBlock", SpecId::HOMESTEAD),
        ("eip150Block", SpecId::TANGERINE),
        ("eip158Block", SpecId::SPURIOUS_DRAGON),
        ("byzantiumBlock", SpecId::BYZANTIUM),
        ("constantinopleBlock", SpecId::CONSTANTINOPLE),
        ("petersburgBlock", SpecId::PETERSBURG),
        ("istanbulBlock", SpecId::ISTANBUL),
        ("berlinBlock", SpecId::BERLIN),
        ("londonBlock", SpecId::LONDON),
        ("mergeNetsplitBlock", SpecId::MERGE),
        ("shanghaiTime", SpecId::SHANGHAI),
        ("cancunTime", SpecId::CANCUN),
        ("pragueTime", SpecId::PRAGUE),
    ];
    let mut spec = SpecId::FRONTIER;
    for (name, fork) in forks {
        // Some names are capitalised.
        let begins = fixture.genesis.config.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        let Some((_, begins)) = begins.filter(|(_, value)| !value.is_null()) else { continue };
        let begins = Number::try_from(begins.clone()).map_err(anyhow::Error::msg)?.0;
        let now = if name.ends_with("Time") {
            fixture.context.timestamp.0
        } else {
            fixture.context.number.0
        };
        if begins <= now {
            spec = fork;
        }
    }
    Ok(spec)
}

fn database(genesis: &Genesis) -> CacheDB<EmptyDB> {
    let mut db = CacheDB::new(EmptyDB::default());
    for (address, account) in &genesis.alloc {
        let code = Bytecode::new_raw(account.code.clone());
        let info = AccountInfo {
            balance: account.balance,
            nonce: account.nonce.map_or(0, |nonce| nonce.0),
            code_hash: code.hash_slow(),
            code: Some(code),
            ..Default::default()
        };
        db.insert_account_info(*address, info);
        let storage: HashMap<U256, U256> =
            account.storage.iter().map(|(slot, value)| ((*slot).into(), (*value).into())).collect();
        for (slot, value) in storage {
            db.insert_account_storage(*address, slot, value).expect("an empty database answers");
        }
    }
    db
}

fn trace(fixture: &Fixture, tracer: &str) -> anyhow::Result<Value> {
    let spec = rules(fixture)?;
    let chain_id = fixture.genesis.config.get("chainId").cloned().unwrap_or(Value::from(1));
    let mut cfg = CfgEnv::new_with_spec(spec);
    cfg.chain_id = Number::try_from(chain_id).map_err(anyhow::Error::msg)?.0;
    let context = &fixture.context;
    let excess = fixture.genesis.excess_blob_gas.map_or(0, |gas| gas.0);
    let used = fixture.genesis.blob_gas_used.map_or(0, |gas| gas.0);
    let excess = BlobParams::cancun().next_block_excess_blob_gas_osaka(excess, used, 0);
    let block = BlockEnv {
        number: U256::from(context.number.0),
        beneficiary: context.miner,
        timestamp: U256::from(context.timestamp.0),
        gas_limit: context.gas_limit.0,
        basefee: context.base_fee_per_gas.map_or(0, |fee| fee.0),
        difficulty: context.difficulty,
        prevrandao: Some(B256::ZERO),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice::new(excess, 3_338_477)),
        ..Default::default()
    };
    let tx = EthereumTxEnvelope::<TxEip4844>::decode_2718_exact(&fixture.input)?;
    let env = TxEnv::from_recovered_tx(&tx, tx.recover_signer()?);
    let options = GethDebugTracingOptions {
        tracer: Some(serde_json::from_value::<GethDebugTracerType>(tracer.into())?),
        tracer_config: GethDebugTracerConfig(fixture.tracer_config.clone()),
        ..Default::default()
    };
    let tracer = GethTracer::new(options, usize::MAX)?;
    let mut evm = Context::mainnet()
        .with_db(database(&fixture.genesis))
        .with_cfg(cfg)
        .with_block(block.clone())
        .build_mainnet_with_inspector(tracer.inspector()?);
    let outcome = evm.inspect_tx(env.clone()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let db = &mut evm.ctx.journaled_state.database;
    let shown = tracer.result(&mut evm.inspector, None, &env, &block, &outcome, db)?;
    Ok(serde_json::to_value(shown)?)
}

/// Members of a flat trace that say where its transaction is, or how long it took: go-ethereum's own test does
/// not look at them.
const PLACE: [&str; 5] =
    ["blockHash", "blockNumber", "transactionHash", "transactionPosition", "time"];

/// What go-ethereum's own test of the flat tracer compares: structures, in which a member that is missing has
/// the value zero.
fn flat(mut traces: Value) -> Value {
    let is_zero = |value: &Value| {
        value.as_str().is_some_and(|text| {
            matches!(text, "0x0" | "0x")
                || text.parse().is_ok_and(|address: Address| address.is_zero())
        })
    };
    for trace in traces.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for place in PLACE {
            trace.remove(place);
        }
        for part in ["action", "result"] {
            if let Some(part) = trace.get_mut(part).and_then(Value::as_object_mut) {
                part.retain(|_, value| !is_zero(value));
            }
        }
        if trace.get("result").is_some_and(|result| result.is_null() || *result == json!({})) {
            trace.remove("result");
        }
    }
    traces
}

/// Gives the logs of old fixtures the index that they lack, which is zero for go-ethereum's own test.
fn with_log_index(mut frame: Value) -> Value {
    for log in frame.get_mut("logs").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(log) = log.as_object_mut() {
            log.entry("index").or_insert("0x0".into());
        }
    }
    for call in frame.get_mut("calls").and_then(Value::as_array_mut).into_iter().flatten() {
        *call = with_log_index(call.take());
    }
    frame
}

/// What the JavaScript tracers before go-ethereum's own ones did not say of a call or an account.
const LEGACY_LACKS: [&str; 6] = ["gas", "gasUsed", "input", "value", "revertReason", "codeHash"];
/// What they said though there was nothing.
const LEGACY_EMPTY: [(&str, &str); 3] =
    [("output", "\"0x\""), ("code", "\"0x\""), ("storage", "{}")];
/// What they called an internal failure.
const LEGACY_FAILURES: [&str; 2] =
    ["insufficient balance for transfer", "contract creation code storage out of gas"];

/// Whether an answer says what the JavaScript tracers said.
fn is_legacy(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, expected)| match found.get(key) {
                Some(found) if key == "error" && expected == "internal failure" => {
                    LEGACY_FAILURES.iter().any(|failure| found == failure)
                }
                Some(found) => is_legacy(found, expected),
                None => LEGACY_EMPTY.contains(&(key, &expected.to_string())),
            }) && found
                .keys()
                .all(|key| expected.contains_key(key) || LEGACY_LACKS.contains(&key.as_str()))
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| is_legacy(found, expected))
        }
        // An address may be in mixed case.
        (Value::String(found), Value::String(expected)) if expected.len() == 42 => {
            found.eq_ignore_ascii_case(expected)
        }
        (found, expected) => found == expected,
    }
}

fn check(fixture: &[u8], folder: &str, tracer: &str) -> anyhow::Result<()> {
    let fixture: Fixture = serde_json::from_slice(fixture)?;
    let found = trace(&fixture, tracer)?;
    let expected = fixture.result.clone();
    let equal = match folder {
        "call_tracer_flat" => flat(found.clone()) == flat(expected),
        "call_tracer_withLog" => found == with_log_index(expected),
        "call_tracer_legacy" | "prestate_tracer_legacy" => is_legacy(&found, &expected),
        _ => found == expected,
    };
    ensure!(equal, "found {found}\nexpected {}", fixture.result);
    Ok(())
}

#[test]
fn every_fixture_gives_go_ethereum_s_output() {
    let Some(vectors) = Vectors::find("tracers", &[]) else { return };
    let tally = vectors.run(|file, tally| {
        let folder = file.split('/').next().unwrap_or_default();
        let outcome = match FOLDERS.iter().find(|(name, _)| *name == folder) {
            Some((_, tracer)) => check(&vectors.read(file), folder, tracer),
            None => Err(anyhow::anyhow!("no tracer is known for this folder")),
        };
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        let exception =
            EXCEPTIONS.iter().find(|(name, _)| *name == file).map(|(_, reason)| *reason);
        tally.case(|| file.to_owned(), exception, outcome);
    });
    vectors.finish(tally);
}
