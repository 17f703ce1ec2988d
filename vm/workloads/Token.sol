// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// The transfers of ERC-20, as the benchmarks make them. `balanceOf` is slot 0.
contract Token {
    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function transfer(address to, uint256 value) external returns (bool) {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
        emit Transfer(msg.sender, to, value);
        return true;
    }
}
