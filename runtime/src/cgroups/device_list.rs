//! Device rules as v1 has them: "everything" or "nothing", and a flat list of exceptions from it.
//!
//! The kernel matches the exceptions in its own way, so that the rules are worked out before they are written:
//! - A request is allowed only if one exception has all kinds of access that it wants. Rules that allow one device in
//!   parts, reading by one and writing by another, are therefore joined.
//! - An exception is taken back only by exactly its own words. What is denied again later is left out of the list.
//!
//! An exception from a wider exception ("all of major 1 but not 1:3") can't be said. On a hybrid host an eBPF program in
//! the unified hierarchy says it, and the list only has the wider one; elsewhere it is refused.

use std::os::fd::AsFd;

use nix::fcntl::OFlag;

use super::devices::{FIELD, READ, Rule, WRITE};
use super::file::{Directory, write_once};
use super::{CgroupError, Result, device_program};

/// What one request may want together. Making a node is always asked for alone, so that an exception for it may stay
/// apart, and the list says what the rules say.
const OPENING: u8 = READ | WRITE;

/// Replaces the group's list.
pub(super) fn write(group: &Directory, unified: Option<&Directory>, rules: &[Rule]) -> Result<()> {
    let Some((base, rest)) = rules.split_first() else {
        return Ok(());
    };
    let list = exceptions(*base, rest);
    match (list.inexact, unified) {
        (Some(rule), None) => return Err(inexpressible(&rule)),
        (Some(_), Some(unified)) => device_program::attach(unified, rules)?,
        (None, Some(unified)) => device_program::detach(unified)?,
        (None, None) => {}
    }
    let (mut allow, mut deny) = (None, None);
    for rule in [*base].iter().chain(&list.rules) {
        let (file, slot) = if rule.allow {
            ("devices.allow", &mut allow)
        } else {
            ("devices.deny", &mut deny)
        };
        let fd = match slot {
            Some(fd) => fd,
            None => slot.insert(group.open(file, OFlag::O_WRONLY)?),
        };
        let text = rule.v1_text();
        write_once(fd.as_fd(), text.as_bytes()).map_err(|e| group.refused(file, &text, e))?;
    }
    Ok(())
}

/// Exceptions from "everything" or "nothing".
struct Exceptions {
    rules: Vec<Rule>,
    /// A rule that the list can't say. The list then allows what the rule takes back, never less than all rules do.
    inexact: Option<Rule>,
}

/// Works out the list; `base` is the rule for all devices that the others come after.
fn exceptions(base: Rule, rest: &[Rule]) -> Exceptions {
    let mut list = Exceptions {
        rules: Vec::new(),
        inexact: None,
    };
    for rule in rest {
        if rule.allow != base.allow {
            list.add(*rule);
            continue;
        }
        let touched = |e: &Rule| e.overlaps(rule) && e.access & rule.access != 0;
        if list.rules.iter().any(|e| touched(e) && !rule.covers(e)) {
            list.inexact = Some(*rule);
            // A list that begins with "everything" would deny too much with the exception, and one that begins with
            // "nothing" allows too much with it: the program does the rest.
            if base.allow {
                list.rules.retain(|e| !touched(e) || rule.covers(e));
            }
        }
        for exception in list.rules.iter_mut().filter(|e| rule.covers(e)) {
            exception.access &= !rule.access;
        }
        list.rules.retain(|e| e.access != 0);
    }
    if !base.allow {
        list.join();
    }
    list
}

impl Exceptions {
    fn add(&mut self, rule: Rule) {
        match self.rules.iter_mut().find(|e| e.same_devices(&rule)) {
            Some(known) => known.access |= rule.access,
            None => self.rules.push(rule),
        }
    }

    /// Gives each exception what wider ones allow for its devices too, and those that cross one for what they share.
    fn join(&mut self) {
        let mut at = 0;
        while at < self.rules.len() {
            for other in 0..at {
                let (a, b) = (self.rules[at], self.rules[other]);
                // Where one has all kinds of access of the other, the kernel finds it.
                let (both, of_a, of_b) = (
                    (a.access | b.access) & OPENING,
                    a.access & OPENING,
                    b.access & OPENING,
                );
                if a.overlaps(&b) && both != of_a && both != of_b {
                    self.add(Rule {
                        allow: true,
                        kind: a.kind.or(b.kind),
                        major: a.major.or(b.major),
                        minor: a.minor.or(b.minor),
                        access: a.access | b.access,
                    });
                }
            }
            at += 1;
        }
        // What was joined may now be missing in one that was looked at before it.
        for at in 0..self.rules.len() {
            let wider = self.rules.iter().filter(|e| e.covers(&self.rules[at]));
            let wider = wider.fold(0, |access, e| access | e.access);
            self.rules[at].access |= wider & OPENING;
        }
    }
}

fn inexpressible(rule: &Rule) -> CgroupError {
    CgroupError::Unsupported {
        resource: FIELD.to_owned(),
        reason: format!(
            "cgroup v1 can't express {:?} as an exception from the wider rule before it",
            rule.v1_text()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::device_program::tests::{allowed, rules};
    use super::super::devices::{ALL, Kind, MKNOD};
    use super::*;
    use proptest::prelude::*;

    fn rule(allow: bool, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
        Rule {
            allow,
            kind: Some(Kind::Char),
            major,
            minor,
            access,
        }
    }

    fn everything(allow: bool) -> Rule {
        Rule {
            allow,
            kind: None,
            major: None,
            minor: None,
            access: ALL,
        }
    }

    /// What the kernel does with a list (security/device_cgroup.c).
    fn kernel(base: bool, list: &[Rule], request: &Rule) -> bool {
        let mut matching = list.iter().filter(|e| e.covers(request));
        if base {
            !matching.any(|e| e.access & request.access != 0)
        } else {
            matching.any(|e| request.access & !e.access == 0)
        }
    }

    #[test]
    fn what_is_taken_back_is_left_out() {
        let none = everything(false);
        let narrow = rule(true, Some(1), Some(3), READ | WRITE);
        let list = exceptions(none, &[narrow, rule(false, Some(1), None, WRITE)]);
        assert_eq!(list.rules, [rule(true, Some(1), Some(3), READ)]);
        assert!(list.inexact.is_none());
        let list = exceptions(none, &[narrow, rule(false, None, None, ALL)]);
        assert!(list.rules.is_empty() && list.inexact.is_none());
    }

    #[test]
    fn parts_are_joined() {
        let parts = [rule(true, Some(1), None, READ), rule(true, None, Some(3), WRITE)];
        let list = exceptions(everything(false), &parts);
        assert_eq!(list.rules[2], rule(true, Some(1), Some(3), READ | WRITE));
        let parts = [rule(true, None, None, MKNOD), rule(true, Some(1), Some(3), ALL)];
        assert_eq!(
            exceptions(everything(false), &parts).rules,
            parts,
            "nothing to join"
        );
        let parts = [
            rule(true, Some(1), Some(3), READ | WRITE),
            rule(true, None, None, MKNOD),
        ];
        assert_eq!(
            exceptions(everything(false), &parts).rules,
            parts,
            "nothing to join: a node is made or opened"
        );
    }

    #[test]
    fn holes_in_wider_exceptions_are_not_expressible() {
        let hole = rule(false, Some(1), Some(3), WRITE);
        let list = exceptions(everything(false), &[rule(true, Some(1), None, ALL), hole]);
        assert_eq!((list.inexact, list.rules.len()), (Some(hole), 1));
        let message = inexpressible(&hole).to_string();
        assert!(message.contains("c 1:3 w"), "{message}");
    }

    proptest! {
        /// Where the list says it can express the rules it does, and where not it never denies what they allow.
        #[test]
        fn the_list_means_what_the_rules_mean(
            base in any::<bool>(), rest in rules(), block in any::<bool>(), major in 0_u32..4, minor in 0_u32..4,
            access in proptest::sample::select(vec![MKNOD, READ, WRITE, READ | WRITE]),
        ) {
            let kind = if block { Kind::Block } else { Kind::Char };
            // As they are parsed: rules for both kinds but not all devices are two.
            let rest: Vec<Rule> = rest.into_iter().filter(|rule| !rule.covers_all()).flat_map(|rule| {
                let kinds = rule.kind.map_or_else(|| vec![Kind::Block, Kind::Char], |kind| vec![kind]);
                kinds.into_iter().map(move |kind| Rule { kind: Some(kind), ..rule })
            }).collect();
            let list = exceptions(everything(base), &rest);
            let all: Vec<Rule> = std::iter::once(everything(base)).chain(rest).collect();
            let request = Rule { allow: true, kind: Some(kind), major: Some(major), minor: Some(minor), access };
            let (expected, found) = (allowed(&all, kind, major, minor, access), kernel(base, &list.rules, &request));
            if list.inexact.is_none() {
                prop_assert_eq!(found, expected, "{:?}", list.rules);
            } else {
                prop_assert!(found || !expected, "{:?}", list.rules);
            }
        }
    }
}
