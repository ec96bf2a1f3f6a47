//! Groups above and below: what is passed on, given away, and removed.

use std::os::unix::fs::MetadataExt;

use super::*;

/// The group's directory in the unified hierarchy, where there is one.
fn unified_directory(group: &Cgroup) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let point = mounts
        .lines()
        .find(|line| line.contains(" cgroup2 "))?
        .split(' ')
        .nth(1)?
        .to_owned();
    Some(PathBuf::from(point).join(group.path().as_str()))
}

/// A container that divided its group among threads, and left one behind.
#[test]
fn a_threaded_group_is_killed_and_removed() {
    let group = Group::new("threaded");
    let Some(directory) = unified_directory(&group.0) else {
        return;
    };
    // The hierarchy's controllers, if it has any, don't all work with threads.
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    group.0.add_process(pid).unwrap();
    let below = directory.join("threads");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("cgroup.type"), "threaded").unwrap();
    std::fs::write(below.join("cgroup.threads"), pid.to_string()).unwrap();
    assert_eq!(
        std::fs::read_to_string(below.join("cgroup.threads"))
            .unwrap()
            .trim(),
        pid.to_string()
    );
    assert_eq!(group.0.pids().unwrap(), [pid]);
    group.0.kill_all().unwrap();
    child.wait().unwrap();
    group.0.delete().unwrap();
    assert!(!directory.exists());
}

#[test]
fn a_frozen_group_is_not_reused() {
    let group = Group::new("reuse");
    let path = group.0.path().as_str();
    assert!(Cgroup::create_unused(path).unwrap().is_some());
    group.0.freeze().unwrap();
    let error = Cgroup::create_unused(path).unwrap_err().to_string();
    assert!(error.contains("reuse") && error.contains("frozen"), "{error}");
    group.0.thaw().unwrap();
}

#[test]
fn a_group_that_is_given_away_is_its_new_owners() {
    let group = Group::new("owner");
    let Some(directory) = unified_directory(&group.0) else {
        return;
    };
    group.0.give_to(1234).unwrap();
    let owner = |file: &str| std::fs::metadata(directory.join(file)).unwrap().uid();
    for file in [".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        assert_eq!(owner(file), 1234, "{file}");
    }
    assert_eq!(owner("cgroup.freeze"), 0);
    if unified() {
        assert_eq!(owner("memory.max"), 0, "limits stay ours");
    }
}

/// Below a group that has processes itself there are no controllers: a group can be made there, but not limited.
#[test]
fn limits_below_a_group_with_processes_say_why_not() {
    if !unified() {
        return;
    }
    let above = Group::new("inner-processes");
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    above
        .0
        .add_process(Pid::from_raw(child.id().cast_signed()))
        .unwrap();
    let below = Cgroup::create(&format!("{}/below", above.0.path())).unwrap();
    below.apply(&resources("{}")).unwrap();
    for json in [
        r#"{"memory": {"limit": 16777216}}"#,
        r#"{"unified": {"memory.high": "1"}}"#,
    ] {
        let error = below.apply(&resources(json)).unwrap_err().to_string();
        assert!(error.contains("holds processes itself"), "{error}");
    }
    above.0.kill_all().unwrap();
    child.wait().unwrap();
}

/// Whoever made a group removes it when its container has ended, while others may just be killing or resuming it.
#[test]
fn a_group_that_goes_meanwhile_needs_no_kill_and_no_thaw() {
    const ROUNDS: usize = 500;
    let above = Group::new("going");
    let path = format!("{}/container", above.0.path());
    for _ in 0..ROUNDS {
        let group = Cgroup::create(&path).unwrap();
        let other = Cgroup::open(&path).unwrap().unwrap();
        let below = other.subgroup("exec").unwrap();
        std::thread::scope(|scope| {
            let remover = scope.spawn(|| group.delete().unwrap());
            loop {
                let last = remover.is_finished();
                assert!(!other.is_frozen().unwrap());
                other.thaw().unwrap();
                other.kill_all().unwrap();
                if let Some(below) = &below {
                    below.kill().unwrap();
                }
                if last {
                    break;
                }
            }
        });
        assert_eq!(other.pids().unwrap(), []);
    }
}
