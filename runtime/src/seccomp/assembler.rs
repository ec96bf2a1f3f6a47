//! Classic BPF, put together from the end to the beginning.
//!
//! Jumps of classic BPF only go forward, so that, built backwards, each target is in place when a jump to it is added:
//! distances are known at once. A conditional jump reaches 255 instructions; past that, an unconditional one is put in
//! between.

/// One instruction of classic BPF, as the kernel's `struct sock_filter` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation code.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

const REACH: usize = u8::MAX as usize;

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The instruction that was added last: what runs first so far.
    pub(super) fn here(&self) -> Label {
        Label(self.reversed.len() - 1)
    }

    /// Returns a value. An earlier one is shared where it is near enough.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self
            .returns
            .iter()
            .rev()
            .find(|(v, _)| *v == value)
            .map(|(_, label)| *label);
        if let Some(label) = known.filter(|label| self.reversed.len() - label.0 < REACH / 2) {
            return label;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.push((value, label));
        label
    }

    /// Loads a word of `seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.go_on(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Masks what was loaded, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.go_on(next);
        self.push(AND, 0, 0, mask)
    }

    /// Compares what was loaded, and goes on at one of the two.
    pub(super) fn branch(&mut self, code: u16, k: u32, holds: Label, fails: Label) -> Label {
        // One more instruction may come in between for `fails`.
        let holds = self.in_reach(holds, 1);
        let fails = self.in_reach(fails, 0);
        let (jt, jf) = (self.distance(holds), self.distance(fails));
        self.push(code, jt, jf, k)
    }

    /// The program in running order.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// Sees to it that the next instruction falls through to `next`.
    fn go_on(&mut self, next: Label) {
        if next != self.here() {
            let skip = u32::try_from(self.reversed.len() - next.0 - 1).unwrap_or(u32::MAX);
            self.push(JUMP, 0, 0, skip);
        }
    }

    fn in_reach(&mut self, target: Label, margin: usize) -> Label {
        if self.reversed.len() - target.0 - 1 + margin <= REACH {
            return target;
        }
        let skip = u32::try_from(self.reversed.len() - target.0 - 1).unwrap_or(u32::MAX);
        self.push(JUMP, 0, 0, skip)
    }

    fn distance(&self, target: Label) -> u8 {
        u8::try_from(self.reversed.len() - target.0 - 1).unwrap_or(u8::MAX)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.here()
    }
}
