// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {Token} from "../src/Token.sol";
import {vm} from "../src/Vm.sol";

/// Reads a live chain, of which the environment says what there is to be found.
contract LiveTest {
    Token private token = Token(vm.envAddress("TOKEN"));
    address private holder = vm.envAddress("HOLDER");
    uint256 private balance = vm.envUint("BALANCE");

    function test_the_fork_is_at_the_block_that_was_asked_for() external view {
        require(block.number == vm.envUint("NUMBER"), "block number");
        require(block.chainid == vm.envUint("CHAIN"), "chain id");
        require(block.timestamp == vm.envUint("TIMESTAMP"), "timestamp");
        require(blockhash(block.number - 1) == vm.envBytes32("PARENT"), "hash of the parent");
    }

    function test_state_is_that_of_the_chain() external view {
        require(token.balanceOf(holder) == balance, "token balance");
        require(holder.balance == vm.envUint("COINS"), "coins");
        require(address(token).codehash == vm.envBytes32("CODE_HASH"), "code hash");
    }

    function test_calls_change_the_fork() external {
        vm.prank(token.owner());
        token.mint(5);
        vm.prank(token.owner());
        token.transfer(holder, 5);
        require(token.balanceOf(holder) == balance + 5, "balance after a transfer");
    }

    function test_reverts_are_those_of_the_chain_s_code() external {
        bytes memory expected =
            abi.encodeWithSelector(Token.InsufficientBalance.selector, holder, balance, balance + 1);
        vm.expectRevert(expected);
        vm.prank(holder);
        token.transfer(address(1), balance + 1);
    }

    function testFuzz_what_is_sent_arrives(uint256 value) external {
        value %= balance + 1;
        vm.prank(holder);
        token.transfer(address(1), value);
        require(token.balanceOf(holder) + token.balanceOf(address(1)) == balance, "total");
    }

    function test_another_block_is_forked_from_within() external {
        vm.createSelectFork(vm.envString("RPC"), vm.envUint("DEPLOYED"));
        require(token.balanceOf(holder) == 0, "balance when it was deployed");
    }

    function test_a_fork_before_a_transaction_has_not_executed_it() external {
        vm.createSelectFork(vm.envString("RPC"), vm.envBytes32("TRANSFER"));
        require(token.balanceOf(holder) == 0, "balance before the transfer");
    }
}
