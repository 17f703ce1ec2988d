// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title FeeVault
/// @notice Collects one kind of fee until somebody sends what it holds to the recipient fixed at
///         genesis. The same code stands at the addresses of the sequencer, base, L1 and operator fee
///         vaults of the OP Stack.
contract FeeVault {
    /// @notice All that was ever sent to the recipient, wei.
    uint256 public totalProcessed;

    /// @notice Where the fees go, on L2. Zero on a network that has not been launched.
    address public recipient;

    /// @notice Fees were sent to the recipient.
    event Withdrawal(uint256 value, address to, address from);

    error NoRecipient();
    error RecipientRefused();

    /// @notice Fees may also be donated.
    receive() external payable {}

    /// @notice The version of the interface.
    function version() external pure returns (string memory) {
        return "kedge-1";
    }

    /// @notice Sends the whole balance to the recipient. Anybody may call it.
    function withdraw() external returns (uint256 value) {
        address to = recipient;
        if (to == address(0)) revert NoRecipient();
        value = address(this).balance;
        totalProcessed += value;
        emit Withdrawal(value, to, msg.sender);
        (bool accepted,) = to.call{value: value}("");
        if (!accepted) revert RecipientRefused();
    }
}
