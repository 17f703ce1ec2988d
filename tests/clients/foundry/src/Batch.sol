// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// What an account delegates to (EIP-7702) to make several calls in one transaction.
contract Batch {
    struct Call {
        address to;
        uint256 value;
        bytes data;
    }

    function execute(Call[] calldata calls) external payable {
        require(msg.sender == address(this), "only the account itself");
        for (uint256 n = 0; n < calls.length; n++) {
            (bool done,) = calls[n].to.call{value: calls[n].value}(calls[n].data);
            require(done, "a call failed");
        }
    }
}
