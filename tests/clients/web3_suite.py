"""What a dApp team does with web3.py, synchronous, asynchronous and over WebSocket."""

import json
import os
import secrets
import time
import unittest

from eth_account import Account
from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3, WebSocketProvider
from web3.exceptions import (
    BlockNotFound,
    ContractCustomError,
    ContractLogicError,
    ContractPanicError,
    TransactionNotFound,
    Web3RPCError,
)
from web3.middleware import SignAndSendRawMiddlewareBuilder
from web3.utils.subscriptions import LogsSubscription, NewHeadsSubscription, PendingTxSubscription

with open(os.environ["KEDGE_LIVE"], encoding="utf-8") as file:
    LIVE = json.load(file)
URL = LIVE["rpc"]
WS_URL = URL.replace("http", "ws", 1)
ACCOUNTS = [Account.from_key(account["key"]) for account in LIVE["accounts"]]
SIGNER, OTHER = ACCOUNTS[:2]
TOKEN = LIVE["contracts"]["Token"]
BATCH = LIVE["contracts"]["Batch"]
# How long one step may take on a slow machine, seconds.
PATIENCE = 20

w3 = Web3(HTTPProvider(URL))
# Signs what is sent from these accounts, as dApps' servers do.
w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(ACCOUNTS[:5]), layer=0)


def fresh():
    return Account.create().address


def mined(tx_hash):
    receipt = w3.eth.wait_for_transaction_receipt(tx_hash, timeout=PATIENCE, poll_latency=0.02)
    assert receipt["status"] == 1, receipt
    return receipt


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def send(fields, sender=SIGNER):
    return mined(w3.eth.send_transaction({"from": sender.address, **fields}))


def l1_fee(receipt):
    return int(receipt["l1Fee"], 16)


TOKEN_RECEIPT = mined(
    w3.eth.contract(abi=TOKEN["abi"], bytecode=TOKEN["bytecode"]).constructor(1_000_000).transact({"from": SIGNER.address})
)
token = w3.eth.contract(address=TOKEN_RECEIPT["contractAddress"], abi=TOKEN["abi"])


def transfer(to, value):
    return mined(token.functions.transfer(to, value).transact({"from": SIGNER.address}))


class Connection(unittest.TestCase):
    def test_the_node_names_its_chain_and_its_software(self):
        self.assertTrue(w3.is_connected(show_traceback=True))
        self.assertEqual(w3.eth.chain_id, LIVE["chainId"])
        self.assertEqual(w3.net.version, str(LIVE["chainId"]))
        self.assertTrue(w3.net.listening)
        self.assertRegex(w3.client_version.lower(), "^kedge/")
        self.assertFalse(w3.eth.syncing)
        self.assertEqual(w3.eth.accounts, [])

    def test_a_batch_has_the_answers_in_order(self):
        plain = Web3(HTTPProvider(URL))
        with plain.batch_requests() as batch:
            batch.add(plain.eth.get_balance(SIGNER.address))
            batch.add(plain.eth.get_block(TOKEN_RECEIPT["blockNumber"]))
            batch.add(plain.eth.contract(address=token.address, abi=TOKEN["abi"]).functions.symbol())
            balance, block, symbol = batch.execute()
        self.assertEqual(balance, w3.eth.get_balance(SIGNER.address))
        self.assertEqual(block["hash"], TOKEN_RECEIPT["blockHash"])
        self.assertEqual(symbol, "TEST")


class Blocks(unittest.TestCase):
    def test_tags_numbers_and_hashes_name_the_same_blocks(self):
        w3.provider.make_request("dev_mine", [4])
        until("a block is final", lambda: w3.eth.get_block("finalized")["number"] > 0)
        tags = ["earliest", "finalized", "safe", "latest"]
        blocks = [w3.eth.get_block(tag) for tag in tags]
        numbers = [block["number"] for block in blocks]
        self.assertEqual(numbers, sorted(numbers))
        self.assertEqual(numbers[0], 0)
        for block in blocks:
            self.assertEqual(w3.eth.get_block(block["number"])["hash"], block["hash"])
            self.assertEqual(w3.eth.get_block(block["hash"])["number"], block["number"])
        with self.assertRaises(BlockNotFound):
            w3.eth.get_block(1_000_000)
        with self.assertRaises(TransactionNotFound):
            w3.eth.get_transaction("0x" + "00" * 32)
        with self.assertRaises(TransactionNotFound):
            w3.eth.get_transaction_receipt("0x" + "00" * 32)

    def test_a_block_comes_with_its_transactions_and_its_receipts(self):
        block = w3.eth.get_block(TOKEN_RECEIPT["blockNumber"], full_transactions=True)
        hashes = [transaction["hash"] for transaction in block["transactions"]]
        self.assertIn(TOKEN_RECEIPT["transactionHash"], hashes)
        self.assertEqual(w3.eth.get_block_transaction_count(block["number"]), len(hashes))
        receipts = w3.eth.get_block_receipts(block["number"])
        self.assertEqual([receipt["transactionHash"] for receipt in receipts], hashes)
        index = hashes.index(TOKEN_RECEIPT["transactionHash"])
        self.assertEqual(w3.eth.get_transaction_by_block(block["hash"], index)["hash"], hashes[index])
        deposit = w3.eth.get_block(1, full_transactions=True)["transactions"][0]
        self.assertEqual(deposit["type"], 0x7E)
        self.assertEqual(deposit["sourceHash"][:2], "0x")


class Transactions(unittest.TestCase):
    def check(self, fields, kind):
        to = fresh()
        before = w3.eth.get_balance(SIGNER.address)
        nonce = w3.eth.get_transaction_count(SIGNER.address)
        receipt = send({"to": to, "value": 77, **fields})
        self.assertEqual(receipt["type"], kind)
        self.assertEqual(w3.eth.get_balance(to), 77)
        self.assertGreater(l1_fee(receipt), 0)
        spent = before - w3.eth.get_balance(SIGNER.address)
        self.assertEqual(spent, 77 + receipt["gasUsed"] * receipt["effectiveGasPrice"] + l1_fee(receipt))
        found = w3.eth.get_transaction(receipt["transactionHash"])
        self.assertEqual((found["type"], found["nonce"], found["value"]), (kind, nonce, 77))
        self.assertEqual(found["from"], SIGNER.address)
        raw = w3.eth.get_raw_transaction(receipt["transactionHash"])
        self.assertEqual(w3.keccak(raw), receipt["transactionHash"])
        self.assertEqual(Account.recover_transaction(raw), SIGNER.address)
        self.assertEqual(w3.eth.get_transaction_count(SIGNER.address), nonce + 1)

    def test_legacy(self):
        self.check({"gasPrice": w3.eth.gas_price * 2}, 0)

    def test_with_an_access_list(self):
        entry = {"address": token.address, "storageKeys": ["0x" + "00" * 31 + "01"]}
        self.check({"gasPrice": w3.eth.gas_price * 2, "accessList": [entry], "chainId": LIVE["chainId"]}, 1)

    def test_with_a_priority_fee(self):
        tip = w3.eth.max_priority_fee
        base = w3.eth.get_block("latest")["baseFeePerGas"]
        self.check({"maxFeePerGas": base * 2 + tip, "maxPriorityFeePerGas": tip}, 2)

    def test_without_any_fee_fields(self):
        self.check({}, 2)

    def test_with_an_authorization(self):
        owner = ACCOUNTS[2]
        batch = mined(
            w3.eth.contract(abi=BATCH["abi"], bytecode=BATCH["bytecode"]).constructor().transact({"from": owner.address})
        )["contractAddress"]
        code = w3.eth.contract(address=owner.address, abi=BATCH["abi"])
        one, two = fresh(), fresh()

        def delegate(address, data):
            nonce = w3.eth.get_transaction_count(owner.address)
            authorization = owner.sign_authorization({"chainId": LIVE["chainId"], "address": address, "nonce": nonce + 1})
            tip = w3.eth.max_priority_fee
            transaction = {
                "type": 4,
                "chainId": LIVE["chainId"],
                "to": owner.address,
                "value": 0,
                "gas": 200_000,
                "nonce": nonce,
                "maxFeePerGas": w3.eth.gas_price * 2 + tip,
                "maxPriorityFeePerGas": tip,
                "data": data,
                "authorizationList": [authorization],
            }
            return mined(w3.eth.send_raw_transaction(owner.sign_transaction(transaction).raw_transaction))

        receipt = delegate(batch, code.encode_abi("execute", [[(one, 1, b""), (two, 2, b"")]]))
        self.assertEqual(receipt["type"], 4)
        self.assertEqual(w3.eth.get_code(owner.address), bytes.fromhex("ef0100" + batch[2:]))
        self.assertEqual((w3.eth.get_balance(one), w3.eth.get_balance(two)), (1, 2))
        found = w3.eth.get_transaction(receipt["transactionHash"])
        self.assertEqual(found["authorizationList"][0]["address"].lower(), batch.lower())
        delegate("0x" + "00" * 20, "0x")
        self.assertEqual(w3.eth.get_code(owner.address), b"")

    def test_what_the_node_refuses_is_refused_with_its_reason(self):
        poor = Account.create()
        fields = {
            "to": OTHER.address,
            "value": 1,
            "gas": 21_000,
            "chainId": LIVE["chainId"],
            "nonce": 0,
            "maxFeePerGas": w3.eth.gas_price * 2,
            "maxPriorityFeePerGas": 1,
        }
        cases = [
            (poor, {}, "insufficient funds"),
            (SIGNER, {}, "nonce too low"),
            (SIGNER, {"nonce": w3.eth.get_transaction_count(SIGNER.address), "gas": 20_999}, "intrinsic gas too low"),
            (SIGNER, {"chainId": 1}, "invalid chain id|invalid sender"),
        ]
        for signer, changed, reason in cases:
            with self.subTest(reason), self.assertRaisesRegex(Web3RPCError, reason):
                w3.eth.send_raw_transaction(signer.sign_transaction({**fields, **changed}).raw_transaction)

    def test_a_waiting_transaction_is_in_the_pool_until_the_gap_closes(self):
        sender = ACCOUNTS[3]
        nonce = w3.eth.get_transaction_count(sender.address)
        to = fresh()
        fields = {"from": sender.address, "to": to, "value": 1, "gas": 21_000}
        later = w3.eth.send_transaction({**fields, "nonce": nonce + 1})
        queued = w3.geth.txpool.content()["queued"]
        by_nonce = {address.lower(): found for address, found in queued.items()}[sender.address.lower()]
        self.assertEqual(by_nonce[str(nonce + 1)]["hash"], later.to_0x_hex())
        self.assertEqual(int(w3.geth.txpool.status()["queued"], 16), 1)
        self.assertEqual(w3.eth.get_transaction_count(sender.address, "pending"), nonce)
        mined(w3.eth.send_transaction({**fields, "nonce": nonce}))
        mined(later)
        self.assertEqual(w3.eth.get_balance(to), 2)


class Fees(unittest.TestCase):
    def test_estimates_and_suggestions(self):
        transfer = {"from": SIGNER.address, "to": OTHER.address, "value": 1}
        self.assertEqual(w3.eth.estimate_gas(transfer), 21_000)
        history = w3.eth.fee_history(2, "latest", [25, 75])
        self.assertEqual(len(history["baseFeePerGas"]), 3)
        self.assertEqual(len(history["reward"]), 2)
        self.assertEqual(history["baseFeePerGas"][1], w3.eth.get_block("latest")["baseFeePerGas"])
        self.assertEqual(w3.eth.gas_price, history["baseFeePerGas"][2] + w3.eth.max_priority_fee)
        self.assertEqual(w3.eth.blob_base_fee, 1)


class Contracts(unittest.TestCase):
    def test_read_simulated_written_and_read_in_the_past(self):
        to = fresh()
        self.assertEqual(token.functions.name().call(), "Test Token")
        call = token.functions.transfer(to, 5)
        self.assertTrue(call.call({"from": SIGNER.address}))
        gas = call.estimate_gas({"from": SIGNER.address})
        receipt = mined(call.transact({"from": SIGNER.address}))
        self.assertLessEqual(receipt["gasUsed"], gas)
        balance = token.functions.balanceOf(to)
        self.assertEqual(balance.call(), 5)
        self.assertEqual(balance.call(block_identifier=receipt["blockNumber"] - 1), 0)
        self.assertEqual(balance.call(block_identifier=receipt["blockHash"]), 5)
        slot = w3.eth.get_storage_at(token.address, 0)
        self.assertEqual(int.from_bytes(slot, "big"), int(SIGNER.address, 16))
        self.assertGreater(len(w3.eth.get_code(token.address)), 0)

    def test_custom_errors_reasons_and_panics_are_decoded(self):
        stranger = {"from": OTHER.address}
        with self.assertRaises(ContractCustomError) as custom:
            token.functions.transfer(SIGNER.address, 7).call(stranger)
        name, arguments = token.decode_error(custom.exception.data) if hasattr(token, "decode_error") else (None, None)
        expected = Web3.keccak(text="InsufficientBalance(address,uint256,uint256)")[:4].hex()
        self.assertTrue(custom.exception.data.removeprefix("0x").startswith(expected), (custom.exception.data, name, arguments))
        with self.assertRaisesRegex(ContractLogicError, "execution reverted: only the owner mints"):
            token.functions.mint(1).call(stranger)
        with self.assertRaisesRegex(ContractLogicError, "only the owner mints"):
            token.functions.mint(1).estimate_gas(stranger)
        with self.assertRaisesRegex(ContractPanicError, "(?i)division"):
            token.functions.share(0).call()

    def test_calls_see_the_state_that_they_override(self):
        holder = fresh()
        slot = Web3.keccak(bytes(12) + bytes.fromhex(holder[2:]) + (2).to_bytes(32, "big"))
        override = {token.address: {"stateDiff": {slot.to_0x_hex(): "0x" + (42).to_bytes(32, "big").hex()}}}
        self.assertEqual(token.functions.balanceOf(holder).call(state_override=override), 42)
        self.assertEqual(token.functions.balanceOf(holder).call(), 0)

    def test_blocks_are_simulated(self):
        holder = fresh()
        payload = {
            "blockStateCalls": [
                {
                    "stateOverrides": {holder: {"balance": hex(10**18)}},
                    "calls": [{"from": holder, "to": OTHER.address, "value": hex(5)}],
                },
                {"calls": [{"from": OTHER.address, "to": token.address, "input": token.encode_abi("mint", [1])}]},
            ],
        }
        first, second = w3.eth.simulate_v1(payload, "latest")
        self.assertEqual(first["calls"][0]["status"], 1)
        self.assertEqual(first["calls"][0]["gasUsed"], 21_000)
        self.assertEqual(second["number"], first["number"] + 1)
        self.assertEqual(second["calls"][0]["status"], 0)

    def test_an_access_list_names_what_a_call_touches(self):
        call = {"from": SIGNER.address, "to": token.address, "data": token.encode_abi("transfer", [fresh(), 1])}
        made = w3.eth.create_access_list(call)
        self.assertEqual([entry["address"] for entry in made["accessList"]], [token.address])
        self.assertEqual(len(made["accessList"][0]["storageKeys"]), 2)

    def test_a_proof_says_what_the_node_says(self):
        proof = w3.eth.get_proof(token.address, [1], TOKEN_RECEIPT["blockNumber"])
        root = w3.eth.get_block(TOKEN_RECEIPT["blockNumber"])["stateRoot"]
        self.assertEqual(Web3.keccak(proof["accountProof"][0]), root)
        self.assertEqual(Web3.keccak(proof["storageProof"][0]["proof"][0]), proof["storageHash"])
        self.assertEqual(proof["codeHash"], Web3.keccak(w3.eth.get_code(token.address)))
        self.assertEqual(int.from_bytes(proof["storageProof"][0]["value"], "big"), 1_000_000)

    def test_events_are_decoded_from_receipts_ranges_and_blocks(self):
        to = fresh()
        one, two = transfer(to, 11), transfer(to, 12)
        event = token.events.Transfer
        (decoded,) = event().process_receipt(one)
        self.assertEqual(dict(decoded["args"]), {"from": SIGNER.address, "to": to, "value": 11})

        def values(logs):
            return [log["args"]["value"] for log in logs]

        self.assertEqual(values(event.get_logs(from_block=0, argument_filters={"to": to})), [11, 12])
        self.assertEqual(values(event.get_logs(from_block=two["blockNumber"], argument_filters={"to": to})), [12])
        self.assertEqual(values(event.get_logs(block_hash=one["blockHash"])), [11])
        logs = w3.eth.get_logs({"fromBlock": 0, "address": token.address, "topics": [None, None, "0x" + "00" * 12 + to[2:]]})
        self.assertEqual([log["transactionHash"] for log in logs], [one["transactionHash"], two["transactionHash"]])

    def test_filters_give_what_is_new_since_the_last_poll(self):
        to = fresh()
        events = token.events.Transfer.create_filter(from_block="latest", argument_filters={"to": to})
        blocks, pending = w3.eth.filter("latest"), w3.eth.filter("pending")
        receipt = transfer(to, 21)
        # Filters learn of a block a moment after receipts can be read.
        logs = until("the event", events.get_new_entries)
        self.assertEqual([log["args"]["value"] for log in logs], [21])
        self.assertEqual(events.get_new_entries(), [])
        self.assertEqual([log["args"]["value"] for log in events.get_all_entries()], [21])
        until("the block", lambda: receipt["blockHash"] in blocks.get_new_entries())
        until("the transaction", lambda: receipt["transactionHash"] in pending.get_new_entries())
        self.assertTrue(w3.eth.uninstall_filter(events.filter_id))
        with self.assertRaises(Web3RPCError) as gone:
            events.get_new_entries()
        self.assertEqual(gone.exception.rpc_response["error"]["code"], -32000)

    def test_a_transaction_that_reverts_is_mined(self):
        sent = token.functions.transfer(OTHER.address, 1 << 200).transact({"from": SIGNER.address, "gas": 100_000})
        receipt = w3.eth.wait_for_transaction_receipt(sent, timeout=PATIENCE, poll_latency=0.02)
        self.assertEqual(receipt["status"], 0)
        self.assertEqual(receipt["logs"], [])


class Traces(unittest.TestCase):
    def test_parity_s_and_geth_s(self):
        data = token.encode_abi("transfer", [fresh(), 1])
        receipt = send({"to": token.address, "data": data})
        (trace,) = w3.tracing.trace_transaction(receipt["transactionHash"])
        self.assertEqual(trace["action"]["input"].to_0x_hex() if isinstance(trace["action"]["input"], bytes) else trace["action"]["input"], data)
        replayed = w3.tracing.trace_replay_transaction(receipt["transactionHash"], ["stateDiff"])
        self.assertIn(token.address, {Web3.to_checksum_address(address) for address in replayed["stateDiff"]})
        self.assertEqual(len(w3.tracing.trace_block(receipt["blockNumber"])), w3.eth.get_block_transaction_count(receipt["blockNumber"]))
        call = w3.geth.debug.trace_transaction(receipt["transactionHash"], {"tracer": "callTracer"})
        self.assertEqual(Web3.to_checksum_address(call["to"]), token.address)


class Errors(unittest.TestCase):
    def test_codes_are_those_of_the_specification(self):
        mint = {"from": OTHER.address, "to": token.address, "data": token.encode_abi("mint", [1])}
        cases = [
            ("eth_call", [mint, "latest"], 3),
            ("eth_call", [mint, hex(1_000_000)], -32000),
            ("eth_getBalance", ["0x12", "latest"], -32602),
            ("eth_getBlockByNumber", [], -32602),
            ("eth_noSuchMethod", [], -32601),
            ("eth_sendRawTransaction", ["0xc0"], -32000),
        ]
        plain = HTTPProvider(URL)
        for method, params, code in cases:
            with self.subTest(method, params=params):
                self.assertEqual(plain.make_request(method, params)["error"]["code"], code)


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.w3 = AsyncWeb3(AsyncHTTPProvider(URL))

    async def asyncTearDown(self):
        await self.w3.provider.disconnect()

    async def test_a_contract_is_written_and_its_events_are_read(self):
        sender, to = ACCOUNTS[5], fresh()
        self.w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(sender), layer=0)
        contract = await self.w3.eth.contract(abi=TOKEN["abi"], bytecode=TOKEN["bytecode"]).constructor(9).transact({"from": sender.address})
        receipt = await self.w3.eth.wait_for_transaction_receipt(contract, timeout=PATIENCE, poll_latency=0.02)
        own = self.w3.eth.contract(address=receipt["contractAddress"], abi=TOKEN["abi"])
        sent = await own.functions.transfer(to, 4).transact({"from": sender.address})
        receipt = await self.w3.eth.wait_for_transaction_receipt(sent, timeout=PATIENCE, poll_latency=0.02)
        self.assertEqual(await own.functions.balanceOf(to).call(), 4)
        logs = await own.events.Transfer.get_logs(from_block=receipt["blockNumber"])
        self.assertEqual([log["args"]["value"] for log in logs], [4])

    async def test_a_batch_over_the_asynchronous_provider(self):
        async with self.w3.batch_requests() as batch:
            batch.add(self.w3.eth.get_block("earliest"))
            batch.add(self.w3.eth.get_balance(SIGNER.address))
            block, balance = await batch.async_execute()
        self.assertEqual(block["number"], 0)
        self.assertGreater(balance, 0)


class Subscriptions(unittest.IsolatedAsyncioTestCase):
    async def test_heads_logs_and_pending_transactions(self):
        to = fresh()
        heads, logs, pending = [], [], []
        async with AsyncWeb3(WebSocketProvider(WS_URL)) as socket:
            own = socket.eth.contract(address=token.address, abi=TOKEN["abi"])
            event = own.events.Transfer()

            async def done():
                if receipt["blockHash"] in heads and receipt["transactionHash"] in pending and logs:
                    await socket.subscription_manager.unsubscribe_all()

            async def on_head(context):
                heads.append(context.result["hash"])
                await done()

            async def on_log(context):
                decoded = event.process_log(context.result)
                logs.append((decoded["args"]["value"], decoded["transactionHash"]))
                await done()

            async def on_pending(context):
                pending.append(context.result)
                await done()

            await socket.subscription_manager.subscribe(
                [
                    NewHeadsSubscription(label="heads", handler=on_head),
                    LogsSubscription(
                        label="logs",
                        address=token.address,
                        topics=[event.topic, None, "0x" + "00" * 12 + to[2:]],
                        handler=on_log,
                    ),
                    PendingTxSubscription(label="pending", handler=on_pending),
                ]
            )
            receipt = transfer(to, 31)
            # Ends when nothing is subscribed to any more.
            await socket.subscription_manager.handle_subscriptions()
            self.assertEqual(logs, [(31, receipt["transactionHash"])])
            self.assertEqual(await socket.eth.chain_id, LIVE["chainId"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
