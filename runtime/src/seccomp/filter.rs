//! From rules to a filter.
//!
//! The filter first tells the architectures apart, then looks the number up by bisection over runs of numbers that are
//! treated alike: some seven comparisons for a profile of 350 calls, none of which looks at an argument. The kernel
//! finds out by itself that such calls are always allowed, and then does not run the filter for them at all
//! (Linux 5.11).

use crate::oci::{LinuxSeccomp, LinuxSeccompOperator};

use super::SeccompError;
use super::arch::{Abi, X32_BIT};
use super::assembler::{Assembler, Instruction, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, Label};
use super::rules::{Chain, Condition, KILL_PROCESS, NO_SUCH_CALL, Rule, Rules, default_action, resolve};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The kernel's `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;

/// A run of numbers, up to the next one's first, that are treated alike.
struct Run {
    first: u32,
    chain: Chain,
    /// Arguments have 32 bits.
    narrow: bool,
}

/// What a tracer makes of the number of a call that it has the kernel skip.
const SKIPPED: u32 = u32::MAX;

pub(crate) fn build(profile: &LinuxSeccomp, native: Abi) -> Result<Vec<Instruction>, SeccompError> {
    let abis = Abi::selected(native, &profile.architectures);
    let mut assembler = Assembler::default();
    // A process of an architecture that the profile does not know would get around all of its rules.
    let mut next = assembler.ret(KILL_PROCESS);
    for audit_number in audit_numbers(&abis) {
        let here: Vec<Abi> = abis
            .iter()
            .copied()
            .filter(|abi| abi.audit_number() == audit_number)
            .collect();
        let start = lookup(&mut assembler, &runs(profile, &here)?);
        let start = assembler.load(NUMBER, start);
        next = assembler.branch(JUMP_EQUAL, audit_number, start, next);
    }
    assembler.load(ARCHITECTURE, next);
    let program = assembler.finish();
    if program.len() > MOST_INSTRUCTIONS {
        Err(SeccompError::TooLong(program.len()))
    } else {
        Ok(program)
    }
}

/// The machine's own last, because what is built last is tried first.
fn audit_numbers(abis: &[Abi]) -> Vec<u32> {
    let mut numbers: Vec<u32> = abis.iter().map(|abi| abi.audit_number()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// All numbers of one audit architecture, from 0 on.
fn runs(profile: &LinuxSeccomp, abis: &[Abi]) -> Result<Vec<Run>, SeccompError> {
    let mut runs = Vec::new();
    for abi in abis {
        runs.extend(abi_runs(&resolve(profile, *abi)?, *abi));
    }
    if abis == [Abi::X86_64] {
        let x32 = [(X32_BIT, KILL_PROCESS), (SKIPPED, default_action(profile)?)];
        runs.extend(x32.map(|(first, action)| Run {
            first,
            chain: always(action),
            narrow: false,
        }));
    }
    runs.dedup_by(|later, earlier| later.chain == earlier.chain && later.narrow == earlier.narrow);
    Ok(runs)
}

fn abi_runs(rules: &Rules, abi: Abi) -> Vec<Run> {
    let narrow = abi.narrow();
    let otherwise = |number| match rules.unknown_from {
        Some(from) if number >= from => NO_SUCH_CALL,
        _ => rules.default,
    };
    let mut runs = vec![];
    let mut next = abi.base();
    let gap = |runs: &mut Vec<Run>, from: u32, to: u32| {
        let border = rules.unknown_from.filter(|border| from < *border && *border < to);
        for first in [Some(from).filter(|_| from < to), border].into_iter().flatten() {
            runs.push(Run {
                first,
                chain: always(otherwise(first)),
                narrow,
            });
        }
    };
    for (number, chain) in &rules.by_number {
        gap(&mut runs, next, *number);
        let mut chain = chain.clone();
        if chain.last().is_some_and(|last| !last.conditions.is_empty()) {
            chain.extend(always(rules.default));
        }
        runs.push(Run {
            first: *number,
            chain,
            narrow,
        });
        next = number + 1;
    }
    gap(&mut runs, next, u32::MAX);
    runs
}

fn always(action: u32) -> Chain {
    vec![Rule {
        conditions: Vec::new(),
        action,
    }]
}

/// Bisects; the number is loaded already.
fn lookup(assembler: &mut Assembler, runs: &[Run]) -> Label {
    match runs {
        [] => assembler.ret(KILL_PROCESS),
        [only] => chain(assembler, &only.chain, only.narrow),
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            let border = high[0].first;
            let high = lookup(assembler, high);
            let low = lookup(assembler, low);
            assembler.branch(JUMP_GREATER_OR_EQUAL, border, high, low)
        }
    }
}

/// The first rule whose conditions all hold decides; the last one has none.
fn chain(assembler: &mut Assembler, rules: &[Rule], narrow: bool) -> Label {
    let Some((last, conditional)) = rules.split_last() else {
        return assembler.ret(KILL_PROCESS);
    };
    let mut next = assembler.ret(last.action);
    for rule in conditional.iter().rev() {
        let mut here = assembler.ret(rule.action);
        for condition in rule.conditions.iter().rev() {
            here = compare(assembler, condition, narrow, here, next);
        }
        next = here;
    }
    next
}

/// The kernel's words are 32 bits, arguments 64: the high half first, the low half if that does not settle it.
fn compare(
    assembler: &mut Assembler,
    condition: &Condition,
    narrow: bool,
    holds: Label,
    fails: Label,
) -> Label {
    use LinuxSeccompOperator as Op;
    let (value, two) = (halves(condition.value), halves(condition.value_two));
    let offset = ARGUMENTS + condition.argument * 8;
    let mut word = Word {
        assembler,
        offset,
        narrow,
        value,
    };
    match condition.operator {
        Op::Eq => word.equal(holds, fails),
        Op::Ne => word.equal(fails, holds),
        Op::Gt => word.ordered(JUMP_GREATER, holds, fails),
        Op::Le => word.ordered(JUMP_GREATER, fails, holds),
        Op::Ge => word.ordered(JUMP_GREATER_OR_EQUAL, holds, fails),
        Op::Lt => word.ordered(JUMP_GREATER_OR_EQUAL, fails, holds),
        Op::MaskedEq => word.masked(two, holds, fails),
    }
}

/// The low and the high half.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// An argument that is compared with a value; low half, high half.
struct Word<'a> {
    assembler: &'a mut Assembler,
    offset: u32,
    narrow: bool,
    value: (u32, u32),
}

impl Word<'_> {
    fn equal(&mut self, holds: Label, fails: Label) -> Label {
        let low = self.assembler.branch(JUMP_EQUAL, self.value.0, holds, fails);
        let low = self.assembler.load(self.offset, low);
        if self.narrow {
            return low;
        }
        let high = self.assembler.branch(JUMP_EQUAL, self.value.1, low, fails);
        self.assembler.load(self.offset + 4, high)
    }

    /// `code` is "greater" or "greater or equal", which differ in the low half only.
    fn ordered(&mut self, code: u16, holds: Label, fails: Label) -> Label {
        let low = self.assembler.branch(code, self.value.0, holds, fails);
        let low = self.assembler.load(self.offset, low);
        if self.narrow {
            return low;
        }
        let same = self.assembler.branch(JUMP_EQUAL, self.value.1, low, fails);
        let high = self.assembler.branch(JUMP_GREATER, self.value.1, holds, same);
        self.assembler.load(self.offset + 4, high)
    }

    /// The value is the mask.
    fn masked(&mut self, expected: (u32, u32), holds: Label, fails: Label) -> Label {
        let low = self.assembler.branch(JUMP_EQUAL, expected.0, holds, fails);
        let low = self.assembler.and(self.value.0, low);
        let low = self.assembler.load(self.offset, low);
        // Masks of flags rarely reach the high half.
        if self.narrow || (self.value.1 == 0 && expected.1 == 0) {
            return low;
        }
        let high = self.assembler.branch(JUMP_EQUAL, expected.1, low, fails);
        let high = self.assembler.and(self.value.1, high);
        self.assembler.load(self.offset + 4, high)
    }
}
