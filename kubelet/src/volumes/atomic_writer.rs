//! Files that change all at once, as configMap, secret, downwardAPI and projected volumes do.
//!
//! ```text
//! <volume>/..2026_11_20_19_30_00.123456789/key   the files
//! <volume>/..data -> ..2026_11_20_19_30_00.123456789
//! <volume>/key -> ..data/key
//! ```
//! A reader that opens `..data` once sees one generation of all files. A new generation is written beside the old one
//! and published by renaming `..data`. The layout is upstream's: programs watch for `..data` to change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use berth_cri::delete_tree;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileContent {
    pub(crate) data: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// The group that owns the file; `None` is root.
    pub(crate) group: Option<u32>,
}

/// All files of a volume by their relative path.
pub(crate) type Payload = BTreeMap<PathBuf, FileContent>;

/// Makes `volume` hold exactly `payload`. Returns whether anything had to change.
pub(crate) fn write(volume: &Path, payload: &Payload) -> io::Result<bool> {
    payload.keys().try_for_each(|path| check_path(path))?;
    check_clashes(payload)?;
    let old = current(volume)?;
    if let Some(old) = &old
        && holds(&volume.join(old), payload)?
    {
        link_names(volume, payload)?;
        delete_strays(volume, payload, Some(old))?;
        return Ok(false);
    }
    let new = generation_name();
    if let Err(error) = write_generation(&volume.join(&new), payload) {
        // It is tried again, and each time would leave another one on a disk that may be full.
        let _ = delete_tree(&volume.join(&new));
        return Err(error);
    }
    publish(volume, &new)?;
    link_names(volume, payload)?;
    delete_strays(volume, payload, Some(&new))?;
    Ok(true)
}

/// Upstream's rule for paths in such a volume: relative, no `..`, and the first name not beginning with `..`.
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    let invalid = |why: &str| {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path {:?} {why}", path.display().to_string()),
        ))
    };
    if path.as_os_str().is_empty() || path.components().any(|c| !matches!(c, Component::Normal(_))) {
        return invalid("must be relative and must not contain \"..\"");
    }
    match path.components().next() {
        Some(first) if first.as_os_str().as_encoded_bytes().starts_with(b"..") => {
            invalid("must not begin with \"..\"")
        }
        _ => Ok(()),
    }
}

/// No file is where another one needs a directory.
fn check_clashes(payload: &Payload) -> io::Result<()> {
    for path in payload.keys() {
        let mut above = path.ancestors().skip(1);
        if let Some(file) = above.find(|above| payload.contains_key(*above)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} is to be below {}, which is a file",
                    path.display(),
                    file.display()
                ),
            ));
        }
    }
    Ok(())
}

/// The generation that is published, if any.
fn current(volume: &Path) -> io::Result<Option<String>> {
    match std::fs::read_link(volume.join(DATA)) {
        Ok(target) => Ok(target.to_str().map(str::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a generation's directory holds exactly the payload, content and modes.
fn holds(generation: &Path, payload: &Payload) -> io::Result<bool> {
    for (path, content) in payload {
        let path = generation.join(path);
        let same = match path.symlink_metadata() {
            Ok(metadata) => {
                metadata.is_file()
                    && metadata.permissions().mode() & 0o7777 == content.mode
                    && std::fs::read(&path)? == content.data
            }
            Err(error) if is_absent(&error) => false,
            Err(error) => return Err(error),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(count_files(generation)? == payload.len())
}

fn count_files(directory: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            count_files(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

fn generation_name() -> String {
    let now = jiff::Timestamp::now();
    format!(
        "..{}.{:09}",
        now.strftime("%Y_%m_%d_%H_%M_%S"),
        now.subsec_nanosecond()
    )
}

fn write_generation(generation: &Path, payload: &Payload) -> io::Result<()> {
    let group = payload.values().find_map(|content| content.group);
    make_directory(generation, group)?;
    for (path, content) in payload {
        let mut directory = generation.to_owned();
        for name in path.parent().into_iter().flat_map(Path::components) {
            directory.push(name);
            match make_directory(&directory, group) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        write_file(&generation.join(path), content)?;
    }
    Ok(())
}

/// With the pod's group (`fsGroup`) it is that one's, and so is what is made in it, as upstream.
fn make_directory(path: &Path, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(path)?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    set_mode(path, if group.is_some() { 0o2755 } else { 0o755 })
}

fn write_file(path: &Path, content: &FileContent) -> io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&content.data)?;
    if content.group.is_some() {
        std::os::unix::fs::fchown(&file, None, content.group)?;
    }
    // After chown, which clears setuid and setgid; not at creation, where the umask takes bits away.
    file.set_permissions(std::fs::Permissions::from_mode(content.mode))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn publish(volume: &Path, generation: &str) -> io::Result<()> {
    let new = volume.join(NEW_DATA);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => symlink(generation, &new)?,
    }
    std::fs::rename(&new, volume.join(DATA))
}

/// The names at the top of the volume.
fn top_names(payload: &Payload) -> BTreeSet<&std::ffi::OsStr> {
    payload
        .keys()
        .filter_map(|path| path.components().next())
        .map(|first| first.as_os_str())
        .collect()
}

fn link_names(volume: &Path, payload: &Payload) -> io::Result<()> {
    for name in top_names(payload) {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes older generations, those that a crash left half-written, and names that are not in the payload any more.
fn delete_strays(volume: &Path, payload: &Payload, generation: Option<&str>) -> io::Result<()> {
    let names = top_names(payload);
    for entry in std::fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let keep = name == DATA || names.contains(name.as_os_str()) || generation.is_some_and(|g| name == g);
        if !keep {
            delete_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| {
                (
                    PathBuf::from(path),
                    FileContent {
                        data: data.as_bytes().to_vec(),
                        mode: 0o644,
                        group: None,
                    },
                )
            })
            .collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.starts_with("..2"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn generations_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        assert!(write(volume, &payload(&[("a", "1"), ("d/e/f", "2")])).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(volume.join("d/e/f")).unwrap(), "2");
        assert_eq!(fs::read_link(volume.join("d")).unwrap(), Path::new("..data/d"));
        assert!(!write(volume, &payload(&[("a", "1"), ("d/e/f", "2")])).unwrap());
        let first = fs::read_link(volume.join(DATA)).unwrap();

        assert!(write(volume, &payload(&[("a", "3"), ("b", "4")])).unwrap());
        assert_ne!(fs::read_link(volume.join(DATA)).unwrap(), first);
        assert_eq!(names(volume), ["..data", "a", "b"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(!volume.join(first).exists());

        assert!(write(volume, &payload(&[("a", "3")])).unwrap());
        assert_eq!(names(volume), ["..data", "a"]);
        assert!(write(volume, &Payload::new()).unwrap());
        assert_eq!(names(volume), ["..data"]);
    }

    #[test]
    fn what_a_crash_left_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        let want = payload(&[("a", "1"), ("b", "2")]);
        write(volume, &want).unwrap();
        fs::remove_file(volume.join("b")).unwrap();
        fs::create_dir(volume.join("..2020_01_01_00_00_00.1")).unwrap();
        symlink("nowhere", volume.join(NEW_DATA)).unwrap();
        assert!(!write(volume, &want).unwrap());
        assert_eq!(fs::read_to_string(volume.join("b")).unwrap(), "2");
        assert_eq!(names(volume), ["..data", "a", "b"]);
        assert!(!volume.join("..2020_01_01_00_00_00.1").exists());
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        write(volume, &payload(&[("a", "1")])).unwrap();
        let before = fs::read_dir(volume).unwrap().count();
        // A name that no file system takes.
        let long = "n".repeat(300);
        assert!(write(volume, &payload(&[("a", "2"), (&long, "x")])).is_err());
        assert_eq!(fs::read_dir(volume).unwrap().count(), before);
        let clash = write(volume, &payload(&[("a", "2"), ("a/b", "x")])).unwrap_err();
        assert_eq!(clash.to_string(), "a/b is to be below a, which is a file");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
    }

    #[test]
    fn a_changed_mode_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let mut want = payload(&[("a", "1")]);
        write(dir.path(), &want).unwrap();
        for content in want.values_mut() {
            content.mode = 0o400;
            content.group = Some(4321);
        }
        assert!(write(dir.path(), &want).unwrap());
        let metadata = fs::metadata(dir.path().join("a")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o400);
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&metadata), 4321);
    }

    #[test]
    fn directories_are_the_group_s_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut want = payload(&[("a/b/c", "1")]);
        want.values_mut().for_each(|content| content.group = Some(4321));
        write(dir.path(), &want).unwrap();
        for path in ["..data", "a", "a/b"] {
            let metadata = fs::metadata(dir.path().join(path)).unwrap();
            let gid = std::os::unix::fs::MetadataExt::gid(&metadata);
            let mode = metadata.permissions().mode() & 0o7777;
            assert_eq!((gid, mode), (4321, 0o2755), "{path}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data", "..x/y"] {
            assert!(write(dir.path(), &payload(&[(path, "x")])).is_err(), "{path}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
