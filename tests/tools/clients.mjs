// Arguments: npm prefix, RPC URL, private key. Deploys with viem, watches heads over WebSocket, reads with ethers;
// prints "ok" when all of them agree.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

const [prefix, url, key] = process.argv.slice(2);
const require = createRequire(`${prefix}/package.json`);
const solc = require("solc");
const viem = require("viem");
const { privateKeyToAccount } = require("viem/accounts");
const ethers = require("ethers");

const source = readFileSync(new URL("Counter.sol", import.meta.url), "utf8");
const compiled = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources: { "Counter.sol": { content: source } },
      settings: { outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } } },
    }),
  ),
).contracts["Counter.sol"].Counter;

const http = viem.createPublicClient({ transport: viem.http(url), pollingInterval: 50 });
const ws = viem.createPublicClient({ transport: viem.webSocket(url.replace(/^http/, "ws")) });
const id = await http.getChainId();
const chain = viem.defineChain({
  id,
  name: "Kedge",
  nativeCurrency: { name: "Bitcoin", symbol: "BTC", decimals: 18 },
  rpcUrls: { default: { http: [url] } },
});
const account = privateKeyToAccount(key);
const wallet = viem.createWalletClient({ account, chain, transport: viem.http(url) });

const heads = [];
const logs = [];
const unwatchHeads = ws.watchBlocks({ onBlock: (block) => heads.push(block.hash) });

const deployed = await http.waitForTransactionReceipt({
  hash: await wallet.deployContract({ abi: compiled.abi, bytecode: `0x${compiled.evm.bytecode.object}` }),
});
assert.equal(deployed.status, "success");
const address = deployed.contractAddress;
const unwatchLogs = ws.watchContractEvent({ address, abi: compiled.abi, onLogs: (found) => logs.push(...found) });

const { request } = await http.simulateContract({ account, address, abi: compiled.abi, functionName: "count" });
// The subscriptions are asked for on one connection, in order: once this answers, both stand.
await ws.getBlockNumber();
const counted = await http.waitForTransactionReceipt({ hash: await wallet.writeContract(request) });
assert.equal(counted.status, "success");
assert.equal(await http.readContract({ address, abi: compiled.abi, functionName: "number" }), 1n);

const until = async (what, condition) => {
  const end = Date.now() + 30_000;
  while (!condition()) {
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
await until("the head over WebSocket", () => heads.includes(counted.blockHash));
await until("the log over WebSocket", () => logs.some((log) => log.transactionHash === counted.transactionHash));
unwatchHeads();
unwatchLogs();

// Without the cache: within its quarter of a second a transaction is mined here and the next one wants its nonce.
const provider = new ethers.JsonRpcProvider(url, undefined, { pollingInterval: 50, cacheTimeout: -1 });
const signer = new ethers.Wallet(key, provider);
const contract = new ethers.Contract(address, compiled.abi, signer);
const receipt = await (await contract.count()).wait();
assert.equal(receipt.status, 1);
assert.equal(await contract.number(), 2n);
assert.equal(await provider.getBalance(account.address), await http.getBalance({ address: account.address }));
const events = await contract.queryFilter(contract.filters.Counted(account.address), 0);
assert.deepEqual(events.map((event) => event.args.number), [1n, 2n]);
const transfer = await (await signer.sendTransaction({ to: address.replace(/.$/, "0"), value: 1n })).wait();
assert.equal(transfer.status, 1);
provider.destroy();
console.log("ok");
process.exit(0);
