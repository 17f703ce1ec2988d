//! The methods, each as Bitcoin Core answers it on regtest.

use super::{Failure, Params, code, wrong_type};
use crate::l1::embedded::PoolEntry;
use crate::l1::{Broadcast, Embedded, L1Error};
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{
    Address, Amount, Block, BlockHash, FeeRate, Network, OutPoint, Transaction, Txid, Work,
};
use kedge_genesis::L1Height;
use serde_json::{Value, json};
use std::str::FromStr;

/// Bitcoin Core's version that this resembles, as its RPC numbers it.
const VERSION: u32 = 310_000;
/// Bitcoin Core's default limit of `sendrawtransaction`, satoshis per 1,000 vB.
const DEFAULT_MAX_FEE_RATE: u64 = 10_000_000;

pub(super) fn dispatch(
    chain: &Embedded,
    method: &str,
    params: &Params<'_>,
) -> Result<Value, Failure> {
    match method {
        "getblockchaininfo" => chain_info(chain),
        "getblockcount" => Ok(json!(chain.tip().0.0)),
        "getbestblockhash" => Ok(json!(chain.tip().1)),
        "getblockhash" => block_hash(chain, params),
        "getblockheader" => block_header(chain, params),
        "getblock" => block(chain, params),
        "getrawtransaction" => raw_transaction(chain, params),
        "gettxout" => tx_out(chain, params),
        "sendrawtransaction" => send_raw_transaction(chain, params),
        "submitblock" => submit_block(chain, params),
        "estimatesmartfee" => estimate_fee(chain, params),
        "getmempoolentry" => mempool_entry(chain, params),
        "getrawmempool" => raw_mempool(chain, params),
        "getmempoolinfo" => Ok(mempool_info(chain)),
        "getnetworkinfo" => Ok(network_info()),
        "getconnectioncount" => Ok(json!(0)),
        "generatetoaddress" => generate_to_address(chain, params),
        "help" => Ok(json!(METHODS.join("\n"))),
        _ => Err(Failure::new(code::METHOD_NOT_FOUND, "Method not found")),
    }
}

const METHODS: [&str; 18] = [
    "estimatesmartfee conf_target",
    "generatetoaddress nblocks \"address\"",
    "getbestblockhash",
    "getblock \"blockhash\" ( verbosity )",
    "getblockchaininfo",
    "getblockcount",
    "getblockhash height",
    "getblockheader \"blockhash\" ( verbose )",
    "getconnectioncount",
    "getmempoolentry \"txid\"",
    "getmempoolinfo",
    "getnetworkinfo",
    "getrawmempool ( verbose )",
    "getrawtransaction \"txid\" ( verbosity \"blockhash\" )",
    "gettxout \"txid\" n ( include_mempool )",
    "help",
    "sendrawtransaction \"hexstring\" ( maxfeerate )",
    "submitblock \"hexdata\"",
];

fn internal(error: L1Error) -> Failure {
    match error {
        L1Error::BlockNotFound { .. } => Failure::new(code::NOT_FOUND, "Block not found"),
        other => Failure::new(code::INTERNAL, other.to_string()),
    }
}

/// A hash argument, or Bitcoin Core's complaint about it.
fn hash<T: FromStr>(params: &Params<'_>, position: usize, name: &str) -> Result<T, Failure> {
    let text = params.string(position, name)?;
    text.parse().map_err(|_| {
        let reason = if text.len() == 64 {
            format!("{name} must be hexadecimal string (not '{text}')")
        } else {
            format!("{name} must be of length 64 (not {}, for '{text}')", text.len())
        };
        Failure::new(code::INVALID_PARAMETER, reason)
    })
}

/// Bitcoin as a JSON number; exact, since 21 million bitcoin in satoshis are below 2^53.
fn btc(amount: Amount) -> Value {
    json!(amount.to_btc())
}

fn per_kvb(rate: FeeRate) -> Value {
    btc(Amount::from_sat(rate.to_sat_per_kwu().saturating_mul(4)))
}

fn chain_info(chain: &Embedded) -> Result<Value, Failure> {
    let (height, best) = chain.tip();
    let header = chain.header_now(&best).map_err(internal)?;
    let place = chain.place(&best);
    Ok(json!({
        "chain": "regtest",
        "blocks": height.0,
        "headers": height.0,
        "bestblockhash": best,
        "bits": format!("{:08x}", header.bits.to_consensus()),
        "target": target(&header),
        "difficulty": difficulty(&header),
        "time": header.time,
        "mediantime": place.map(|place| place.median_time),
        "verificationprogress": 1,
        "initialblockdownload": false,
        "chainwork": chainwork(&header, height),
        "size_on_disk": 0,
        "pruned": false,
        "warnings": [],
    }))
}

fn block_hash(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let height = params.integer(0, "height")?;
    let found = u32::try_from(height).ok().and_then(|height| chain.hash_at(L1Height(height)));
    let out = || Failure::new(code::INVALID_PARAMETER, "Block height out of range");
    found.map(|hash| json!(hash)).ok_or_else(out)
}

fn block_header(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let hash: BlockHash = hash(params, 0, "blockhash")?;
    let header = chain.header_now(&hash).map_err(internal)?;
    if !params.boolean(1, "verbose", true)? {
        return Ok(json!(serialize_hex(&header)));
    }
    let count = chain.block_now(&hash).map_err(internal)?.txdata.len();
    header_fields(chain, &hash, &header, count)
}

fn block(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let hash: BlockHash = hash(params, 0, "blockhash")?;
    let verbosity = match params.get(1, "verbosity") {
        None => 1,
        Some(Value::Bool(verbose)) => i64::from(*verbose),
        Some(value) => value.as_i64().ok_or_else(|| wrong_type(1, "verbosity", "number", value))?,
    };
    let block = chain.block_now(&hash).map_err(internal)?;
    if verbosity <= 0 {
        return Ok(json!(serialize_hex(&block)));
    }
    let mut fields = header_fields(chain, &hash, &block.header, block.txdata.len())?;
    let txs: Vec<Value> = if verbosity == 1 {
        block.txdata.iter().map(|tx| json!(tx.compute_txid())).collect()
    } else {
        block.txdata.iter().map(transaction_fields).collect()
    };
    fields["tx"] = json!(txs);
    fields["size"] = json!(block.total_size());
    fields["strippedsize"] =
        json!(block.weight().to_wu().saturating_sub(block.total_size() as u64) / 3);
    fields["weight"] = json!(block.weight().to_wu());
    Ok(fields)
}

fn header_fields(
    chain: &Embedded,
    hash: &BlockHash,
    header: &Header,
    count: usize,
) -> Result<Value, Failure> {
    let place = chain.place(hash);
    let height = match place {
        Some(place) => place.height,
        None => chain.height_of(hash).map_err(internal)?,
    };
    let confirmations = match place {
        Some(place) => i64::from(chain.tip().0.since(place.height)) + 1,
        None => -1,
    };
    let mut fields = json!({
        "hash": hash,
        "confirmations": confirmations,
        "height": height.0,
        "version": header.version.to_consensus(),
        "versionHex": format!("{:08x}", header.version.to_consensus()),
        "merkleroot": header.merkle_root,
        "time": header.time,
        "mediantime": place.map_or(header.time, |place| place.median_time),
        "nonce": header.nonce,
        "bits": format!("{:08x}", header.bits.to_consensus()),
        "target": target(header),
        "difficulty": difficulty(header),
        "chainwork": chainwork(header, height),
        "nTx": count,
    });
    if height.0 > 0 {
        fields["previousblockhash"] = json!(header.prev_blockhash);
    }
    if let Some(next) = place.and_then(|place| place.next) {
        fields["nextblockhash"] = json!(next);
    }
    Ok(fields)
}

fn target(header: &Header) -> String {
    hex::encode(header.target().to_be_bytes())
}

fn difficulty(header: &Header) -> f64 {
    // Bitcoin Core's GetDifficulty: 0x00ffff over the mantissa, shifted by the exponent.
    let bits = header.bits.to_consensus();
    let exponent = i32::try_from(bits >> 24).unwrap_or_default();
    f64::from(0xffff) / f64::from(bits & 0x00ff_ffff) * 256_f64.powi(29 - exponent)
}

/// All blocks of regtest have the same work.
fn chainwork(header: &Header, height: L1Height) -> String {
    let mut total = Work::from_be_bytes([0; 32]);
    for _ in 0..=height.0 {
        total = total + header.work();
    }
    hex::encode(total.to_be_bytes())
}

fn transaction_fields(tx: &Transaction) -> Value {
    let inputs: Vec<Value> = tx
        .input
        .iter()
        .map(|input| {
            if tx.is_coinbase() {
                return json!({
                    "coinbase": input.script_sig.to_hex_string(),
                    "txinwitness": input.witness.iter().map(hex::encode).collect::<Vec<_>>(),
                    "sequence": input.sequence.0,
                });
            }
            json!({
                "txid": input.previous_output.txid,
                "vout": input.previous_output.vout,
                "scriptSig": { "hex": input.script_sig.to_hex_string() },
                "txinwitness": input.witness.iter().map(hex::encode).collect::<Vec<_>>(),
                "sequence": input.sequence.0,
            })
        })
        .collect();
    let outputs: Vec<Value> = tx
        .output
        .iter()
        .enumerate()
        .map(|(n, output)| {
            json!({
                "value": btc(output.value),
                "n": n,
                "scriptPubKey": script_fields(&output.script_pubkey),
            })
        })
        .collect();
    json!({
        "txid": tx.compute_txid(),
        "hash": tx.compute_wtxid(),
        "version": tx.version.0,
        "size": tx.total_size(),
        "vsize": tx.vsize(),
        "weight": tx.weight().to_wu(),
        "locktime": tx.lock_time.to_consensus_u32(),
        "vin": inputs,
        "vout": outputs,
        "hex": serialize_hex(tx),
    })
}

fn script_fields(script: &bitcoin::Script) -> Value {
    let kind = if script.is_p2tr() {
        "witness_v1_taproot"
    } else if script.is_p2wpkh() {
        "witness_v0_keyhash"
    } else if script.is_p2wsh() {
        "witness_v0_scripthash"
    } else if script.is_p2pkh() {
        "pubkeyhash"
    } else if script.is_p2sh() {
        "scripthash"
    } else if script.is_op_return() {
        "nulldata"
    } else {
        "nonstandard"
    };
    let mut fields =
        json!({ "asm": script.to_asm_string(), "hex": script.to_hex_string(), "type": kind });
    if let Ok(address) = Address::from_script(script, Network::Regtest) {
        fields["address"] = json!(address.to_string());
    }
    fields
}

fn raw_transaction(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let txid: Txid = hash(params, 0, "txid")?;
    let verbose = match params.get(1, "verbosity") {
        None => false,
        Some(Value::Bool(verbose)) => *verbose,
        Some(value) => value.as_i64().is_some_and(|level| level > 0),
    };
    let within = match params.get(2, "blockhash") {
        Some(_) => Some(hash::<BlockHash>(params, 2, "blockhash")?),
        None => None,
    };
    let found = match &within {
        Some(at) => {
            let block = chain
                .block_now(at)
                .map_err(|_| Failure::new(code::NOT_FOUND, "Block hash not found"))?;
            find_tx(block, &txid)
        }
        None => chain.pool_entry(&txid).map(|entry| Transaction::clone(&entry.tx)),
    };
    let tx = found.ok_or_else(|| {
        Failure::new(
            code::NOT_FOUND,
            if within.is_some() {
                "No such transaction found in the provided block. Use gettransaction for wallet transactions."
            } else {
                "No such mempool transaction. Provide a block hash to find a confirmed one. Use gettransaction for wallet transactions."
            },
        )
    })?;
    if !verbose {
        return Ok(json!(serialize_hex(&tx)));
    }
    let mut fields = transaction_fields(&tx);
    if let Some(at) = within {
        let place = chain.place(&at);
        fields["blockhash"] = json!(at);
        fields["in_active_chain"] = json!(place.is_some());
        let depth = place.map_or(0, |place| chain.tip().0.since(place.height) + 1);
        fields["confirmations"] = json!(depth);
    }
    Ok(fields)
}

fn find_tx(block: Block, txid: &Txid) -> Option<Transaction> {
    block.txdata.into_iter().find(|tx| tx.compute_txid() == *txid)
}

fn tx_out(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let txid: Txid = hash(params, 0, "txid")?;
    let vout = u32::try_from(params.integer(1, "n")?)
        .map_err(|_| Failure::new(code::INVALID_PARAMETER, "Invalid vout index"))?;
    let mempool = params.boolean(2, "include_mempool", true)?;
    let Some(unspent) = chain.unspent(&OutPoint { txid, vout }, mempool) else {
        return Ok(Value::Null);
    };
    Ok(json!({
        "bestblock": chain.tip().1,
        "confirmations": unspent.confirmations,
        "value": btc(unspent.output.value),
        "scriptPubKey": script_fields(&unspent.output.script_pubkey),
        "coinbase": unspent.coinbase,
    }))
}

fn send_raw_transaction(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let text = params.string(0, "hexstring")?;
    let tx: Transaction = deserialize_hex(text).map_err(|_| {
        let message = "TX decode failed. Make sure the tx has at least one input.";
        Failure::new(code::DECODE, message)
    })?;
    let limit = match params.get(1, "maxfeerate") {
        None => Some(DEFAULT_MAX_FEE_RATE),
        Some(value) => {
            let bad = || Failure::new(code::TYPE, "Invalid amount");
            let number = value
                .as_f64()
                .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
                .ok_or_else(bad)?;
            let rate = Amount::from_btc(number).map_err(|_| bad())?.to_sat();
            (rate > 0).then_some(rate)
        }
    };
    if chain.is_confirmed(&tx) {
        let message = "Transaction outputs already in utxo set";
        return Err(Failure::new(code::ALREADY_CONFIRMED, message));
    }
    if let Some(limit) = limit
        && let Some(fee) = chain.fee_of(&tx)
        && fee.to_sat() > (limit * tx.vsize() as u64).div_ceil(1000)
    {
        let message = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
        return Err(Failure::new(code::VERIFY, message));
    }
    match chain.submit(&tx).map_err(internal)? {
        Broadcast::Accepted | Broadcast::AlreadyKnown => Ok(json!(tx.compute_txid())),
        Broadcast::Rejected { code, reason } => Err(Failure::new(code, reason)),
    }
}

fn submit_block(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let block: Block = deserialize_hex(params.string(0, "hexdata")?)
        .map_err(|_| Failure::new(code::DECODE, "Block decode failed"))?;
    if chain.place(&block.block_hash()).is_some() {
        return Ok(json!("duplicate"));
    }
    match chain.submit_block(&block) {
        Ok(()) => Ok(Value::Null),
        Err(L1Error::BlockRefused { .. }) => Ok(json!("rejected")),
        Err(error) => Err(internal(error)),
    }
}

fn estimate_fee(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let target = params.integer(0, "conf_target")?;
    if !(1..=1008).contains(&target) {
        let message = "Invalid conf_target, must be between 1 and 1008";
        return Err(Failure::new(code::INVALID_PARAMETER, message));
    }
    Ok(match chain.estimate() {
        Some(rate) => json!({ "feerate": per_kvb(rate), "blocks": target.max(2) }),
        None => {
            json!({ "errors": ["Insufficient data or no feerate found"], "blocks": target.max(2) })
        }
    })
}

fn mempool_entry(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let txid: Txid = hash(params, 0, "txid")?;
    let entry = chain
        .pool_entry(&txid)
        .ok_or_else(|| Failure::new(code::NOT_FOUND, "Transaction not in mempool"))?;
    Ok(entry_fields(&entry))
}

fn entry_fields(entry: &PoolEntry) -> Value {
    json!({
        "vsize": entry.vsize,
        "weight": entry.tx.weight().to_wu(),
        "time": entry.time,
        "height": entry.height.0,
        "descendantcount": entry.descendants,
        "ancestorcount": entry.ancestors,
        "wtxid": entry.tx.compute_wtxid(),
        "fees": { "base": btc(entry.fee), "modified": btc(entry.fee) },
        "depends": entry.depends,
        "spentby": entry.spent_by,
        "unbroadcast": false,
    })
}

fn raw_mempool(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let txids = chain.pool_txids();
    if !params.boolean(0, "verbose", false)? {
        return Ok(json!(txids));
    }
    let entries = txids
        .iter()
        .filter_map(|txid| Some((txid.to_string(), entry_fields(&chain.pool_entry(txid)?))));
    Ok(Value::Object(entries.collect()))
}

fn mempool_info(chain: &Embedded) -> Value {
    let (count, vsize) = chain.pool_size();
    let floor = btc(Amount::from_sat(100));
    json!({
        "loaded": true,
        "size": count,
        "bytes": vsize,
        "mempoolminfee": floor,
        "minrelaytxfee": floor,
        "incrementalrelayfee": floor,
        "fullrbf": true,
    })
}

fn network_info() -> Value {
    let fee = btc(Amount::from_sat(100));
    json!({
        "version": VERSION,
        "subversion": concat!("/kedge:", env!("CARGO_PKG_VERSION"), "/"),
        "protocolversion": 70016,
        "localservices": "0000000000000009",
        "localservicesnames": ["NETWORK", "WITNESS"],
        "localrelay": true,
        "timeoffset": 0,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networkactive": false,
        "networks": [],
        "relayfee": fee,
        "incrementalfee": fee,
        "localaddresses": [],
        "warnings": [],
    })
}

fn generate_to_address(chain: &Embedded, params: &Params<'_>) -> Result<Value, Failure> {
    let count = u32::try_from(params.integer(0, "nblocks")?)
        .map_err(|_| Failure::new(code::INVALID_PARAMETER, "Invalid nblocks"))?;
    let address = Address::from_str(params.string(1, "address")?)
        .ok()
        .and_then(|address| address.require_network(Network::Regtest).ok())
        .ok_or_else(|| Failure::new(code::NOT_FOUND, "Error: Invalid address"))?;
    let hashes = chain.mine(count, &address.script_pubkey()).map_err(internal)?;
    Ok(json!(hashes))
}
