// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// The cheat codes that the script and the tests use, at the address at which Foundry has them.
interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
    function prank(address) external;
    function deal(address, uint256) external;
    function expectRevert(bytes calldata) external;
    function createSelectFork(string calldata, uint256) external returns (uint256);
    function createSelectFork(string calldata, bytes32) external returns (uint256);
    function envAddress(string calldata) external view returns (address);
    function envBytes32(string calldata) external view returns (bytes32);
    function envString(string calldata) external view returns (string memory);
    function envUint(string calldata) external view returns (uint256);
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
