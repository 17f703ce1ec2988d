// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title L2ToL1MessagePasser
/// @notice Holds a leaf for every message that L2 sent. Its storage root is in each block header and
///         so in each output root. Interface and storage are those of the OP Stack's contract of the
///         same name.
/// @dev    It takes no value. Bitcoin cannot run a message, so value sent along would be lost: coins
///         leave through `BitcoinBridge.withdraw`.
contract L2ToL1MessagePasser {
    /// @notice Whether the message of this hash was sent.
    mapping(bytes32 withdrawalHash => bool) public sentMessages;

    /// @dev Number of messages sent.
    uint240 internal msgNonce;

    /// @notice Version of the message encoding, the two highest bytes of a nonce.
    uint16 public constant MESSAGE_VERSION = 1;

    /// @notice A message was sent.
    /// @param nonce          Version and running number.
    /// @param sender         Who sent it.
    /// @param target         To whom, as the sender means it.
    /// @param value          Always zero.
    /// @param gasLimit       As given by the sender.
    /// @param data           Content.
    /// @param withdrawalHash Key of the leaf.
    event MessagePassed(
        uint256 indexed nonce,
        address indexed sender,
        address indexed target,
        uint256 value,
        uint256 gasLimit,
        bytes data,
        bytes32 withdrawalHash
    );

    /// @notice Value cannot leave this way; use `BitcoinBridge.withdraw`.
    error ValueNotAccepted();

    /// @notice The version of the interface.
    function version() external pure returns (string memory) {
        return "kedge-1";
    }

    /// @notice Sends a message: sets its leaf.
    /// @param target   To whom.
    /// @param gasLimit Free for the sender to use.
    /// @param data     Content.
    function initiateWithdrawal(address target, uint256 gasLimit, bytes calldata data) external payable {
        if (msg.value != 0) revert ValueNotAccepted();
        uint256 nonce = messageNonce();
        bytes32 withdrawalHash = keccak256(abi.encode(nonce, msg.sender, target, uint256(0), gasLimit, data));
        sentMessages[withdrawalHash] = true;
        msgNonce++;
        emit MessagePassed(nonce, msg.sender, target, 0, gasLimit, data, withdrawalHash);
    }

    /// @notice Nonce of the next message, with the version in its two highest bytes.
    function messageNonce() public view returns (uint256) {
        return (uint256(MESSAGE_VERSION) << 240) | msgNonce;
    }
}
