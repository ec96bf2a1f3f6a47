//! Device rules as an eBPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`, for the unified hierarchy.
//!
//! The program walks the rules from the last to the first and keeps the kinds of access that no rule has decided yet:
//! an allowing rule takes its kinds away and lets the request pass when none is left; a denying rule that finds one of
//! its kinds refuses. That is exact also where a rule is about a part of a request ("deny writing" for an `O_RDWR`).

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::devices::{ALL, Kind, Rule};
use super::file::Directory;
use super::{Result, is_machines_root};
use crate::sys::bpf::{self, Instruction};

/// Registers: the context, then the request's parts as they are unpacked.
const R0: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 0;

/// Opcodes of `linux/bpf.h`: class, operation and source combined. The 32-bit forms, since all values are u32.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb4;
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// What errors call it: it is no file.
pub(super) const FILE: &str = "the device program";

/// Removes every program that is attached.
pub(super) fn detach(group: &Directory) -> Result<()> {
    let directory = group.fd()?;
    let attached = match bpf::device_programs(directory) {
        Ok(attached) => attached,
        // Then there is none of ours.
        Err(Errno::EPERM | Errno::EINVAL | Errno::ENOSYS) => return Ok(()),
        Err(errno) => return Err(group.failed("query", FILE, errno)),
    };
    attached.iter().try_for_each(|old| {
        bpf::detach_device_program(directory, old.as_fd()).map_err(|e| group.failed("detach", FILE, e))
    })
}

/// Puts a program with these rules in the place of the one that is attached, if there is one.
pub(super) fn attach(group: &Directory, rules: &[Rule]) -> Result<()> {
    let directory = group.fd()?;
    let attached = match bpf::device_programs(directory) {
        // A user may not have programs, and needs none: in its user namespace no device node can be made, and those that
        // it is given are opened with its own permissions.
        Err(Errno::EPERM) if !is_machines_root() => return Ok(()),
        other => other.map_err(|e| group.failed("query", FILE, e))?,
    };
    let harmless = rules.iter().all(|rule| rule.allow && rule.covers_all());
    if harmless && attached.is_empty() {
        return Ok(());
    }
    let program = bpf::load_device_program(&compile(rules)).map_err(|e| group.failed("load", FILE, e))?;
    // All attached programs have to agree, so exactly one may remain.
    let (replaced, superfluous) = match attached.as_slice() {
        [only] => (Some(only.as_fd()), &[][..]),
        several => (None, several),
    };
    bpf::attach_device_program(directory, program.as_fd(), replaced)
        .map_err(|e| group.failed("attach", FILE, e))?;
    superfluous.iter().try_for_each(|old| {
        bpf::detach_device_program(directory, old.as_fd()).map_err(|e| group.failed("detach", FILE, e))
    })
}

pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let op = Instruction::new;
    let mut program = vec![
        // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, access_type = access << 16 | kind
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(MOVE, OPEN, KIND, 0, 0),
        op(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT_IMMEDIATE, OPEN, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(compile_rule(rule));
        if rule.covers_all() {
            return program;
        }
    }
    program.extend(verdict(false));
    program
}

fn compile_rule(rule: &Rule) -> Vec<Instruction> {
    let op = Instruction::new;
    let mut effect = Vec::new();
    match (rule.access, rule.allow) {
        (ALL, allow) => effect.extend(verdict(allow)),
        (access, true) => {
            effect.push(op(AND_IMMEDIATE, OPEN, 0, 0, i32::from(ALL & !access)));
            effect.push(op(JUMP_UNLESS_EQUAL, OPEN, 0, 2, 0));
            effect.extend(verdict(true));
        }
        (access, false) => {
            effect.push(op(MOVE, SCRATCH, OPEN, 0, 0));
            effect.push(op(AND_IMMEDIATE, SCRATCH, 0, 0, i32::from(access)));
            effect.push(op(JUMP_IF_EQUAL, SCRATCH, 0, 2, 0));
            effect.extend(verdict(false));
        }
    }
    let kind = rule
        .kind
        .map(|kind| (KIND, if kind == Kind::Block { 1 } else { 2 }));
    let conditions = [
        kind,
        rule.major.map(|n| (MAJOR, n)),
        rule.minor.map(|n| (MINOR, n)),
    ];
    let mut code = effect;
    for (register, value) in conditions.into_iter().flatten() {
        // At most eleven instructions are skipped.
        let skip = i16::try_from(code.len()).unwrap_or(i16::MAX);
        code.insert(0, op(JUMP_UNLESS_EQUAL, register, 0, skip, value.cast_signed()));
    }
    code
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [
        Instruction::new(MOVE_IMMEDIATE, R0, 0, 0, i32::from(allow)),
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cgroups::devices::{MKNOD, READ, WRITE};
    use proptest::prelude::*;

    /// The rules' meaning, without any cleverness: for each kind of access the last matching rule decides.
    pub(in super::super) fn allowed(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| access & bit != 0)
            .all(|bit| {
                let matches = |rule: &&Rule| {
                    rule.kind.is_none_or(|k| k == kind)
                        && rule.major.is_none_or(|n| n == major)
                        && rule.minor.is_none_or(|n| n == minor)
                        && rule.access & bit != 0
                };
                rules.iter().rev().find(matches).is_some_and(|rule| rule.allow)
            })
    }

    /// The few instructions that are used; anything else fails the test.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            at += 1;
            let immediate = i.immediate().cast_unsigned();
            let (to, from) = (usize::from(i.destination()), usize::from(i.source()));
            let skip = usize::try_from(i.offset()).unwrap();
            match i.opcode() {
                LOAD_WORD => registers[to] = context[skip / 4],
                MOVE => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = immediate,
                AND_IMMEDIATE => registers[to] &= immediate,
                SHIFT_RIGHT_IMMEDIATE => registers[to] >>= immediate,
                JUMP_IF_EQUAL => at += if registers[to] == immediate { skip } else { 0 },
                JUMP_UNLESS_EQUAL => at += if registers[to] != immediate { skip } else { 0 },
                EXIT => return registers[0],
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// In the unified hierarchy of this machine, also where v1 has the devices controller.
    #[test]
    fn the_kernel_takes_and_replaces_programs() {
        let path = format!("berth-test-{}-program", std::process::id());
        let group = crate::cgroups::Cgroup::create(&path).unwrap();
        let Some(unified) = group.unified() else {
            return group.delete().unwrap();
        };
        let rule = |allow, major| Rule {
            allow,
            kind: Some(Kind::Char),
            major: Some(major),
            minor: None,
            access: READ,
        };
        let attached = || bpf::device_programs(unified.fd().unwrap()).unwrap().len();
        attach(
            unified,
            &[Rule {
                allow: true,
                kind: None,
                major: None,
                minor: None,
                access: ALL,
            }],
        )
        .unwrap();
        assert_eq!(attached(), 0, "what allows everything needs no program");
        attach(unified, &[rule(true, 1), rule(false, 5)]).unwrap();
        attach(
            unified,
            &(0..200).map(|n| rule(n % 2 == 0, n)).collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!(attached(), 1);
        // Somebody else's is replaced as well: otherwise both would have to agree.
        let other = bpf::load_device_program(&compile(&[])).unwrap();
        bpf::attach_device_program(unified.fd().unwrap(), other.as_fd(), None).unwrap();
        assert_eq!(attached(), 2);
        attach(unified, &[rule(true, 1)]).unwrap();
        assert_eq!(attached(), 1);
        group.delete().unwrap();
    }

    pub(in super::super) fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let kind = prop_oneof![Just(None), Just(Some(Kind::Block)), Just(Some(Kind::Char))];
        let number = || prop::option::of(prop_oneof![0_u32..3, Just(u32::MAX)]);
        let rule = (any::<bool>(), kind, number(), number(), 1_u8..=7).prop_map(
            |(allow, kind, major, minor, access)| Rule {
                allow,
                kind,
                major,
                minor,
                access,
            },
        );
        prop::collection::vec(rule, 0..12)
    }

    proptest! {
        #[test]
        fn the_program_means_what_the_rules_mean(
            rules in rules(), block in any::<bool>(), major in 0_u32..4, minor in 0_u32..4, access in 1_u8..=7,
        ) {
            let (kind, number) = if block { (Kind::Block, 1) } else { (Kind::Char, 2) };
            let context = [u32::from(access) << 16 | number, major, minor];
            prop_assert_eq!(run(&compile(&rules), context) == 1, allowed(&rules, kind, major, minor, access));
        }
    }
}
