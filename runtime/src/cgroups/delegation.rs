//! Who we are to the cgroup hierarchies, and where below them we may make groups.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};

use super::{Cgroup, CgroupPath, Hierarchies, Result};

/// Whether this process is root in the first user namespace, with all that root may do there.
pub fn is_machines_root() -> bool {
    let all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    rustix::process::geteuid().is_root() && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(all)
}

/// Whether the user of this process is the host's root, perhaps in a user namespace: the one that the system's services
/// know as root.
pub fn is_host_root() -> bool {
    let own = rustix::process::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    outside(own, &map) == Some(0)
}

impl Cgroup {
    /// Gives the group to a user, by the number that the host knows it by: the user may then make groups below it, move
    /// processes between them and divide what the group has, but not raise its limits (cgroups(7), "Cgroups
    /// delegation"). In the unified hierarchy only; v1 has no safe delegation.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        let Some(unified) = self.unified() else {
            return Ok(());
        };
        let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let list = list
            .as_deref()
            .unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n");
        for file in std::iter::once(".").chain(list.lines()) {
            let owner = Some(Uid::from_raw(uid));
            match fchownat(unified.fd()?, file, owner, None, AtFlags::empty()) {
                // Controllers that the group doesn't have have files in the list too.
                Ok(()) | Err(Errno::ENOENT) => {}
                // It is the user's own, or nobody here may give it to another.
                Err(Errno::EPERM) if !is_machines_root() => {}
                Err(errno) => return Err(unified.failed("give away", file, errno)),
            }
        }
        Ok(())
    }
}

/// The number that a user has outside of the user namespace with this map.
fn outside(uid: u32, map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
            numbers.next()?.ok()?,
        );
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// Where a container's group is below the root of each hierarchy, for `linux.cgroupsPath` without systemd.
///
/// `.` and `..` are resolved in the text, and don't lead above the root. A relative path begins at the root, as the
/// specification leaves to the runtime, or on cgroup v2 for who is not the host's root beside its own group, where a
/// delegated tree is. No path is the container's id as a relative one.
///
/// # Errors
/// When what is left is not a path of a group.
pub fn path_for(cgroups_path: &str, id: &str) -> Result<String> {
    let given = if cgroups_path.is_empty() { id } else { cgroups_path };
    let mut path = clean(given);
    if !given.starts_with('/') && Hierarchies::get()?.is_unified() && !is_host_root() {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        path = format!("{}{path}", beside(&groups));
    }
    CgroupPath::new(&path)?;
    Ok(path)
}

/// An absolute path without `.`, `..` and repeated slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The group above our own in the unified hierarchy: ours has processes, so that it can't pass controllers on.
fn beside(groups: &str) -> &str {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.and_then(|own| own.rsplit_once('/'))
        .map_or("", |(above, _)| above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbered_by_maps() {
        assert_eq!(outside(0, "         0          0 4294967295\n"), Some(0));
        let podman = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(
            (outside(0, podman), outside(1, podman), outside(65536, podman)),
            (Some(1000), Some(100_000), Some(165_535))
        );
        assert_eq!(outside(65537, podman), None);
        assert_eq!(outside(0, ""), None);
    }

    #[test]
    fn dots_stay_below_the_root() {
        for (given, expected) in [
            ("a/b", "/a/b"),
            ("/a/./b//c/", "/a/b/c"),
            ("/../../a", "/a"),
            ("/a/../../b/../c", "/c"),
        ] {
            assert_eq!(path_for(given, "id").unwrap(), expected, "{given}");
        }
        assert_eq!(path_for("", "id").unwrap(), "/id");
        for bad in ["/", "..", "/a/..", "a\nb"] {
            assert!(path_for(bad, "id").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_user_s_groups_are_beside_its_own() {
        let groups =
            "1:name=systemd:/x\n0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope\n";
        assert_eq!(
            beside(groups),
            "/user.slice/user-1000.slice/user@1000.service/app.slice"
        );
        assert_eq!(beside("0::/\n"), "");
        assert_eq!(beside(""), "");
    }
}
