//! Recorded exchanges: what this node says to the same requests.
//!
//! They were recorded on another chain, so what names something of that chain is replaced: blocks, hashes
//! and addresses by those of [`Facts`] that are of the same kind. Then errors must have the same code and
//! words, and results the same shape: the members of every object and the kinds of values. Simulations
//! state what they work on, so their calls' results must be equal.

use crate::{chain::Facts, rpc::ask, spec::Spec, world::signer};
use alloy_primitives::{Bytes, U256};
use jsonrpsee::core::client::Error;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Files whose recorded answer cannot be this node's, and why.
const EXCEPTED: &[(&str, &str)] = &[
    ("eth_getTransactionByHash/get-blob-tx.io", "a rollup has no blob transactions"),
    ("eth_getTransactionReceipt/get-blob-tx.io", "a rollup has no blob transactions"),
    ("eth_sendRawTransaction/send-blob-tx.io", "a rollup has no blob transactions"),
    (
        "eth_simulateV1/ethSimulate-check-that-nonce-increases.io",
        "the recorded balance does not pay for Bitcoin space, which validated calls pay for",
    ),
    (
        "eth_simulateV1/ethSimulate-override-all-in-BlockStateCalls.io",
        "it lets nine blocks pass first, which are a second apart here and twelve there",
    ),
    (
        "eth_simulateV1/ethSimulate-simple-validation-fulltx.io",
        "the recorded balance does not pay for Bitcoin space, which validated calls pay for",
    ),
];

/// Why the exchanges of a file cannot be as recorded, if they cannot.
pub(crate) fn exception(file: &str) -> Option<&'static str> {
    let excepted = EXCEPTED.iter().find(|(excepted, _)| file.ends_with(excepted));
    excepted.map(|(_, reason)| *reason)
}

/// Block 1 of the recorded chain, which has a creation.
const FIRST: &str = "0x80e911b62f552f563a2544dfef5eb39ec8863d9082c998ca6b657f76e19de38e";
/// Its newest block, of number [`HEAD`](crate::chain::HEAD).
const LATEST: &str = "0xd226371d0b1551adb03fb52b71f08e3e11247fe9b1af994768af8cdaa8e7dcd7";
/// The time of its newest block.
const LATEST_TIME: u64 = 540;

/// What of a recorded request is another chain's, and what stands for it here.
fn replacements(facts: &Facts) -> Vec<(&'static str, String)> {
    let text = |value: Value| value.as_str().expect("text").to_owned();
    let contract = text(json!(facts.contract));
    let me = text(json!(signer().address()));
    let block = text(json!(facts.block));
    vec![
        // Contracts: one that emits, one that returns, one that reports its environment.
        ("0x7dcd17433742f4c0ca53122ab541d0ba67fc27df", contract.clone()),
        ("0x17e7eedce4ac02ef114a7ed9fe6e2f33feba1667", contract.clone()),
        ("0x9344b07175800259691961298ca11c824e65032d", contract),
        ("0xeda8645ba6948855e3b3cd596bbb07596d59c603", text(json!(facts.delegated))),
        ("0x14e46043e63d0e3cdcf2530519f4cfaf35058cb2", me.clone()),
        ("0x0c2c51a0990aee1d73c1228de158688341557508", me.clone()),
        ("0x0300100f529a704d19736a8714837adbc934db7f", me),
        // Blocks.
        (FIRST, text(json!(facts.creation))),
        (LATEST, block.clone()),
        ("0x98f797a6af91ea770ab3a99d89c17a3a46d14c76db6bb711b18156a3493d2c94", block),
        // Transactions.
        (
            "0x695ad02907c9e13ab7c69963f723fa46ac13cd5e2314f61eab2cb2f07b946faa",
            text(json!(facts.access_list)),
        ),
        (
            "0x205405746564cbcf1dd53fb5ac92c7622d3792d82f03c59d9baddf2443d91864",
            text(json!(facts.dynamic)),
        ),
        (
            "0xc1d605c6612a5fe84dc95810030bfe5b1d327652b381bc695e28f50d13b2b09e",
            text(json!(facts.create)),
        ),
        (
            "0x99f7e58af4dd2735931a3262705fbe57ea2fcc79497668f74309cdeaf37cc223",
            text(json!(facts.set_code)),
        ),
        // The topic of the emitter's logs that hashes the input of that chain's transactions.
        (
            "0x95b7276947f6331672b0c63eca28c1d39f25286d5e2793d6a487837ff1475ba0",
            text(json!(alloy_primitives::keccak256("input"))),
        ),
    ]
}

/// Parameters that name blocks of that chain by number, by file.
fn parameters(file: &str, facts: &Facts) -> Option<Value> {
    let all_blocks = json!({ "fromBlock": "0x0", "toBlock": "latest" });
    let with = |more: Value| {
        let mut filter = all_blocks.clone();
        filter.as_object_mut()?.extend(more.as_object()?.clone());
        Some(json!([filter]))
    };
    let topic = alloy_primitives::keccak256("input");
    match file {
        "eth_getBlockByNumber/get-block-cancun-fork.io"
        | "eth_getBlockByNumber/get-block-prague-fork.io" => Some(json!(["0x3", false])),
        "eth_feeHistory/fee-history.io" => Some(json!(["0x1", "0x3", [95, 99]])),
        "eth_getLogs/contract-addr.io" => with(json!({ "address": [facts.contract] })),
        "eth_getLogs/topic-exact-match.io" => {
            let emit = U256::from_be_slice(b"emit");
            with(json!({ "topics": [[format!("{emit:#066x}")], [topic]] }))
        }
        "eth_getLogs/topic-null-wildcard.io" => with(json!({ "topics": [null, [topic]] })),
        "eth_getLogs/topic-wildcard.io" => with(json!({ "topics": [[], [topic]] })),
        "eth_getLogs/filter-error-reversed-block-range.io" => {
            Some(json!([{ "fromBlock": "0x3", "toBlock": "0x2" }]))
        }
        "eth_call/call-callenv-options-eip1559.io" => Some(json!([{
            "from": signer().address(), "to": facts.contract, "gas": "0xea60", "input": "0x333435",
            "maxFeePerGas": "0x989680", "maxPriorityFeePerGas": "0xb", "value": "0x17",
        }, "latest"])),
        "eth_sendRawTransaction/send-dynamic-fee-access-list-transaction.io" => {
            let encoded = facts.world.signed(
                facts.nonce + 2,
                21_000,
                facts.contract,
                U256::ZERO,
                Bytes::new(),
            );
            Some(json!([encoded]))
        }
        // Code that reverts with what it is asked to.
        "eth_estimateGas/estimate-failed-call.io" => {
            Some(json!([{ "from": signer().address(), "input": "0x60ff60005260206000fd" }]))
        }
        "debug_traceBlockByHash/trace-genesis.io" => Some(json!([facts.genesis])),
        _ => None,
    }
}

/// How this node's answers differ from a file's.
pub(crate) async fn differences(
    facts: &Facts,
    spec: &Spec,
    served: &BTreeSet<String>,
    file: &str,
    text: &str,
) -> Vec<String> {
    let name = file.strip_prefix("exchanges/").unwrap_or(file);
    let lines = |mark: &str| -> Vec<Value> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let (requests, answers) = (lines(">> "), lines("<< "));
    assert_eq!(requests.len(), answers.len(), "{name}");
    let mut wrong = Vec::new();
    for (request, recorded) in requests.iter().zip(&answers) {
        let method = request["method"].as_str().expect("a method");
        if !served.contains(method) {
            wrong.push(format!("{method} is not served"));
            continue;
        }
        let mut params = request.get("params").map_or_else(String::new, Value::to_string);
        for (theirs, ours) in replacements(facts) {
            params = params.replace(theirs, &ours);
        }
        let mut params = parameters(name, facts)
            .unwrap_or_else(|| serde_json::from_str(&params).unwrap_or_else(|_| json!([])));
        if method == "eth_simulateV1" {
            now(&mut params, facts);
        }
        let answer = ask(&facts.world, method, params.as_array().expect("a list")).await;
        // What a simulation looks up of the chain.
        let recorded = recorded
            .to_string()
            .replace(FIRST, &facts.first.to_string())
            .replace(LATEST, &facts.block.to_string());
        let recorded = serde_json::from_str(&recorded).expect("JSON");
        wrong.extend(compare(name, method, &recorded, &answer, spec));
    }
    wrong
}

fn compare(
    name: &str,
    method: &str,
    recorded: &Value,
    answer: &Result<Value, Error>,
    spec: &Spec,
) -> Vec<String> {
    match (recorded.get("error"), answer) {
        (Some(error), Err(Error::Call(object))) => {
            let found = json!({ "code": object.code(), "message": object.message() });
            let recorded = json!({ "code": error["code"], "message": error["message"] });
            if same_error(&recorded, &found) {
                return Vec::new();
            }
            vec![format!("recorded {recorded}, found {found}")]
        }
        (None, Ok(answer)) => {
            let recorded = &recorded["result"];
            let mut wrong = spec.violations(method, answer);
            shape("", recorded, answer, &mut wrong);
            if method == "eth_simulateV1" {
                simulated(name, recorded, answer, &mut wrong);
            }
            wrong
        }
        (_, answer) => vec![format!("recorded {recorded}, found {answer:?}")],
    }
}

/// Messages that hold numbers of the chain they come from, compared without digits.
const OTHER_NUMBERS: &[&str] =
    &["block numbers must be in order", "block timestamps must be in order"];

fn same_error(recorded: &Value, found: &Value) -> bool {
    if recorded["code"] != found["code"] {
        return false;
    }
    let text = |error: &Value| error["message"].as_str().unwrap_or_default().to_owned();
    let (recorded, found) = (text(recorded), text(found));
    let words = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    // What is said of parameters that do not decode are the decoder's words.
    recorded == found
        || recorded.starts_with("invalid argument ")
        || words(&recorded) == words(&found)
            && (OTHER_NUMBERS.iter().any(|begin| recorded.starts_with(begin))
                || recorded.contains("baseFee: ")
                || recorded.contains("(supplied gas "))
}

/// Members that only one of the two chains has.
const OTHER_MEMBERS: &[(&str, &str)] = &[
    // Transactions of a deposit's kind stand first in this chain's blocks.
    ("/transactions", "kinds of transactions differ"),
    ("/root", "receipts have a status in its place since EIP-658"),
];

/// Adds what `answer` lacks of the members of `recorded`, and where the kinds of values differ.
fn shape(path: &str, recorded: &Value, answer: &Value, wrong: &mut Vec<String>) {
    if OTHER_MEMBERS.iter().any(|(end, _)| path.ends_with(end)) {
        return;
    }
    match (recorded, answer) {
        (Value::Object(recorded), Value::Object(answer)) => {
            for (key, value) in recorded {
                match answer.get(key) {
                    Some(answer) => shape(&format!("{path}/{key}"), value, answer, wrong),
                    // Accounts and nonces are keys in the pool's content and in storage values.
                    None if key.starts_with("0x") || key.parse::<u64>().is_ok() => {}
                    None => shape(&format!("{path}/{key}"), value, &Value::Null, wrong),
                }
            }
        }
        (Value::Array(recorded), Value::Array(answer)) => {
            if let (Some(recorded), Some(answer)) = (recorded.first(), answer.last()) {
                shape(&format!("{path}/0"), recorded, answer, wrong);
            } else if !recorded.is_empty() {
                wrong.push(format!("{path}: nothing found"));
            }
        }
        (recorded, answer) => {
            let kind = |value: &Value| match value {
                Value::String(text) => {
                    if text.starts_with("0x") {
                        "hexadecimal"
                    } else {
                        "text"
                    }
                }
                Value::Number(_) => "number",
                Value::Bool(_) => "bool",
                Value::Null => "null",
                Value::Array(_) => "list",
                Value::Object(_) => "object",
            };
            if kind(recorded) != kind(answer) {
                wrong.push(format!("{path}: recorded {recorded}, found {answer}"));
            }
        }
    }
}

/// What simulations result in that differs with the chain below, by file and member, and why.
const OTHER_RESULTS: &[(&str, &[&str], &str)] = &[
    ("ethSimulate-contract-calls-itself.io", &["returnData"], "it returns its environment"),
    (
        "ethSimulate-blockhash-complex.io",
        &["returnData"],
        "hashes of simulated blocks, which follow from the chain below",
    ),
    (
        "ethSimulate-blockhash-start-before-head.io",
        &["returnData"],
        "hashes of simulated blocks, which follow from the chain below",
    ),
    (
        "ethSimulate-extcodehash-precompile.io",
        &["gasUsed", "maxUsedGas"],
        "revm has those addresses warm that are precompiles, whatever has been moved",
    ),
    (
        "ethSimulate-override-ecrecover.io",
        &["gasUsed", "maxUsedGas"],
        "revm has those addresses warm that are precompiles, whatever has been moved",
    ),
];

/// Moves the times of a simulation's blocks from the recorded chain's present to this one's.
fn now(params: &mut Value, facts: &Facts) {
    for block in params[0]["blockStateCalls"].as_array_mut().into_iter().flatten() {
        let Some(time) = block.pointer_mut("/blockOverrides/time") else { continue };
        let text = time.as_str().expect("a quantity").trim_start_matches("0x");
        let recorded = u64::from_str_radix(text, 16).expect("a quantity");
        let moved = (recorded + facts.time).saturating_sub(LATEST_TIME);
        *time = json!(format!("{moved:#x}"));
    }
}

fn simulated(name: &str, recorded: &Value, answer: &Value, wrong: &mut Vec<String>) {
    let blocks = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (recorded, answer) = (blocks(recorded), blocks(answer));
    if recorded.len() != answer.len() {
        wrong.push(format!("recorded {} blocks, found {}", recorded.len(), answer.len()));
    }
    for (number, (recorded, answer)) in recorded.iter().zip(&answer).enumerate() {
        let calls = |block: &Value| blocks(&block["calls"]);
        if calls(recorded).len() != calls(answer).len() {
            wrong.push(format!("block {number}: calls differ in number"));
        }
        for (index, (recorded, answer)) in calls(recorded).iter().zip(&calls(answer)).enumerate() {
            let excepted = OTHER_RESULTS.iter().filter(|(file, ..)| name.ends_with(file));
            let excepted: Vec<_> = excepted.flat_map(|(_, members, _)| *members).collect();
            let members = ["status", "gasUsed", "maxUsedGas", "returnData"];
            for member in members.iter().filter(|member| !excepted.contains(member)) {
                if recorded[member] != answer[member] {
                    let (recorded, answer) = (&recorded[member], &answer[member]);
                    wrong.push(format!(
                        "block {number}, call {index}: {member} recorded {recorded}, found {answer}"
                    ));
                }
            }
            if recorded["error"]["code"] != answer["error"]["code"] {
                let (recorded, answer) = (&recorded["error"], &answer["error"]);
                wrong.push(format!(
                    "block {number}, call {index}: error recorded {recorded}, found {answer}"
                ));
            }
            let logs = |call: &Value| -> Vec<Value> {
                let log = |log: &Value| json!([log["address"], log["topics"], log["data"]]);
                blocks(&call["logs"]).iter().map(log).collect()
            };
            if logs(recorded) != logs(answer) {
                wrong.push(format!("block {number}, call {index}: logs differ"));
            }
        }
    }
}
