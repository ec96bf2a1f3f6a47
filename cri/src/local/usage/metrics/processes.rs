//! What a container's processes hold open, from `/proc/<pid>` (proc(5)).

use std::fs;

/// Descriptors of some processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptors {
    pub(super) all: u64,
    pub(super) sockets: u64,
}

/// Counts the descriptors of processes; those of one that ends meanwhile are not counted.
pub(super) fn descriptors(pids: impl Iterator<Item = i32>) -> Descriptors {
    let mut found = Descriptors::default();
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            found.all += 1;
            found.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        }
    }
    found
}

/// The soft limit of open files; `None` if the process is gone, or has no limit.
pub(super) fn open_files_limit(pid: i32) -> Option<u64> {
    soft_limit(
        &fs::read_to_string(format!("/proc/{pid}/limits")).ok()?,
        "Max open files",
    )
}

/// `Max open files            1024                 4096                 files`, for instance.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_soft_limit() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 4096                 files     \n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1024));
        assert_eq!(soft_limit(text, "Max cpu time"), None);
        assert_eq!(soft_limit(text, "Max locked memory"), None);
    }

    #[test]
    fn this_processs_own() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = descriptors([own].into_iter());
        let sockets = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let after = descriptors([own].into_iter());
        assert!(
            after.sockets >= 3 && after.all > after.sockets,
            "{before:?} {after:?}"
        );
        assert!(open_files_limit(own).is_some_and(|limit| limit >= after.all));
        drop(sockets);
        assert_eq!(descriptors([-1].into_iter()), Descriptors::default());
    }
}
