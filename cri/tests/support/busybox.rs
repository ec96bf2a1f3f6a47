//! The files of an image with a shell.

use berth_images::build::File;

/// busybox, links for some of what it can be called as, and `/tmp`.
pub(crate) fn files(applets: &[&str]) -> Vec<File> {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut files = vec![
        File::regular("bin/busybox", 0o755, busybox),
        File::directory("tmp", 0o1777),
    ];
    files.extend(
        applets
            .iter()
            .map(|applet| File::symlink(&format!("bin/{applet}"), "busybox")),
    );
    files
}
