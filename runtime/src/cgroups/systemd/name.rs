//! Names of units, and the groups that they are.

use super::super::{CgroupError, Result};
use super::Scope;

/// The prefix of a scope for which no cgroupsPath was given.
const PREFIX: &str = "berth";

pub(super) fn parse(cgroups_path: &str, id: &str, user: bool) -> Result<Scope> {
    let parts: Vec<&str> = if cgroups_path.is_empty() {
        vec!["", PREFIX, id]
    } else {
        cgroups_path.split(':').collect()
    };
    let &[slice, prefix, name] = parts.as_slice() else {
        return refuse(
            cgroups_path,
            "for the systemd driver it has the form slice:prefix:name",
        );
    };
    if name.ends_with(".slice") {
        return refuse(
            cgroups_path,
            "a container is a scope, and a slice can't hold processes",
        );
    }
    let unit = format!("{prefix}-{name}.scope");
    let valid = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    if name.is_empty() || unit.len() > 255 || !unit.bytes().all(valid) {
        return refuse(
            &unit,
            "it is no name of a unit: up to 255 letters, digits and :-_.\\@",
        );
    }
    let slice = match (slice, user) {
        ("", false) => "system.slice",
        ("", true) => "user.slice",
        (given, _) => given,
    };
    expand(slice)?;
    Ok(Scope {
        unit,
        slice: slice.to_owned(),
        user,
    })
}

/// The path of a slice's group: `a-b.slice` is in `a.slice`, so that it is `/a.slice/a-b.slice`. The root, `-.slice`,
/// is empty.
pub(super) fn expand(slice: &str) -> Result<String> {
    let stem = match slice.strip_suffix(".slice") {
        Some("-") => return Ok(String::new()),
        Some(stem) => stem,
        None => return refuse(slice, "a slice's name ends in .slice"),
    };
    let valid = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    if slice.len() > 255 || stem.split('-').any(str::is_empty) || !stem.bytes().all(valid) {
        return refuse(slice, "it is no name of a slice, as in machine-test.slice");
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("/{}.slice", &stem[..end])).collect())
}

fn refuse<T>(path: &str, reason: &'static str) -> Result<T> {
    Err(CgroupError::Path {
        path: path.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_three_parts() {
        let scope = parse("machine-a.slice:libpod:12", "id", false).unwrap();
        assert_eq!(
            scope.cgroup_path().unwrap(),
            "/machine.slice/machine-a.slice/libpod-12.scope"
        );
        let scope = parse(":docker:12", "id", false).unwrap();
        assert_eq!(scope.cgroup_path().unwrap(), "/system.slice/docker-12.scope");
        let scope = parse("", "id", true).unwrap();
        assert_eq!(
            (scope.slice.as_str(), scope.unit.as_str()),
            ("user.slice", "berth-id.scope")
        );
        assert_eq!(
            parse("-.slice::x", "", false).unwrap().cgroup_path().unwrap(),
            "/-x.scope"
        );
    }

    #[test]
    fn other_paths_are_refused() {
        for bad in [
            "/kubepods/x",
            "a:b",
            "a.slice:b:c:d",
            "a:b:c",
            "a--b.slice:x:y",
            "-a.slice:x:y",
            "a/b.slice:x:y",
            ".slice:x:y",
            "a.slice:x:",
            "a.slice:x:y/../z",
            "a.slice:x:y z",
            "a.slice:x:y.slice",
        ] {
            assert!(parse(bad, "id", false).is_err(), "{bad}");
        }
        assert!(parse(&format!("a.slice:x:{}", "y".repeat(256)), "id", false).is_err());
    }
}
