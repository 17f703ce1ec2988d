//! What is a program and what is not, and the root over memory against its definition.

#[path = "riscv/asm.rs"]
mod asm;

use alloy_primitives::B256;
use asm::{addi, li, s};
use kedge_fraud_proof::riscv::{
    ElfFault, Halt, Machine, Program, Stop,
    layout::{INPUT_MAX, SPACE_END, SPACE_START, STACK_TOP},
    memory::PAGES,
    tree::{DEPTH, leaf, node},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// type, offset, virtual address, (physical address), size in the file, size in memory, flags, align
type Segment = [u32; 8];

const CODE: Segment = [1, 0x200, SPACE_START, 0, 8, 8, 5, 4096];
const CONSTANTS: Segment = [1, 0x208, SPACE_START + 0x1000, 0, 4, 4, 4, 4096];
const DATA: Segment = [1, 0x20c, SPACE_START + 0x2000, 0, 4, 0x5000, 6, 4096];

fn elf(segments: &[Segment]) -> Vec<u8> {
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 243] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, SPACE_START, 52, 0, 0] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [52, 32, segments.len() as u16, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    assert_eq!(file.len(), 52);
    file.extend(segments.as_flattened().iter().flat_map(|word| word.to_le_bytes()));
    file.resize(0x200, 0);
    for word in [addi(1, 0, 7), asm::EBREAK, 0xaaaa_aaaa, 0xbbbb_bbbb] {
        file.extend(word.to_le_bytes());
    }
    file
}

fn with(segment: usize, field: usize, value: u32) -> Vec<u8> {
    let mut segments = [CODE, CONSTANTS, DATA];
    segments[segment][field] = value;
    elf(&segments)
}

#[test]
fn a_file_of_code_constants_and_data_is_a_program() {
    let program = Program::from_elf(&elf(&[CODE, CONSTANTS, DATA])).unwrap();
    let mut machine = Machine::new(&program);
    assert_eq!(machine.run(10), Stop::Halt(Halt::Breakpoint));
    assert_eq!((machine.steps(), machine.registers()[1]), (1, 7));
    assert_eq!(machine.memory().word(CONSTANTS[2]), Ok(0xaaaa_aaaa));
    assert_eq!(machine.memory().word(DATA[2]), Ok(0xbbbb_bbbb));
    assert_eq!(machine.memory().word(DATA[2] + 4), Ok(0));
    // Notes and what else is not loaded may be there.
    assert!(Program::from_elf(&elf(&[[4, 0, 0, 0, 0, 0, 0, 0], CODE])).is_ok());
}

#[test]
fn constants_are_read_only_and_data_is_not() {
    for (address, expected) in [
        (CONSTANTS[2], Halt::ReadOnlyStore(CONSTANTS[2])),
        (CONSTANTS[2] + 0xffc, Halt::ReadOnlyStore(CONSTANTS[2] + 0xffc)),
        (DATA[2], Halt::Breakpoint),
    ] {
        let mut file = elf(&[[1, 0x210, SPACE_START, 0, 16, 16, 5, 4096], CONSTANTS, DATA]);
        for word in [&li(1, address)[..], &[s(2, 1, 1, 0), asm::EBREAK]].concat() {
            file.extend(word.to_le_bytes());
        }
        let mut machine = Machine::new(&Program::from_elf(&file).unwrap());
        assert_eq!(machine.run(10), Stop::Halt(expected));
    }
}

#[test]
fn headers_of_other_files_are_refused() {
    let good = elf(&[CODE, CONSTANTS, DATA]);
    for (place, value) in [
        (0, 0),
        (4, 2),  // 64 bits
        (5, 2),  // big-endian
        (6, 0),  // version
        (16, 3), // shared object
        (18, 62),
        (20, 2),
        (36, 1), // compressed instructions
        (36, 2), // floating point
        (40, 64),
        (42, 56),
    ] {
        let mut file = good.clone();
        file[place] = value;
        let fault = Program::from_elf(&file).unwrap_err();
        assert!(matches!(fault, ElfFault::Identity(_)), "{place}: {fault}");
    }
    for entry in [0, SPACE_START - 4, SPACE_START + 2, SPACE_START + 8, DATA[2]] {
        let mut file = good.clone();
        file[24..28].copy_from_slice(&entry.to_le_bytes());
        assert_eq!(Program::from_elf(&file).unwrap_err(), ElfFault::Entry(entry));
    }
    for length in 0..good.len() {
        assert!(Program::from_elf(&good[..length]).is_err(), "{length}");
    }
}

#[test]
fn segments_that_the_machine_has_no_place_for_are_refused() {
    let cases = [
        ("dynamic", with(1, 0, 2)),
        ("interpreter", with(1, 0, 3)),
        ("thread-local", with(1, 0, 7)),
        ("code elsewhere", with(0, 2, SPACE_START + 4096)),
        ("code that is longer in memory", with(0, 5, 12)),
        ("code of half a word", elf(&[[1, 0x200, SPACE_START, 0, 6, 6, 5, 4096]])),
        ("writable code", with(0, 6, 7)),
        ("unreadable code", with(0, 6, 1)),
        ("no code", elf(&[CONSTANTS, DATA])),
        ("two blocks of code", with(1, 6, 5)),
        ("constants on top of code", with(1, 2, SPACE_START)),
        ("constants off a page", with(1, 2, SPACE_START + 0x1004)),
        ("shorter in memory than in the file", with(2, 5, 3)),
        ("beyond the file", with(2, 1, 0x210)),
        ("an offset that overflows", with(2, 1, u32::MAX)),
        ("into the heap", with(2, 5, STACK_TOP)),
        ("around the address space", with(2, 5, u32::MAX)),
        (
            "constants after data",
            elf(&[CODE, DATA, [1, 0x208, SPACE_START + 0x8000, 0, 4, 4, 4, 4096]]),
        ),
    ];
    for (name, file) in cases {
        assert!(Program::from_elf(&file).is_err(), "{name}");
    }
}

#[test]
fn an_input_that_does_not_fit_is_refused() {
    let program = Program::from_words(&[asm::EBREAK]);
    assert!(program.clone().with_input(&[1; 5]).is_ok());
    assert!(program.with_input(&vec![0; INPUT_MAX as usize + 1]).is_err());
}

/// The root by its definition, with the untouched parts of each level computed once.
fn root(pages: &BTreeMap<u32, [u32; 1024]>) -> B256 {
    let mut level: BTreeMap<u32, B256> =
        pages.iter().map(|(number, page)| (*number, leaf(page))).collect();
    let mut untouched = leaf(&[0; 1024]);
    for _ in 0..DEPTH {
        let at = |number: u32| *level.get(&number).unwrap_or(&untouched);
        level = level.keys().map(|key| (key / 2, node(at(key & !1), at(key | 1)))).collect();
        untouched = node(untouched, untouched);
    }
    *level.get(&0).unwrap_or(&untouched)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Stores anywhere, with a root asked for in between at any time.
    #[test]
    fn the_root_is_that_of_all_pages(
        stores in prop::collection::vec(
            (prop_oneof![4..40u32, 4..PAGES as u32 - 16], 0..1024u32, any::<u32>(), any::<bool>()),
            0..30,
        ),
    ) {
        let first = SPACE_START / 4096 + 16;
        let mut code = Vec::new();
        for (page, word, value, _) in &stores {
            code.extend(li(1, (page + first - 4).min(SPACE_END / 4096 - 1) * 4096 + word * 4));
            code.extend(li(2, *value));
            code.push(s(2, 2, 1, 0));
        }
        let mut machine = Machine::new(&Program::from_words(&code));
        let mut pages: BTreeMap<u32, [u32; 1024]> = BTreeMap::new();
        for (word, instruction) in (0..).zip(&code) {
            pages.entry(SPACE_START / 4096 + word / 1024).or_insert([0; 1024])[word as usize % 1024] = *instruction;
        }
        for (page, word, value, ask) in stores {
            prop_assert_eq!(machine.run(5), Stop::Budget);
            let page = (page + first - 4).min(SPACE_END / 4096 - 1);
            pages.entry(page).or_insert([0; 1024])[word as usize] = value;
            if ask {
                prop_assert_eq!(machine.memory_root(), root(&pages));
            }
        }
        prop_assert_eq!(machine.memory_root(), root(&pages));
    }

    /// A damaged file is refused or runs; nothing else.
    #[test]
    fn damaged_files_never_panic(place in 0..0x210usize, value in any::<u8>()) {
        let mut file = elf(&[CODE, CONSTANTS, DATA]);
        file[place] = value;
        if let Ok(program) = Program::from_elf(&file) {
            Machine::new(&program).run(100);
        }
    }
}
