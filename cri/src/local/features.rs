//! What the running kernel lets containers have.

use std::fs;

use crate::types::RuntimeHandler;

/// mount_setattr(2), which makes a whole tree of mounts read-only.
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);
/// Overlays over id-mapped layers, without which a pod's user could not read its image.
const USER_NAMESPACES: (u32, u32) = (5, 19);

/// What the built-in handler can do here; others can have no more of it.
pub(super) fn built_in() -> RuntimeHandler {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let namespaces = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    handler(&release, &namespaces)
}

fn handler(release: &str, max_user_namespaces: &str) -> RuntimeHandler {
    let version = version(release);
    let has = |feature: (u32, u32)| version.is_some_and(|version| version >= feature);
    let allowed = max_user_namespaces.trim().parse::<u64>().is_ok_and(|max| max > 0);
    RuntimeHandler {
        name: String::new(),
        recursive_read_only_mounts: has(RECURSIVE_READ_ONLY),
        user_namespaces: has(USER_NAMESPACES) && allowed,
    }
}

/// The first two numbers of uname(2)'s release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_follow_the_kernel_and_its_settings() {
        for (release, namespaces, recursive, user) in [
            ("5.11.22-generic", "1000\n", false, false),
            ("5.12.0", "1000\n", true, false),
            ("5.18.19+", "1000\n", true, false),
            ("5.19-rc1", "1000\n", true, true),
            ("6.18.44-fc\n", "63000\n", true, true),
            ("10.0.1", "63000\n", true, true),
            ("6.1.0-41-cloud-amd64", "0\n", true, false),
            ("6.1.0", "", true, false),
            ("strange", "63000\n", false, false),
        ] {
            let found = handler(release, namespaces);
            assert_eq!(
                (found.recursive_read_only_mounts, found.user_namespaces),
                (recursive, user),
                "{release:?} {namespaces:?}"
            );
        }
    }
}
