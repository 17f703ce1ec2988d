//! Every instruction of RV32IM on the cases that the specification singles out.

#[path = "riscv/asm.rs"]
mod asm;

use asm::{EBREAK, ECALL, addi, auipc, b, i, jal, jalr, li, lui, r, s};
use kedge_fraud_proof::riscv::{
    Halt, Machine, Program, Stop,
    decode::{Kind, decode},
    layout::{EXIT_CALL, SPACE_END, SPACE_START},
};

const MIN: u32 = 0x8000_0000;
const MAX: u32 = 0x7fff_ffff;
const ONES: u32 = u32::MAX;
/// A page of nothing but data.
const DATA: u32 = 0x0200_0000;

fn run(code: &[u32]) -> Machine {
    let mut machine = Machine::new(&Program::from_words(code));
    machine.run(10_000);
    machine
}

/// Runs with `x1` and `x2` set; gives the machine after the last instruction.
fn with(a: u32, b: u32, code: &[u32]) -> Machine {
    run(&[&li(1, a)[..], &li(2, b), code].concat())
}

/// The result in `x3` of one instruction on `x1` and `x2`.
fn result(a: u32, b: u32, word: u32) -> u32 {
    with(a, b, &[word]).registers()[3]
}

#[test]
fn register_instructions_give_what_the_specification_says() {
    // Name, funct7, funct3, (x1, x2, result).
    type Row = (&'static str, u32, u32, &'static [(u32, u32, u32)]);
    let rows: &[Row] = &[
        ("add", 0, 0, &[(0, 0, 0), (1, 1, 2), (ONES, 1, 0), (MAX, 1, MIN), (MIN, MIN, 0)]),
        ("sub", 32, 0, &[(0, 0, 0), (0, 1, ONES), (MIN, 1, MAX), (5, 7, -2i32 as u32)]),
        (
            "sll",
            0,
            1,
            &[
                (1, 0, 1),
                (1, 31, MIN),
                (1, 32, 1),
                (1, 33, 2),
                (ONES, 4, 0xffff_fff0),
                (3, ONES, MIN),
            ],
        ),
        (
            "slt",
            0,
            2,
            &[
                (0, 0, 0),
                (0, 1, 1),
                (1, 0, 0),
                (MIN, MAX, 1),
                (MAX, MIN, 0),
                (ONES, 0, 1),
                (0, ONES, 0),
            ],
        ),
        (
            "sltu",
            0,
            3,
            &[(0, 0, 0), (0, 1, 1), (MIN, MAX, 0), (MAX, MIN, 1), (ONES, 0, 0), (0, ONES, 1)],
        ),
        ("xor", 0, 4, &[(0xff00_ff00, 0x0f0f_0f0f, 0xf00f_f00f), (ONES, ONES, 0), (ONES, 0, ONES)]),
        (
            "srl",
            0,
            5,
            &[(MIN, 31, 1), (MIN, 32, MIN), (ONES, 4, 0x0fff_ffff), (MIN, 0xffff_ffe1, 1 << 30)],
        ),
        (
            "sra",
            32,
            5,
            &[(MIN, 31, ONES), (MIN, 32, MIN), (MAX, 30, 1), (0xf000_0000, 4, 0xff00_0000)],
        ),
        ("or", 0, 6, &[(0xff00_ff00, 0x0f0f_0f0f, 0xff0f_ff0f), (0, 0, 0), (ONES, 0, ONES)]),
        ("and", 0, 7, &[(0xff00_ff00, 0x0f0f_0f0f, 0x0f00_0f00), (ONES, 0, 0), (ONES, MIN, MIN)]),
        (
            "mul",
            1,
            0,
            &[(7, 6, 42), (MIN, ONES, MIN), (ONES, ONES, 1), (0x1_0000, 0x1_0000, 0), (MIN, 2, 0)],
        ),
        (
            "mulh",
            1,
            1,
            &[
                (ONES, ONES, 0),
                (ONES, 1, ONES),
                (MIN, MIN, 0x4000_0000),
                (MIN, MAX, 0xc000_0000),
                (MAX, MAX, 0x3fff_ffff),
                (MIN, ONES, 0),
                (0x1_0000, 0x1_0000, 1),
                (MIN, 1, ONES),
            ],
        ),
        (
            "mulhsu",
            1,
            2,
            &[
                (ONES, ONES, ONES),
                (ONES, 1, ONES),
                (1, ONES, 0),
                (MIN, MIN, 0xc000_0000),
                (MAX, ONES, 0x7fff_fffe),
                (MIN, ONES, MIN),
                (ONES, 0, 0),
            ],
        ),
        (
            "mulhu",
            1,
            3,
            &[
                (ONES, ONES, 0xffff_fffe),
                (MIN, MIN, 0x4000_0000),
                (MIN, 2, 1),
                (ONES, 1, 0),
                (1, 1, 0),
            ],
        ),
        // Division by zero and the one overflow: table "Semantics for division by zero and overflow".
        (
            "div",
            1,
            4,
            &[
                (20, 6, 3),
                (-20i32 as u32, 6, -3i32 as u32),
                (20, -6i32 as u32, -3i32 as u32),
                (-20i32 as u32, -6i32 as u32, 3),
                (MIN, ONES, MIN),
                (MIN, 0, ONES),
                (0, 0, ONES),
                (7, 0, ONES),
                (MIN, 1, MIN),
            ],
        ),
        ("divu", 1, 5, &[(20, 6, 3), (ONES, 2, MAX), (MIN, ONES, 0), (0, 0, ONES), (MIN, 0, ONES)]),
        (
            "rem",
            1,
            6,
            &[
                (20, 6, 2),
                (-20i32 as u32, 6, -2i32 as u32),
                (20, -6i32 as u32, 2),
                (-20i32 as u32, -6i32 as u32, -2i32 as u32),
                (MIN, ONES, 0),
                (MIN, 0, MIN),
                (0, 0, 0),
                (ONES, 0, ONES),
            ],
        ),
        ("remu", 1, 7, &[(20, 6, 2), (ONES, 2, 1), (MIN, ONES, MIN), (0, 0, 0), (ONES, 0, ONES)]),
    ];
    for (name, funct7, funct3, cases) in rows {
        for (a, b, expected) in *cases {
            let found = result(*a, *b, r(*funct7, 2, 1, *funct3, 3));
            assert_eq!(found, *expected, "{name} {a:#x}, {b:#x}");
            // The destination may be a source.
            for rd in [1, 2] {
                let machine = with(*a, *b, &[r(*funct7, 2, 1, *funct3, rd)]);
                assert_eq!(machine.registers()[rd as usize], *expected, "{name} in place");
            }
        }
    }
}

#[test]
fn immediate_instructions_extend_the_sign() {
    type Row = (&'static str, u32, &'static [(u32, i32, u32)]);
    let rows: &[Row] = &[
        ("addi", 0, &[(0, -1, ONES), (MAX, 1, MIN), (5, -2048, -2043i32 as u32), (5, 2047, 2052)]),
        (
            "slti",
            2,
            &[
                (0, -1, 0),
                (ONES, 0, 1),
                (MIN, -2048, 1),
                (MAX, 2047, 0),
                (-2048i32 as u32, -2048, 0),
            ],
        ),
        (
            "sltiu",
            3,
            &[
                (0, 1, 1),
                (1, 1, 0),
                (0, -1, 1),
                (ONES, -1, 0),
                (0xffff_f000, -2048, 1),
                (MIN, 2047, 0),
            ],
        ),
        ("xori", 4, &[(0x1234_5678, -1, 0xedcb_a987), (0, 0x7ff, 0x7ff)]),
        ("ori", 6, &[(MIN, 1, MIN | 1), (0, -2048, 0xffff_f800)]),
        (
            "andi",
            7,
            &[(ONES, -2048, 0xffff_f800), (ONES, 0x7ff, 0x7ff), (0x1234_5678, -1, 0x1234_5678)],
        ),
    ];
    for (name, funct3, cases) in rows {
        for (a, imm, expected) in *cases {
            assert_eq!(
                result(*a, 0, i(0x13, *funct3, 3, 1, *imm)),
                *expected,
                "{name} {a:#x}, {imm}"
            );
        }
    }
}

#[test]
fn shifts_by_an_immediate_take_five_bits() {
    let slli = |amount: i32| i(0x13, 1, 3, 1, amount);
    let srli = |amount: i32| i(0x13, 5, 3, 1, amount);
    let srai = |amount: i32| i(0x13, 5, 3, 1, amount | 0x400);
    for (value, amount, left, right, arithmetic) in [
        (MIN | 1, 0, MIN | 1, MIN | 1, MIN | 1),
        (MIN | 1, 1, 2, 0x4000_0000, 0xc000_0000),
        (MIN | 1, 31, MIN, 1, ONES),
        (MAX, 30, 0xc000_0000, 1, 1),
    ] {
        assert_eq!(result(value, 0, slli(amount)), left);
        assert_eq!(result(value, 0, srli(amount)), right);
        assert_eq!(result(value, 0, srai(amount)), arithmetic);
    }
    // Bit 25 set is reserved in RV32.
    for word in [slli(32), srli(32), srai(32), i(0x13, 1, 3, 1, 0x400)] {
        assert_eq!(run(&[word]).halt(), Some(Halt::IllegalInstruction(word)));
    }
}

#[test]
fn upper_immediates_and_the_program_counter() {
    assert_eq!(result(0, 0, lui(3, 0xf_ffff)), 0xffff_f000);
    assert_eq!(result(0, 0, lui(3, 1)), 0x1000);
    // After four instructions that set the registers.
    assert_eq!(result(0, 0, auipc(3, 0)), SPACE_START + 16);
    assert_eq!(result(0, 0, auipc(3, 0xf_ffff)), SPACE_START + 16 - 0x1000);
}

#[test]
fn the_zero_register_stays_zero() {
    for word in
        [addi(0, 0, 5), lui(0, 5), auipc(0, 5), r(0, 2, 1, 0, 0), i(3, 2, 0, 1, 0), jal(0, 4)]
    {
        let machine = with(DATA, 7, &[word, addi(3, 0, 0), r(0, 0, 0, 0, 4)]);
        assert_eq!(machine.registers()[0], 0);
        assert_eq!((machine.registers()[3], machine.registers()[4]), (0, 0), "{word:#x}");
        assert_eq!(machine.steps(), 7);
    }
}

#[test]
fn loads_and_stores_by_size_and_sign() {
    // x1 = DATA + 4, x2 = 0x8182_83f4.
    let store = [s(2, 2, 1, 0)];
    let cases = [
        (0, 0, 0xffff_fff4), // lb
        (0, 3, 0xffff_ff81),
        (4, 0, 0xf4), // lbu
        (4, 1, 0x83),
        (4, 2, 0x82),
        (1, 0, 0xffff_83f4), // lh
        (1, 2, 0xffff_8182),
        (5, 0, 0x83f4), // lhu
        (5, 2, 0x8182),
        (2, 0, 0x8182_83f4), // lw
        (2, 4, 0),
        (2, -4, 0),
    ];
    for (funct3, offset, expected) in cases {
        let code = [&store[..], &[i(3, funct3, 3, 1, offset)]].concat();
        let machine = with(DATA + 4, 0x8182_83f4, &code);
        assert_eq!(machine.registers()[3], expected, "load {funct3} at {offset}");
    }
    // Stores change nothing but their bytes.
    for (funct3, offset, expected) in [
        (0, 0, 0xffff_fff4),
        (0, 1, 0xffff_f4ff),
        (0, 2, 0xfff4_ffff),
        (0, 3, 0xf4ff_ffff),
        (1, 0, 0xffff_83f4),
        (1, 2, 0x83f4_ffff),
        (2, 0, 0x8182_83f4),
    ] {
        let code = [addi(5, 0, -1), s(2, 5, 1, 0), s(funct3, 2, 1, offset), i(3, 2, 3, 1, 0)];
        let machine = with(DATA, 0x8182_83f4, &code);
        assert_eq!(machine.registers()[3], expected, "store {funct3} at {offset}");
    }
}

#[test]
fn accesses_that_cannot_be_made_halt_before_they_change_anything() {
    let load = |funct3| i(3, funct3, 3, 1, 0);
    let store = |funct3| s(funct3, 2, 1, 0);
    let cases = [
        (DATA + 1, load(1), Halt::MisalignedLoad(DATA + 1)),
        (DATA + 3, load(5), Halt::MisalignedLoad(DATA + 3)),
        (DATA + 1, load(2), Halt::MisalignedLoad(DATA + 1)),
        (DATA + 2, load(2), Halt::MisalignedLoad(DATA + 2)),
        (DATA + 1, store(1), Halt::MisalignedStore(DATA + 1)),
        (DATA + 2, store(2), Halt::MisalignedStore(DATA + 2)),
        (0, load(2), Halt::UnmappedLoad(0)),
        (SPACE_START - 1, load(0), Halt::UnmappedLoad(SPACE_START - 1)),
        (SPACE_END, load(4), Halt::UnmappedLoad(SPACE_END)),
        (ONES, load(0), Halt::UnmappedLoad(ONES)),
        (ONES - 3, load(2), Halt::UnmappedLoad(ONES - 3)),
        (0, store(2), Halt::UnmappedStore(0)),
        (SPACE_START - 4, store(2), Halt::UnmappedStore(SPACE_START - 4)),
        (SPACE_END, store(0), Halt::UnmappedStore(SPACE_END)),
        (ONES - 1, store(1), Halt::UnmappedStore(ONES - 1)),
        (SPACE_START, store(2), Halt::ReadOnlyStore(SPACE_START)),
        (SPACE_START + 4095, store(0), Halt::ReadOnlyStore(SPACE_START + 4095)),
    ];
    for (address, word, halt) in cases {
        let machine = with(address, 1, &[word]);
        assert_eq!(machine.halt(), Some(halt));
        assert_eq!((machine.steps(), machine.pc()), (4, SPACE_START + 16));
        assert_eq!(machine.registers()[3], 0);
    }
    for (address, word) in [
        (SPACE_END - 4, store(2)),
        (SPACE_END - 1, store(0)),
        (SPACE_START + 4096, store(2)),
        (SPACE_START, load(2)),
        (SPACE_END - 2, load(1)),
    ] {
        let end = Halt::OutsideCode(SPACE_START + 20);
        assert_eq!(with(address, 1, &[word]).halt(), Some(end), "{address:#x}");
    }
}

#[test]
fn branches_compare_as_their_names_say() {
    let pairs =
        [(0, 0), (0, 1), (1, 0), (MIN, MAX), (MAX, MIN), (ONES, 0), (0, ONES), (ONES, ONES)];
    type Comparison = fn(u32, u32) -> bool;
    let comparisons: [(u32, Comparison); 6] = [
        (0, |a, b| a == b),
        (1, |a, b| a != b),
        (4, |a, b| (a as i32) < b as i32),
        (5, |a, b| a as i32 >= b as i32),
        (6, |a, b| a < b),
        (7, |a, b| a >= b),
    ];
    for (a, c) in pairs {
        for (funct3, taken) in comparisons {
            // Taken skips the instruction that marks x3.
            let machine = with(a, c, &[b(funct3, 1, 2, 8), addi(3, 0, 1), addi(4, 0, 1)]);
            assert_eq!(machine.registers()[3], u32::from(!taken(a, c)), "{funct3} {a:#x} {c:#x}");
            assert_eq!(machine.registers()[4], 1);
            assert_eq!(machine.steps(), if taken(a, c) { 6 } else { 7 });
        }
    }
}

#[test]
fn jumps_go_backward_and_forward_and_link() {
    // A loop of five rounds.
    let machine = run(&[addi(1, 0, 5), addi(2, 2, 3), addi(1, 1, -1), b(1, 1, 0, -8), ECALL]);
    assert_eq!((machine.registers()[2], machine.steps()), (15, 16));
    // jal over an instruction, links to it.
    let machine = run(&[jal(1, 8), addi(2, 0, 1), addi(3, 0, 1)]);
    assert_eq!(machine.registers()[1..4], [SPACE_START + 4, 0, 1]);
    // jalr through its own destination, and with its lowest bit dropped.
    for offset in [16, 17] {
        let machine =
            run(&[auipc(1, 0), jalr(1, 1, offset), addi(2, 0, 1), addi(3, 0, 1), addi(4, 0, 1)]);
        assert_eq!(machine.registers()[1..5], [SPACE_START + 8, 0, 0, 1]);
    }
    // The farthest ones.
    for (word, target) in [
        (jal(1, (1 << 20) - 4), SPACE_START + (1 << 20) - 4),
        (jal(1, -(1 << 20)), SPACE_START.wrapping_sub(1 << 20)),
        (jalr(1, 0, -4), 0u32.wrapping_sub(4)),
        (jalr(1, 0, 2044), 2044),
    ] {
        let machine = run(&[word]);
        assert_eq!(machine.halt(), Some(Halt::OutsideCode(target)));
        assert_eq!((machine.pc(), machine.registers()[1]), (target, SPACE_START + 4));
    }
}

#[test]
fn a_misaligned_target_halts_the_jump_and_links_nothing() {
    let at = SPACE_START;
    for (word, target) in [
        (jal(1, 6), at + 6),
        (jalr(1, 0, 2), 2),
        (jalr(1, 0, 7), 6),
        (b(0, 0, 0, 2), at + 2),
        (b(0, 0, 0, -2), at - 2),
    ] {
        let machine = run(&[word]);
        assert_eq!(machine.halt(), Some(Halt::MisalignedJump(target)));
        assert_eq!((machine.pc(), machine.steps(), machine.registers()[1]), (at, 0, 0));
    }
    // A branch that is not taken has no target.
    assert_eq!(run(&[b(1, 0, 0, 2)]).halt(), Some(Halt::OutsideCode(at + 4)));
}

#[test]
fn calls_end_the_program_or_have_a_name() {
    let exit = [addi(17, 0, EXIT_CALL as i32), addi(10, 0, 42), ECALL, addi(3, 0, 1)];
    let mut machine = run(&exit);
    assert_eq!(machine.halt(), Some(Halt::Exit(42)));
    assert_eq!(machine.steps(), 2);
    assert_eq!(machine.run(100), Stop::Halt(Halt::Exit(42)), "it stays where it is");
    assert_eq!((machine.steps(), machine.registers()[3]), (2, 0));
    assert_eq!(run(&[addi(17, 0, 64), ECALL]).halt(), Some(Halt::UnknownCall(64)));
    assert_eq!(run(&[EBREAK]).halt(), Some(Halt::Breakpoint));
    assert_eq!(run(&[]).halt(), Some(Halt::OutsideCode(SPACE_START)));
}

#[test]
fn fences_do_nothing() {
    // fence, fence.tso, pause, and one with reserved fields.
    for word in [0x0ff0_000f, 0x8330_000f, 0x0100_000f, 0xf00f_8f8f] {
        let machine = run(&[word, addi(3, 0, 1)]);
        assert_eq!((machine.steps(), machine.registers()[3]), (2, 1), "{word:#x}");
    }
}

#[test]
fn nothing_else_is_an_instruction() {
    let others = [
        0,
        ONES,
        0xc000_1073, // unimp: csrrw
        0x3020_0073, // mret
        0x1050_0073, // wfi
        0x0000_100f, // fence.i
        0x0000_2073, // csrrs
        0x0020_0073, // uret
        0x0000_0173, // ecall with a destination
        0x1005_252f, // lr.w
        0x00b5_252f, // amoadd.w
        0x0005_2007, // flw
        0x0000_0001, // c.nop
        0x0005_3003, // ld
        0x0005_6003, // lwu
        0x0005_3023, // sd
        0x0005_2063, // branch with funct3 2
        0x0005_1067, // jalr with funct3 1
        0x0000_001b, // addiw
        0x4000_1033, // sll with funct7 32
        0x4200_0033, // add with funct7 33
        0x4000_7033, // andn (Zbb)
        0x6000_1013, // clz (Zbb)
    ];
    for word in others {
        assert_eq!(decode(word).kind, Kind::Illegal, "{word:#x}");
        assert_eq!(run(&[word]).halt(), Some(Halt::IllegalInstruction(word)));
    }
}

#[test]
fn immediates_decode_over_their_whole_range() {
    for imm in (-2048..2048).map(|imm| imm as u32) {
        assert_eq!(decode(addi(1, 2, imm as i32)).imm, imm);
        assert_eq!(decode(s(2, 1, 2, imm as i32)).imm, imm);
        assert_eq!(decode(b(0, 1, 2, imm as i32 * 2)).imm, imm.wrapping_mul(2));
    }
    for imm in (-(1 << 20)..1 << 20).step_by(2) {
        assert_eq!(decode(jal(1, imm)).imm, imm as u32);
    }
}

#[test]
fn every_register_can_be_source_and_destination() {
    for register in 1..32 {
        let other = register % 31 + 1;
        let code = [
            &li(register, 40)[..],
            &li(other, 2),
            &[r(0, other, register, 0, register), s(2, register, 0, 0)],
        ]
        .concat();
        let machine = run(&code);
        assert_eq!(machine.registers()[register as usize], 42, "x{register}");
        assert_eq!(machine.registers()[other as usize], 2, "x{other}");
        assert_eq!(machine.registers().iter().filter(|value| **value != 0).count(), 2);
        // The last instruction stores to an address that is not mapped.
        assert_eq!(machine.halt(), Some(Halt::UnmappedStore(0)));
    }
}
