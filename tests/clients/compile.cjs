// Argument: a folder of Solidity sources. Prints ABI and bytecode of every contract in it, by name.
const { createRequire } = require("node:module");
const fs = require("node:fs");
const path = require("node:path");
const solc = createRequire(`${process.env.KEDGE_TOOLS}/package.json`)("solc");

const folder = process.argv[2];
const files = fs.readdirSync(folder).filter((file) => file.endsWith(".sol"));
const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources: Object.fromEntries(
        files.map((file) => [file, { content: fs.readFileSync(path.join(folder, file), "utf8") }]),
      ),
      settings: { outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } } },
    }),
  ),
);
const errors = (output.errors ?? []).filter((error) => error.severity === "error");
if (errors.length > 0) {
  console.error(errors.map((error) => error.formattedMessage).join("\n"));
  process.exit(1);
}
const contracts = Object.values(output.contracts).flatMap(Object.entries);
console.log(
  JSON.stringify(
    Object.fromEntries(
      contracts.map(([name, { abi, evm }]) => [name, { abi, bytecode: `0x${evm.bytecode.object}` }]),
    ),
  ),
);
