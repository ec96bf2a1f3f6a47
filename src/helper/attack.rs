//! What a hostile container tries. Each reports what the kernel said; the test judges.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::Outcome;
use crate::args::Args;
use crate::files::errno_name;

/// `attempt WHAT…`: `mount`, `remount` (the root writable), `mknod` (the host's disk), `unshare` (a user namespace),
/// `setns` (PID 1's mount namespace), `ptrace` (PID 1), `chroot`, `sethostname`, `kmsg`, `sysrq`, `cgroup`,
/// `core-pattern`: one line each, `ok` or the errno's name.
pub(crate) fn attempt(args: Args) -> Outcome {
    for what in args.rest() {
        let result = attempt_one(&what)?;
        println!("attempt {what}: {}", errno_name(&result));
    }
    Ok(0)
}

fn attempt_one(what: &str) -> Result<io::Result<()>, String> {
    let none = None::<&str>;
    let result: Result<(), Errno> = match what {
        "mount" => mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), none),
        "remount" => mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none),
        "mknod" => mknod("/disk", SFlag::S_IFBLK, Mode::S_IRUSR, makedev(254, 0)).and_then(|()| {
            let opened = File::open("/disk").map(drop);
            let _ = fs::remove_file("/disk");
            opened.map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))
        }),
        "unshare" => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS),
        "setns" => {
            return Ok(File::open("/proc/1/ns/mnt")
                .and_then(|namespace| setns(namespace, CloneFlags::CLONE_NEWNS).map_err(io::Error::from)));
        }
        "ptrace" => nix::sys::ptrace::attach(nix::unistd::Pid::from_raw(1)),
        "chroot" => nix::unistd::chroot("/proc"),
        "sethostname" => nix::unistd::sethostname("attacked"),
        "kmsg" => return Ok(write_nothing("/dev/kmsg")),
        "sysrq" => return Ok(write_nothing("/proc/sysrq-trigger")),
        "core-pattern" => return Ok(write_nothing("/proc/sys/kernel/core_pattern")),
        "cgroup" => {
            return Ok(fs::create_dir("/sys/fs/cgroup/memory/attacked").or_else(|error| {
                if error.kind() == io::ErrorKind::NotFound {
                    fs::create_dir("/sys/fs/cgroup/attacked")
                } else {
                    Err(error)
                }
            }));
        }
        _ => return Err(format!("there is no attempt {what:?}")),
    };
    Ok(result.map_err(io::Error::from))
}

/// Opens for writing and writes nothing: that it could is the finding.
fn write_nothing(path: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path).map(drop)
}

/// `self-exe [--seconds S]`: for that long (5), looks for processes that are not this program, holds their executables
/// open, and tries to open them for writing (CVE-2019-5736). Prints each new finding; ends with 66 if one was written.
pub(crate) fn self_exe(mut args: Args) -> Outcome {
    let seconds = args.option("--seconds")?.unwrap_or(5.0);
    let own = fs::canonicalize("/proc/self/exe")?;
    crate::signals::end_on_termination(0)?;
    println!("waiting for a runtime");
    let deadline = Instant::now() + Duration::try_from_secs_f64(seconds)?;
    let mut held: Vec<(PathBuf, File)> = Vec::new();
    let mut findings = Vec::new();
    while Instant::now() < deadline {
        for pid in foreign_processes(&own) {
            let link = PathBuf::from(format!("/proc/{pid}/exe"));
            let opened = File::open(&link);
            report(&mut findings, format!("read {}", errno_name(&opened)));
            held.extend(opened.ok().map(|file| (link, file)));
        }
        for (link, file) in &held {
            let again = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            for path in [&again, link] {
                let result = OpenOptions::new().write(true).open(path);
                report(&mut findings, format!("write {}", errno_name(&result)));
                if result.is_ok() {
                    println!("the runtime's program can be overwritten");
                    return Ok(66);
                }
            }
        }
        held.truncate(64);
    }
    println!("nothing was overwritten");
    Ok(0)
}

fn report(findings: &mut Vec<String>, finding: String) {
    if !findings.contains(&finding) {
        println!("{finding}");
        findings.push(finding);
    }
}

/// Processes whose program is another file than ours.
fn foreign_processes(own: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe != own))
        .collect()
}

/// `symlink-race DIR NAME TARGET [--seconds S]`: swaps `DIR/NAME` between a directory and a link to TARGET as fast as it
/// can (CVE-2021-30465).
pub(crate) fn symlink_race(mut args: Args) -> Outcome {
    let seconds = args.option("--seconds")?.unwrap_or(31_536_000.0);
    let directory: PathBuf = args.word("DIR")?;
    let name: String = args.word("NAME")?;
    let target: PathBuf = args.word("TARGET")?;
    crate::signals::end_on_termination(0)?;
    let (place, link) = (directory.join(&name), directory.join(format!("{name}.link")));
    fs::create_dir_all(&place)?;
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(target, &link)?;
    println!("racing");
    let deadline = Instant::now() + Duration::try_from_secs_f64(seconds)?;
    let spare = directory.join(format!("{name}.spare"));
    while Instant::now() < deadline {
        fs::rename(&place, &spare)?;
        fs::rename(&link, &place)?;
        fs::rename(&place, &link)?;
        fs::rename(&spare, &place)?;
    }
    Ok(0)
}
