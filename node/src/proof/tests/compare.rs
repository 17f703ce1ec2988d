//! Where a node that holds the asserted chain differs: the true node, with answers altered as a liar's state
//! would alter them.

use super::*;
use crate::proof::against::{Divergence, block, first_divergence};
use crate::rpc::{NodeHandle, RpcConfig, ServerHandle, Submission, serve, types::Roles};
use alloy_primitives::U256;
use jsonrpsee::{
    RpcModule,
    core::client::{BatchResponse, ClientT, Error},
    core::{params::BatchRequestBuilder, traits::ToRpcParams},
    http_client::{HttpClient, HttpClientBuilder},
};
use kedge_vm::ExecutedBlock;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Alter = fn(&str, &[Value], &mut Value);

/// A node whose answers are altered.
struct Liar {
    honest: HttpClient,
    alter: Alter,
}

impl ClientT for Liar {
    async fn notification<P: ToRpcParams + Send>(&self, _: &str, _: P) -> Result<(), Error> {
        Err(Error::Custom("nothing is notified here".to_owned()))
    }

    async fn request<R: DeserializeOwned, P: ToRpcParams + Send>(
        &self,
        method: &str,
        params: P,
    ) -> Result<R, Error> {
        let raw = params.to_rpc_params()?.expect("all requests have some");
        let asked: Vec<Value> = serde_json::from_str(raw.get()).unwrap();
        let mut array = jsonrpsee::core::params::ArrayParams::new();
        for value in &asked {
            array.insert(value)?;
        }
        let mut answer: Value = self.honest.request(method, array).await?;
        (self.alter)(method, &asked, &mut answer);
        serde_json::from_value(answer).map_err(Error::ParseError)
    }

    async fn batch_request<'a, R: DeserializeOwned + std::fmt::Debug + 'a>(
        &self,
        _: BatchRequestBuilder<'a>,
    ) -> Result<BatchResponse<'a, R>, Error> {
        Err(Error::Custom("requests are single here".to_owned()))
    }
}

/// The blocks of the wrong segment, and the chain's node.
async fn served(case: &Case) -> (Vec<ExecutedBlock>, ServerHandle, HttpClient) {
    let file = ProofFile::parse(case.proof(case.id, None).encode(), None).unwrap().unwrap();
    let dir = case.folder();
    let folder = Folder::open(dir.path(), file.params).unwrap();
    let mut chain = BitcoinChain::new(file.params, Box::new(folder));
    let judged = judge(&file, &mut chain, &mut |_| {}).unwrap();
    let end = judged.assertion.l1.height;
    let replayed = inspect::replayed(&file, &chain, end).unwrap().unwrap();
    let engine = case.world.engine.clone();
    let handle = NodeHandle {
        params: case.world.params,
        store: engine.store().clone(),
        engine,
        submission: Submission::Refused,
        roles: Roles::default(),
        follower: None,
    };
    let config = RpcConfig::new(([127, 0, 0, 1], 0).into());
    let server = serve(config, handle, RpcModule::new(())).await.unwrap();
    let url = format!("http://{}", server.address());
    (replayed.blocks, server, HttpClientBuilder::default().build(url).unwrap())
}

/// Number of the block with the transfer of the wrong segment, in hexadecimal.
const WRONG: &str = "0x2";

async fn lie(alter: Alter) -> (Vec<ExecutedBlock>, Option<Divergence>) {
    let case = Case::new();
    let (blocks, _server, honest) = served(&case).await;
    let numbers: Vec<u64> = blocks.iter().map(|block| block.header.number).collect();
    assert!(numbers.contains(&2), "{numbers:?}");
    let found = first_divergence(&Liar { honest, alter }, &blocks).await.unwrap();
    (blocks, found)
}

fn is_wrong_block(method: &str, params: &[Value]) -> bool {
    method == "eth_getBlockByNumber" && params[0] == WRONG
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_the_true_chain_does_not_differ() {
    let (_, found) = lie(|_, _, _| {}).await;
    assert_eq!(found, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_out_of_nothing_is_found_with_its_account() {
    let (blocks, found) = lie(|method, params, answer| {
        if is_wrong_block(method, params) {
            answer["stateRoot"] = json!(B256::repeat_byte(7));
        }
        if method == "eth_getBalance" && params[0] == json!(BOB) && params[1] == WRONG {
            *answer = json!(U256::from(5));
        }
    })
    .await;
    let found = found.unwrap();
    assert_eq!((found.block, found.missing, found.transaction), (2, false, None));
    let fields: Vec<_> = found.header.iter().map(|difference| &difference.field).collect();
    assert_eq!(fields, ["stateRoot"]);
    let truth = blocks.iter().find(|block| block.header.number == 2).unwrap();
    let [state] = &found.state[..] else { panic!("{:?}", found.state) };
    assert_eq!((state.address, state.slot), (BOB, None));
    assert_eq!(state.difference.field, "balance");
    let balance = truth.state.accounts[&BOB].unwrap().balance;
    assert_eq!((&state.difference.expected, &*state.difference.found), (&balance.to_string(), "5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_a_receipt_and_a_transaction_are_found() {
    let (_, found) = lie(|method, params, answer| {
        if is_wrong_block(method, params) {
            answer["receiptsRoot"] = json!(B256::repeat_byte(7));
        }
        if method == "eth_getBlockReceipts" {
            answer[0]["status"] = json!("0x0");
        }
        if method == "eth_getStorageAt" && params[2] == WRONG {
            *answer = json!(B256::repeat_byte(3));
        }
    })
    .await;
    let found = found.unwrap();
    let tx = found.transaction.unwrap();
    assert_eq!((tx.index, tx.expected), (0, tx.found));
    let [difference] = &tx.receipt[..] else { panic!("{:?}", tx.receipt) };
    assert_eq!((&*difference.field, &*difference.expected), ("status", "0x1"));
    assert!(!found.state.is_empty());
    assert!(found.state.iter().all(|state| state.slot.is_some()), "{:?}", found.state);

    let (_, found) = lie(|method, params, answer| {
        if is_wrong_block(method, params) {
            answer["transactionsRoot"] = json!(B256::repeat_byte(7));
            answer["transactions"][0]["hash"] = json!(B256::repeat_byte(6));
        }
    })
    .await;
    let tx = found.unwrap().transaction.unwrap();
    assert_eq!((tx.index, tx.found), (0, Some(B256::repeat_byte(6))));
    assert!(tx.receipt.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lacks_blocks_or_state_is_said_to() {
    let (_, found) = lie(|method, params, answer| {
        if is_wrong_block(method, params) {
            *answer = Value::Null;
        }
    })
    .await;
    assert!(found.unwrap().missing);
    let case = Case::new();
    let (blocks, _server, honest) = served(&case).await;
    assert_eq!(block(&honest, 1_000).await.unwrap(), None);
    let truth = &blocks[0];
    let found = block(&honest, truth.header.number).await.unwrap().unwrap();
    assert_eq!(found.output_root, Some(truth.output_root));
    assert_eq!(found.transactions(), truth.transactions.len());
}
