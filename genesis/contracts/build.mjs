// Compiles the predeployed contracts into ../artifacts, or into the folder given as `--out`.
//
//   node build.mjs [--out DIR] [--solc DIR]
//
// `--solc` is a folder whose node_modules hold the compiler; default is this one (`npm ci`).
// The output is a function of the sources and of the compiler's version alone.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const { values: options } = parseArgs({
  options: {
    out: { type: "string", default: join(here, "..", "artifacts") },
    solc: { type: "string", default: here },
  },
});
const solc = createRequire(join(resolve(options.solc), "package.json"))("solc");

const pinned = JSON.parse(readFileSync(join(here, "package.json"), "utf8")).devDependencies.solc;
if (!solc.version().startsWith(`${pinned}+`)) {
  throw new Error(`solc ${pinned} is pinned, found ${solc.version()}`);
}

const contracts = [
  "BitcoinBridge",
  "BitcoinHeaders",
  "FeeVault",
  "GasPriceOracle",
  "L1Block",
  "L2ToL1MessagePasser",
  "Multicall3",
];
const names = readdirSync(here).filter((name) => name.endsWith(".sol")).sort();
const sources = Object.fromEntries(
  names.map((name) => [name, { content: readFileSync(join(here, name), "utf8") }]),
);
const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources,
      settings: {
        evmVersion: "prague",
        optimizer: { enabled: true, runs: 10_000 },
        metadata: { bytecodeHash: "none", appendCBOR: false },
        outputSelection: {
          "*": { "*": ["abi", "evm.deployedBytecode.object", "storageLayout"] },
        },
      },
    }),
  ),
);

// 5159: `selfdestruct` is deprecated. Burning by it is what the Burner is for.
const problems = (output.errors ?? []).filter(({ errorCode }) => errorCode !== "5159");
if (problems.length > 0) {
  console.error(problems.map((problem) => problem.formattedMessage).join("\n"));
  process.exit(1);
}

mkdirSync(options.out, { recursive: true });
for (const name of contracts) {
  const { abi, evm, storageLayout } = output.contracts[`${name}.sol`][name];
  const deployedBytecode = evm.deployedBytecode.object;
  if (!/^([0-9a-f]{2})+$/.test(deployedBytecode)) throw new Error(`${name} has no plain code`);
  const storage = storageLayout.storage.map(({ label, slot, offset, type }) => ({
    label,
    slot: Number(slot),
    offset,
    type: storageLayout.types[type].label,
  }));
  const artifact = { contractName: name, compiler: solc.version(), abi, storage, deployedBytecode };
  writeFileSync(join(options.out, `${name}.json`), `${JSON.stringify(artifact, null, 2)}\n`);
  writeFileSync(join(options.out, `${name}.hex`), deployedBytecode);
}
