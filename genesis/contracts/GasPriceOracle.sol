// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {L1Block} from "./L1Block.sol";
import {Predeploys} from "./Predeploys.sol";

/// @title GasPriceOracle
/// @notice What a transaction pays besides L2 gas, for its bytes on Bitcoin. Interface and formulas are
///         those of the OP Stack's contract of the same name since its Fjord fork.
contract GasPriceOracle {
    /// @notice Decimals of the scalars.
    uint256 public constant DECIMALS = 6;

    /// @notice The OP Stack's forks up to Jovian are active.
    bool public constant isEcotone = true;
    bool public constant isFjord = true;
    bool public constant isIsthmus = true;
    bool public constant isJovian = true;

    /// @dev Linear regression of a transaction's size in a batch over its FastLZ size, millionths.
    int256 private constant COST_INTERCEPT = -42_585_600;
    int256 private constant COST_FASTLZ_COEFFICIENT = 836_500;

    /// @dev Smallest size that a transaction is charged for, millionths of a byte.
    int256 private constant MIN_TRANSACTION_SIZE = 100e6;

    /// @dev What a signature adds to an unsigned transaction, bytes.
    uint256 private constant SIGNATURE_SIZE = 68;

    /// @notice The version of the interface.
    function version() external pure returns (string memory) {
        return "kedge-1";
    }

    /// @notice Data fee of a transaction in wei, estimated from its serialisation without signature.
    function getL1Fee(bytes calldata unsignedTx) external view returns (uint256) {
        return _fee(_fastLzLength(unsignedTx) + SIGNATURE_SIZE);
    }

    /// @notice The most that a transaction of this many bytes without signature can pay as data fee.
    /// @dev    FastLZ adds a byte to every 32 that it cannot compress.
    function getL1FeeUpperBound(uint256 unsignedTxSize) external view returns (uint256) {
        uint256 size = unsignedTxSize + SIGNATURE_SIZE;
        return _fee(size + size / 32 + 16);
    }

    /// @notice Estimated size of a transaction in a batch, in calldata gas (16 per byte).
    function getL1GasUsed(bytes calldata unsignedTx) external pure returns (uint256) {
        return _estimatedSize(_fastLzLength(unsignedTx) + SIGNATURE_SIZE) * 16 / 10 ** DECIMALS;
    }

    /// @notice Operator fee of a transaction that uses this much gas, wei.
    function getOperatorFee(uint256 gasUsed) external view returns (uint256) {
        return gasUsed * _l1Block().operatorFeeScalar() * 100 + _l1Block().operatorFeeConstant();
    }

    /// @notice Price of Bitcoin space, wei per virtual byte, smoothed.
    function l1BaseFee() public view returns (uint256) {
        return _l1Block().basefee();
    }

    /// @notice Weight of `l1BaseFee`, millionths.
    function baseFeeScalar() public view returns (uint32) {
        return _l1Block().baseFeeScalar();
    }

    /// @notice One; Bitcoin has no blobs.
    function blobBaseFee() public view returns (uint256) {
        return _l1Block().blobBaseFee();
    }

    /// @notice Weight of `blobBaseFee`, millionths.
    function blobBaseFeeScalar() public view returns (uint32) {
        return _l1Block().blobBaseFeeScalar();
    }

    /// @notice Base fee of this block, wei per gas.
    function gasPrice() external view returns (uint256) {
        return block.basefee;
    }

    /// @notice Base fee of this block, wei per gas.
    function baseFee() external view returns (uint256) {
        return block.basefee;
    }

    /// @notice Decimals of the scalars.
    function decimals() external pure returns (uint256) {
        return DECIMALS;
    }

    function _l1Block() private pure returns (L1Block) {
        return L1Block(Predeploys.L1_BLOCK);
    }

    function _fee(uint256 fastLzSize) private view returns (uint256) {
        uint256 scaled = uint256(baseFeeScalar()) * 16 * l1BaseFee() + uint256(blobBaseFeeScalar()) * blobBaseFee();
        return _estimatedSize(fastLzSize) * scaled / 10 ** (DECIMALS * 2);
    }

    function _estimatedSize(uint256 fastLzSize) private pure returns (uint256) {
        int256 size = COST_INTERCEPT + COST_FASTLZ_COEFFICIENT * int256(fastLzSize);
        return uint256(size < MIN_TRANSACTION_SIZE ? MIN_TRANSACTION_SIZE : size);
    }

    /// @dev Length of `data` after FastLZ level 1 compression with a table of 8,192 positions, which is
    ///      what the fee function of the protocol counts.
    function _fastLzLength(bytes calldata data) private pure returns (uint256 size) {
        unchecked {
            uint256[8192] memory table;
            // No match starts in the last 13 bytes.
            uint256 limit = data.length < 13 ? 0 : data.length - 13;
            uint256 anchor = 0;
            uint256 at = 2;
            while (at < limit) {
                uint256 earlier;
                while (true) {
                    uint256 sequence = _three(data, at);
                    uint256 slot = _slot(sequence);
                    earlier = table[slot];
                    table[slot] = at;
                    uint256 distance = at - earlier;
                    if (at >= limit) break;
                    at++;
                    if (distance < 8192 && sequence == _three(data, earlier)) break;
                }
                if (at >= limit) break;
                at--;
                if (at > anchor) size += _literals(at - anchor);

                // Counts the first byte that differs too.
                uint256 length = 0;
                uint256 most = limit + 9 - (at + 3);
                while (length < most) {
                    length++;
                    if (data[earlier + 2 + length] != data[at + 2 + length]) break;
                }
                size += 3 * ((length - 1) / 262) + ((length - 1) % 262 >= 6 ? 3 : 2);

                at += length;
                table[_slot(_three(data, at))] = at;
                at++;
                table[_slot(_three(data, at))] = at;
                at++;
                anchor = at;
            }
            size += _literals(data.length - anchor);
        }
    }

    /// @dev Size of a run of literal bytes: runs of at most 32, each with one byte in front.
    function _literals(uint256 count) private pure returns (uint256 size) {
        unchecked {
            size = 33 * (count / 32);
            if (count % 32 != 0) size += count % 32 + 1;
        }
    }

    /// @dev The three bytes from `at`, little-endian.
    function _three(bytes calldata data, uint256 at) private pure returns (uint256 value) {
        assembly ("memory-safe") {
            let word := calldataload(add(data.offset, at))
            value := or(or(byte(0, word), shl(8, byte(1, word))), shl(16, byte(2, word)))
        }
    }

    function _slot(uint256 sequence) private pure returns (uint256) {
        unchecked {
            return ((sequence * 2654435769) >> 19) & 0x1fff;
        }
    }
}
