//! Instructions from their fields (unprivileged specification, chapter "Instruction Set Listings").
#![allow(dead_code, unreachable_pub, reason = "each user takes a part of it")]

pub fn r(funct7: u32, rs2: u32, rs1: u32, funct3: u32, rd: u32) -> u32 {
    funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x33
}

pub fn i(opcode: u32, funct3: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    assert!((-2048..2048).contains(&imm));
    (imm as u32) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

pub fn s(funct3: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    assert!((-2048..2048).contains(&imm));
    let imm = imm as u32;
    (imm >> 5 & 127) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (imm & 31) << 7 | 0x23
}

pub fn b(funct3: u32, rs1: u32, rs2: u32, imm: i32) -> u32 {
    assert!((-4096..4096).contains(&imm) && imm % 2 == 0);
    let imm = imm as u32;
    (imm >> 12 & 1) << 31
        | (imm >> 5 & 63) << 25
        | rs2 << 20
        | rs1 << 15
        | funct3 << 12
        | (imm >> 1 & 15) << 8
        | (imm >> 11 & 1) << 7
        | 0x63
}

pub fn jal(rd: u32, imm: i32) -> u32 {
    assert!((-(1 << 20)..1 << 20).contains(&imm) && imm % 2 == 0);
    let imm = imm as u32;
    (imm >> 20 & 1) << 31
        | (imm >> 1 & 1023) << 21
        | (imm >> 11 & 1) << 20
        | (imm >> 12 & 255) << 12
        | rd << 7
        | 0x6f
}

pub fn jalr(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x67, 0, rd, rs1, imm)
}

pub fn addi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i(0x13, 0, rd, rs1, imm)
}

pub fn lui(rd: u32, imm20: u32) -> u32 {
    imm20 << 12 | rd << 7 | 0x37
}

pub fn auipc(rd: u32, imm20: u32) -> u32 {
    imm20 << 12 | rd << 7 | 0x17
}

/// Any value into a register.
pub fn li(rd: u32, value: u32) -> [u32; 2] {
    let low = (value << 20) as i32 >> 20;
    [lui(rd, value.wrapping_sub(low as u32) >> 12), addi(rd, rd, low)]
}

pub const ECALL: u32 = 0x73;
pub const EBREAK: u32 = 0x0010_0073;
