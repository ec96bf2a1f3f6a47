//! Device rules as systemd can say them: a list of what is allowed, everything else denied.

use super::super::Result;
use super::super::devices::{Kind, MKNOD, READ, Rule, WRITE, parse};
use super::manager::Property;
use crate::dbus::Value;
use crate::oci::LinuxDeviceCgroup;

/// `DevicePolicy` and `DeviceAllow`. Rules that deny by default become the list of what they allow in the end; what
/// systemd has no words for is left out of its list, which then is stricter. Rules that allow by default become "all":
/// the exceptions are in the rules that we write ourselves.
pub(super) fn properties(spec: &[LinuxDeviceCgroup]) -> Result<Vec<Property>> {
    let rules = parse(spec)?;
    let Some(base) = rules.first() else {
        return Ok(Vec::new());
    };
    let (policy, allowed) = if base.allow {
        ("auto", Vec::new())
    } else {
        let groups = std::fs::read_to_string("/proc/devices").unwrap_or_default();
        ("strict", allowed(&rules[1..], &groups))
    };
    let entry = |(device, access)| Value::Struct(vec![Value::Text(device), Value::Text(access)]);
    let list = allowed.into_iter().map(entry).collect();
    Ok(vec![
        ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
        ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), list)),
    ])
}

/// The allowing rules, without what a later rule takes from them again.
fn allowed(rules: &[Rule], groups: &str) -> Vec<(String, String)> {
    let mut list = Vec::new();
    for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.allow) {
        let taken = rules[at + 1..]
            .iter()
            .filter(|later| !later.allow && later.overlaps(rule));
        let access = taken.fold(rule.access, |access, later| access & !later.access);
        if let (Some(device), true) = (device(rule, groups), access != 0) {
            list.push((device, letters(access)));
        }
    }
    list
}

/// A node by its numbers, or a group of devices by its name in `/proc/devices`.
fn device(rule: &Rule, groups: &str) -> Option<String> {
    let (kind, header) = match rule.kind? {
        Kind::Block => ("block", "Block devices:"),
        Kind::Char => ("char", "Character devices:"),
    };
    match (rule.major, rule.minor) {
        (None, None) => Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (None, Some(_)) => None,
        (Some(major), None) => {
            let section = groups.lines().skip_while(|line| *line != header).skip(1);
            let mut entries = section
                .take_while(|line| !line.is_empty())
                .filter_map(|line| line.trim().split_once(' '));
            let number = major.to_string();
            entries
                .find(|(n, _)| *n == number)
                .map(|(_, name)| format!("{kind}-{name}"))
        }
    }
}

fn letters(access: u8) -> String {
    let all = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    all.iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, letter)| *letter)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::devices::allow_default_devices;
    use super::*;

    const GROUPS: &str =
        "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n  1 ramdisk\n259 blkext\n";

    fn list(json: &str) -> Vec<(String, String)> {
        let spec: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        allowed(&parse(&spec).unwrap()[1..], GROUPS)
    }

    #[test]
    fn nodes_groups_and_wildcards() {
        let json = r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "c", "major": 136, "access": "rwm"},
            {"allow": true, "type": "b", "major": 1, "access": "r"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "b", "major": 77, "access": "r"},
            {"allow": true, "type": "b", "minor": 7, "access": "r"}]"#;
        let expected = [
            ("/dev/char/1:3", "rw"),
            ("char-pts", "rwm"),
            ("block-ramdisk", "r"),
            ("char-*", "m"),
        ];
        assert_eq!(
            list(json),
            expected.map(|(device, access)| (device.to_owned(), access.to_owned()))
        );
    }

    #[test]
    fn what_is_denied_later_is_not_allowed() {
        let json = r#"[{"allow": true, "type": "c", "major": 1, "access": "rw"},
            {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}]"#;
        assert_eq!(list(json), [("char-mem".to_owned(), "r".to_owned())]);
        let json = r#"[{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "w"},
            {"allow": false, "type": "c", "access": "w"}]"#;
        assert_eq!(list(json), []);
    }

    #[test]
    fn everything_and_the_usual() {
        let all: Vec<LinuxDeviceCgroup> =
            serde_json::from_str(r#"[{"allow": true, "access": "rwm"}]"#).unwrap();
        assert_eq!(properties(&all).unwrap()[0].1, Value::Text("auto".to_owned()));
        let mut usual = vec![LinuxDeviceCgroup::default()];
        allow_default_devices(&mut usual);
        let usual = properties(&usual).unwrap();
        assert_eq!(usual[0].1, Value::Text("strict".to_owned()));
        assert!(matches!(&usual[1].1, Value::Array(kind, items) if kind == "(ss)" && items.len() >= 9));
        assert!(properties(&[]).unwrap().is_empty());
    }
}
