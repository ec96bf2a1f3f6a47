//! The program of a container: found, given its environment, executed.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use crate::oci::Process;
use crate::sys::{CStrings, execve};
use crate::{Error, Result};

/// Searched where the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The exit code of a shell for a program that does not exist.
const NOT_FOUND: u8 = 127;
/// The exit code of a shell for a program that can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// A program with arguments and environment, ready for execve(2).
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    search: String,
    argv: CStrings,
    envp: CStrings,
    needs_home: bool,
    /// The environment's last entry is the one that was needed.
    has_home: bool,
}

impl Program {
    /// Reads the program from `process`.
    pub(crate) fn new(process: &Process) -> Result<Program> {
        let args = &process.args;
        let Some(name) = args.first() else {
            return Err(Error::invalid("process.args", "it is empty"));
        };
        if let Some(bad) = process.env.iter().find(|entry| !entry.contains('=')) {
            return Err(Error::invalid(
                "process.env",
                format!("{bad:?} is not of the form NAME=value"),
            ));
        }
        let env = last_of_each(&process.env);
        let no_zero = |field: &str| Error::invalid(field, "it contains a zero byte");
        let search = env
            .iter()
            .rev()
            .find_map(|e| e.strip_prefix("PATH="))
            .unwrap_or(DEFAULT_PATH);
        Ok(Program {
            name: name.clone(),
            search: search.to_owned(),
            argv: CStrings::new(args.iter().map(String::as_str)).map_err(|_| no_zero("process.args"))?,
            needs_home: !env.iter().any(|e| e.starts_with("HOME=")),
            has_home: false,
            envp: CStrings::new(env).map_err(|_| no_zero("process.env"))?,
        })
    }

    /// Adds `HOME` from the container's `/etc/passwd` if the environment has none. The root directory must be the
    /// container's.
    pub(crate) fn complete_environment(&mut self, uid: u32) {
        if self.needs_home {
            if std::mem::take(&mut self.has_home) {
                self.envp.pop();
            }
            let home = home_of(uid).unwrap_or_else(|| "/".to_owned());
            if let Ok(entry) = CString::new(format!("HOME={home}")) {
                self.envp.push(entry);
                self.has_home = true;
            }
        }
    }

    /// The environment, for programs that run before it.
    pub(crate) fn environment(&self) -> Vec<String> {
        let texts = self.envp.iter().map(|entry| entry.to_string_lossy().into_owned());
        texts.collect()
    }

    /// Finds the program as the process would run it. The root directory must be the container's.
    pub(crate) fn find(&self) -> Result<CString> {
        let text = |path: PathBuf| {
            let text = CString::new(path.into_os_string().into_vec());
            text.map_err(|_| self.cannot_run(Errno::INVAL.into()))
        };
        if self.name.contains('/') {
            let path = PathBuf::from(&self.name);
            return match check(&path) {
                Ok(()) => text(path),
                Err(errno) => Err(self.cannot_run(errno.into())),
            };
        }
        let mut denied = None;
        for directory in self.search.split(':').filter(|d| !d.is_empty()) {
            let path = Path::new(directory).join(&self.name);
            match check(&path) {
                Ok(()) => return text(path),
                Err(Errno::ACCESS) => denied = Some(Errno::ACCESS),
                Err(_) => {}
            }
        }
        match denied {
            Some(errno) => Err(self.cannot_run(errno.into())),
            None => Err(Error::CannotRun {
                exit_code: NOT_FOUND,
                message: format!(
                    "exec: {:?}: executable file not found in $PATH ({})",
                    self.name, self.search
                ),
            }),
        }
    }

    /// Replaces this process's program; returns only upon failure.
    pub(crate) fn execute(&self, path: &CStr) -> Error {
        let error = execve(path, &self.argv, &self.envp);
        self.cannot_run_as(&path.to_string_lossy(), error)
    }

    fn cannot_run(&self, error: io::Error) -> Error {
        self.cannot_run_as(&format!("{:?}", self.name), error)
    }

    fn cannot_run_as(&self, name: &str, error: io::Error) -> Error {
        let exit_code = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let reason = match error.raw_os_error() {
            Some(libc::ENOENT) => "no such file or directory".to_owned(),
            Some(libc::EACCES) => "permission denied".to_owned(),
            Some(libc::ENOEXEC) => "exec format error: not a program for this machine".to_owned(),
            _ => error.to_string(),
        };
        Error::CannotRun {
            exit_code,
            message: format!("exec {name}: {reason}"),
        }
    }
}

/// What an environment says in the end: of entries with one name the last, and no empty `HOME`, which says nothing.
fn last_of_each(env: &[String]) -> Vec<&str> {
    let mut names = BTreeSet::new();
    let mut kept: Vec<&str> = env
        .iter()
        .rev()
        .map(String::as_str)
        .filter(|entry| names.insert(entry.split('=').next()) && *entry != "HOME=")
        .collect();
    kept.reverse();
    kept
}

fn check(path: &Path) -> rustix::io::Result<()> {
    let found = stat(path)?;
    if FileType::from_raw_mode(found.st_mode).is_dir() {
        return Err(Errno::ACCESS);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // A filter from before faccessat2(2) was known is in force already: the exec itself will tell.
        Err(Errno::PERM | Errno::NOSYS) if found.st_mode & 0o111 != 0 => Ok(()),
        Err(Errno::PERM | Errno::NOSYS) => Err(Errno::ACCESS),
        other => other,
    }
}

/// The home directory of a user, as the container's `/etc/passwd` has it.
fn home_of(uid: u32) -> Option<String> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, openat2};
    use std::io::Read;

    /// A larger file is not a password file.
    const MAX_PASSWD: u64 = 1 << 20;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat2(
        CWD,
        "/etc/passwd",
        flags,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    )
    .ok()?;
    if !FileType::from_raw_mode(fstat(&file).ok()?.st_mode).is_file() {
        return None;
    }
    let mut text = String::new();
    std::fs::File::from(file)
        .take(MAX_PASSWD)
        .read_to_string(&mut text)
        .ok()?;
    home_in(&text, uid).map(str::to_owned)
}

fn home_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (id == uid && !home.is_empty()).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_values_counts() {
        let kept = |env: &[&str]| {
            let env: Vec<String> = env.iter().map(|entry| (*entry).to_owned()).collect();
            last_of_each(&env).join(" ")
        };
        assert_eq!(kept(&["A=1", "B=2", "A=3=4"]), "B=2 A=3=4");
        assert_eq!(kept(&["ONE=two", "ONE="]), "ONE=");
        assert_eq!(kept(&["HOME=/x", "A=1", "HOME="]), "A=1");
        assert_eq!(kept(&["HOME=", "HOME=/x", "HOMES="]), "HOME=/x HOMES=");
    }

    #[test]
    fn the_home_directory_comes_from_the_line_of_the_uid() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/srv/www:/bin/false\nno:x:34:34:::\n";
        assert_eq!(home_in(passwd, 0), Some("/root"));
        assert_eq!(home_in(passwd, 33), Some("/srv/www"));
        assert_eq!(home_in(passwd, 34), None);
        assert_eq!(home_in(passwd, 1000), None);
    }
}
