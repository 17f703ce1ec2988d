// What a dApp team does with ethers.
import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { live, mine, refused, require, until, ws as wsUrl } from "./live.mjs";

const ethers = require("ethers");

const { Batch, Token } = live.contracts;
// Without the cache: within its quarter of a second a transaction is mined here and the next one wants its nonce.
const options = { pollingInterval: 25, cacheTimeout: -1 };
const provider = new ethers.JsonRpcProvider(live.rpc, undefined, options);
const socket = new ethers.WebSocketProvider(wsUrl, undefined, options);
const signers = live.accounts.map(({ key }) => new ethers.Wallet(key, provider));
const [signer, other] = signers;
const fresh = () => ethers.Wallet.createRandom().address;
// The error that a promise ends with, which has this code (https://docs.ethers.org/v6/api/utils/errors).
const rejected = async (promise, code) => {
  const error = await promise.then(
    () => assert.fail("it was answered"),
    (error) => error,
  );
  assert.equal(error.code, code, error.stack);
  return error;
};
const mined = async (sent) => {
  const receipt = await (await sent).wait();
  assert.equal(receipt.status, 1);
  return receipt;
};

let token;
let deployed;
before(async () => {
  // ethers waits for receipts by listening to blocks, and misses one that is made while it begins to listen; blocks
  // here come only with transactions, so it listens all along.
  const heard = new Set();
  for (const each of [provider, socket]) await each.on("block", () => heard.add(each));
  await until("blocks are heard", async () => {
    await mine(1);
    return heard.size === 2;
  });
  const factory = new ethers.ContractFactory(Token.abi, Token.bytecode, signer);
  token = await factory.deploy(1_000_000n);
  await token.waitForDeployment();
  deployed = await token.deploymentTransaction().wait();
});
after(async () => {
  provider.destroy();
  await socket.destroy();
});

describe("connection", () => {
  test("the network is detected, over HTTP and WebSocket", async () => {
    for (const each of [provider, socket]) {
      const { chainId } = await each.getNetwork();
      assert.equal(chainId, BigInt(live.chainId));
    }
    assert.match(await provider.send("web3_clientVersion", []), /^kedge\//i);
  });

  test("requests of one moment go out as one batch, and each gets its own answer", async () => {
    const batches = [];
    const batching = new ethers.JsonRpcProvider(live.rpc, live.chainId, { ...options, staticNetwork: true });
    await batching.on("debug", ({ action, payload }) => {
      if (action === "sendRpcPayload") batches.push([payload].flat().length);
    });
    const [number, balance, nonce] = await Promise.all([
      batching.getBlockNumber(),
      batching.getBalance(signer.address),
      batching.getTransactionCount(signer.address),
    ]);
    batching.destroy();
    assert.deepEqual(batches, [3]);
    assert.equal(number, await provider.getBlockNumber());
    assert.equal(balance, await provider.getBalance(signer.address));
    assert.equal(nonce, await provider.getTransactionCount(signer.address));
  });

  test("several providers agree", async () => {
    const fallback = new ethers.FallbackProvider(
      [1, 2].map((priority) => ({
        provider: new ethers.JsonRpcProvider(live.rpc, live.chainId, { ...options, staticNetwork: true }),
        priority,
        weight: 1,
      })),
      live.chainId,
      { quorum: 2, cacheTimeout: -1 },
    );
    assert.equal(await fallback.getBalance(signer.address), await provider.getBalance(signer.address));
    assert.equal((await fallback.getBlock(deployed.blockNumber)).hash, deployed.blockHash);
    const { hash } = await fallback.getTransactionReceipt(deployed.hash);
    assert.equal(hash, deployed.hash);
    for (const { provider } of fallback.providerConfigs) provider.destroy();
    fallback.destroy();
  });
});

describe("blocks", () => {
  test("tags, numbers and hashes name the same blocks", async () => {
    await mine(4);
    const tags = ["earliest", "finalized", "safe", "latest", "pending"];
    const blocks = await until("a block is final", async () => {
      const blocks = await Promise.all(tags.map((tag) => provider.getBlock(tag)));
      return blocks[1].number > 0 && blocks;
    });
    const numbers = blocks.map(({ number }) => number);
    assert.equal(numbers[0], 0);
    assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
    for (const { number, hash } of blocks) {
      assert.equal((await provider.getBlock(number)).hash, hash);
      assert.equal((await provider.getBlock(hash)).number, number);
    }
    assert.equal(await provider.getBlock(1_000_000), null);
  });

  test("a block comes with its transactions, deposits included", async () => {
    const block = await provider.getBlock(deployed.blockNumber, true);
    const transaction = block.prefetchedTransactions.find(({ hash }) => hash === deployed.hash);
    assert.equal(transaction.from, signer.address);
    assert.equal(transaction.to, null);
    const first = await provider.getBlock(1, true);
    assert.equal(first.prefetchedTransactions[0].type, 0x7e);
    const { logs, status } = await provider.getTransactionReceipt(first.transactions[0]);
    assert.equal(status, 1);
    assert.deepEqual(logs, []);
    assert.equal(await provider.getTransaction(ethers.id("none")), null);
    assert.equal(await provider.getTransactionReceipt(ethers.id("none")), null);
  });
});

describe("transactions", () => {
  const { accessListify } = ethers;
  const kinds = {
    0: async () => ({ gasPrice: (await provider.getFeeData()).gasPrice * 2n }),
    1: async () => ({
      gasPrice: (await provider.getFeeData()).gasPrice * 2n,
      accessList: accessListify({ [await token.getAddress()]: [ethers.toBeHex(1, 32)] }),
    }),
    2: async () => ({}),
  };
  for (const [type, fields] of Object.entries(kinds)) {
    test(`type ${type}: sent, mined, and read back as it was signed`, async () => {
      const to = fresh();
      const before = await provider.getBalance(signer.address);
      const sent = await signer.sendTransaction({ to, value: 77n, type: Number(type), ...(await fields()) });
      const receipt = await mined(sent);
      assert.equal(receipt.type, Number(type));
      assert.equal(await provider.getBalance(to), 77n);
      const { l1Fee } = await provider.send("eth_getTransactionReceipt", [sent.hash]);
      const spent = before - (await provider.getBalance(signer.address));
      assert.equal(spent, 77n + receipt.fee + BigInt(l1Fee));
      const found = await provider.getTransaction(sent.hash);
      assert.equal(found.hash, sent.hash);
      assert.deepEqual(found.signature.serialized, sent.signature.serialized);
      assert.equal(found.nonce, sent.nonce);
      assert.equal(found.blockHash, receipt.blockHash);
      assert.equal(await found.confirmations(), 1);
      // ethers computes the hash of what the node answered.
      assert.equal(ethers.Transaction.from(found).hash, sent.hash);
    });
  }

  test("type 4: an account delegates to a contract and makes two calls at once", async () => {
    const [, , owner] = signers;
    const batch = await new ethers.ContractFactory(Batch.abi, Batch.bytecode, owner).deploy();
    await batch.waitForDeployment();
    const address = await batch.getAddress();
    const nonce = await owner.getNonce();
    const authorization = await owner.authorize({ address, nonce: nonce + 1 });
    const [one, two] = [fresh(), fresh()];
    const data = batch.interface.encodeFunctionData("execute", [
      [
        { to: one, value: 1n, data: "0x" },
        { to: two, value: 2n, data: "0x" },
      ],
    ]);
    const sent = await owner.sendTransaction({ type: 4, to: owner.address, data, nonce, authorizationList: [authorization] });
    assert.equal((await mined(sent)).type, 4);
    assert.equal(await provider.getCode(owner.address), ethers.concat(["0xef0100", address]));
    assert.equal(await provider.getBalance(one), 1n);
    assert.equal(await provider.getBalance(two), 2n);
    const { authorizationList } = await provider.getTransaction(sent.hash);
    assert.equal(authorizationList[0].address, address);
    assert.equal(authorizationList[0].signature.serialized, authorization.signature.serialized);
    const undo = await owner.authorize({ address: ethers.ZeroAddress, nonce: nonce + 3 });
    await mined(owner.sendTransaction({ type: 4, to: owner.address, nonce: nonce + 2, authorizationList: [undo] }));
    assert.equal(await provider.getCode(owner.address), "0x");
  });

  test("a nonce manager numbers transactions that are sent at once", async () => {
    const manager = new ethers.NonceManager(signers[3]);
    const to = fresh();
    const sent = await Promise.all([1n, 2n, 3n, 4n].map((value) => manager.sendTransaction({ to, value })));
    await Promise.all(sent.map(mined));
    assert.equal(await provider.getBalance(to), 10n);
  });

  test("a transaction is waited for by hash, and a replaced one is found to be replaced", async () => {
    const [, , , , sender] = signers;
    const nonce = await sender.getNonce();
    const [to, instead] = [fresh(), fresh()];
    const { maxFeePerGas, maxPriorityFeePerGas } = await provider.getFeeData();
    // They wait for the nonce before theirs.
    const waiting = await sender.sendTransaction({ to, value: 1n, nonce: nonce + 1 });
    await rejected(sender.sendTransaction({ to: instead, value: 1n, nonce: nonce + 1 }), "REPLACEMENT_UNDERPRICED");
    const replaced = rejected(waiting.wait(), "TRANSACTION_REPLACED");
    const better = await sender.sendTransaction({
      to: instead,
      value: 1n,
      nonce: nonce + 1,
      maxFeePerGas: maxFeePerGas * 2n,
      maxPriorityFeePerGas: maxPriorityFeePerGas * 2n,
    });
    await mined(sender.sendTransaction({ to: fresh(), value: 1n, nonce }));
    assert.equal((await provider.waitForTransaction(better.hash)).status, 1);
    const error = await replaced;
    assert.equal(error.reason, "replaced");
    assert.equal(error.replacement.hash, better.hash);
    assert.equal(await provider.getBalance(to), 0n);
    assert.equal(await provider.getBalance(instead), 1n);
  });

  test("what the node refuses has the code that ethers gives its reason", async () => {
    const poor = ethers.Wallet.createRandom(provider);
    const transfer = { to: other.address, value: 1n };
    await rejected(poor.sendTransaction({ ...transfer, gasLimit: 21_000n }), "INSUFFICIENT_FUNDS");
    await rejected(poor.sendTransaction(transfer), "INSUFFICIENT_FUNDS");
    await rejected(signer.sendTransaction({ ...transfer, nonce: 0 }), "NONCE_EXPIRED");
    const sent = await signer.sendTransaction(transfer);
    await mined(sent);
    const raw = ethers.Transaction.from(sent).serialized;
    await rejected(provider.broadcastTransaction(raw), "NONCE_EXPIRED");
  });
});

describe("fees", () => {
  test("fee data comes from the node's suggestions, and estimates are enough", async () => {
    const fees = await provider.getFeeData();
    assert.equal(fees.maxPriorityFeePerGas, BigInt(await provider.send("eth_maxPriorityFeePerGas", [])));
    assert.equal(fees.gasPrice, BigInt(await provider.send("eth_gasPrice", [])));
    const { baseFeePerGas } = await provider.getBlock("latest");
    assert.equal(fees.maxFeePerGas, baseFeePerGas * 2n + fees.maxPriorityFeePerGas);
    assert.equal(await provider.estimateGas({ from: signer.address, to: other.address, value: 1n }), 21_000n);
    const history = await provider.send("eth_feeHistory", ["0x2", "latest", [50]]);
    assert.equal(history.reward.length, 2);
  });
});

describe("contracts", () => {
  test("deployed by a factory, read, simulated, estimated, written, and read in the past", async () => {
    const address = await token.getAddress();
    assert.equal(deployed.contractAddress, address);
    assert.equal(address, ethers.getCreateAddress({ from: signer.address, nonce: token.deploymentTransaction().nonce }));
    assert.equal(await token.getDeployedCode(), await provider.getCode(address));
    assert.equal(await token.symbol(), "TEST");
    const to = fresh();
    assert.equal(await token.transfer.staticCall(to, 5n), true);
    const gas = await token.transfer.estimateGas(to, 5n);
    const receipt = await mined(token.transfer(to, 5n));
    assert.ok(receipt.gasUsed <= gas);
    assert.equal(await token.balanceOf(to), 5n);
    assert.equal(await token.balanceOf(to, { blockTag: receipt.blockNumber - 1 }), 0n);
    const populated = await token.transfer.populateTransaction(to, 6n);
    await mined(signer.sendTransaction(populated));
    assert.equal(await token.balanceOf(to), 11n);
    assert.equal(BigInt(await provider.getStorage(address, 0)), BigInt(signer.address));
  });

  test("custom errors, reasons and panics are decoded", async () => {
    const stranger = token.connect(other);
    const custom = await rejected(stranger.transfer.staticCall(signer.address, 7n), "CALL_EXCEPTION");
    assert.equal(custom.revert.name, "InsufficientBalance");
    assert.deepEqual([...custom.revert.args], [other.address, 0n, 7n]);
    const reason = await rejected(stranger.mint.staticCall(1n), "CALL_EXCEPTION");
    assert.equal(reason.reason, "only the owner mints");
    // Before it is sent its gas is estimated, and that says why it would fail.
    const sent = await rejected(stranger.mint(1n), "CALL_EXCEPTION");
    assert.equal(sent.reason, "only the owner mints");
    const panic = await rejected(token.share(0n), "CALL_EXCEPTION");
    assert.equal(panic.revert.name, "Panic");
    assert.equal(BigInt(panic.revert.args[0]), 0x12n);
  });

  test("a transaction that reverts is mined and said to have failed", async () => {
    const sent = await token.transfer(other.address, 1n << 200n, { gasLimit: 100_000n });
    const { receipt } = await rejected(sent.wait(), "CALL_EXCEPTION");
    assert.equal(receipt.status, 0);
    assert.deepEqual(receipt.logs, []);
  });

  test("events are queried by indexed values, ranges and blocks", async () => {
    const to = fresh();
    const one = await mined(token.transfer(to, 11n));
    const two = await mined(token.transfer(to, 12n));
    const values = (events) => events.map(({ args }) => args.value);
    const filter = token.filters.Transfer(null, to);
    assert.deepEqual(values(await token.queryFilter(filter)), [11n, 12n]);
    assert.deepEqual(values(await token.queryFilter(filter, two.blockNumber)), [12n]);
    assert.deepEqual(values(await token.queryFilter(filter, 0, one.blockNumber)), [11n]);
    const either = token.filters.Transfer([signer.address, other.address], [to, other.address]);
    assert.deepEqual(values(await token.queryFilter(either)), [11n, 12n]);
    const [log] = await provider.getLogs({ address: await token.getAddress(), blockHash: one.blockHash });
    assert.equal(log.transactionHash, one.hash);
    assert.equal(token.interface.parseLog(log).args.value, 11n);
    assert.equal((await log.getBlock()).hash, one.blockHash);
  });
});

describe("subscriptions", () => {
  const transports = { "by polling": provider, "over WebSocket": socket };
  for (const [how, each] of Object.entries(transports)) {
    test(`blocks and events ${how}`, async () => {
      const numbers = [];
      const values = [];
      const logs = [];
      const to = fresh();
      const watched = token.connect(each);
      const onBlock = (number) => numbers.push(number);
      await each.on("block", onBlock);
      await watched.on(watched.filters.Transfer(null, to), ({ args, log }) => values.push([args.value, log.transactionHash]));
      const topics = { topics: [null, null, ethers.zeroPadValue(to, 32)] };
      await each.on(topics, (log) => logs.push(log.transactionHash));
      // Requests of one connection go out in order.
      for (let n = 0; n < 3; n += 1) await each.send("eth_blockNumber", []);
      const { hash, blockNumber } = await mined(token.transfer(to, 31n));
      await until("the block", () => numbers.includes(blockNumber));
      await until("the event", () => values.length > 0);
      await until("the log", () => logs.length > 0);
      assert.deepEqual(values, [[31n, hash]]);
      assert.deepEqual(logs, [hash]);
      await each.off("block", onBlock);
      await each.removeAllListeners(topics);
      await watched.removeAllListeners();
    });

    test(`pending transactions ${how}`, async () => {
      const seen = [];
      await each.on("pending", (hash) => seen.push(hash));
      for (let n = 0; n < 3; n += 1) await each.send("eth_blockNumber", []);
      const sent = [];
      await until("one of them", async () => {
        sent.push((await mined(signer.sendTransaction({ to: other.address, value: 1n }))).hash);
        return sent.some((hash) => seen.includes(hash));
      });
      assert.ok(seen.every((hash) => sent.includes(hash)), "one that was never sent");
      await each.removeAllListeners("pending");
    });
  }

  test("a transaction is sent and waited for over WebSocket", async () => {
    const receipt = await mined(signers[5].connect(socket).sendTransaction({ to: other.address, value: 1n }));
    assert.equal(receipt.hash, (await provider.getTransactionReceipt(receipt.hash)).hash);
  });
});

describe("requests of one's own", () => {
  test("traces, proofs and the pool", async () => {
    const { hash, gasUsed } = await mined(token.transfer(fresh(), 1n));
    const trace = await provider.send("debug_traceTransaction", [hash, { tracer: "callTracer" }]);
    assert.equal(trace.to, (await token.getAddress()).toLowerCase());
    assert.equal(BigInt(trace.gasUsed), gasUsed);
    const proof = await provider.send("eth_getProof", [signer.address, [], "latest"]);
    assert.equal(BigInt(proof.balance), await provider.getBalance(signer.address));
    assert.ok(proof.accountProof.length > 0);
    assert.deepEqual(await provider.send("txpool_status", []), { pending: "0x0", queued: "0x0" });
    assert.equal((await refused("eth_getProof", [signer.address, ["0xzz"], "latest"])).code, -32602);
    const { error } = await rejected(provider.send("eth_noSuchMethod", []), "UNKNOWN_ERROR");
    assert.equal(error.code, -32601);
  });
});
