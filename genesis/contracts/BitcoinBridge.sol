// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {L1Block} from "./L1Block.sol";
import {L2ToL1MessagePasser} from "./L2ToL1MessagePasser.sol";
import {Predeploys} from "./Predeploys.sol";

/// @title Burner
/// @notice Destroys the coins that it is created with: a contract that self-destructs to itself in the
///         transaction that created it takes its balance out of existence (EIP-6780).
contract Burner {
    constructor() payable {
        selfdestruct(payable(address(this)));
    }
}

/// @title BitcoinBridge
/// @notice The L2 side of the vault: credits deposits that derivation found on Bitcoin, and queues
///         withdrawals for the vault's signers to pay.
/// @dev    Its balance is the sum of `claimable`: credits pass through, withdrawals are burned.
contract BitcoinBridge {
    /// @notice A withdrawal in the queue. `feeSats` was collected for the payout's Bitcoin fee.
    struct Withdrawal {
        uint64 amountSats;
        uint64 feeSats;
        bytes scriptPubKey;
    }

    /// @notice Index that the next withdrawal gets; indices count from 0 without gaps.
    uint64 public nextWithdrawalIndex;

    /// @notice Withdrawals by index.
    mapping(uint64 index => Withdrawal) public withdrawals;

    /// @notice Deposits that their recipient refused, in wei.
    mapping(address recipient => uint256) public claimable;

    /// @notice Whether the script of this keccak-256 hash is or was the vault's. Set at genesis and by
    ///         rotations.
    mapping(bytes32 scriptHash => bool) public isVaultScript;

    /// @notice Smallest amount that a withdrawal may pay out. Set at genesis.
    uint64 public minWithdrawalSats;

    /// @notice Wei in one satoshi.
    uint256 public constant WEI_PER_SAT = 1e10;

    /// @notice Gas that a deposit's recipient gets besides the stipend of 2,300 of a call with value:
    ///         enough for a proxy wallet to receive. With it, crediting stays within the gas of a
    ///         deposit and loads three contracts at most, whatever the recipient does.
    uint256 public constant CREDIT_GAS = 5_000;

    /// @notice Virtual bytes of a payout transaction apart from the withdrawal's own output: a 2-of-3
    ///         vault input (118), change (43), the tagged OP_RETURN (up to 30) and the frame (11), with
    ///         room for a larger vault. Every withdrawal pays for a transaction of its own; what runs
    ///         of several save is the vault's surplus.
    uint256 public constant PAYOUT_VBYTES = 250;

    /// @notice A withdrawal joined the queue; `amountSats + feeSats` left the supply.
    event WithdrawalQueued(
        uint64 indexed index, address indexed sender, bytes scriptPubKey, uint64 amountSats, uint64 feeSats
    );

    /// @notice A deposit reached its recipient.
    event DepositCredited(address indexed recipient, uint256 amount);

    /// @notice The recipient refused a deposit; it can claim it.
    event DepositHeld(address indexed recipient, uint256 amount);

    /// @notice The recipient of refused deposits sent them to an address of its choice.
    event DepositClaimed(address indexed recipient, address indexed to, uint256 amount);

    /// @notice Withdrawals cannot pay this script any more.
    event VaultScriptAdded(bytes scriptPubKey);

    error OnlySystem();
    error NotWholeSats();
    error UnsupportedScript();
    error VaultScript();
    error BelowMinimum(uint256 amountSats, uint256 minimumSats);
    error TooMuch();
    error NothingToClaim();
    error RecipientRefused();

    modifier onlySystem() {
        if (msg.sender != Predeploys.BRIDGE_DEPOSITOR) revert OnlySystem();
        _;
    }

    /// @notice The version of the interface.
    function version() external pure returns (string memory) {
        return "kedge-1";
    }

    /// @notice Passes a deposit on to its recipient, or keeps it for the recipient to claim. Only
    ///         derivation may call it. Does not revert whatever the recipient does.
    function credit(address recipient) external payable onlySystem {
        uint256 gasLimit = CREDIT_GAS;
        bool accepted;
        // In assembly because a Solidity call would copy what the recipient returns, at our gas.
        assembly ("memory-safe") {
            accepted := call(gasLimit, recipient, callvalue(), 0, 0, 0, 0)
        }
        if (accepted) {
            emit DepositCredited(recipient, msg.value);
        } else {
            claimable[recipient] += msg.value;
            emit DepositHeld(recipient, msg.value);
        }
    }

    /// @notice Sends the deposits that the caller refused to `to`.
    function claim(address to) external {
        uint256 amount = claimable[msg.sender];
        if (amount == 0) revert NothingToClaim();
        claimable[msg.sender] = 0;
        emit DepositClaimed(msg.sender, to, amount);
        (bool accepted,) = to.call{value: amount}("");
        if (!accepted) revert RecipientRefused();
    }

    /// @notice Burns the value sent and queues its payout on Bitcoin, less `payoutFeeSats`.
    /// @param scriptPubKey Where to: P2PKH, P2SH, P2WPKH, P2WSH or P2TR, but not the vault.
    /// @return index       Position in the queue.
    function withdraw(bytes calldata scriptPubKey) external payable returns (uint64 index) {
        return _withdraw(scriptPubKey, 0);
    }

    /// @notice Like `withdraw`, but reverts if less than `leastSats` would be paid out, should the fee
    ///         have risen meanwhile.
    function withdrawAtLeast(bytes calldata scriptPubKey, uint64 leastSats) external payable returns (uint64 index) {
        return _withdraw(scriptPubKey, leastSats);
    }

    /// @notice Declares a script as the vault's. Only derivation may call it.
    function addVaultScript(bytes calldata scriptPubKey) external onlySystem {
        isVaultScript[keccak256(scriptPubKey)] = true;
        emit VaultScriptAdded(scriptPubKey);
    }

    /// @notice What a withdrawal to a script of this length pays for its Bitcoin transaction, at the
    ///         smoothed fee rate of `L1Block`, rounded up.
    function payoutFeeSats(uint256 scriptLength) public view returns (uint256) {
        // An output is its value (8 bytes), the script's length (1 byte) and the script.
        uint256 cost = (PAYOUT_VBYTES + 9 + scriptLength) * L1Block(Predeploys.L1_BLOCK).basefee();
        return (cost + WEI_PER_SAT - 1) / WEI_PER_SAT;
    }

    function _withdraw(bytes calldata scriptPubKey, uint64 leastSats) internal returns (uint64 index) {
        if (msg.value % WEI_PER_SAT != 0) revert NotWholeSats();
        if (!_isStandard(scriptPubKey)) revert UnsupportedScript();
        if (isVaultScript[keccak256(scriptPubKey)]) revert VaultScript();

        uint256 sats = msg.value / WEI_PER_SAT;
        if (sats > type(uint64).max) revert TooMuch();
        uint256 fee = payoutFeeSats(scriptPubKey.length);
        uint256 amount = sats > fee ? sats - fee : 0;
        uint256 minimum = leastSats > minWithdrawalSats ? leastSats : minWithdrawalSats;
        if (amount < minimum || amount == 0) revert BelowMinimum(amount, minimum);

        index = nextWithdrawalIndex++;
        // Neither narrowing loses bits: amount + fee = sats, which fits.
        withdrawals[index] = Withdrawal(uint64(amount), uint64(fee), scriptPubKey);
        emit WithdrawalQueued(index, msg.sender, scriptPubKey, uint64(amount), uint64(fee));

        new Burner{value: msg.value}();
        L2ToL1MessagePasser(Predeploys.L2_TO_L1_MESSAGE_PASSER).initiateWithdrawal(
            address(0), 0, abi.encode(index, msg.sender, scriptPubKey, uint64(amount), uint64(fee))
        );
    }

    /// @dev Whether the script is P2WPKH, P2WSH, P2TR, P2SH or P2PKH.
    function _isStandard(bytes calldata script) internal pure returns (bool) {
        uint256 length = script.length;
        if (length == 22) return bytes2(script[:2]) == 0x0014;
        if (length == 34) return bytes2(script[:2]) == 0x0020 || bytes2(script[:2]) == 0x5120;
        if (length == 23) return bytes2(script[:2]) == 0xa914 && script[22] == 0x87;
        if (length == 25) return bytes3(script[:3]) == 0x76a914 && bytes2(script[23:]) == 0x88ac;
        return false;
    }
}
