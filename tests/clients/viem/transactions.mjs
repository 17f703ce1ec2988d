// Transactions of every kind.
import { describe, test } from "node:test";
import assert from "node:assert/strict";
import { live } from "../live.mjs";
import {
  account, accounts, Batch, cost, fresh, http, mined, nonceManager, privateKeyToAccount, rejected, same,
  token, viem, wallet, walletOf,
} from "./setup.mjs";

const { concatHex, encodeFunctionData, keccak256, pad, zeroAddress } = viem;

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
