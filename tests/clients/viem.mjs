// What a dApp team does with viem, OP Stack chain definitions included.
import "./viem/chain.mjs";
import "./viem/transactions.mjs";
import "./viem/contracts.mjs";
import "./viem/node.mjs";
