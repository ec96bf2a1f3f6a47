//! What a machine must have to run pods, checked before anything is made on it.

use std::fs;

/// The oldest kernel that has all that berth can't do without (new mount API, clone3, pidfd, openat2, close_range).
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Why pods can't run here: a sentence that says what to do.
pub(crate) fn check() -> Result<(), String> {
    // An ordinary user's commands run as root of the user's own namespaces, but for those that take the machine's.
    if !rustix::process::geteuid().is_root() {
        return Err(
            "This command makes mounts and cgroups of the machine's, which needs root; run it with sudo."
                .to_owned(),
        );
    }
    let uname = rustix::system::uname();
    check_kernel(&uname.release().to_string_lossy())?;
    check_filesystems(&fs::read_to_string("/proc/filesystems").unwrap_or_default())?;
    check_cgroups(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

fn check_kernel(release: &str) -> Result<(), String> {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    // A release that does not begin with two numbers says nothing; the kernel's own refusals will.
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    if (major, minor) >= OLDEST_KERNEL {
        return Ok(());
    }
    let (major, minor) = OLDEST_KERNEL;
    Err(format!(
        "This is Linux {release}; berth needs {major}.{minor} or newer."
    ))
}

fn check_filesystems(filesystems: &str) -> Result<(), String> {
    let known = filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"));
    // A module may be loaded on first use, but then there is a place to load it from.
    if known || fs::exists("/lib/modules").unwrap_or_default() {
        return Ok(());
    }
    Err("This kernel has no overlayfs; enable CONFIG_OVERLAY_FS or load the module `overlay`.".to_owned())
}

fn check_cgroups(mountinfo: &str) -> Result<(), String> {
    let is_cgroup = |line: &str| {
        let kind = line
            .split_once(" - ")
            .and_then(|(_, rest)| rest.split(' ').next());
        matches!(kind, Some("cgroup" | "cgroup2"))
    };
    if mountinfo.lines().any(is_cgroup) {
        return Ok(());
    }
    Err("No cgroup file system is mounted; mount cgroup2 at /sys/fs/cgroup.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_by_number() {
        for good in ["5.10.0-1-amd64", "6.18.44-fc", "10.0", "strange"] {
            check_kernel(good).unwrap();
        }
        for bad in ["5.9.16", "4.19.0-27-amd64"] {
            assert!(check_kernel(bad).unwrap_err().contains("5.10"), "{bad}");
        }
    }

    #[test]
    fn cgroups_of_either_version_will_do() {
        check_cgroups("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").unwrap();
        check_cgroups("31 30 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n").unwrap();
        let error = check_cgroups("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n").unwrap_err();
        assert!(error.contains("mount cgroup2"), "{error}");
    }
}
