//! The commands that talk to a running node, and nothing else.

use super::{Client, DepositArgs, WithdrawArgs, amount::show_btc};
use crate::{
    accounts,
    dev::DevApiClient,
    keys::{self, Role},
    l1::{self, Bitcoin as _, MemoryRecords, RpcClient, rust_network},
    rpc::{
        KedgeApiClient,
        types::{
            BridgeStatus, DepositStage, HeadStatus, SyncStatus, WithdrawalStage, WithdrawalStatus,
        },
    },
    wallet::{Wallet, WalletKeys},
};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U128, U256};
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall;
use anyhow::{Context, bail, ensure};
use bitcoin::{FeeRate, TxOut, Txid};
use jsonrpsee::{
    core::client::{ClientT, Error as ClientError},
    http_client::{HttpClient, HttpClientBuilder},
    rpc_params,
};
use kedge_bridge::{deposit::deposit_outputs, vault::vault_script};
use kedge_genesis::{Network, Sats, abi::BitcoinBridge, predeploys};
use serde::Serialize;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Fee rate of a deposit when Bitcoin has no estimate, sat/vB.
const FALLBACK_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
/// How long to wait for the receipt of a withdrawal.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn connect(client: &Client) -> anyhow::Result<HttpClient> {
    HttpClientBuilder::default()
        .request_timeout(Duration::from_secs(60))
        .build(&client.rpc)
        .map_err(|error| anyhow::anyhow!("--rpc {}: {error}", client.rpc))
}

/// What went wrong with a request, for people.
pub(super) fn explain(client: &Client) -> impl Fn(ClientError) -> anyhow::Error + '_ {
    |error| match error {
        ClientError::Call(answer) if answer.code() == -32_601 => anyhow::anyhow!(
            "the node at {} does not offer this; `kedge l1 mine` and deposits from the dev wallet need `kedge dev`",
            client.rpc
        ),
        ClientError::Call(answer) => anyhow::anyhow!("the node refused: {}", answer.message()),
        other => anyhow::anyhow!(
            "no node answers at {} ({other}); start one with `kedge dev`, or name another with --rpc",
            client.rpc
        ),
    }
}

pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

pub(super) async fn status(client: &Client) -> anyhow::Result<()> {
    let node = connect(client)?;
    let status = node.sync_status().await.map_err(explain(client))?;
    if client.json {
        return print_json(&status);
    }
    let SyncStatus { network, chain_id, l1_tip, l1_best, synced, .. } = &status;
    println!("network    {network}, chain id {chain_id}");
    let behind = l1_best.height.saturating_sub(l1_tip.height);
    let state =
        if *synced { "in sync".to_owned() } else { format!("{behind} Bitcoin blocks to go") };
    println!("L1 tip     {} {} ({state})", l1_tip.height, l1_tip.hash);
    println!();
    println!("head       number      L1 origin  hash                state root");
    for (name, head) in [
        ("latest", &status.latest),
        ("safe", &status.safe),
        ("finalized", &status.finalized),
        ("settled", &status.settled),
    ] {
        let HeadStatus { number, hash, state_root, l1_origin, .. } = head;
        println!(
            "{name:<9}  {number:<10}  {:<9}  {}  {}",
            l1_origin.height,
            short(hash),
            short(state_root)
        );
    }
    Ok(())
}

pub(super) fn short(hash: &B256) -> String {
    let text = hash.to_string();
    format!("{}…{}", &text[..10], &text[text.len() - 7..])
}

pub(super) async fn mine(client: &Client, blocks: u32) -> anyhow::Result<()> {
    let node = connect(client)?;
    let hashes = node.mine(blocks).await.map_err(explain(client))?;
    if client.json {
        return print_json(&hashes);
    }
    for hash in hashes {
        println!("{hash}");
    }
    Ok(())
}

pub(super) async fn deposit(args: DepositArgs) -> anyhow::Result<()> {
    let node = connect(&args.client)?;
    let status = node.sync_status().await.map_err(explain(&args.client))?;
    let bridge = node.bridge_status().await.map_err(explain(&args.client))?;
    ensure!(
        args.amount.0 >= bridge.min_deposit_sats,
        "the smallest deposit is {} sat",
        bridge.min_deposit_sats
    );
    let txid = match args.l1_rpc {
        None => node.deposit(args.to, args.amount.0).await.map_err(explain(&args.client))?,
        Some(_) => pay_deposit(&args, &status).await?,
    };
    if args.client.json {
        return print_json(&json!({
            "txid": txid,
            "to": args.to,
            "amountSats": args.amount.0,
            "vault": bridge.vault,
        }));
    }
    println!("paid {} into the vault {}", show_btc(args.amount), bridge.vault);
    println!("Bitcoin transaction {txid}");
    println!("{} is credited on L2 once a Bitcoin block holds it", args.to);
    Ok(())
}

/// Pays a deposit from a wallet of the person who asks.
async fn pay_deposit(args: &DepositArgs, status: &SyncStatus) -> anyhow::Result<Txid> {
    let network =
        Network::from_name(&status.network).context("the node is of an unknown network")?;
    let params = network.params();
    let vault = vault_script(params).context("the network has no vault")?;
    let url = args.l1_rpc.as_deref().unwrap_or_default();
    let bitcoin = RpcClient::new(url, args.credentials.auth()?)?;
    l1::check_ready(&bitcoin, params.bitcoin, params.l1_start.height).await?;
    let secret =
        keys::load(args.wallet_key_file.as_deref(), network, Role::Wallet, "--wallet-key-file")?;
    let keys = WalletKeys::from_seed(params.bitcoin, &secret.secret_bytes());
    let records = Arc::new(MemoryRecords::default());
    let wallet = Wallet::open(records, "deposit", &keys, params.bitcoin, params.l1_start.height)?;
    wallet.sync(&bitcoin).await?;
    let rate = bitcoin.fee_rate(2).await?.unwrap_or(FALLBACK_RATE);
    let outputs: Vec<TxOut> = deposit_outputs(&vault, &[(args.to, args.amount)]);
    Ok(wallet.send(&bitcoin, &outputs, rate).await?.compute_txid())
}

pub(super) async fn withdraw(args: WithdrawArgs) -> anyhow::Result<()> {
    let client = &args.client;
    let node = connect(client)?;
    let status = node.sync_status().await.map_err(explain(client))?;
    let network =
        Network::from_name(&status.network).context("the node is of an unknown network")?;
    let params = network.params();
    let script = args
        .to
        .parse::<bitcoin::Address<_>>()
        .map_err(|error| anyhow::anyhow!("--to {}: not a Bitcoin address: {error}", args.to))?
        .require_network(rust_network(params.bitcoin))
        .map_err(|_| {
            anyhow::anyhow!(
                "--to {}: not an address of Bitcoin's {}",
                args.to,
                params.bitcoin.core_name()
            )
        })?
        .script_pubkey();
    let bridge = node.bridge_status().await.map_err(explain(client))?;
    ensure!(
        script != bridge.vault_script,
        "--to {}: the vault cannot be paid by itself; name an address of yours",
        args.to
    );
    let signer = match (&args.key_file, network) {
        (Some(file), _) => {
            PrivateKeySigner::from_bytes(&B256::new(keys::read(file)?.secret_bytes()))?
        }
        (None, Network::Dev | Network::Regtest) => accounts::signer(0)?,
        (None, Network::Signet | Network::Mainnet) => {
            bail!("name the key of the L2 account that pays with --key-file")
        }
    };

    let script = Bytes::copy_from_slice(script.as_bytes());
    let payout_fee = payout_fee(&node, client, &script).await?;
    ensure!(
        args.amount.0 >= bridge_least(params.min_withdrawal, payout_fee),
        "after the payout fee of {payout_fee} sat less than the smallest withdrawal of {} sat would be left",
        params.min_withdrawal.0
    );
    let hash =
        send_withdrawal(&node, client, &signer, params.chain_id, script, args.amount).await?;
    let withdrawal = find_withdrawal(&node, client, signer.address(), hash).await?;
    if client.json {
        return print_json(&json!({
            "index": withdrawal.index,
            "transactionHash": hash,
            "to": args.to,
            "amountSats": withdrawal.amount_sats,
            "feeSats": withdrawal.fee_sats,
        }));
    }
    println!(
        "withdrawal {}: {} to {}, {} sat for the payout",
        withdrawal.index,
        show_btc(Sats(withdrawal.amount_sats)),
        args.to,
        withdrawal.fee_sats
    );
    println!("L2 transaction {hash}");
    println!("follow it with `kedge bridge status`");
    Ok(())
}

const fn bridge_least(minimum: Sats, fee: u64) -> u64 {
    minimum.0.saturating_add(fee)
}

async fn payout_fee(node: &HttpClient, client: &Client, script: &Bytes) -> anyhow::Result<u64> {
    let data =
        BitcoinBridge::payoutFeeSatsCall { scriptLength: U256::from(script.len()) }.abi_encode();
    let call = json!({ "to": predeploys::BITCOIN_BRIDGE, "data": Bytes::from(data) });
    let answer: Bytes =
        node.request("eth_call", rpc_params![call, "latest"]).await.map_err(explain(client))?;
    let fee = BitcoinBridge::payoutFeeSatsCall::abi_decode_returns(&answer)?;
    u64::try_from(fee).context("the payout fee is out of range")
}

/// Signs and sends the L2 transaction; the secret does not leave this process.
async fn send_withdrawal(
    node: &HttpClient,
    client: &Client,
    signer: &PrivateKeySigner,
    chain_id: u64,
    script: Bytes,
    amount: Sats,
) -> anyhow::Result<B256> {
    use alloy_network::TxSignerSync as _;

    let from = signer.address();
    let input = Bytes::from(BitcoinBridge::withdrawCall { scriptPubKey: script }.abi_encode());
    let call = json!({
        "from": from,
        "to": predeploys::BITCOIN_BRIDGE,
        "value": amount.to_wei(),
        "data": input,
    });
    let gas: U64 =
        node.request("eth_estimateGas", rpc_params![call]).await.map_err(explain(client))?;
    let nonce: U64 = node
        .request("eth_getTransactionCount", rpc_params![from, "pending"])
        .await
        .map_err(explain(client))?;
    let tip: U128 =
        node.request("eth_maxPriorityFeePerGas", rpc_params![]).await.map_err(explain(client))?;
    let price: U128 = node.request("eth_gasPrice", rpc_params![]).await.map_err(explain(client))?;
    let mut tx = TxEip1559 {
        chain_id,
        nonce: nonce.to(),
        // The state may move between estimate and execution.
        gas_limit: gas.to::<u64>().saturating_mul(5) / 4,
        max_fee_per_gas: price.to::<u128>().saturating_mul(2),
        max_priority_fee_per_gas: tip.to(),
        to: TxKind::Call(predeploys::BITCOIN_BRIDGE),
        value: amount.to_wei(),
        access_list: Default::default(),
        input,
    };
    let signature = signer.sign_transaction_sync(&mut tx)?;
    let signed = TxEnvelope::from(tx.into_signed(signature));
    let raw = Bytes::from(signed.encoded_2718());
    node.request("eth_sendRawTransaction", rpc_params![raw]).await.map_err(explain(client))
}

/// The queued withdrawal that a transaction made.
async fn find_withdrawal(
    node: &HttpClient,
    client: &Client,
    sender: Address,
    hash: B256,
) -> anyhow::Result<WithdrawalStatus> {
    let deadline = tokio::time::Instant::now() + RECEIPT_PATIENCE;
    loop {
        let receipt: Option<serde_json::Value> = node
            .request("eth_getTransactionReceipt", rpc_params![hash])
            .await
            .map_err(explain(client))?;
        if let Some(receipt) = receipt {
            ensure!(
                receipt["status"] == "0x1",
                "the withdrawal was refused by the bridge contract (L2 transaction {hash})"
            );
            break;
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the L2 transaction {hash} is sent and not in a block yet; look at `kedge bridge status`"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bridge = node.bridge_status().await.map_err(explain(client))?;
    bridge
        .withdrawals
        .into_iter()
        .find(|withdrawal| withdrawal.transaction == hash && withdrawal.sender == sender)
        .with_context(|| {
            format!("the L2 transaction {hash} is in a block; see `kedge bridge status`")
        })
}

pub(super) async fn bridge_status(client: &Client) -> anyhow::Result<()> {
    let node = connect(client)?;
    let status = node.bridge_status().await.map_err(explain(client))?;
    if client.json {
        return print_json(&status);
    }
    show_bridge(&status);
    Ok(())
}

fn show_bridge(status: &BridgeStatus) {
    println!("vault        {}", status.vault);
    println!("  holds      {}", show_btc(Sats(status.vault_sats)));
    println!("  L2 supply  {}", show_btc(Sats(status.supply_sats)));
    println!("  to be paid {}", show_btc(Sats(status.queued_sats)));
    let verdict = if status.solvent { "solvent" } else { "NOT SOLVENT" };
    println!("  surplus    {} ({verdict})", show_btc(Sats(status.surplus_sats)));
    if status.unattributed_count > 0 {
        println!("  {} vault outputs name no recipient", status.unattributed_count);
    }
    println!();
    println!("deposits ({}, newest first)", status.deposit_count);
    for deposit in &status.deposits {
        let stage = match (deposit.stage, deposit.block) {
            (DepositStage::Credited, Some(block)) => format!("credited in L2 block {block}"),
            (DepositStage::Credited, None) => "credited".to_owned(),
            (DepositStage::Confirmed, _) => "on Bitcoin".to_owned(),
        };
        println!(
            "  {} to {}  {stage}  ({})",
            show_btc(Sats(deposit.amount_sats)),
            deposit.recipient,
            deposit.outpoint
        );
    }
    println!();
    println!("withdrawals ({}, newest first)", status.withdrawal_count);
    for withdrawal in &status.withdrawals {
        println!(
            "  #{} {} to {}  {}",
            withdrawal.index,
            show_btc(Sats(withdrawal.amount_sats)),
            withdrawal.address.clone().unwrap_or_else(|| withdrawal.script.to_hex_string()),
            steps(withdrawal)
        );
    }
}

/// The steps that a withdrawal has taken and the next one.
fn steps(withdrawal: &WithdrawalStatus) -> String {
    let mut steps = vec![format!("queued in L2 block {}", withdrawal.block)];
    if withdrawal.stage >= WithdrawalStage::Safe {
        steps.push("batch on Bitcoin".to_owned());
    }
    if withdrawal.stage >= WithdrawalStage::Asserted {
        steps.push(match (withdrawal.stage, withdrawal.settles_at) {
            (WithdrawalStage::Asserted, Some(height)) => {
                format!("asserted, settles at Bitcoin block {height}")
            }
            _ => "asserted".to_owned(),
        });
    }
    if withdrawal.stage >= WithdrawalStage::Settled {
        steps.push("settled".to_owned());
    }
    if withdrawal.stage >= WithdrawalStage::Paid {
        let by = withdrawal.payout.map(|payout| format!(" by {payout}")).unwrap_or_default();
        steps.push(format!("paid{by}"));
    }
    steps.join(" → ")
}
