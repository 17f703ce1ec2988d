//! Two contracts and a block that uses them.

use crate::world::{World, signer};
use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use jsonrpsee::rpc_params;
use serde_json::Value;

/// Writes what it is sent to slot 0 and logs the topic 0x2a; with calldata it reverts with the word 7.
#[rustfmt::skip]
const INNER: [u8; 22] = [
    0x36, 0x60, 13, 0x57,                   // if calldatasize, jump to 13
    0x34, 0x5f, 0x55,                       // sstore(0, callvalue)
    0x60, 0x2a, 0x5f, 0x5f, 0xa1, 0x00,     // log1(0, 0, 0x2a), stop
    0x5b, 0x60, 7, 0x5f, 0x52,              // mstore(0, 7)
    0x60, 32, 0x5f, 0xfd,                   // revert(0, 32)
];

/// Calls `inner` with a value of 5, calls it so that it reverts, delegates to it, and returns slot 0.
fn outer(inner: Address) -> Vec<u8> {
    let address = [&[0x73][..], inner.as_slice(), &[0x5a]].concat();
    [
        &[0x5f, 0x5f, 0x5f, 0x5f, 0x60, 5][..],
        &address,
        &[0xf1, 0x50, 0x5f, 0x5f, 0x60, 1, 0x5f, 0x5f],
        &address,
        &[0xf1, 0x50, 0x5f, 0x5f, 0x5f, 0x5f],
        &address,
        &[0xf4, 0x50, 0x5f, 0x54, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3],
    ]
    .concat()
}

/// Init code that deploys `runtime`.
pub(crate) fn deployer(runtime: &[u8]) -> Bytes {
    let length = u8::try_from(runtime.len()).expect("a short contract");
    // PUSH1 length, DUP1, PUSH1 10, PUSH0, CODECOPY, PUSH0, RETURN, (pad)
    let head = [0x60, length, 0x80, 0x60, 10, 0x5f, 0x39, 0x5f, 0xf3, 0x00];
    [&head[..], runtime].concat().into()
}

/// A node with three blocks: the deposit, the contracts, and calls of them.
pub(crate) struct Traces {
    pub(crate) world: World,
    pub(crate) inner: Address,
    pub(crate) outer: Address,
    /// The creation of both, block 2.
    pub(crate) create: [B256; 2],
    /// Block 3: a call of `outer` with a value of 9, one of `inner` that reverts, a transfer.
    pub(crate) call: B256,
    pub(crate) revert: B256,
    pub(crate) transfer: B256,
}

/// Who gets the transfer.
pub(crate) const FRIEND: Address = Address::repeat_byte(9);

impl Traces {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let world = World::new().await?;
        let me = signer().address();
        let (inner, outer_at) = (me.create(0), me.create(1));
        let mut create = [B256::ZERO; 2];
        let codes = [deployer(&INNER), deployer(&outer(inner))];
        for (nonce, code) in codes.into_iter().enumerate() {
            let tx = TxEip1559 {
                chain_id: world.params.chain_id,
                nonce: nonce as u64,
                gas_limit: 1_000_000,
                max_fee_per_gas: 10_000_000,
                max_priority_fee_per_gas: 1_000_000,
                to: TxKind::Create,
                input: code,
                ..Default::default()
            };
            create[nonce] = world.send(&world.sign(tx)).await?;
        }
        world.make_block(false)?;
        let call =
            world.signed(2, 500_000, outer_at, U256::from(9), Bytes::from_static(&[1, 2, 3, 4, 5]));
        let call = world.send(&call).await?;
        let revert = world.signed(3, 100_000, inner, U256::ZERO, Bytes::from_static(&[7]));
        let revert = world.send(&revert).await?;
        let transfer = world.signed(4, 21_000, FRIEND, U256::from(77), Bytes::new());
        let transfer = world.send(&transfer).await?;
        world.make_block(false)?;
        let status = |answer: &Value| answer["status"].clone();
        for (hash, expected) in [
            (create[0], "0x1"),
            (create[1], "0x1"),
            (call, "0x1"),
            (revert, "0x0"),
            (transfer, "0x1"),
        ] {
            let receipt = world.ask("eth_getTransactionReceipt", rpc_params![hash]).await?;
            anyhow::ensure!(status(&receipt) == expected, "{receipt}");
        }
        Ok(Self { world, inner, outer: outer_at, create, call, revert, transfer })
    }
}
