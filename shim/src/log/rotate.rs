//! Rotated logs: `<name>.<yyyymmdd-hhmmss>` beside the live one, as kubelet names them, and only so many of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::clock;

/// Names rotated files so that they sort by age, however many there are in one second and wherever the clock goes.
#[derive(Default)]
pub(crate) struct Rotator {
    stamp: String,
    counter: u32,
}

impl Rotator {
    /// Moves the live file aside under a name that no other has.
    pub(crate) fn set_aside(&mut self, dir: BorrowedFd<'_>, name: &OsStr, now: u64) -> io::Result<()> {
        let stamp = clock::rotation_stamp(now);
        if stamp > self.stamp {
            (self.stamp, self.counter) = (stamp, 0);
        }
        while self.counter < 1_000_000 {
            let target = rotated_name(name, &self.stamp, self.counter);
            self.counter += 1;
            match rename_to_new(dir, name, &target) {
                Err(Errno::EXIST) => {}
                done => return Ok(done?),
            }
        }
        Err(Errno::EXIST.into())
    }
}

fn rename_to_new(dir: BorrowedFd<'_>, name: &OsStr, target: &OsStr) -> Result<(), Errno> {
    match renameat_with(dir, name, dir, target, RenameFlags::NOREPLACE) {
        // Some file systems know no flags; nobody else makes such names here, so looking first is enough.
        Err(Errno::INVAL | Errno::NOSYS) => match statat(dir, target, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => renameat(dir, name, dir, target),
        },
        done => done,
    }
}

/// Deletes the oldest rotated files until `keep` are left.
pub(crate) fn prune(dir: BorrowedFd<'_>, name: &OsStr, keep: usize) -> io::Result<()> {
    let readable = openat(
        dir,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut rotated = Vec::new();
    for entry in Dir::new(readable)? {
        let entry = entry?;
        if is_rotated(entry.file_name().to_bytes(), name.as_bytes()) {
            rotated.push(entry.file_name().to_owned());
        }
    }
    rotated.sort_unstable_by(|a, b| age_key(a.to_bytes()).cmp(age_key(b.to_bytes())));
    let surplus = rotated.len().saturating_sub(keep);
    for old in rotated.drain(..surplus) {
        match unlinkat(dir, &old, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn rotated_name(name: &OsStr, stamp: &str, counter: u32) -> OsString {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(b'.');
    bytes.extend_from_slice(stamp.as_bytes());
    if counter > 0 {
        bytes.extend_from_slice(format!("-{counter:06}").as_bytes());
    }
    OsString::from_vec(bytes)
}

/// Ours, or one that kubelet rotated (and perhaps compressed) earlier.
fn is_rotated(file: &[u8], live: &[u8]) -> bool {
    let stamp = file.strip_prefix(live).and_then(|rest| rest.strip_prefix(b"."));
    stamp.and_then(|rest| rest.get(..15)).is_some_and(|stamp| {
        stamp.iter().enumerate().all(|(at, byte)| {
            if at == 8 {
                *byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        })
    })
}

/// Stamps sort as text, once the compressor's suffix is off.
fn age_key(file: &[u8]) -> &[u8] {
    file.strip_suffix(b".gz").unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn many_rotations_within_a_second_keep_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let handle = std::fs::File::open(dir.path()).unwrap();
        let (name, mut rotator) = (OsStr::new("0.log"), Rotator::default());
        std::fs::write(dir.path().join("0.log.not-ours"), "").unwrap();
        for turn in 0..30 {
            std::fs::write(dir.path().join("0.log"), format!("{turn}")).unwrap();
            rotator
                .set_aside(handle.as_fd(), name, 1_700_000_000_000_000_000)
                .unwrap();
            prune(handle.as_fd(), name, 3).unwrap();
        }
        let mut left: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let stamp = "0.log.20231114-221320";
        let expected = ["-000027", "-000028", "-000029"].map(|counter| format!("{stamp}{counter}"));
        assert_eq!(left[..3], expected);
        assert_eq!(left[3], "0.log.not-ours");
        assert_eq!(
            std::fs::read_to_string(dir.path().join(&expected[2])).unwrap(),
            "29"
        );
    }

    #[test]
    fn only_stamped_names_are_rotated_logs() {
        assert!(is_rotated(b"0.log.20231114-221320", b"0.log"));
        assert!(is_rotated(b"0.log.20231114-221320-0001", b"0.log"));
        assert!(is_rotated(b"0.log.20231114-221320.gz", b"0.log"));
        assert!(!is_rotated(b"0.log", b"0.log"));
        assert!(!is_rotated(b"10.log.20231114-221320", b"0.log"));
        assert!(!is_rotated(b"0.log.backup", b"0.log"));
    }
}
