// What the suites share: the node that they run against, the packages, and waiting for a condition.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

// `rpc`, `l1Rpc`, `chainId`, `accounts` with `address` and `key`, `contracts` with `abi` and `bytecode`.
export const live = JSON.parse(readFileSync(process.env.KEDGE_LIVE, "utf8"));
export const ws = live.rpc.replace(/^http/, "ws");
export const require = createRequire(`${process.env.KEDGE_TOOLS}/package.json`);

// Polls until the condition holds, and gives its value.
export const until = async (what, condition) => {
  const end = Date.now() + 20_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < end, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

// The answer to a body as it comes, errors included.
export const post = async (body) => {
  const answer = await fetch(live.rpc, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return answer.json();
};

export const request = (method, params, id = 1) => ({ jsonrpc: "2.0", id, method, params });

// The error of a request that must fail.
export const refused = async (method, params) => {
  const answer = await post(request(method, params));
  assert.ok(answer.error, `${method} is answered: ${JSON.stringify(answer)}`);
  return answer.error;
};

// Mines Bitcoin blocks.
export const mine = async (blocks) => {
  const answer = await post(request("dev_mine", [blocks]));
  assert.equal(answer.result?.length, blocks, JSON.stringify(answer));
};
