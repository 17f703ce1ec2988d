//! What the verifier's program costs on the RISC-V machine: steps for each transaction and for each gas of
//! what a transaction can loop over, and how fast the machine is. Prints the tables of docs/riscv.md.
//!
//! `cargo bench -p kedge-fraud-proof`; names as arguments choose among the loops.

#[path = "program/loops.rs"]
mod loops;
#[path = "../tests/proofs/world.rs"]
#[expect(dead_code, reason = "the world of the tests, of which this uses a part")]
mod world;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Witness};
use kedge_fraud_proof::riscv::{Halt, Machine, Program, Stop, record_input};
use kedge_fraud_proof::{AssertionView, Verdict, genesis_claim};
use kedge_genesis::{Network, Params, Sats};
use std::time::Duration;
use world::{World, account, hashes};

const ELF: &[u8] = include_bytes!("../program/kedge-program.elf");
/// What a dispute can search.
const MAX_STEPS: u64 = 1 << 36;
/// The most gas of one segment (`genesis/src/params.rs`).
const MAX_SEGMENT_GAS: u64 = 19_000_000;
/// Exit code of an assertion that is wrong in an output root.
const OUTPUT_ROOT: Halt = Halt::Exit(16);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A test runner that lists or runs all targets gets no tests.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let program = Program::from_elf(ELF).expect("the committed program");
    if names.is_empty() {
        println!("program: {} bytes, {} instructions\n", ELF.len(), program.code().len());
        transactions(&program);
        blocks(&program);
        speed(&program);
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| name.contains(n.as_str()));
    gas(&program, wanted);
}

/// A machine before judging the segment of an L2 block.
struct Case {
    machine: Machine,
    /// Gas that the block used.
    gas: u64,
}

impl Case {
    fn new(program: &Program, setup: Vec<Bytes>, transactions: Vec<Bytes>) -> Self {
        Self::beside(program, setup, transactions, |_| vec![])
    }

    /// With other transactions in the Bitcoin block of the segment.
    fn beside(
        program: &Program,
        setup: Vec<Bytes>,
        transactions: Vec<Bytes>,
        others: impl FnOnce(&mut World) -> Vec<Transaction>,
    ) -> Self {
        // One segment for each L1 block, and the limits of all networks.
        let params = Params { segment_target_gas: 20_000_000, ..*Network::Dev.params() };
        let mut world = World::new(params);
        let deposit = world.deposit(&[(account(1).address(), Sats(100_000_000))]);
        world.mine(vec![deposit]);
        let batch = world.batch(vec![setup]);
        world.mine(vec![batch]);
        let batch = world.batch(vec![transactions]);
        let others = others(&mut world);
        world.mine([vec![batch], others].concat());
        let end = world.state.l1.height.0;
        let mut claims = hashes(&world.truth(0, end));
        let segment = claims.len() - 1;
        claims[segment] = B256::ZERO;
        let base = genesis_claim(&world.params).expect("keys").hash();
        let view = AssertionView { id: B256::ZERO, base, l1: world.at(end), claims: &claims };
        let proof = world.prove(&view, segment).encode();
        let (verdict, input) =
            record_input(&world.params, &world.chain, &view, B256::ZERO, &proof).expect("blocks");
        assert!(matches!(verdict, Verdict::Fraud { .. }), "{verdict:?}");
        let program = program.clone().with_input(&input).expect("short enough");
        let (_, state) = world.states.last_key_value().expect("states");
        let (_, header) = state.headers.last_key_value().expect("a head");
        Self { machine: Machine::new(&program), gas: header.gas_used }
    }

    /// Steps to the verdict.
    fn steps(mut self) -> u64 {
        assert_eq!(self.machine.run(MAX_STEPS), Stop::Halt(OUTPUT_ROOT));
        self.machine.steps()
    }
}

fn millions(steps: u64) -> f64 {
    steps as f64 / 1e6
}

fn transfer(nonce: u64) -> Bytes {
    let to = Address::left_padding_from(&(nonce + 1_000).to_be_bytes());
    account(1).send(nonce, TxKind::Call(to), 1, vec![])
}

/// Runtime code of a token: `transfer(address,uint256)` with balances in a mapping in slot 0, checked, and
/// the event of ERC-20.
fn token() -> Vec<u8> {
    let code = [
        // The selector, or revert.
        &hex!("5f3560e01c63a9059cbb1415")[..],
        &hex!("6070")[..],
        &hex!("57")[..],
        // Takes the amount from the caller's balance, or reverts.
        &hex!("335f5260405f20805460243580821060705790819003")[..],
        &hex!("909155")[..],
        // Adds it to the recipient's.
        &hex!("600435805f5260405f20805483019055")[..],
        // The event, and true.
        &hex!("905f5233")[..],
        &[0x7f][..],
        keccak256("Transfer(address,address,uint256)").as_slice(),
        &hex!("60205fa360015f5260205ff3")[..],
    ]
    .concat();
    assert!(code.len() < 0x70, "{}", code.len());
    let mut padded = code;
    padded.resize(0x70, 0x5b);
    padded.extend(hex!("5b5f5ffd"));
    padded
}

/// Creates the token, with all of it the creator's.
fn create_token() -> Vec<u8> {
    let runtime = token();
    // balance[caller] = 2^64; return what follows this code.
    let mut init = hex!("335f526801000000000000000060405f2055").to_vec();
    let length = runtime.len() as u8;
    let start = init.len() as u8 + 11;
    init.extend([0x60, length, 0x80, 0x60, start, 0x5f, 0x39, 0x5f, 0xf3]);
    init.resize(usize::from(start), 0x5b);
    init.extend(runtime);
    init
}

fn token_transfer(nonce: u64) -> Bytes {
    let token = account(1).address().create(0);
    let to = Address::left_padding_from(&(nonce + 1_000).to_be_bytes());
    let mut data = hex!("a9059cbb").to_vec();
    data.extend(to.into_word());
    data.extend(U256::from(7).to_be_bytes::<32>());
    account(1).send(nonce, TxKind::Call(token), 0, data)
}

fn transactions(program: &Program) {
    let creation = || account(1).send(0, TxKind::Create, 0, create_token());
    let empty = Case::new(program, vec![], vec![]);
    println!("| what | million steps | gas |\n| --- | --- | --- |");
    let gas = empty.gas;
    let base = empty.steps();
    println!("| empty block that starts an epoch | {:.1} | {gas} |", millions(base));
    let eth = |count| Case::new(program, vec![], (0..count).map(transfer).collect());
    let erc = |count: u64| {
        Case::new(program, vec![creation()], (1..=count).map(token_transfer).collect())
    };
    let each = |one: Case, many: Case| {
        let gas = (many.gas - one.gas) / 10;
        ((many.steps() - one.steps()) / 10, gas)
    };
    let (eth, eth_gas) = each(eth(1), eth(11));
    println!("| ETH transfer | {:.2} | {eth_gas} |", millions(eth));
    let (erc, erc_gas) = each(erc(1), erc(11));
    println!("| ERC-20 transfer | {:.2} | {erc_gas} |", millions(erc));
    let ecrecover = loops::all().into_iter().find(|case| case.name == "ecrecover").expect("listed");
    let (steps, _) = slope(program, &ecrecover, base, gas);
    // A round of the loop is one recovery and a hundredth of it for the rest.
    let recovery = steps / (loops::GAS / ecrecover.gas);
    println!(
        "| recovery of a signature, {:.0} % of an ETH transfer | {:.2} | {} |\n",
        100.0 * recovery as f64 / eth as f64,
        millions(recovery),
        ecrecover.gas
    );
}

/// What full Bitcoin blocks cost: reading them, and checking that they are whole.
fn blocks(program: &Program) {
    let base = Case::new(program, vec![], vec![]).steps();
    let output = TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() };
    let small = |world: &mut World| -> Vec<Transaction> {
        (0..16_000).map(|_| world.tx(Witness::new(), vec![output.clone()])).collect()
    };
    let outputs = |world: &mut World| vec![world.tx(Witness::new(), vec![output.clone(); 110_000])];
    let witnesses = |world: &mut World| -> Vec<Transaction> {
        let witness = Witness::from_slice(&[vec![7; 390_000]]);
        (0..10).map(|_| world.tx(witness.clone(), vec![output.clone()])).collect()
    };
    let steps = |others: &dyn Fn(&mut World) -> Vec<Transaction>| {
        Case::beside(program, vec![], vec![], others).steps() - base
    };
    println!("| Bitcoin block of | million steps |\n| --- | --- |");
    println!("| 16,000 transactions | {:.0} |", millions(steps(&small)));
    println!("| 110,000 outputs | {:.0} |", millions(steps(&outputs)));
    println!("| 3.9 MB of witnesses | {:.0} |\n", millions(steps(&witnesses)));
}

/// Steps and gas of a loop beyond those of an empty block.
fn slope(program: &Program, case: &loops::Loop, base: u64, base_gas: u64) -> (u64, u64) {
    let create = account(1).send_gas(0, TxKind::Create, 0, case.init(), loops::GAS);
    let case = Case::new(program, vec![], vec![create]);
    let gas = case.gas - base_gas;
    (case.steps() - base, gas)
}

fn gas(program: &Program, wanted: impl Fn(&str) -> bool) {
    let empty = Case::new(program, vec![], vec![]);
    let gas = empty.gas;
    let base = empty.steps();
    let mut rows: Vec<_> = loops::all()
        .into_iter()
        .filter(|case| wanted(case.name))
        .map(|case| {
            let (steps, gas) = slope(program, &case, base, gas);
            assert_eq!(gas, loops::GAS, "{} did not go on until its gas ended", case.name);
            (steps as f64 / gas as f64, case.name)
        })
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("| loop over | steps per gas | {MAX_SEGMENT_GAS} gas, of 2^36 |\n| --- | --- | --- |");
    for (rate, name) in rows {
        let share = 100.0 * rate * MAX_SEGMENT_GAS as f64 / MAX_STEPS as f64;
        println!("| {name} | {rate:.0} | {share:.1} % |");
    }
}

/// For how long this thread has run, whatever else the computer does.
fn on_core() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().expect("a field").parse().expect("a number");
    Duration::from_nanos(nanoseconds)
}

/// The machine's speed, and what roots cost. Plain and rooted runs alternate, the shortest of each counts.
fn speed(program: &Program) {
    let case = Case::new(program, vec![], (0..30).map(transfer).collect());
    let time = |run: &dyn Fn(&mut Machine)| {
        let mut machine = case.machine.clone();
        let start = on_core();
        run(&mut machine);
        (on_core() - start, machine.steps())
    };
    let plain = |machine: &mut Machine| {
        machine.run(MAX_STEPS);
    };
    let rooted = |machine: &mut Machine| {
        machine.trace(MAX_STEPS, |_, _| ());
    };
    let rounds: Vec<_> = (0..5).map(|_| [time(&plain), time(&rooted)]).collect();
    let shortest = |which: usize| rounds.iter().map(|round| round[which].0).min().expect("five");
    let seconds = [0, 1].map(|which| shortest(which).as_secs_f64());
    let steps = rounds[0][0].1;
    println!("| machine | figure |\n| --- | --- |");
    println!("| steps per second | {:.0} million |", millions(steps) / seconds[0]);
    let more = 100.0 * (seconds[1] / seconds[0] - 1.0);
    println!("| a root every 2^20 steps | {more:.1} % more time |\n");
}
