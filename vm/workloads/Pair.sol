// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.30;

/// A token that others may move. `balanceOf` is slot 0, `allowance` slot 1.
contract Coin {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);

    function transfer(address to, uint256 value) external returns (bool) {
        move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        move(from, to, value);
        return true;
    }

    function move(address from, address to, uint256 value) private {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}

/// Swaps of two coins at a constant product, 0.3 % for the pair, as the benchmarks make them. The reserves are
/// slot 0.
contract Pair {
    Coin constant FIRST = Coin(0xC1C1c1c1C1C1C1c1c1C1C1C1c1C1C1C1c1C1c1c1);
    Coin constant SECOND = Coin(0xc2C2C2C2C2C2c2c2c2c2C2C2c2C2C2C2C2C2c2C2);

    uint112 private first;
    uint112 private second;

    event Sync(uint112 first, uint112 second);
    event Swap(address indexed by, bool ofFirst, uint256 paid, uint256 taken);

    function swap(bool ofFirst, uint256 paid, uint256 least) external returns (uint256 taken) {
        (uint256 a, uint256 b) = (first, second);
        (Coin pays, Coin takes) = ofFirst ? (FIRST, SECOND) : (SECOND, FIRST);
        (uint256 rises, uint256 falls) = ofFirst ? (a, b) : (b, a);
        uint256 net = paid * 997;
        taken = (net * falls) / (rises * 1000 + net);
        require(taken >= least, "too little");
        require(pays.transferFrom(msg.sender, address(this), paid));
        require(takes.transfer(msg.sender, taken));
        (uint256 c, uint256 d) = (FIRST.balanceOf(address(this)), SECOND.balanceOf(address(this)));
        require(c * d >= a * b && c <= type(uint112).max && d <= type(uint112).max, "product");
        (first, second) = (uint112(c), uint112(d));
        emit Sync(uint112(c), uint112(d));
        emit Swap(msg.sender, ofFirst, paid, taken);
    }
}
