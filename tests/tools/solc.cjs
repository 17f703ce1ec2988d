// The npm build of solc behind the command line of the native one, as far as forge uses it.
const solc = require("solc");

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (process.argv.includes("--standard-json")) {
  process.stdout.write(solc.compile(require("fs").readFileSync(0, "utf8")));
} else {
  console.error("only --version and --standard-json");
  process.exitCode = 1;
}
