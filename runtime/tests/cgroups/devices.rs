//! Device rules that are more than a list of what is allowed.

use super::*;

/// Whether the host has a unified hierarchy beside the v1 one with devices.
fn hybrid() -> bool {
    !unified()
        && std::fs::read_to_string("/proc/mounts")
            .unwrap()
            .contains("/unified cgroup2 ")
}

const HOLE: &str = r#"{"devices": [{"allow": false, "access": "rwm"},
    {"allow": true, "type": "c", "major": 1, "access": "rwm"},
    {"allow": false, "type": "c", "major": 1, "minor": 7, "access": "rw"}]}"#;
const LOOK: &str = "for d in null zero full; do head -c 0 < /dev/$d 2>/dev/null && echo $d; done; true";

/// Enters the unified hierarchy too: that is where a hybrid host keeps what v1 can't say.
#[test]
fn an_exception_from_a_wider_one_holds_where_programs_do() {
    let group = Group::new("device-hole");
    if !unified() && !hybrid() {
        let error = group.apply(HOLE).unwrap_err().to_string();
        assert!(error.contains("c 1:7 rw"), "{error}");
        return;
    }
    group.apply(HOLE).unwrap();
    assert_eq!(output(group.shell(LOOK)), "null\nzero\n");
    // The other way round: everything but.
    let but = r#"{"devices": [{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "access": "rw"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]}"#;
    group.apply(but).unwrap();
    assert_eq!(output(group.shell(LOOK)), "null\n");
    // What a list can say leaves no program behind that would still refuse.
    group
        .apply(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#)
        .unwrap();
    assert_eq!(output(group.shell(LOOK)), "null\nzero\nfull\n");
}

#[test]
fn what_two_rules_allow_together_is_allowed() {
    let group = Group::new("device-parts");
    let parts = r#"{"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "access": "r"},
        {"allow": true, "type": "c", "minor": 3, "access": "w"}]}"#;
    group.apply(parts).unwrap();
    // `<>` opens for reading and writing at once.
    let script = "for d in null zero; do (: <> /dev/$d) 2>/dev/null && echo both $d; \
                  (: < /dev/$d) 2>/dev/null && echo read $d; done; true";
    assert_eq!(output(group.shell(script)), "both null\nread null\nread zero\n");
}

#[test]
fn a_later_rule_takes_back_what_a_narrower_one_allowed() {
    let group = Group::new("device-back");
    let rules = r#"{"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "c", "major": 5, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "access": "rw"}]}"#;
    group.apply(rules).unwrap();
    assert_eq!(output(group.shell(LOOK)), "");
}
