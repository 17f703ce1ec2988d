//! Where a node that holds the asserted chain differs from the true one: the first block, the first
//! transaction of it, the accounts and slots.
//!
//! Bitcoin holds the hash of an asserted claim, never the claim, so what a liar claims the state to be can
//! only be seen on a node that has that state. It is asked by Ethereum's standard methods: whatever the node
//! is, it answers them. Before the first block that differs both chains have one state, so what is compared
//! is what either of them changed in that block, as far as it can be known: all accounts and slots that the
//! true execution changed, and all accounts that a transaction, a receipt or a log of either names.

use alloy_consensus::{Header, Transaction as _};
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B256, Bytes, U64, U256, keccak256};
use jsonrpsee::{
    core::client::{ClientT, Error},
    rpc_params,
};
use kedge_vm::{AccountInfo, ExecutedBlock, output_root};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

/// Something that has one value by the true execution and another by the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What it is.
    pub field: String,
    /// By the true execution.
    pub expected: String,
    /// By the node.
    pub found: String,
}

/// An account or a slot that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateDifference {
    /// The account.
    pub address: Address,
    /// The slot, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<B256>,
    /// What differs: `balance`, `nonce`, `codeHash` or `storage`.
    #[serde(flatten)]
    pub difference: Difference,
}

/// The first transaction that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionDivergence {
    /// Its place in the block.
    pub index: usize,
    /// The true transaction there.
    pub expected: Option<B256>,
    /// The node's transaction there.
    pub found: Option<B256>,
    /// What of its receipt differs, when it is the same transaction.
    pub receipt: Vec<Difference>,
}

/// The first block that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Divergence {
    /// Its number.
    pub block: u64,
    /// Whether the node has no block of that number.
    pub missing: bool,
    /// Fields of the header.
    pub header: Vec<Difference>,
    /// The first transaction that is another or has another receipt; none when only the state differs.
    pub transaction: Option<TransactionDivergence>,
    /// Accounts and slots.
    pub state: Vec<StateDifference>,
    /// Why the state could not be compared, when the node does not give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_unavailable: Option<String>,
}

/// A block as a node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBlock {
    /// Its header.
    pub header: Header,
    /// Its output root, none for a header of another kind of chain.
    pub output_root: Option<B256>,
    json: Value,
}

impl NodeBlock {
    /// How many transactions it has.
    pub fn transactions(&self) -> usize {
        self.json["transactions"].as_array().map_or(0, Vec::len)
    }
}

/// A block by number, none when the node has no such block.
///
/// # Errors
/// When the node does not answer, or with something else.
pub async fn block<C: ClientT + Sync>(node: &C, number: u64) -> Result<Option<NodeBlock>, Error> {
    let tag = BlockNumberOrTag::Number(number);
    let json: Value = node.request("eth_getBlockByNumber", rpc_params![tag, true]).await?;
    if json.is_null() {
        return Ok(None);
    }
    let header: alloy_rpc_types_eth::Header =
        serde_json::from_value(json.clone()).map_err(Error::ParseError)?;
    let header = header.inner;
    let output_root = header
        .withdrawals_root
        .map(|root| output_root(header.state_root, root, header.hash_slow()));
    Ok(Some(NodeBlock { header, output_root, json }))
}

/// The first of these blocks, truly executed, that the node has differently or not at all.
///
/// # Errors
/// When the node does not answer.
pub async fn first_divergence<C: ClientT + Sync>(
    node: &C,
    blocks: &[ExecutedBlock],
) -> Result<Option<Divergence>, Error> {
    for truth in blocks {
        let number = truth.header.number;
        let Some(found) = block(node, number).await? else {
            return Ok(Some(Divergence {
                block: number,
                missing: true,
                header: Vec::new(),
                transaction: None,
                state: Vec::new(),
                state_unavailable: None,
            }));
        };
        if found.header.hash_slow() == truth.hash {
            continue;
        }
        let receipts = receipts(node, &found).await?;
        let state = state(node, truth, &found, &receipts).await;
        let (state, state_unavailable) = match state {
            Ok(state) => (state, None),
            Err(Error::Call(answer)) => (Vec::new(), Some(answer.message().to_owned())),
            Err(error) => return Err(error),
        };
        return Ok(Some(Divergence {
            block: number,
            missing: false,
            header: fields(&json(&truth.header), &json(&found.header)),
            transaction: transaction(truth, &found, &receipts),
            state,
            state_unavailable,
        }));
    }
    Ok(None)
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// The fields in which two objects differ.
fn fields(expected: &Value, found: &Value) -> Vec<Difference> {
    let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
        return Vec::new();
    };
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    names
        .into_iter()
        .filter(|name| expected.get(*name) != found.get(*name))
        .map(|name| Difference {
            field: name.clone(),
            expected: text(expected.get(name)),
            found: text(found.get(name)),
        })
        .collect()
}

/// The receipts of a block, by one request or by one for each.
async fn receipts<C: ClientT + Sync>(node: &C, found: &NodeBlock) -> Result<Vec<Value>, Error> {
    let tag = BlockNumberOrTag::Number(found.header.number);
    match node.request("eth_getBlockReceipts", rpc_params![tag]).await {
        Ok(Some(receipts)) => return Ok(receipts),
        Ok(None) => {}
        // Not every node has it.
        Err(Error::Call(_)) => {}
        Err(error) => return Err(error),
    }
    let mut receipts = Vec::new();
    for tx in found.json["transactions"].as_array().into_iter().flatten() {
        let hash = rpc_params![tx["hash"].clone()];
        receipts.push(node.request("eth_getTransactionReceipt", hash).await?);
    }
    Ok(receipts)
}

/// The first transaction that differs.
fn transaction(
    truth: &ExecutedBlock,
    found: &NodeBlock,
    receipts: &[Value],
) -> Option<TransactionDivergence> {
    let theirs = found.json["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    for index in 0..truth.transactions.len().max(theirs.len()) {
        let expected = truth.transactions.get(index).map(|tx| tx.tx_hash());
        let found = theirs.get(index).and_then(|tx| tx["hash"].as_str()?.parse().ok());
        let receipt = match (truth.receipts.get(index), receipts.get(index)) {
            (Some(ours), Some(theirs)) if expected == found => fields(
                &serde_json::json!({
                    "status": U64::from(u64::from(ours.status())),
                    "cumulativeGasUsed": U64::from(ours.cumulative_gas_used()),
                    "logs": ours.logs(),
                }),
                &serde_json::json!({
                    "status": theirs["status"],
                    "cumulativeGasUsed": theirs["cumulativeGasUsed"],
                    "logs": logs(theirs),
                }),
            ),
            _ => Vec::new(),
        };
        if expected != found || !receipt.is_empty() {
            return Some(TransactionDivergence { index, expected, found, receipt });
        }
    }
    None
}

/// What a transaction logged, without where.
fn logs(receipt: &Value) -> Vec<Value> {
    let logs = receipt["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let strip = |log: &Value| {
        let parts = ["address", "topics", "data"].map(|name| (name.to_owned(), log[name].clone()));
        Value::Object(parts.into_iter().collect())
    };
    logs.iter().map(strip).collect()
}

/// Accounts and slots that differ after a block that is the first to differ.
async fn state<C: ClientT + Sync>(
    node: &C,
    truth: &ExecutedBlock,
    found: &NodeBlock,
    receipts: &[Value],
) -> Result<Vec<StateDifference>, Error> {
    let number = truth.header.number;
    let mut differences = Vec::new();
    let mut named = named(truth, found, receipts);
    for (address, info) in &truth.state.accounts {
        named.remove(address);
        let found = account(node, *address, number).await?;
        differences.extend(compare(*address, &info.unwrap_or_default(), &found));
    }
    // What the true block left alone is as before, and before both chains were one.
    for address in named {
        let before = account(node, address, number.saturating_sub(1)).await?;
        let found = account(node, address, number).await?;
        differences.extend(compare(address, &before, &found));
    }
    for ((address, slot), expected) in &truth.state.storage {
        let tag = BlockNumberOrTag::Number(number);
        let slot = B256::from(*slot);
        let found: U256 = node.request("eth_getStorageAt", rpc_params![address, slot, tag]).await?;
        if found != *expected {
            let (expected, found) = (B256::from(*expected), B256::from(found));
            differences.push(StateDifference {
                address: *address,
                slot: Some(slot),
                difference: Difference {
                    field: "storage".to_owned(),
                    expected: expected.to_string(),
                    found: found.to_string(),
                },
            });
        }
    }
    Ok(differences)
}

async fn account<C: ClientT + Sync>(
    node: &C,
    address: Address,
    number: u64,
) -> Result<AccountInfo, Error> {
    let at = || rpc_params![address, BlockNumberOrTag::Number(number)];
    let balance: U256 = node.request("eth_getBalance", at()).await?;
    let nonce: U64 = node.request("eth_getTransactionCount", at()).await?;
    let code: Bytes = node.request("eth_getCode", at()).await?;
    Ok(AccountInfo { balance, nonce: nonce.to(), code_hash: keccak256(code) })
}

fn compare(address: Address, expected: &AccountInfo, found: &AccountInfo) -> Vec<StateDifference> {
    let texts = |info: &AccountInfo| {
        [
            ("balance", info.balance.to_string()),
            ("nonce", info.nonce.to_string()),
            ("codeHash", info.code_hash.to_string()),
        ]
    };
    texts(expected)
        .into_iter()
        .zip(texts(found))
        .filter(|(expected, found)| expected != found)
        .map(|((field, expected), (_, found))| StateDifference {
            address,
            slot: None,
            difference: Difference { field: field.to_owned(), expected, found },
        })
        .collect()
}

/// All accounts that the transactions, receipts and logs of either block name.
fn named(truth: &ExecutedBlock, found: &NodeBlock, receipts: &[Value]) -> BTreeSet<Address> {
    let mut named: BTreeSet<Address> = truth.senders.iter().copied().collect();
    named.extend(truth.transactions.iter().filter_map(|tx| tx.to()));
    named.extend(truth.receipts.iter().flat_map(|receipt| receipt.logs()).map(|log| log.address));
    let theirs = found.json["transactions"].as_array().into_iter().flatten();
    let logs = receipts.iter().flat_map(|receipt| receipt["logs"].as_array()).flatten();
    let texts = theirs
        .flat_map(|tx| [&tx["from"], &tx["to"]])
        .chain(receipts.iter().map(|receipt| &receipt["contractAddress"]))
        .chain(logs.map(|log| &log["address"]));
    named.extend(texts.filter_map(|text| text.as_str()?.parse::<Address>().ok()));
    named
}
