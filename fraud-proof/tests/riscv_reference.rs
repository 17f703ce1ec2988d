//! The machine against a second one, as simple as can be: one instruction at a time, memory byte by
//! byte, arithmetic in wide integers.

#[path = "riscv/asm.rs"]
mod asm;

use asm::{addi, b, i, jal, jalr, li, r, s};
use kedge_fraud_proof::riscv::{
    Halt, Machine, Program, Stop,
    layout::{EXIT_CALL, INPUT, SPACE_END, SPACE_START},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Written from the specification, without a look at the machine.
struct Reference {
    x: [i64; 32],
    pc: i64,
    memory: BTreeMap<i64, u8>,
    code: i64,
    read_only: i64,
}

const WRAP: i64 = 1 << 32;

/// As a signed 32-bit number.
fn signed(value: i64) -> i64 {
    let value = value.rem_euclid(WRAP);
    if value >= WRAP / 2 { value - WRAP } else { value }
}

/// As an unsigned 32-bit number.
fn unsigned(value: i64) -> i64 {
    value.rem_euclid(WRAP)
}

/// The bits `low..=high` of a word.
fn bits(word: i64, high: u32, low: u32) -> i64 {
    (word >> low) % (1 << (high - low + 1))
}

/// A number of so many bits, as a signed one.
fn extend(value: i64, width: u32) -> i64 {
    if value >= 1 << (width - 1) { value - (1 << width) } else { value }
}

impl Reference {
    fn new(code: &[u32]) -> Self {
        let bytes = code.iter().flat_map(|word| word.to_le_bytes());
        let end = i64::from(SPACE_START) + 4 * code.len() as i64;
        Self {
            x: [0; 32],
            pc: i64::from(SPACE_START),
            memory: (i64::from(SPACE_START)..).zip(bytes).collect(),
            code: end,
            read_only: (end + 4095) / 4096 * 4096,
        }
    }

    fn mapped(address: i64) -> bool {
        (i64::from(SPACE_START)..i64::from(SPACE_END)).contains(&address)
    }

    fn peek(&self, address: i64, size: i64) -> i64 {
        (0..size)
            .map(|at| i64::from(*self.memory.get(&(address + at)).unwrap_or(&0)) << (8 * at))
            .sum()
    }

    fn load(&self, address: i64, size: i64) -> Result<i64, Halt> {
        if address % size != 0 {
            return Err(Halt::MisalignedLoad(address as u32));
        }
        if !Self::mapped(address) {
            return Err(Halt::UnmappedLoad(address as u32));
        }
        Ok(self.peek(address, size))
    }

    fn store(&mut self, address: i64, size: i64, value: i64) -> Result<(), Halt> {
        if address % size != 0 {
            return Err(Halt::MisalignedStore(address as u32));
        }
        if !Self::mapped(address) {
            return Err(Halt::UnmappedStore(address as u32));
        }
        if address < self.read_only {
            return Err(Halt::ReadOnlyStore(address as u32));
        }
        for at in 0..size {
            self.memory.insert(address + at, (value >> (8 * at)) as u8);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Halt> {
        if !(i64::from(SPACE_START)..self.code).contains(&self.pc) {
            return Err(Halt::OutsideCode(self.pc as u32));
        }
        let word = self.peek(self.pc, 4);
        let illegal = Err(Halt::IllegalInstruction(word as u32));
        let (a, c) = (self.x[bits(word, 19, 15) as usize], self.x[bits(word, 24, 20) as usize]);
        let (sa, sc) = (signed(a), signed(c));
        let (funct3, funct7) = (bits(word, 14, 12), bits(word, 31, 25));
        let imm_i = extend(bits(word, 31, 20), 12);
        let upper = bits(word, 31, 12) << 12;
        let mut next = self.pc + 4;
        let mut write = None;
        let jump = |target: i64| {
            let target = unsigned(target);
            if target % 4 == 0 { Ok(target) } else { Err(Halt::MisalignedJump(target as u32)) }
        };
        match bits(word, 6, 0) {
            0x37 => write = Some(upper),
            0x17 => write = Some(self.pc + upper),
            0x6f => {
                let offset = bits(word, 30, 21) * 2
                    + bits(word, 20, 20) * 2048
                    + bits(word, 19, 12) * 4096
                    + bits(word, 31, 31) * (1 << 20);
                write = Some(next);
                next = jump(self.pc + extend(offset, 21))?;
            }
            0x67 if funct3 == 0 => {
                write = Some(next);
                next = jump((a + imm_i).div_euclid(2) * 2)?;
            }
            0x63 => {
                let taken = match funct3 {
                    0 => a == c,
                    1 => a != c,
                    4 => sa < sc,
                    5 => sa >= sc,
                    6 => a < c,
                    7 => a >= c,
                    _ => return illegal,
                };
                let offset = bits(word, 11, 8) * 2
                    + bits(word, 30, 25) * 32
                    + bits(word, 7, 7) * 2048
                    + bits(word, 31, 31) * 4096;
                if taken {
                    next = jump(self.pc + extend(offset, 13))?;
                }
            }
            0x03 => {
                let size = match funct3 {
                    0 | 4 => 1,
                    1 | 5 => 2,
                    2 => 4,
                    _ => return illegal,
                };
                let value = self.load(unsigned(a + imm_i), size)?;
                write = Some(if funct3 < 3 { extend(value, 8 * size as u32) } else { value });
            }
            0x23 => {
                let size = match funct3 {
                    0 => 1,
                    1 => 2,
                    2 => 4,
                    _ => return illegal,
                };
                let offset = extend(bits(word, 31, 25) * 32 + bits(word, 11, 7), 12);
                self.store(unsigned(a + offset), size, c)?;
            }
            0x13 => {
                let amount = bits(word, 24, 20);
                write = Some(match (funct3, funct7) {
                    (0, _) => a + imm_i,
                    (2, _) => i64::from(sa < imm_i),
                    (3, _) => i64::from(a < unsigned(imm_i)),
                    (4, _) => sa ^ imm_i,
                    (6, _) => sa | imm_i,
                    (7, _) => sa & imm_i,
                    (1, 0) => a * (1 << amount),
                    (5, 0) => a / (1 << amount),
                    (5, 32) => sa.div_euclid(1 << amount),
                    _ => return illegal,
                });
            }
            0x33 => {
                let product = |a: i64, c: i64| i128::from(a) * i128::from(c);
                let high = |product: i128| product.div_euclid(1 << 32) as i64;
                write = Some(match (funct7, funct3) {
                    (0, 0) => a + c,
                    (32, 0) => a - c,
                    (0, 1) => a * (1 << (c % 32)),
                    (0, 2) => i64::from(sa < sc),
                    (0, 3) => i64::from(a < c),
                    (0, 4) => a ^ c,
                    (0, 5) => a / (1 << (c % 32)),
                    (32, 5) => sa.div_euclid(1 << (c % 32)),
                    (0, 6) => a | c,
                    (0, 7) => a & c,
                    (1, 0) => product(a, c).rem_euclid(1 << 32) as i64,
                    (1, 1) => high(product(sa, sc)),
                    (1, 2) => high(product(sa, c)),
                    (1, 3) => high(product(a, c)),
                    (1, 4) => {
                        if c == 0 {
                            -1
                        } else {
                            sa / sc
                        }
                    }
                    (1, 5) => {
                        if c == 0 {
                            -1
                        } else {
                            a / c
                        }
                    }
                    (1, 6) => {
                        if c == 0 {
                            a
                        } else {
                            sa % sc
                        }
                    }
                    (1, 7) => {
                        if c == 0 {
                            a
                        } else {
                            a % c
                        }
                    }
                    _ => return illegal,
                });
            }
            0x0f if funct3 == 0 => {}
            0x73 if word == 0x73 && self.x[17] == i64::from(EXIT_CALL) => {
                return Err(Halt::Exit(self.x[10] as u32));
            }
            0x73 if word == 0x73 => return Err(Halt::UnknownCall(self.x[17] as u32)),
            0x73 if word == 0x10_0073 => return Err(Halt::Breakpoint),
            _ => return illegal,
        }
        let rd = bits(word, 11, 7) as usize;
        if let (Some(value), 1..) = (write, rd) {
            self.x[rd] = unsigned(value);
        }
        self.pc = next;
        Ok(())
    }
}

/// Steps that the reference makes before it stops for that reason.
fn reference(machine: &mut Reference, limit: u64) -> (u64, Stop) {
    for step in 0..limit {
        if let Err(halt) = machine.step() {
            return (step, Stop::Halt(halt));
        }
    }
    (limit, Stop::Budget)
}

fn agree(code: &[u32], budgets: &[u64]) {
    let mut machine = Machine::new(&Program::from_words(code));
    let mut simple = Reference::new(code);
    let mut steps = 0;
    let mut halted = None;
    for budget in budgets {
        let stop = machine.run(*budget);
        let (made, expected) = match halted {
            Some(halt) => (0, halt),
            None => reference(&mut simple, *budget),
        };
        if expected != Stop::Budget {
            halted = Some(expected);
        }
        steps += made;
        assert_eq!((stop, machine.steps()), (expected, steps));
        assert_eq!(i64::from(machine.pc()), simple.pc);
        let x: Vec<i64> = machine.registers().into_iter().map(i64::from).collect();
        assert_eq!(x, simple.x);
        for (address, byte) in &simple.memory {
            assert_eq!(machine.memory().byte(*address as u32).unwrap(), *byte, "{address:#x}");
        }
    }
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 2, u32::MAX, 0x8000_0000, 0x7fff_ffff, 0xffff, 0x1_0000]),
        any::<u32>(),
        (0..4096u32).prop_map(|offset| INPUT + offset),
    ]
}

/// Instructions on few registers, so that they meet; `x8` points to data most of the time.
fn instruction() -> impl Strategy<Value = u32> {
    let register = 0..9u32;
    let any_imm = -2048..2048i32;
    let operation = prop::sample::select(vec![
        (0, 0),
        (32, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
        (0, 5),
        (32, 5),
        (0, 6),
        (0, 7),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (1, 5),
        (1, 6),
        (1, 7),
    ]);
    let target = prop::sample::select(vec![-16, -8, -4, 4, 8, 12, 16, 40, 6]);
    prop_oneof![
        12 => (operation, register.clone(), register.clone(), 0..8u32)
            .prop_map(|((funct7, funct3), rs1, rs2, rd)| r(funct7, rs2, rs1, funct3, rd)),
        4 => (prop::sample::select(vec![0u32, 2, 3, 4, 6, 7]), register.clone(), 0..8u32, any_imm.clone())
            .prop_map(|(funct3, rs1, rd, imm)| i(0x13, funct3, rd, rs1, imm)),
        3 => (prop::sample::select(vec![(1u32, 0), (5, 0), (5, 1024)]), register.clone(), 0..8u32, 0..32i32)
            .prop_map(|((funct3, high), rs1, rd, amount)| i(0x13, funct3, rd, rs1, high | amount)),
        5 => (prop::sample::select(vec![0u32, 1, 2, 4, 5]), 0..8u32, -64..64i32)
            .prop_map(|(funct3, rd, offset)| i(3, funct3, rd, 8, offset / 4 * 4)),
        5 => (0..3u32, register.clone(), -64..64i32).prop_map(|(funct3, rs2, offset)| s(funct3, rs2, 8, offset / 4 * 4)),
        1 => (0..3u32, register.clone(), register.clone(), any_imm.clone())
            .prop_map(|(funct3, rs2, rs1, imm)| s(funct3, rs2, rs1, imm)),
        1 => (0..6u32, 0..8u32, register.clone(), any_imm.clone())
            .prop_map(|(funct3, rd, rs1, imm)| i(3, funct3, rd, rs1, imm)),
        4 => (prop::sample::select(vec![0u32, 1, 4, 5, 6, 7]), register.clone(), register.clone(), target.clone())
            .prop_map(|(funct3, rs1, rs2, imm)| b(funct3, rs1, rs2, imm)),
        1 => (0..8u32, target).prop_map(|(rd, imm)| jal(rd, imm)),
        1 => (0..8u32, 0..40i32).prop_map(|(rd, place)| jalr(rd, 9, place * 4)),
        1 => (0..8u32, any::<u32>(), any::<bool>())
            .prop_map(|(rd, value, pc)| value << 12 | rd << 7 | if pc { 0x17 } else { 0x37 }),
        1 => prop_oneof![any::<u32>(), Just(asm::ECALL), Just(asm::EBREAK), Just(0x0ff0_000f)],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn machines_agree_on_random_programs(
        values in prop::collection::vec(value(), 7),
        body in prop::collection::vec(instruction(), 1..60),
        budgets in prop::collection::vec(0..60u64, 1..8),
    ) {
        let mut code = Vec::new();
        for (register, value) in (1..).zip(values) {
            code.extend(li(register, value));
        }
        code.extend(li(8, INPUT + 128));
        code.extend(li(9, SPACE_START));
        code.push(addi(17, 0, EXIT_CALL as i32));
        code.extend(body);
        agree(&code, &budgets);
    }

    #[test]
    fn machines_agree_on_random_words(
        words in prop::collection::vec(any::<u32>(), 0..40),
        budgets in prop::collection::vec(0..20u64, 1..4),
    ) {
        agree(&words, &budgets);
    }

    /// Each operation on its own, with many more operands.
    #[test]
    fn machines_agree_on_single_operations(a in value(), c in value(), word in instruction()) {
        agree(&[&li(1, a)[..], &li(2, c), &li(8, INPUT + 128), &[word]].concat(), &[100]);
    }

    #[test]
    fn random_files_are_no_programs(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Program::from_elf(&bytes).is_err());
    }
}
