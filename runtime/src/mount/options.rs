//! The options of a mount, as fstab and the runtime specification spell them.

use crate::{Error, Result};

/// `MOUNT_ATTR__ATIME`: to be cleared whenever an access time setting is made.
const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;

/// What a mount's options say, sorted by the system call that carries them out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `MOUNT_ATTR_*` to set on the mount itself.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount itself.
    pub(crate) clear: u64,
    /// `MOUNT_ATTR_*` to set on the mount and all below it.
    pub(crate) set_recursive: u64,
    /// `MOUNT_ATTR_*` to clear on the mount and all below it.
    pub(crate) clear_recursive: u64,
    /// `MS_SHARED` and its like, in the order in which they are set: a mount can be a slave and shared.
    pub(crate) propagation: Vec<Propagation>,
    /// A bind mount, with (`true`) or without what is mounted below its source.
    pub(crate) bind: Option<bool>,
    /// Ids are mapped, also of what is mounted below (`true`) or of the mount only.
    pub(crate) idmap: Option<bool>,
    /// A tmpfs begins with what its place in the image holds.
    pub(crate) copy_up: bool,
    /// The mount that is there already is changed.
    pub(crate) remount: bool,
    /// Parameters of the file system: `key` or `key=value`.
    pub(crate) data: Vec<String>,
}

/// How mounts and unmounts pass between a mount and its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub(crate) kind: u64,
    /// For all mounts below, too.
    pub(crate) recursive: bool,
}

impl Propagation {
    /// The propagation of that name: `rprivate`, `slave`…
    pub(crate) fn from_name(name: &str) -> Option<Propagation> {
        let (base, recursive) = match name.strip_prefix('r') {
            Some(base) => (base, true),
            None => (name, false),
        };
        let kind = match base {
            "shared" => libc::MS_SHARED,
            "slave" => libc::MS_SLAVE,
            "private" => libc::MS_PRIVATE,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return None,
        };
        Some(Propagation { kind, recursive })
    }
}

/// The names that set or clear an attribute of a mount: name, bits to set, bits to clear.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME_MASK),
    ("relatime", libc::MOUNT_ATTR_RELATIME, ATIME_MASK),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME_MASK),
];

/// The names that take one access time setting back, and leave another one alone.
const NOT_ATIME: &[(&str, u64)] = &[
    ("atime", libc::MOUNT_ATTR_NOATIME),
    ("norelatime", libc::MOUNT_ATTR_RELATIME),
    ("nostrictatime", libc::MOUNT_ATTR_STRICTATIME),
];

/// Options that belong to the file system's superblock and have no meaning for a bind mount.
const SUPERBLOCK: &[&str] = &[
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
];

/// Options that change nothing: they name the default, or ask the kernel to log less.
const NOTHING: &[&str] = &["defaults", "silent", "loud"];

/// Options that say what kind of mount it is.
const KINDS: &[&str] = &["bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"];

/// The mount options that are known by name, sorted; others are parameters of the file system.
pub fn mount_options() -> Vec<String> {
    let attributes = ATTRIBUTES
        .iter()
        .map(|(name, ..)| *name)
        .chain(NOT_ATIME.iter().map(|(name, _)| *name));
    let recursive = attributes.clone().map(|name| format!("r{name}"));
    let propagations = ["shared", "slave", "private", "unbindable"];
    let mut names: Vec<String> = attributes
        .chain(SUPERBLOCK.iter().copied())
        .chain(NOTHING.iter().copied())
        .chain(propagations)
        .chain(KINDS.iter().copied())
        .map(str::to_owned)
        .chain(recursive)
        .chain(propagations.iter().map(|name| format!("r{name}")))
        .collect();
    names.sort_unstable();
    names
}

impl Options {
    /// Sorts the options of a mount.
    pub(crate) fn parse(options: &[String]) -> Result<Options> {
        let mut parsed = Options::default();
        for option in options {
            parsed.add(option)?;
        }
        Ok(parsed)
    }

    /// Refuses what a bind mount has no use for.
    pub(crate) fn check_bind(&self, destination: &str) -> Result<()> {
        match self.data.first() {
            Some(stray) => {
                let reason = format!("a bind mount takes no option {stray:?}");
                Err(Error::invalid(format!("mounts[{destination}].options"), reason))
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, option: &str) -> Result<()> {
        if change(&mut self.set, &mut self.clear, option) {
            return Ok(());
        }
        if let Some(propagation) = Propagation::from_name(option) {
            self.propagation.push(propagation);
            return Ok(());
        }
        let recursive = option.strip_prefix('r').unwrap_or_default();
        if change(&mut self.set_recursive, &mut self.clear_recursive, recursive) {
            return Ok(());
        }
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "idmap" => self.idmap = Some(self.idmap.unwrap_or(false)),
            "ridmap" => self.idmap = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "remount" => self.remount = true,
            "" => return Err(Error::invalid("mounts[].options", "an option is empty")),
            known if NOTHING.contains(&known) => {}
            // Some callers join parameters as mount(8) does. One with quotes or escapes is left as it is.
            data if data.contains(['"', '\\']) => self.data.push(data.to_owned()),
            data => {
                let parts = data.split(',').filter(|part| !part.is_empty());
                self.data.extend(parts.map(str::to_owned));
            }
        }
        Ok(())
    }
}

/// Applies the name of an attribute to the bits to set and to clear. As with mount(8) the last of two contrary ones wins.
fn change(set: &mut u64, clear: &mut u64, name: &str) -> bool {
    if let Some((_, on, off)) = ATTRIBUTES.iter().find(|(known, ..)| *known == name) {
        *set = *set & !off | on;
        *clear = *clear & !on | off;
        return true;
    }
    let Some((_, negated)) = NOT_ATIME.iter().find(|(known, _)| *known == name) else {
        return false;
    };
    let current = *set & ATIME_MASK;
    if current == *negated || current == 0 {
        *set &= !ATIME_MASK;
        *clear |= ATIME_MASK;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Options {
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        Options::parse(&options).unwrap()
    }

    #[test]
    fn the_last_of_two_contrary_options_wins() {
        assert_eq!(parse("ro,rw").set, 0);
        assert_eq!(parse("ro,rw").clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rw,ro").set, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("noatime,strictatime").set, libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(parse("noatime,atime").set, 0);
        assert_eq!(parse("noatime,atime").clear, ATIME_MASK);
        assert_eq!(parse("noatime,nostrictatime").set, libc::MOUNT_ATTR_NOATIME);
        assert_eq!(
            parse("rstrictatime,ratime").set_recursive,
            libc::MOUNT_ATTR_STRICTATIME
        );
    }

    #[test]
    fn names_that_begin_with_r_are_told_apart() {
        assert_eq!(
            parse("relatime"),
            Options {
                clear: ATIME_MASK,
                ..Options::default()
            }
        );
        assert_eq!(parse("rro").set_recursive, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rrw").clear_recursive, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(parse("rw").clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(
            parse("rslave").propagation,
            [Propagation {
                kind: libc::MS_SLAVE,
                recursive: true
            }]
        );
        assert_eq!(parse("bind,rbind").bind, Some(true));
    }

    #[test]
    fn every_listed_name_is_known() {
        for name in mount_options() {
            let parsed = parse(&name);
            assert!(
                parsed != Options::default() || NOTHING.contains(&name.as_str()),
                "{name} does nothing"
            );
            assert!(
                parsed.data.is_empty() || SUPERBLOCK.contains(&name.as_str()),
                "{name} is not known"
            );
        }
    }

    #[test]
    fn what_is_not_known_goes_to_the_file_system_but_not_to_a_bind_mount() {
        assert_eq!(parse("mode=755,size=64k,nosuid").data, ["mode=755", "size=64k"]);
        let joined =
            Options::parse(&["mode=755,size=64k".to_owned(), "context=\"a:b,c\"".to_owned()]).unwrap();
        assert_eq!(joined.data, ["mode=755", "size=64k", "context=\"a:b,c\""]);
        let options = ["bind".to_owned(), "size=64k".to_owned()];
        let parsed = Options::parse(&options).unwrap();
        assert!(
            parsed
                .check_bind("/x")
                .unwrap_err()
                .to_string()
                .contains("size=64k")
        );
    }
}
