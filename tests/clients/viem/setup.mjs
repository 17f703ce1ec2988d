// What the suites share: clients, accounts, a token, and what is asked of answers.
import { after, before } from "node:test";
import assert from "node:assert/strict";
import { live, require, ws as wsUrl } from "../live.mjs";

export const viem = require("viem");
export const { generatePrivateKey, privateKeyToAccount, nonceManager } = require("viem/accounts");
const { chainConfig, publicActionsL2 } = require("viem/op-stack");

export const { Batch, Token } = live.contracts;
export const chain = viem.defineChain({
  ...chainConfig,
  id: live.chainId,
  name: "Kedge",
  nativeCurrency: { name: "Bitcoin", symbol: "BTC", decimals: 18 },
  rpcUrls: { default: { http: [live.rpc], webSocket: [wsUrl] } },
});
// The methods that went over HTTP, in order; a batch is a list of its own.
export const asked = [];
export const onFetchRequest = (_, { body }) => {
  const requests = JSON.parse(body);
  asked.push(Array.isArray(requests) ? requests.map(({ method }) => method) : requests.method);
};
export const options = { chain, pollingInterval: 25, cacheTime: 0 };
export const http = viem
  .createPublicClient({ ...options, transport: viem.http(live.rpc, { onFetchRequest }) })
  .extend(publicActionsL2());
export const ws = viem.createPublicClient({ ...options, transport: viem.webSocket(wsUrl, { reconnect: false }) });
export const accounts = live.accounts.map(({ key }) => privateKeyToAccount(key));
export const [account, other] = accounts;
export const walletOf = (account) => viem.createWalletClient({ ...options, account, transport: viem.http(live.rpc) });
export const wallet = walletOf(account);

export const fresh = () => privateKeyToAccount(generatePrivateKey()).address;
export const same = (one, two) => assert.equal(one?.toLowerCase(), two?.toLowerCase());
export const mined = async (hash) => {
  const receipt = await http.waitForTransactionReceipt({ hash });
  assert.equal(receipt.status, "success");
  return receipt;
};
export const cost = (receipt) => receipt.gasUsed * receipt.effectiveGasPrice + receipt.l1Fee;
// The error of this class in the chain of causes.
export const rejected = async (promise, kind) => {
  const error = await promise.then(
    () => assert.fail("it was answered"),
    (error) => error,
  );
  assert.ok(error instanceof viem.BaseError, `${error.stack}`);
  const found = error.walk((cause) => cause instanceof kind);
  assert.ok(found, `no ${kind.name} in ${error.stack}`);
  return found;
};

export let token;
export let deployed;
before(async () => {
  deployed = await mined(
    await wallet.deployContract({ abi: Token.abi, bytecode: Token.bytecode, args: [1_000_000n] }),
  );
  token = { address: deployed.contractAddress, abi: Token.abi };
});
after(async () => (await ws.transport.getRpcClient()).close());
