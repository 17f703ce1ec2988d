// What the chain says of itself: blocks and fees.
import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { live, mine, post, request, until } from "../live.mjs";
import {
  account, asked, deployed, fresh, generatePrivateKey, http, mined, onFetchRequest, options, other,
  privateKeyToAccount, rejected, same, token, Token, viem, wallet, walletOf, ws,
} from "./setup.mjs";

const { keccak256, toHex } = viem;

describe("connection", () => {
  test("the node names its chain, its software and its state", async () => {
    assert.equal(await http.getChainId(), live.chainId);
    assert.equal(await http.request({ method: "net_version" }), String(live.chainId));
    assert.match(await http.request({ method: "web3_clientVersion" }), /^kedge\//i);
    assert.equal(await http.request({ method: "web3_sha3", params: ["0x6b65646765"] }), keccak256("0x6b65646765"));
    assert.equal(await http.request({ method: "net_listening" }), true);
    assert.equal(await http.request({ method: "eth_syncing" }), false);
    assert.deepEqual(await http.request({ method: "eth_accounts" }), []);
    assert.equal(await ws.getChainId(), live.chainId);
  });

  test("a batching transport sends one body and every answer finds its request", async () => {
    const batching = viem.createPublicClient({
      ...options,
      transport: viem.http(live.rpc, { batch: true, onFetchRequest }),
    });
    const start = asked.length;
    const [id, balance, nonce, block] = await Promise.all([
      batching.getChainId(),
      batching.getBalance({ address: account.address }),
      batching.getTransactionCount({ address: account.address }),
      batching.getBlock({ blockNumber: deployed.blockNumber }),
    ]);
    assert.deepEqual(asked.slice(start).map((methods) => methods.length), [4]);
    assert.equal(id, live.chainId);
    assert.equal(balance, await http.getBalance({ address: account.address }));
    assert.equal(nonce, await http.getTransactionCount({ address: account.address }));
    assert.equal(block.hash, deployed.blockHash);
  });

  test("a batch has answers and errors side by side", async () => {
    const answers = await post([
      request("eth_chainId", [], "a"),
      request("eth_noSuchMethod", [], "b"),
      request("eth_getBalance", ["0x12"], 3),
    ]);
    const of = Object.fromEntries(answers.map((answer) => [answer.id, answer]));
    assert.equal(of.a.result, toHex(live.chainId));
    assert.equal(of.b.error.code, -32601);
    assert.equal(of[3].error.code, -32602);
  });
});

describe("blocks", () => {
  test("tags are in order and name the blocks that their numbers name", async () => {
    await mine(4);
    const tags = ["earliest", "finalized", "safe", "latest", "pending"];
    const blocks = await until("a block is final", async () => {
      const blocks = await Promise.all(tags.map((blockTag) => http.getBlock({ blockTag })));
      return blocks[1].number > 0n && blocks;
    });
    assert.equal(blocks[0].number, 0n);
    const numbers = blocks.map(({ number }) => number);
    assert.deepEqual(numbers, [...numbers].sort((a, b) => Number(a - b)));
    for (const { hash, number } of blocks) {
      assert.equal((await http.getBlock({ blockNumber: number })).hash, hash);
      assert.equal((await http.getBlock({ blockHash: hash })).number, number);
    }
  });

  test("blocks link to their parents and count their transactions", async () => {
    const block = await http.getBlock({ blockNumber: deployed.blockNumber, includeTransactions: true });
    const parent = await http.getBlock({ blockNumber: deployed.blockNumber - 1n });
    assert.equal(block.parentHash, parent.hash);
    assert.ok(block.timestamp >= parent.timestamp);
    assert.equal(
      await http.getBlockTransactionCount({ blockNumber: block.number }),
      block.transactions.length,
    );
    const transaction = block.transactions.find(({ hash }) => hash === deployed.transactionHash);
    same(transaction.from, account.address);
    assert.equal(transaction.to, null);
    assert.equal(transaction.input.slice(0, Token.bytecode.length), Token.bytecode);
    for (const key of [{ blockNumber: block.number }, { blockHash: block.hash }]) {
      const found = await http.getTransaction({ ...key, index: transaction.transactionIndex });
      assert.equal(found.hash, transaction.hash);
    }
  });

  test("the OP Stack's deposits are decoded", async () => {
    // The first block of an epoch begins with the L1 attributes.
    const block = await http.getBlock({ blockNumber: 1n, includeTransactions: true });
    const [attributes] = block.transactions;
    assert.equal(attributes.type, "deposit");
    same(attributes.from, "0xDeaDDEaDDeAdDeAdDEAdDEaddeAddEAdDEAd0001");
    same(attributes.to, "0x4200000000000000000000000000000000000015");
    assert.match(attributes.sourceHash, /^0x[0-9a-f]{64}$/);
    assert.ok(!attributes.isSystemTx);
    const alone = await http.getTransaction({ hash: attributes.hash });
    assert.equal(alone.sourceHash, attributes.sourceHash);
    const receipt = await http.getTransactionReceipt({ hash: attributes.hash });
    assert.equal(receipt.status, "success");
    assert.equal(typeof receipt.depositNonce, "bigint");
    assert.equal(receipt.depositReceiptVersion, 1);
  });

  test("the receipts of a block are those of its transactions", async () => {
    const receipts = await http.getBlockReceipts({ blockNumber: deployed.blockNumber });
    const found = receipts.find(({ transactionHash }) => transactionHash === deployed.transactionHash);
    assert.deepEqual(found, await http.getTransactionReceipt({ hash: deployed.transactionHash }));
    assert.equal(receipts.at(-1).cumulativeGasUsed, (await http.getBlock({ blockHash: deployed.blockHash })).gasUsed);
  });

  test("a block and a transaction that are not there are told apart from errors", async () => {
    await rejected(http.getBlock({ blockNumber: 1_000_000n }), viem.BlockNotFoundError);
    const hash = keccak256("0x00");
    await rejected(http.getTransaction({ hash }), viem.TransactionNotFoundError);
    await rejected(http.getTransactionReceipt({ hash }), viem.TransactionReceiptNotFoundError);
  });
});

describe("fees", () => {
  test("estimates are enough, and a transfer is 21000 gas", async () => {
    assert.equal(await http.estimateGas({ account, to: other.address, value: 1n }), 21_000n);
    const estimated = await http.estimateContractGas({
      ...token,
      account,
      functionName: "transfer",
      args: [fresh(), 1n],
    });
    const hash = await wallet.writeContract({ ...token, functionName: "transfer", args: [fresh(), 1n], gas: estimated });
    assert.ok((await mined(hash)).gasUsed <= estimated);
  });

  test("the suggested fees are those of the next block", async () => {
    const tip = await http.estimateMaxPriorityFeePerGas();
    const { baseFeePerGas } = await http.getBlock();
    const history = await http.getFeeHistory({ blockCount: 3, rewardPercentiles: [25, 75] });
    assert.equal(history.baseFeePerGas.length, 4);
    assert.equal(history.gasUsedRatio.length, 3);
    assert.equal(history.reward.length, 3);
    assert.equal(history.baseFeePerGas[2], baseFeePerGas);
    assert.equal(await http.getGasPrice(), history.baseFeePerGas[3] + tip);
    const { maxFeePerGas } = await http.estimateFeesPerGas();
    assert.ok(maxFeePerGas >= baseFeePerGas + tip);
    assert.equal(await http.getBlobBaseFee(), 1n);
  });

  test("the fee for Bitcoin space is estimated by the gas price oracle", async () => {
    const request = { account, to: other.address, value: 1n };
    const estimated = await http.estimateL1Fee(request);
    const receipt = await mined(await wallet.sendTransaction(request));
    // The estimate is of the unsigned transaction, the fee of the signed one: a lower bound of the same order.
    assert.ok(estimated > 0n && estimated <= receipt.l1Fee * 2n, `${estimated} for ${receipt.l1Fee}`);
    assert.ok((await http.estimateTotalFee(request)) > estimated);
    assert.equal(await http.getL1BaseFee(), receipt.l1GasPrice);
  });

  test("what the sender cannot pay is refused with a reason that viem knows", async () => {
    const poor = privateKeyToAccount(generatePrivateKey());
    const request = { to: other.address, value: 1n };
    await rejected(walletOf(poor).sendTransaction({ ...request, gas: 21_000n }), viem.InsufficientFundsError);
    await rejected(http.estimateGas({ account: poor, ...request }), viem.InsufficientFundsError);
    const nonce = await http.getTransactionCount({ address: account.address });
    await rejected(wallet.sendTransaction({ ...request, nonce: nonce - 1, gas: 21_000n }), viem.NonceTooLowError);
    await rejected(
      wallet.sendTransaction({ ...request, maxFeePerGas: 1n, maxPriorityFeePerGas: 1n, gas: 21_000n }),
      viem.BaseError,
    );
    await rejected(wallet.sendTransaction({ ...request, gas: 20_999n }), viem.IntrinsicGasTooLowError);
  });
});
