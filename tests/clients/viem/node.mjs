// What more a node tells: proofs, traces and errors.
import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { post, refused } from "../live.mjs";
import {
  account, deployed, fresh, http, mined, other, rejected, same, token, viem, wallet,
} from "./setup.mjs";

const { encodeFunctionData, keccak256, pad, toHex } = viem;

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
