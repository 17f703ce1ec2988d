//! Requests that are refused, each with the code that the contract gives it, and batches.

use super::{
    accounts::{Deed, balance_of, token_transfer},
    asker::Asker,
    world::{hex, list, number, short, text},
};
use alloy_primitives::{Address, U256};
use anyhow::{Context, Result, ensure};
use rand::{Rng, seq::SliceRandom};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The largest request of a node, bytes.
const LARGEST: usize = 5 << 20;
/// The most requests of a batch.
const LARGEST_BATCH: usize = 100;

impl Asker {
    /// Parameters that no method takes.
    pub(super) async fn wrong_parameters(&mut self) -> Result<()> {
        let far = hex(1 << 40);
        let nobody = Address::repeat_byte(9);
        let table = [
            ("eth_noSuchMethod", json!([]), -32_601),
            ("admin_peers", json!([]), -32_601),
            ("eth_sendTransaction", json!([{}]), -32_601),
            ("eth_subscribe", json!(["newHeads"]), -32_601),
            ("kedge_unsubscribe", json!(["0x1"]), -32_601),
            ("eth_getBalance", json!([]), -32_602),
            ("eth_getBalance", json!(["0x12", "latest"]), -32_602),
            ("eth_getBalance", json!([{}, 7]), -32_602),
            ("eth_getBalance", json!([nobody, far]), -32_000),
            ("eth_getBalance", json!([nobody, "newest"]), -32_602),
            ("eth_getBlockByNumber", json!(["last", false]), -32_602),
            ("eth_getBlockByHash", json!(["0x1234", false]), -32_602),
            (
                "eth_getStorageAt",
                json!([nobody, format!("0x{}", "0".repeat(65)), "latest"]),
                -32_602,
            ),
            ("eth_getProof", json!([nobody, [], far]), -32_000),
            ("eth_getLogs", json!([{ "fromBlock": "0x2", "toBlock": "0x1" }]), -32_602),
            ("eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": far }]), -32_602),
            ("eth_getLogs", json!([{ "blockHash": format!("{:#066x}", 1) }]), -32_000),
            ("eth_getFilterChanges", json!(["0x1234"]), -32_000),
            ("eth_feeHistory", json!(["0x1", "latest", [120.0]]), -32_602),
            ("eth_call", json!([{ "to": "0x12" }, "latest"]), -32_602),
            ("eth_call", json!([{ "to": nobody }, far]), -32_000),
            ("eth_simulateV1", json!([{ "blockStateCalls": [] }]), -32_602),
            (
                "eth_simulateV1",
                json!([{ "blockStateCalls": [{ "blockOverrides": { "number": "0x1" } }] }, "latest"]),
                -38_020,
            ),
            ("debug_traceTransaction", json!([format!("{:#066x}", 1)]), -32_000),
            (
                "debug_traceBlockByNumber",
                json!(["latest", { "tracer": "{result: function() {}}" }]),
                -32_602,
            ),
            ("debug_traceBlockByNumber", json!(["0x0"]), -32_000),
            ("debug_traceBlock", json!(["0x1234"]), -32_602),
            ("trace_call", json!([{ "to": nobody }, ["noTrace"], "latest"]), -32_602),
            ("ots_searchTransactionsBefore", json!([nobody, 0, 1_000]), -32_602),
            ("kedge_deposit", json!(["0x12"]), -32_602),
            ("kedge_block", json!([{}]), -32_602),
        ];
        let (method, params, code) = table[self.rng.random_range(0..table.len())].clone();
        let error = self.refused(method, params, code).await?;
        ensure!(!text(&error["message"])?.is_empty(), "{method} is refused without a word");
        Ok(())
    }

    /// A request that is too large: the node says so once it knows its length.
    pub(super) async fn oversize(&mut self) -> Result<()> {
        let at = self.world.nodes[self.node].url().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&at).await?;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n[",
            LARGEST + 1
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        timeout(crate::DEADLINE, stream.read_to_end(&mut answer)).await.context("no end")??;
        self.world.count("(too large)");
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.contains("-32007"), "too large a request is answered {answer}");
        Ok(())
    }

    /// Bodies that are no request.
    pub(super) async fn wrong_body(&mut self) -> Result<()> {
        let request = |method: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": method });
        let (body, code) = match self.rng.random_range(0..60) {
            0..15 => ("{".to_owned(), -32_700),
            15..25 => ("[]".to_owned(), -32_600),
            25..35 => ("{}".to_owned(), -32_600),
            35..45 => (r#"{"jsonrpc":"2.0","id":1}"#.to_owned(), -32_600),
            45..50 => {
                (Value::Array(vec![request("eth_chainId"); LARGEST_BATCH + 1]).to_string(), -32_010)
            }
            _ => (request("eth_getBalance").to_string().replace('}', ",\"params\":[7]}"), -32_602),
        };
        let answer = self.world.nodes[self.node].post(body.clone()).await?;
        self.world.count("(no request)");
        let head = body.get(..60).unwrap_or(&body);
        ensure!(
            answer["error"]["code"] == code,
            "{head} is answered {} not {code}",
            short(&answer)
        );
        Ok(())
    }

    /// Calls that fail: reverts with their reason and data, calls that cannot be.
    pub(super) async fn failing_call(&mut self) -> Result<()> {
        let token = self.world.token.clone();
        let from = self.senders[0].address();
        let call = json!({
            "from": from, "to": token, "data": token_transfer(Address::repeat_byte(1), U256::MAX),
        });
        let method = self.one_of(&["eth_call", "eth_estimateGas"]);
        let error = self.refused(method, json!([call, "latest"]), 3).await?;
        // Panic(0x11)
        let data = format!("0x4e487b71{:064x}", 0x11);
        ensure!(error["data"] == data, "{method}: {}", short(&error));
        ensure!(text(&error["message"])?.contains("underflow"), "{method}: {}", short(&error));
        let poor = json!({ "from": Address::repeat_byte(9), "to": token, "value": "0x1" });
        self.refused("eth_call", json!([poor, "latest"]), -32_000).await?;
        Ok(())
    }

    /// Transactions that are not taken.
    pub(super) async fn refused_transaction(&mut self) -> Result<()> {
        let kind = self.rng.random_range(0..8);
        let bytes = match kind {
            0 => ("0x".to_owned(), -32_000),
            1 => ("0x02c0".to_owned(), -32_000),
            2 => ("0x03c0".to_owned(), -32_003),
            3 => ("zz".to_owned(), -32_602),
            _ => {
                let to = Address::repeat_byte(3).into();
                let sender = &self.senders[0];
                let (none, data) = (U256::ZERO, alloy_primitives::Bytes::new());
                let signed = |nonce, value, gas| {
                    sender.sign(Deed::Transfer, nonce, to, value, gas, data.clone())
                };
                let (tx, code) = match kind {
                    4 => (signed(0, none, 21_000)?, 1),
                    5 => (signed(sender.nonce, none, 20_999)?, 800),
                    6 => (signed(sender.nonce, none, 1 << 40)?, 803),
                    _ => (signed(sender.nonce, U256::from(1u128 << 100), 21_000)?, 809),
                };
                (tx.encoded, code)
            }
        };
        let method = self.one_of(&["eth_sendRawTransaction", "eth_sendRawTransactionSync"]);
        let answer = self.submit(method, json!([bytes.0])).await?;
        let code = &answer["error"]["code"];
        ensure!(*code == bytes.1, "{method}: {} not {} to {}", short(&answer), bytes.1, bytes.0);
        Ok(())
    }

    /// Several requests in one, some of them wrong, one of them a notification.
    pub(super) async fn batch(&mut self) -> Result<()> {
        let count = self.rng.random_range(2..20);
        let at = self.block();
        let holder = self.account();
        let call = json!({ "to": self.world.token, "data": balance_of(&holder)? });
        let mut requests = Vec::new();
        for id in 0..count {
            let (method, params) = match self.rng.random_range(0..6) {
                0 => ("eth_chainId", json!([])),
                1 => ("eth_getBalance", json!([holder, hex(at)])),
                2 => ("eth_getBlockByNumber", json!([hex(at), false])),
                3 => ("eth_call", json!([call, hex(at)])),
                4 => ("eth_getBalance", json!([])),
                _ => ("eth_noSuchMethod", json!([])),
            };
            requests
                .push(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        }
        let mut body = requests.clone();
        body.push(json!({ "jsonrpc": "2.0", "method": "eth_chainId", "params": [] }));
        body.shuffle(&mut self.rng);
        let answer = self.world.nodes[self.node].post(Value::Array(body).to_string()).await?;
        let answers = list(&answer)?;
        ensure!(
            answers.len() == requests.len(),
            "{} of {count}: {}",
            answers.len(),
            short(&answer)
        );
        for request in &requests {
            let method = text(&request["method"])?;
            self.world.count(method);
            let answer = answers.iter().find(|answer| answer["id"] == request["id"]);
            let answer = answer.with_context(|| format!("no answer to {request}"))?;
            let params = list(&request["params"])?;
            let code = match method {
                "eth_noSuchMethod" => -32_601,
                "eth_getBalance" if params.is_empty() => -32_602,
                _ => 0,
            };
            if code != 0 {
                ensure!(answer["error"]["code"] == code, "{request}: {}", short(answer));
                continue;
            }
            let result = answer.get("result").with_context(|| short(answer))?;
            match method {
                "eth_getBlockByNumber" => {
                    ensure!(number(&result["number"])? == at, "{}", short(result));
                }
                _ => ensure!(result.is_string(), "{request}: {}", short(answer)),
            }
        }
        Ok(())
    }
}
