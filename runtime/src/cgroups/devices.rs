//! `linux.resources.devices`: which device nodes a container may use.
//!
//! The rules are a list in which the last rule that matches decides, and everything is denied before the first. On v1
//! they become a list of exceptions, on v2 an eBPF program.

use crate::oci::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{Cgroup, CgroupError, Controller, Result, device_list, device_program};

pub(super) const FIELD: &str = "linux.resources.devices";

/// Kinds of device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
}

/// What a rule is about: mknod, read, write. The bits are those of `linux/bpf.h` (`BPF_DEVCG_ACC_*`).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

/// One rule; `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Option<Kind>,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

/// What every container may use, whatever its rules deny: all nodes may be made, and the harmless pseudo devices and the
/// container's own terminals used.
fn default_rules() -> impl Iterator<Item = LinuxDeviceCgroup> {
    use LinuxDeviceType::{B, C};
    let rule = |typ, major: Option<i64>, minor: Option<i64>, access: &str| LinuxDeviceCgroup {
        allow: true,
        typ: Some(typ),
        major,
        minor,
        access: access.to_owned(),
    };
    let making = [C, B].map(|typ| rule(typ, None, None, "m"));
    let nodes = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];
    let nodes = nodes.map(|(major, minor)| rule(C, Some(major), Some(minor), "rwm"));
    let terminals = rule(C, Some(136), None, "rwm");
    making.into_iter().chain(nodes).chain([terminals])
}

/// Adds to rules, after the last of them, what every container may use. Nothing is added where there are none, or
/// where they begin with everything allowed: what they then deny is meant.
pub fn allow_default_devices(rules: &mut Vec<LinuxDeviceCgroup>) {
    let base = rules.iter().rfind(|entry| {
        parse_rule(entry).is_ok_and(|parsed| matches!(parsed, [Some(rule), None] if rule.covers_all()))
    });
    if !rules.is_empty() && !base.is_some_and(|base| base.allow) {
        rules.extend(default_rules());
    }
}

pub(super) fn apply(group: &Cgroup, spec: &[LinuxDeviceCgroup]) -> Result<()> {
    let rules = parse(spec)?;
    if rules.is_empty() {
        return Ok(());
    }
    match (group.directory(Controller::Devices), group.unified()) {
        (Some(v1), unified) => device_list::write(v1, unified, &rules),
        (None, Some(unified)) => device_program::attach(unified, &rules),
        (None, None) => Err(CgroupError::NoController {
            resource: FIELD,
            controller: "devices",
        }),
    }
}

/// The rules in their order. Everything before the last rule that covers all devices has no effect and is left out.
pub(super) fn parse(spec: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(spec.len() + 1);
    for entry in spec {
        rules.extend(parse_rule(entry)?.into_iter().flatten());
    }
    match rules.iter().rposition(Rule::covers_all) {
        Some(last) => drop(rules.drain(..last)),
        None if rules.is_empty() => {}
        None => rules.insert(
            0,
            Rule {
                allow: false,
                kind: None,
                major: None,
                minor: None,
                access: ALL,
            },
        ),
    }
    Ok(rules)
}

/// A rule for all kinds with a narrower remainder becomes one for each kind: v1 has no other way to say it.
fn parse_rule(entry: &LinuxDeviceCgroup) -> Result<[Option<Rule>; 2]> {
    let kind = match entry.typ {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Char),
        Some(LinuxDeviceType::P) => return Err(invalid("type", "p", "a FIFO is not a device")),
    };
    let rule = Rule {
        allow: entry.allow,
        kind,
        major: number("major", entry.major)?,
        minor: number("minor", entry.minor)?,
        access: access(&entry.access)?,
    };
    if kind.is_some() || rule.covers_all() {
        return Ok([Some(rule), None]);
    }
    Ok([Kind::Block, Kind::Char].map(|kind| {
        Some(Rule {
            kind: Some(kind),
            ..rule
        })
    }))
}

fn number(field: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| invalid(field, &n.to_string(), "it is not a device number")),
    }
}

fn access(letters: &str) -> Result<u8> {
    let mut bits = 0;
    for letter in letters.chars() {
        bits |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(invalid("access", &letter.to_string(), "it is made of r, w and m")),
        };
    }
    Ok(if bits == 0 { ALL } else { bits })
}

fn invalid(field: &str, value: &str, reason: &str) -> CgroupError {
    CgroupError::Value {
        resource: format!("{FIELD}.{field}"),
        value: value.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Rule {
    pub(super) fn covers_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    pub(super) fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether every device of the other rule is one of this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        fn has<T: PartialEq>(wide: Option<T>, narrow: Option<T>) -> bool {
            wide.is_none() || wide == narrow
        }
        has(self.kind, other.kind) && has(self.major, other.major) && has(self.minor, other.minor)
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        fn meet<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        meet(self.kind, other.kind) && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    /// As `devices.allow` and `devices.deny` take it.
    pub(super) fn v1_text(&self) -> String {
        let kind = match self.kind {
            None => return "a".to_owned(),
            Some(Kind::Block) => 'b',
            Some(Kind::Char) => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let letters = [(READ, "r"), (WRITE, "w"), (MKNOD, "m")];
        let access: String = letters
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|(_, s)| *s)
            .collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_defaults(rules: &[(bool, LinuxDeviceType, Option<i64>)]) -> Vec<String> {
        let mut list: Vec<LinuxDeviceCgroup> = rules
            .iter()
            .map(|(allow, typ, major)| LinuxDeviceCgroup {
                allow: *allow,
                typ: Some(*typ),
                major: *major,
                ..LinuxDeviceCgroup::default()
            })
            .collect();
        allow_default_devices(&mut list);
        parse(&list).unwrap().iter().map(Rule::v1_text).collect()
    }

    #[test]
    fn the_default_devices_come_after_the_rules_and_take_none_of_them_back() {
        use LinuxDeviceType::{A, B, C};
        assert_eq!(
            with_defaults(&[(false, A, None), (true, C, Some(10))])[..4],
            ["a", "c 10:* rwm", "c *:* m", "b *:* m"]
        );
        assert_eq!(with_defaults(&[(true, C, Some(10))]).len(), 12);
        assert_eq!(with_defaults(&[(false, A, None), (true, A, None)]), ["a"]);
        assert_eq!(
            with_defaults(&[(true, A, None), (false, B, Some(8))]),
            ["a", "b 8:* rwm"]
        );
        assert!(with_defaults(&[]).is_empty());
    }

    #[test]
    fn a_list_without_a_base_starts_from_nothing() {
        let only = LinuxDeviceCgroup {
            allow: true,
            typ: Some(LinuxDeviceType::C),
            major: Some(1),
            minor: Some(3),
            access: String::new(),
        };
        let rules = parse(&[only]).unwrap();
        assert_eq!(
            rules.iter().map(Rule::v1_text).collect::<Vec<_>>(),
            ["a", "c 1:3 rwm"]
        );
        assert!(!rules[0].allow);
    }

    #[test]
    fn a_narrow_rule_for_all_kinds_is_split() {
        let reading = LinuxDeviceCgroup {
            allow: true,
            access: "r".to_owned(),
            ..LinuxDeviceCgroup::default()
        };
        let texts: Vec<String> = parse(&[reading]).unwrap().iter().map(Rule::v1_text).collect();
        assert_eq!(texts, ["a", "b *:* r", "c *:* r"]);
    }
}
