// Contracts: calls, logs, and watching them.
import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { refused, until } from "../live.mjs";
import {
  account, accounts, asked, deployed, fresh, http, mined, other, rejected, same, Token, token, viem, wallet,
  ws,
} from "./setup.mjs";

const { concatHex, encodeFunctionData, keccak256, pad } = viem;

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
