// What a dApp team does with viem, OP Stack chain definitions included.
import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { live, mine, post, refused, request, require, until, ws as wsUrl } from "./live.mjs";

const viem = require("viem");
const { generatePrivateKey, privateKeyToAccount, nonceManager } = require("viem/accounts");
const { chainConfig, publicActionsL2 } = require("viem/op-stack");
const { concatHex, encodeFunctionData, keccak256, pad, parseGwei, toHex, zeroAddress } = viem;

const { Batch, Token } = live.contracts;
const chain = viem.defineChain({
  ...chainConfig,
  id: live.chainId,
  name: "Kedge",
  nativeCurrency: { name: "Bitcoin", symbol: "BTC", decimals: 18 },
  rpcUrls: { default: { http: [live.rpc], webSocket: [wsUrl] } },
});
// The methods that went over HTTP, in order; a batch is a list of its own.
const asked = [];
const onFetchRequest = (_, { body }) => {
  const requests = JSON.parse(body);
  asked.push(Array.isArray(requests) ? requests.map(({ method }) => method) : requests.method);
};
const options = { chain, pollingInterval: 25, cacheTime: 0 };
const http = viem
  .createPublicClient({ ...options, transport: viem.http(live.rpc, { onFetchRequest }) })
  .extend(publicActionsL2());
const ws = viem.createPublicClient({ ...options, transport: viem.webSocket(wsUrl, { reconnect: false }) });
const accounts = live.accounts.map(({ key }) => privateKeyToAccount(key));
const [account, other] = accounts;
const walletOf = (account) => viem.createWalletClient({ ...options, account, transport: viem.http(live.rpc) });
const wallet = walletOf(account);

const fresh = () => privateKeyToAccount(generatePrivateKey()).address;
const same = (one, two) => assert.equal(one?.toLowerCase(), two?.toLowerCase());
const mined = async (hash) => {
  const receipt = await http.waitForTransactionReceipt({ hash });
  assert.equal(receipt.status, "success");
  return receipt;
};
const cost = (receipt) => receipt.gasUsed * receipt.effectiveGasPrice + receipt.l1Fee;
// The error of this class in the chain of causes.
const rejected = async (promise, kind) => {
  const error = await promise.then(
    () => assert.fail("it was answered"),
    (error) => error,
  );
  assert.ok(error instanceof viem.BaseError, `${error.stack}`);
  const found = error.walk((cause) => cause instanceof kind);
  assert.ok(found, `no ${kind.name} in ${error.stack}`);
  return found;
};

let token;
let deployed;
before(async () => {
  deployed = await mined(
    await wallet.deployContract({ abi: Token.abi, bytecode: Token.bytecode, args: [1_000_000n] }),
  );
  token = { address: deployed.contractAddress, abi: Token.abi };
});
after(async () => (await ws.transport.getRpcClient()).close());

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

describe("transactions", () => {
  const kinds = [
    ["legacy", async () => ({ type: "legacy", gasPrice: (await http.getGasPrice()) * 2n })],
    [
      "eip2930",
      async () => ({
        type: "eip2930",
        gasPrice: (await http.getGasPrice()) * 2n,
        accessList: [{ address: token.address, storageKeys: [pad("0x01", { size: 32 })] }],
      }),
    ],
    ["eip1559", async () => ({ type: "eip1559" })],
  ];
  for (const [type, fields] of kinds) {
    test(`${type}: the recipient has the value, the sender paid it, gas and Bitcoin space`, async () => {
      const to = fresh();
      const before = await http.getBalance({ address: account.address });
      const nonce = await http.getTransactionCount({ address: account.address });
      const hash = await wallet.sendTransaction({ to, value: 12_345n, ...(await fields()) });
      const receipt = await mined(hash);
      assert.equal(receipt.type, type);
      assert.equal(receipt.transactionHash, hash);
      assert.ok(receipt.l1Fee > 0n && receipt.l1GasPrice > 0n, `l1Fee ${receipt.l1Fee}`);
      assert.equal(await http.getBalance({ address: to }), 12_345n);
      const spent = before - (await http.getBalance({ address: account.address }));
      assert.equal(spent, 12_345n + cost(receipt));
      assert.equal(await http.getTransactionCount({ address: account.address }), nonce + 1);

      const found = await http.getTransaction({ hash });
      assert.equal(found.type, type);
      assert.equal(found.nonce, nonce);
      assert.equal(found.value, 12_345n);
      assert.equal(found.chainId, live.chainId);
      assert.equal(found.blockHash, receipt.blockHash);
      if (type === "eip2930") {
        assert.equal(found.accessList.length, 1);
        assert.ok(receipt.gasUsed > 21_000n);
      } else {
        assert.equal(receipt.gasUsed, 21_000n);
      }
      // What a node keeps is what was signed.
      const raw = await http.request({ method: "eth_getRawTransactionByHash", params: [hash] });
      assert.equal(keccak256(raw), hash);
      assert.equal(viem.parseTransaction(raw).value, 12_345n);
      assert.equal(await http.getTransactionConfirmations({ hash }), 1n);
    });
  }

  test("eip7702: an account delegates to a contract, makes two calls at once, and takes it back", async () => {
    const [, , owner] = accounts;
    const sender = walletOf(owner);
    const { contractAddress } = await mined(
      await sender.deployContract({ abi: Batch.abi, bytecode: Batch.bytecode }),
    );
    const delegate = async (contractAddress, data) => {
      const authorization = await sender.signAuthorization({ contractAddress, executor: "self" });
      return mined(
        await sender.sendTransaction({ authorizationList: [authorization], to: owner.address, data }),
      );
    };
    const [one, two] = [fresh(), fresh()];
    const calls = [
      { to: one, value: 1n, data: "0x" },
      { to: two, value: 2n, data: "0x" },
    ];
    const receipt = await delegate(
      contractAddress,
      encodeFunctionData({ abi: Batch.abi, functionName: "execute", args: [calls] }),
    );
    assert.equal(receipt.type, "eip7702");
    same(await http.getCode({ address: owner.address }), concatHex(["0xef0100", contractAddress]));
    same(await http.getDelegation({ address: owner.address }), contractAddress);
    assert.equal(await http.getBalance({ address: one }), 1n);
    assert.equal(await http.getBalance({ address: two }), 2n);
    const { authorizationList } = await http.getTransaction({ hash: receipt.transactionHash });
    same(authorizationList[0].address, contractAddress);

    await delegate(zeroAddress, "0x");
    assert.equal(await http.getDelegation({ address: owner.address }), undefined);
  });

  test("a nonce manager numbers transactions that are sent at once", async () => {
    const managed = privateKeyToAccount(live.accounts[3].key, { nonceManager });
    const nonce = await http.getTransactionCount({ address: managed.address });
    const to = fresh();
    const hashes = await Promise.all(
      [1n, 2n, 3n, 4n, 5n].map((value) => walletOf(managed).sendTransaction({ to, value, gas: 21_000n })),
    );
    await Promise.all(hashes.map(mined));
    assert.equal(await http.getBalance({ address: to }), 15n);
    assert.equal(await http.getTransactionCount({ address: managed.address }), nonce + 5);
  });

  test("eth_sendRawTransactionSync answers with the receipt", async () => {
    const to = fresh();
    const prepared = await wallet.prepareTransactionRequest({ to, value: 3n });
    const serializedTransaction = await wallet.signTransaction(prepared);
    const receipt = await wallet.sendRawTransactionSync({ serializedTransaction });
    assert.equal(receipt.status, "success");
    assert.equal(receipt.transactionHash, keccak256(serializedTransaction));
    assert.ok(receipt.l1Fee > 0n);
    assert.equal(await http.getBalance({ address: to }), 3n);
    const again = await wallet.sendTransactionSync({ to, value: 4n });
    assert.equal(again.status, "success");
    assert.equal(await http.getBalance({ address: to }), 7n);
  });

  test("the node fills in what a transaction lacks", async () => {
    const to = fresh();
    const { raw, transaction } = await wallet.fillTransaction({ to, value: 9n });
    assert.equal(transaction.nonce, await http.getTransactionCount({ address: account.address }));
    assert.equal(transaction.value, 9n);
    assert.equal(transaction.chainId, live.chainId);
    assert.ok(transaction.gas >= 21_000n);
    assert.equal(viem.parseTransaction(raw).value, 9n);
  });

  test("a transaction behind a gap waits in the queue, and both are mined when it closes", async () => {
    const [, , , , sender] = accounts;
    const nonce = await http.getTransactionCount({ address: sender.address });
    const to = fresh();
    const send = (nonce) => walletOf(sender).sendTransaction({ to, value: 1n, nonce, gas: 21_000n });
    const later = await send(nonce + 1);
    const content = await http.request({ method: "txpool_contentFrom", params: [sender.address] });
    assert.deepEqual(Object.keys(content.queued), [String(nonce + 1)]);
    assert.equal(content.queued[nonce + 1].hash, later);
    assert.deepEqual(content.pending, {});
    assert.equal((await http.request({ method: "txpool_status" })).queued, "0x1");
    const waiting = await http.getTransaction({ hash: later });
    assert.equal(waiting.blockHash, null);
    const pending = { address: sender.address, blockTag: "pending" };
    assert.equal(await http.getTransactionCount(pending), nonce);
    await mined(await send(nonce));
    await mined(later);
    assert.equal(await http.getBalance({ address: to }), 2n);
    assert.equal(await http.getTransactionCount(pending), nonce + 2);
  });

  test("a waiting transaction is replaced by one that pays more", async () => {
    const [, , , , , sender] = accounts;
    const nonce = await http.getTransactionCount({ address: sender.address });
    const to = fresh();
    const { maxFeePerGas, maxPriorityFeePerGas } = await http.estimateFeesPerGas();
    const send = (value, times, n = nonce + 1) =>
      walletOf(sender).sendTransaction({
        to,
        value,
        nonce: n,
        gas: 21_000n,
        maxFeePerGas: maxFeePerGas * times,
        maxPriorityFeePerGas: maxPriorityFeePerGas * times,
      });
    await send(1n, 1n);
    const error = await rejected(send(2n, 1n), viem.BaseError);
    assert.match(error.message, /replacement transaction underpriced/);
    const replacement = await send(4n, 2n);
    await mined(await send(8n, 1n, nonce));
    await mined(replacement);
    assert.equal(await http.getBalance({ address: to }), 12n);
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

describe("contracts", () => {
  const transfer = async (to, value) =>
    mined(await wallet.writeContract({ ...token, functionName: "transfer", args: [to, value] }));
  const balanceOf = (holder, more = {}) =>
    http.readContract({ ...token, functionName: "balanceOf", args: [holder], ...more });

  test("deployed, read, simulated, written, and read in the past", async () => {
    same(deployed.contractAddress, viem.getContractAddress({ from: account.address, nonce: BigInt((await http.getTransaction({ hash: deployed.transactionHash })).nonce) }));
    assert.ok((await http.getCode({ address: token.address })).length > 2);
    assert.equal(await http.readContract({ ...token, functionName: "symbol" }), "TEST");
    const to = fresh();
    const call = { ...token, account, functionName: "transfer", args: [to, 5n] };
    const { request, result } = await http.simulateContract(call);
    assert.equal(result, true);
    assert.equal(await balanceOf(to), 0n);
    const { blockNumber } = await mined(await wallet.writeContract(request));
    assert.equal(await balanceOf(to), 5n);
    assert.equal(await balanceOf(to, { blockNumber: blockNumber - 1n }), 0n);
    const contract = viem.getContract({ ...token, client: { public: http, wallet } });
    await mined(await contract.write.transfer([to, 6n]));
    assert.equal(await contract.read.balanceOf([to]), 11n);
  });

  test("storage is where Solidity puts it", async () => {
    const owner = await http.getStorageAt({ address: token.address, slot: "0x0" });
    same(owner, pad(account.address.toLowerCase(), { size: 32 }));
    const supply = await http.getStorageAt({ address: token.address, slot: "0x1" });
    assert.equal(BigInt(supply), 1_000_000n);
    const values = await http.getStorageValues({ requests: { [token.address]: ["0x0", "0x1"].map((slot) => pad(slot, { size: 32 })) } });
    assert.deepEqual(Object.values(values), [[owner, supply]]);
  });

  test("custom errors, reasons and panics are decoded", async () => {
    const [, holder] = accounts;
    const call = { ...token, account: holder };
    const { data } = await rejected(
      http.simulateContract({ ...call, functionName: "transfer", args: [account.address, 7n] }),
      viem.ContractFunctionRevertedError,
    );
    assert.equal(data.errorName, "InsufficientBalance");
    assert.deepEqual(data.args, [holder.address, 0n, 7n]);
    const reverted = await rejected(
      http.simulateContract({ ...call, functionName: "mint", args: [1n] }),
      viem.ContractFunctionRevertedError,
    );
    assert.equal(reverted.reason, "only the owner mints");
    const panic = await rejected(
      http.readContract({ ...call, functionName: "share", args: [0n] }),
      viem.ContractFunctionRevertedError,
    );
    assert.equal(panic.data.args[0], 0x12n);
    await rejected(
      http.estimateContractGas({ ...call, functionName: "mint", args: [1n] }),
      viem.ContractFunctionRevertedError,
    );
  });

  test("a transaction that reverts is mined, costs its gas, and leaves no log", async () => {
    const hash = await wallet.writeContract({
      ...token,
      functionName: "transfer",
      args: [other.address, 1n << 200n],
      gas: 100_000n,
    });
    const receipt = await http.waitForTransactionReceipt({ hash });
    assert.equal(receipt.status, "reverted");
    assert.deepEqual(receipt.logs, []);
    assert.ok(receipt.gasUsed > 21_000n && receipt.gasUsed < 100_000n);
  });

  test("calls see the state that they override", async () => {
    const holder = fresh();
    const slot = keccak256(concatHex([pad(holder, { size: 32 }), pad("0x02", { size: 32 })]));
    const value = pad("0x2a", { size: 32 });
    const stateOverride = [{ address: token.address, stateDiff: [{ slot, value }] }];
    assert.equal(await balanceOf(holder, { stateOverride }), 42n);
    assert.equal(await balanceOf(holder), 0n);
    const rich = [{ address: holder, balance: 10n ** 18n }];
    const sent = { account: holder, to: other.address, value: 10n ** 17n };
    assert.equal(await http.estimateGas({ ...sent, stateOverride: rich }), 21_000n);
    await rejected(http.call(sent), viem.InsufficientFundsError);
    assert.equal((await http.call({ ...sent, stateOverride: rich })).data, undefined);
    // Code of nobody: returns the block's number, which is overridden too.
    const code = "0x4360005260206000f3";
    const { data } = await http.call({
      to: holder,
      stateOverride: [{ address: holder, code }],
      blockOverrides: { number: 77n },
    });
    assert.equal(BigInt(data), 77n);
  });

  test("many reads in one call", async () => {
    const start = asked.length;
    const results = await http.multicall({
      deployless: true,
      contracts: [
        { ...token, functionName: "totalSupply" },
        { ...token, functionName: "balanceOf", args: [fresh()] },
        { ...token, functionName: "share", args: [0n] },
      ],
    });
    assert.deepEqual(asked.slice(start), ["eth_call"]);
    assert.deepEqual(results.map(({ status }) => status), ["success", "success", "failure"]);
    assert.deepEqual(results.slice(0, 2).map(({ result }) => result), [1_000_000n, 0n]);
  });

  test("blocks are simulated, each on the one before", async () => {
    const holder = fresh();
    const to = fresh();
    const [first, second] = await http.simulateBlocks({
      blocks: [
        {
          stateOverrides: [{ address: holder, balance: 10n ** 18n }],
          calls: [
            { account: holder, to, value: 5n },
            { account, to: token.address, abi: token.abi, functionName: "transfer", args: [holder, 9n] },
          ],
        },
        {
          calls: [
            { account: holder, to: token.address, abi: token.abi, functionName: "balanceOf", args: [holder] },
            { account: holder, to: token.address, abi: token.abi, functionName: "mint", args: [1n] },
          ],
        },
      ],
    });
    assert.deepEqual(first.calls.map(({ status }) => status), ["success", "success"]);
    assert.equal(first.calls[0].gasUsed, 21_000n);
    assert.equal(first.calls[1].result, true);
    assert.equal(first.calls[1].logs.length, 1);
    assert.equal(second.number, first.number + 1n);
    assert.equal(second.parentHash, first.hash);
    assert.equal(second.calls[0].result, 9n);
    assert.equal(second.calls[1].status, "failure");
    assert.match(second.calls[1].error.message, /only the owner mints/);
    assert.equal(await balanceOf(holder), 0n);
  });

  test("calls are simulated with the assets that they move", async () => {
    const to = fresh();
    const { assetChanges, results } = await http.simulateCalls({
      account: account.address,
      traceAssetChanges: true,
      calls: [
        { to, value: 1_000n },
        { ...token, to: token.address, functionName: "transfer", args: [to, 3n] },
      ],
    });
    assert.deepEqual(results.map(({ status }) => status), ["success", "success"]);
    const change = (address) =>
      assetChanges.find(({ token }) => token.address.toLowerCase() === address.toLowerCase());
    assert.equal(change("0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee").value.diff, -1_000n);
    assert.equal(change(token.address).value.diff, -3n);
    assert.equal(change(token.address).token.symbol, "TEST");
  });

  test("an access list names the contract and the slots that a call touches, and is cheaper to trust", async () => {
    const to = fresh();
    const { accessList, gasUsed } = await http.createAccessList({
      account,
      to: token.address,
      data: encodeFunctionData({ abi: token.abi, functionName: "transfer", args: [to, 1n] }),
    });
    assert.equal(accessList.length, 1);
    same(accessList[0].address, token.address);
    assert.equal(accessList[0].storageKeys.length, 2);
    const hash = await wallet.writeContract({
      ...token,
      functionName: "transfer",
      args: [to, 1n],
      accessList,
    });
    const receipt = await mined(hash);
    assert.equal(receipt.gasUsed, gasUsed);
  });

  test("signatures of accounts are verified through the node", async () => {
    const message = "anchored";
    const signature = await account.signMessage({ message });
    assert.equal(await http.verifyMessage({ address: account.address, message, signature }), true);
    assert.equal(await http.verifyMessage({ address: other.address, message, signature }), false);
  });

  test("logs are found by address, topic, range and block", async () => {
    const to = fresh();
    const [one, two] = [await transfer(to, 11n), await transfer(to, 12n)];
    const event = viem.parseAbiItem("event Transfer(address indexed from, address indexed to, uint256 value)");
    const logs = await http.getLogs({ address: token.address, event, args: { to }, fromBlock: 0n });
    assert.deepEqual(logs.map(({ args }) => args.value), [11n, 12n]);
    assert.deepEqual(logs.map(({ transactionHash }) => transactionHash), [one, two].map(({ transactionHash }) => transactionHash));
    const inBlock = await http.getLogs({ blockHash: two.blockHash, event, args: { to } });
    assert.deepEqual(inBlock.map(({ args }) => args.value), [12n]);
    const range = { fromBlock: one.blockNumber, toBlock: one.blockNumber };
    const events = await http.getContractEvents({ ...token, eventName: "Transfer", args: { from: [account.address, other.address] }, ...range });
    assert.deepEqual(events.map(({ args }) => args.value), [11n]);
    assert.deepEqual(await http.getLogs({ address: fresh(), fromBlock: 0n }), []);
    assert.deepEqual(viem.parseEventLogs({ abi: token.abi, logs: two.logs })[0].args.value, 12n);
  });

  test("filters give what is new since the last poll, and are gone when they are uninstalled", async () => {
    const to = fresh();
    const filter = await http.createContractEventFilter({ ...token, eventName: "Transfer", args: { to } });
    const blocks = await http.createBlockFilter();
    const pending = await http.createPendingTransactionFilter();
    assert.deepEqual(await http.getFilterChanges({ filter }), []);
    const receipt = await transfer(to, 21n);
    // Filters learn of a block a moment after receipts can be read.
    const changes = await until("the event", async () => {
      const found = await http.getFilterChanges({ filter });
      return found.length > 0 && found;
    });
    assert.deepEqual(changes.map(({ args }) => args.value), [21n]);
    assert.deepEqual(await http.getFilterChanges({ filter }), []);
    assert.deepEqual(await http.getFilterLogs({ filter }), changes);
    const gives = (filter, hash) =>
      until(hash, async () => (await http.getFilterChanges({ filter })).includes(hash));
    await gives(blocks, receipt.blockHash);
    await gives(pending, receipt.transactionHash);
    for (const each of [filter, blocks, pending]) {
      assert.equal(await http.uninstallFilter({ filter: each }), true);
      assert.equal(await http.uninstallFilter({ filter: each }), false);
    }
    const gone = await refused("eth_getFilterChanges", [filter.id]);
    assert.deepEqual([gone.code, gone.message], [-32000, "filter not found"]);
  });
});

describe("watching", () => {
  const event = { abi: Token.abi, eventName: "Transfer" };
  const watched = async (client, ready, watch) => {
    const seen = [];
    const errors = [];
    const unwatch = watch(client, (found) => seen.push(...[found].flat()), (error) => errors.push(error));
    await ready();
    return { seen, errors, unwatch };
  };
  const watches = {
    "the numbers of blocks": (client, found, onError) => client.watchBlockNumber({ onBlockNumber: found, onError }),
    blocks: (client, found, onError) => client.watchBlocks({ onBlock: (block) => found(block.hash), onError }),
    "events of a contract": (client, found, onError) =>
      client.watchContractEvent({ ...token, ...event, onError, onLogs: (logs) => found(logs.map((log) => log.transactionHash)) }),
    "events of anybody": (client, found, onError) =>
      client.watchEvent({ onError, onLogs: (logs) => found(logs.map((log) => log.transactionHash)) }),
    "pending transactions": (client, found, onError) => client.watchPendingTransactions({ onTransactions: found, onError }),
  };
  const key = {
    "the numbers of blocks": ({ blockNumber }) => blockNumber,
    blocks: ({ blockHash }) => blockHash,
  };
  const transports = {
    "by polling": [http, (start) => until("two polls", () => asked.length >= start + 3)],
    // Requests of one connection go out in order: the second answer comes after the subscription stands.
    "over WebSocket": [ws, async () => [await ws.getBlockNumber(), await ws.getBlockNumber()]],
  };
  for (const [how, [client, ready]] of Object.entries(transports)) {
    for (const [what, watch] of Object.entries(watches)) {
      test(`${what} ${how}`, async () => {
        const start = asked.length;
        const { seen, errors, unwatch } = await watched(client, () => ready(start), watch);
        const hash = await wallet.writeContract({ ...token, functionName: "transfer", args: [fresh(), 1n] });
        const wanted = (key[what] ?? (({ transactionHash }) => transactionHash))(await mined(hash));
        await until(`${wanted} among ${what}`, () => seen.includes(wanted));
        unwatch();
        assert.deepEqual(errors, []);
      });
    }
  }

  test("a subscription ends when it is unsubscribed", async () => {
    const heads = [];
    const { unsubscribe } = await ws.transport.subscribe({
      params: ["newHeads"],
      onData: ({ result }) => heads.push(result.hash),
    });
    const one = await mined(await wallet.sendTransaction({ to: other.address, value: 1n }));
    await until("the head", () => heads.includes(one.blockHash));
    assert.equal((await unsubscribe()).result, true);
    const two = await mined(await wallet.sendTransaction({ to: other.address, value: 1n }));
    await ws.getBlockNumber();
    assert.ok(!heads.includes(two.blockHash));
  });
});

describe("proofs", () => {
  // The value of a key in a Merkle Patricia trie, from the nodes on its path, each checked against its hash.
  const proven = (root, key, proof) => {
    let path = keccak256(key).slice(2);
    let expected = root;
    for (const node of proof) {
      assert.equal(keccak256(node), expected);
      let items = viem.fromRlp(node);
      for (;;) {
        let next;
        if (items.length === 17) {
          next = path === "" ? items[16] : items[Number.parseInt(path[0], 16)];
          path = path.slice(1);
        } else {
          const flag = Number.parseInt(items[0][2], 16);
          const part = items[0].slice(flag & 1 ? 3 : 4);
          if (!path.startsWith(part)) return undefined;
          path = path.slice(part.length);
          next = items[1];
        }
        if (path === "" || next === "0x") return next === "0x" ? undefined : next;
        if (!Array.isArray(next)) {
          expected = next;
          break;
        }
        items = next;
      }
    }
    return assert.fail("the proof ends before the value");
  };

  test("accounts and slots are proven against the header, at any block, and so is their absence", async () => {
    const { blockNumber } = deployed;
    await mined(await wallet.writeContract({ ...token, functionName: "mint", args: [1n] }));
    const { stateRoot } = await http.getBlock({ blockNumber });
    const slot = pad("0x01", { size: 32 });
    const absent = pad("0x77", { size: 32 });
    const proof = await http.getProof({ address: token.address, storageKeys: [slot, absent], blockNumber });
    const [nonce, balance, storageRoot, codeHash] = viem.fromRlp(proven(stateRoot, token.address, proof.accountProof));
    assert.deepEqual([nonce, balance], ["0x01", "0x"]);
    assert.equal(storageRoot, proof.storageHash);
    assert.equal(codeHash, keccak256(await http.getCode({ address: token.address })));
    assert.equal(proof.codeHash, codeHash);
    const [supply, nothing] = proof.storageProof;
    assert.equal(BigInt(viem.fromRlp(proven(storageRoot, slot, supply.proof))), 1_000_000n);
    assert.equal(supply.value, 1_000_000n);
    assert.equal(proven(storageRoot, absent, nothing.proof), undefined);
    assert.equal(nothing.value, 0n);
    const nobody = fresh();
    const none = await http.getProof({ address: nobody, storageKeys: [], blockNumber });
    assert.equal(proven(stateRoot, nobody, none.accountProof), undefined);
  });
});

describe("traces", () => {
  test("a call is traced with its logs, its state and its steps", async () => {
    const to = fresh();
    const input = encodeFunctionData({ abi: token.abi, functionName: "transfer", args: [to, 2n] });
    const hash = await wallet.sendTransaction({ to: token.address, data: input });
    const receipt = await mined(hash);
    const trace = (config) => http.request({ method: "debug_traceTransaction", params: [hash, config] });
    const call = await trace({ tracer: "callTracer", tracerConfig: { withLog: true } });
    assert.equal(call.type, "CALL");
    same(call.from, account.address);
    same(call.to, token.address);
    assert.equal(call.input, input);
    assert.equal(BigInt(call.output), 1n);
    assert.equal(BigInt(call.gasUsed), receipt.gasUsed);
    assert.deepEqual(call.logs.map(({ topics, data }) => [topics, data]), receipt.logs.map(({ topics, data }) => [topics, data]));
    const diff = await trace({ tracer: "prestateTracer", tracerConfig: { diffMode: true } });
    const { storage } = diff.post[token.address.toLowerCase()];
    assert.ok(Object.values(storage).some((value) => BigInt(value) === 2n));
    const steps = await trace({});
    assert.equal(steps.failed, false);
    assert.equal(BigInt(steps.gas), receipt.gasUsed);
    assert.ok(steps.structLogs.some(({ op }) => op === "LOG3"));
    const [action] = await http.request({ method: "trace_transaction", params: [hash] });
    assert.equal(action.action.input, input);
    assert.equal(action.type, "call");
    const block = await http.request({
      method: "debug_traceBlockByHash",
      params: [receipt.blockHash, { tracer: "callTracer" }],
    });
    assert.equal(block.find(({ txHash }) => txHash === hash).result.input, input);
  });

  test("a call that was never sent is traced, its revert included", async () => {
    const data = encodeFunctionData({ abi: token.abi, functionName: "mint", args: [1n] });
    const call = await http.request({
      method: "debug_traceCall",
      params: [{ from: other.address, to: token.address, data }, "latest", { tracer: "callTracer" }],
    });
    assert.equal(call.error, "execution reverted");
    assert.equal(call.revertReason, "only the owner mints");
  });
});

describe("errors", () => {
  test("codes are those of the specification", async () => {
    const mint = encodeFunctionData({ abi: token.abi, functionName: "mint", args: [1n] });
    const call = { from: other.address, to: token.address, data: mint };
    const reverted = await refused("eth_call", [call, "latest"]);
    assert.equal(reverted.code, 3);
    assert.equal(reverted.message, "execution reverted: only the owner mints");
    assert.equal(reverted.data, viem.encodeErrorResult({ abi: viem.parseAbi(["error Error(string)"]), args: ["only the owner mints"] }));
    const table = [
      ["eth_call", [call, toHex(1_000_000)], -32000],
      ["eth_getBlockByNumber", [], -32602],
      ["eth_getBlockByNumber", ["newest", false], -32602],
      ["eth_getBalance", ["0x12", "latest"], -32602],
      ["eth_getLogs", [{ fromBlock: "0x5", toBlock: "0x1" }], -32602],
      ["eth_noSuchMethod", [], -32601],
      ["eth_sendTransaction", [call], -32601],
      ["eth_subscribe", ["newHeads"], -32601],
      ["eth_sendRawTransaction", ["0xc0"], -32000],
    ];
    for (const [method, params, code] of table) {
      const error = await refused(method, params);
      assert.equal(error.code, code, `${method} ${JSON.stringify(params)}: ${JSON.stringify(error)}`);
    }
    assert.equal((await post("{")).error.code, -32700);
    assert.equal((await post("[]")).error.code, -32600);
    await rejected(http.request({ method: "eth_noSuchMethod" }), viem.MethodNotFoundRpcError);
    await rejected(http.request({ method: "eth_getBalance", params: ["0x12", "latest"] }), viem.InvalidParamsRpcError);
  });
});
