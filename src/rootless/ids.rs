//! The ids of an ordinary user's node: root there is the user, and the others are the user's subordinate ones, which
//! newuidmap(1) and newgidmap(1) hand out.

use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use rustix::process::{getegid, geteuid};

/// Maps the ids of a process that has just made its user namespace.
///
/// # Errors
/// A sentence: the user has no subordinate ids, or the programs that map them are missing or refuse.
pub(super) fn map(pid: u32) -> Result<(), String> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let name = name_of(uid, &fs::read_to_string("/etc/passwd").unwrap_or_default());
    for (program, own, file) in [
        ("newuidmap", uid, "/etc/subuid"),
        ("newgidmap", gid, "/etc/subgid"),
    ] {
        let listed = fs::read_to_string(file).unwrap_or_default();
        // Groups are given to users, too.
        let ranges = ranges(&listed, uid, name.as_deref());
        if ranges.is_empty() {
            let name = name.unwrap_or_else(|| uid.to_string());
            return Err(format!(
                "User {name} has no range in {file}, and a pod's files belong to many users; root can give one: usermod \
                 --add-subuids 100000-165535 --add-subgids 100000-165535 {name}."
            ));
        }
        run(program, pid, &mappings(own, &ranges))?;
    }
    Ok(())
}

/// What passwd(5) calls the user; users from elsewhere are known by their environment.
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    listed.or_else(|| std::env::var("USER").ok().filter(|name| !name.is_empty()))
}

/// The user's ranges (first id, number of ids) in a file of subuid(5), which has them by name or by number.
fn ranges(listed: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let (owner, range) = line.trim().split_once(':')?;
        let (first, count) = range.split_once(':')?;
        let is_own = Some(owner) == name || owner.parse() == Ok(uid);
        let range = (first.parse().ok()?, count.parse().ok()?);
        (is_own && range.1 > 0).then_some(range)
    };
    listed.lines().filter_map(range).collect()
}

/// Id 0 is the user, and 1 and all that follow are the ranges one after the other: triples of inside, outside, count.
fn mappings(own: u32, ranges: &[(u32, u32)]) -> Vec<u32> {
    let mut mappings = vec![0, own, 1];
    let mut inside = 1_u32;
    for (first, count) in ranges {
        mappings.extend([inside, *first, *count]);
        inside = inside.saturating_add(*count);
    }
    mappings
}

fn run(program: &str, pid: u32, mappings: &[u32]) -> Result<(), String> {
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(mappings.iter().map(u32::to_string))
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program} does not give the user ids: {}.", said.trim()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!(
            "The program {program} is missing, which gives ordinary users more than one id; install it (Debian's package \
             uidmap), or run berth as root."
        )),
        Err(error) => Err(format!("The program {program} can't be run: {error}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let listed = "other:1:2\nme:100000:65536\n# me:5:5\n1000:300000:10\nme:7:0\nme:x:y\nme\n";
        assert_eq!(
            ranges(listed, 1000, Some("me")),
            [(100_000, 65536), (300_000, 10)]
        );
        assert_eq!(ranges(listed, 1000, None), [(300_000, 10)]);
        assert_eq!(ranges(listed, 1001, Some("you")), []);
    }

    #[test]
    fn the_user_is_root_and_the_ranges_follow() {
        let mapped = mappings(1000, &[(100_000, 65536), (300_000, 10)]);
        assert_eq!(mapped, [0, 1000, 1, 1, 100_000, 65536, 65537, 300_000, 10]);
    }

    #[test]
    fn users_are_named_by_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("me"));
    }
}
