//! What is different for who is root in a user namespace only: overlayfs keeps its marks in attributes that users may set,
//! and there are no devices to make.

use std::sync::OnceLock;

/// Whether this process is in another user namespace than the machine's first.
pub(crate) fn is_in_one() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        !map.is_empty() && !maps_all(&map)
    })
}

/// The first user namespace has all ids, as they are.
fn maps_all(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The attribute by which a directory of a layer hides those below it, as the overlays of this process will read it: in a user
/// namespace they are mounted with `userxattr`.
pub(crate) fn overlay_opaque() -> &'static str {
    if is_in_one() {
        "user.overlay.opaque"
    } else {
        "trusted.overlay.opaque"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_namespace_has_all_ids() {
        assert!(maps_all("         0          0 4294967295\n"));
        assert!(!maps_all(
            "         0       1000          1\n         1     100000      65536\n"
        ));
    }
}
