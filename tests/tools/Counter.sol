// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Counts, and says so in an event.
contract Counter {
    uint256 public number;

    event Counted(address indexed by, uint256 number);

    function count() external {
        number += 1;
        emit Counted(msg.sender, number);
    }
}
