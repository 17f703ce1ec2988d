// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title Predeploys
/// @notice Addresses that the predeployed contracts know of each other and of derivation.
library Predeploys {
    address internal constant L1_BLOCK = 0x4200000000000000000000000000000000000015;
    address internal constant L2_TO_L1_MESSAGE_PASSER = 0x4200000000000000000000000000000000000016;
    address internal constant BITCOIN_HEADERS = 0x4200000000000000000000000000000000000b02;

    /// @notice Sends the L1 attributes deposit. Nobody has its key.
    address internal constant DEPOSITOR = 0xDeaDDEaDDeAdDeAdDEAdDEaddeAddEAdDEAd0001;

    /// @notice Sends bridge deposits and vault rotations. Nobody has its key.
    address internal constant BRIDGE_DEPOSITOR = 0xdeAddEAdDeAddEaDdeadDEADdeaDDeAdDEAd0b17;
}
