// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {Token} from "../src/Token.sol";
import {vm} from "../src/Vm.sol";

contract Deploy {
    /// Deploys a token and shares it out, with some coins.
    function run(address payable to) external returns (Token token) {
        vm.startBroadcast();
        token = new Token(1_000);
        token.transfer(to, 10);
        token.mint(5);
        to.transfer(7);
        vm.stopBroadcast();
    }

    /// Reverts before anything can be sent.
    function overspend(Token token, address to) external {
        vm.startBroadcast();
        token.transfer(to, 1 << 200);
        vm.stopBroadcast();
    }
}
