// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A token with every way to fail that clients decode: a custom error, a reason, a panic.
contract Token {
    string public constant name = "Test Token";
    string public constant symbol = "TEST";
    uint8 public constant decimals = 18;

    /// Slot 0.
    address public owner;
    /// Slot 1.
    uint256 public totalSupply;
    /// Slot 2.
    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    error InsufficientBalance(address holder, uint256 balance, uint256 needed);

    constructor(uint256 supply) {
        owner = msg.sender;
        add(supply);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        uint256 balance = balanceOf[msg.sender];
        if (balance < value) revert InsufficientBalance(msg.sender, balance, value);
        balanceOf[msg.sender] = balance - value;
        balanceOf[to] += value;
        emit Transfer(msg.sender, to, value);
        return true;
    }

    function mint(uint256 value) external {
        require(msg.sender == owner, "only the owner mints");
        add(value);
    }

    /// Panics when there are no holders.
    function share(uint256 holders) external view returns (uint256) {
        return totalSupply / holders;
    }

    function add(uint256 value) private {
        totalSupply += value;
        balanceOf[msg.sender] += value;
        emit Transfer(address(0), msg.sender, value);
    }
}
