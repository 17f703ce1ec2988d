//! What the bits of an instruction say.
//!
//! Exactly the instructions of RV32I and M decode, 32 bits each. What the specification reserves or
//! leaves to other extensions does not: compressed, atomic, floating point, CSR, `fence.i`, privileged.

/// What an instruction does. Names are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the specification's mnemonics")]
pub enum Kind {
    Lui,
    Auipc,
    Jal,
    Jalr,
    Beq,
    Bne,
    Blt,
    Bge,
    Bltu,
    Bgeu,
    Lb,
    Lh,
    Lw,
    Lbu,
    Lhu,
    Sb,
    Sh,
    Sw,
    Addi,
    Slti,
    Sltiu,
    Xori,
    Ori,
    Andi,
    Slli,
    Srli,
    Srai,
    Add,
    Sub,
    Sll,
    Slt,
    Sltu,
    Xor,
    Srl,
    Sra,
    Or,
    And,
    Fence,
    Ecall,
    Ebreak,
    Mul,
    Mulh,
    Mulhsu,
    Mulhu,
    Div,
    Divu,
    Rem,
    Remu,
    /// No instruction of RV32IM.
    Illegal,
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub kind: Kind,
    /// Destination register, 0 where there is none.
    pub rd: u8,
    /// First source register.
    pub rs1: u8,
    /// Second source register.
    pub rs2: u8,
    /// Sign-extended immediate; of `lui` and `auipc` already shifted, of shifts the amount; of an illegal
    /// instruction its bits.
    pub imm: u32,
}

/// Decodes one instruction. Total: what is no instruction is [`Kind::Illegal`].
pub const fn decode(word: u32) -> Instruction {
    let rd = (word >> 7 & 31) as u8;
    let rs1 = (word >> 15 & 31) as u8;
    let rs2 = (word >> 20 & 31) as u8;
    let funct3 = word >> 12 & 7;
    let funct7 = word >> 25;
    let imm_i = (word as i32 >> 20) as u32;
    let imm_s = (word as i32 >> 20) as u32 & !31 | rd as u32;
    let sign = (word as i32 >> 31) as u32;
    let imm_b = sign << 12 | (word >> 7 & 1) << 11 | (word >> 25 & 63) << 5 | (word >> 8 & 15) << 1;
    let imm_j = sign << 20 | word & 0xf_f000 | (word >> 20 & 1) << 11 | (word >> 21 & 1023) << 1;
    let (kind, rd, imm) = match word & 127 {
        0b011_0111 => (Kind::Lui, rd, word & !0xfff),
        0b001_0111 => (Kind::Auipc, rd, word & !0xfff),
        0b110_1111 => (Kind::Jal, rd, imm_j),
        0b110_0111 if funct3 == 0 => (Kind::Jalr, rd, imm_i),
        0b110_0011 => (branch(funct3), 0, imm_b),
        0b000_0011 => (load(funct3), rd, imm_i),
        0b010_0011 => (store(funct3), 0, imm_s),
        0b001_0011 => match (funct3, funct7) {
            (0b001, 0) => (Kind::Slli, rd, rs2 as u32),
            (0b101, 0) => (Kind::Srli, rd, rs2 as u32),
            (0b101, 0b010_0000) => (Kind::Srai, rd, rs2 as u32),
            _ => (immediate(funct3), rd, imm_i),
        },
        0b011_0011 => (register(funct3, funct7), rd, 0),
        // Reserved fields of `fence` are to be ignored (section 2.7).
        0b000_1111 if funct3 == 0 => (Kind::Fence, 0, 0),
        0b111_0011 if word == 0x0000_0073 => (Kind::Ecall, 0, 0),
        0b111_0011 if word == 0x0010_0073 => (Kind::Ebreak, 0, 0),
        _ => (Kind::Illegal, 0, 0),
    };
    match kind {
        Kind::Illegal => Instruction { kind, rd: 0, rs1: 0, rs2: 0, imm: word },
        _ => Instruction { kind, rd, rs1, rs2, imm },
    }
}

const fn branch(funct3: u32) -> Kind {
    match funct3 {
        0b000 => Kind::Beq,
        0b001 => Kind::Bne,
        0b100 => Kind::Blt,
        0b101 => Kind::Bge,
        0b110 => Kind::Bltu,
        0b111 => Kind::Bgeu,
        _ => Kind::Illegal,
    }
}

const fn load(funct3: u32) -> Kind {
    match funct3 {
        0b000 => Kind::Lb,
        0b001 => Kind::Lh,
        0b010 => Kind::Lw,
        0b100 => Kind::Lbu,
        0b101 => Kind::Lhu,
        _ => Kind::Illegal,
    }
}

const fn store(funct3: u32) -> Kind {
    match funct3 {
        0b000 => Kind::Sb,
        0b001 => Kind::Sh,
        0b010 => Kind::Sw,
        _ => Kind::Illegal,
    }
}

const fn immediate(funct3: u32) -> Kind {
    match funct3 {
        0b000 => Kind::Addi,
        0b010 => Kind::Slti,
        0b011 => Kind::Sltiu,
        0b100 => Kind::Xori,
        0b110 => Kind::Ori,
        0b111 => Kind::Andi,
        _ => Kind::Illegal,
    }
}

const fn register(funct3: u32, funct7: u32) -> Kind {
    match (funct7, funct3) {
        (0, 0b000) => Kind::Add,
        (0, 0b001) => Kind::Sll,
        (0, 0b010) => Kind::Slt,
        (0, 0b011) => Kind::Sltu,
        (0, 0b100) => Kind::Xor,
        (0, 0b101) => Kind::Srl,
        (0, 0b110) => Kind::Or,
        (0, 0b111) => Kind::And,
        (0b010_0000, 0b000) => Kind::Sub,
        (0b010_0000, 0b101) => Kind::Sra,
        (1, 0b000) => Kind::Mul,
        (1, 0b001) => Kind::Mulh,
        (1, 0b010) => Kind::Mulhsu,
        (1, 0b011) => Kind::Mulhu,
        (1, 0b100) => Kind::Div,
        (1, 0b101) => Kind::Divu,
        (1, 0b110) => Kind::Rem,
        (1, 0b111) => Kind::Remu,
        _ => Kind::Illegal,
    }
}
