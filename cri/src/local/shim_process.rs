//! Starting a shim, and making sure that one is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::cgroups::{Cgroup, CgroupError};
use berth_shim::protocol::{CONFIG_NAME, RECORD_NAME, ShimRecord};
use nix::fcntl::{Flock, FlockArg};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::cgroups::Place;
use super::records;
use crate::engine::EngineError;

/// A shim that says more than this when it can't start is not listened to any longer.
const MAX_COMPLAINT: u64 = 16 << 10;
/// How long a shim may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a shim that was told to end is left alone with that.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long a shim may take to end after it was told to, or killed.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the shim of a sandbox directory. Returns when it listens.
pub(super) async fn start(program: &Path, directory: &Path) -> Result<(), EngineError> {
    let mut child = Command::new(program)
        .arg("shim")
        .arg(directory)
        // No directory is set, which the shim does itself: with one, the process would be forked, with all of its memory
        // that is mapped, and not just be made for the program.
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal is for berth, which stops the pod in its own way.
        .process_group(0)
        .spawn()
        .map_err(|error| cannot_start(program, &error))?;
    let mut complaint = Vec::new();
    let wait = async {
        if let Some(stderr) = child.stderr.take() {
            stderr.take(MAX_COMPLAINT).read_to_end(&mut complaint).await?;
        }
        child.wait().await
    };
    let waited = tokio::time::timeout(START_TIMEOUT, wait).await;
    let status = waited.map_err(|_| {
        EngineError::Internal(format!(
            "The shim did not start within {} s.",
            START_TIMEOUT.as_secs()
        ))
    })?;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(EngineError::Unavailable(complained(&complaint, status))),
        Err(error) => Err(EngineError::Internal(format!(
            "The shim can't be waited for: {error}."
        ))),
    }
}

fn complained(complaint: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(complaint);
    match text.trim() {
        "" => format!("The pod's shim could not start ({status})."),
        text => format!("The pod's shim could not start: {text}"),
    }
}

fn cannot_start(program: &Path, error: &io::Error) -> EngineError {
    let program = program.display();
    EngineError::Unavailable(match error.kind() {
        io::ErrorKind::NotFound => format!(
            "The program {program} is missing; berth-oci belongs beside berth, or where BERTH_OCI says."
        ),
        _ => format!("The program {program} can't be run: {error}."),
    })
}

/// Makes sure that a sandbox has no shim and no process any more, and removes its cgroups.
///
/// The shim is recognised by its lock on the sandbox's intent: a process that holds it is one, however it came to be,
/// and one that begins later finds the intent gone.
pub(super) async fn ensure_gone(directory: &Path, cgroups: &[Place]) -> Result<(), EngineError> {
    let (directory, cgroups) = (directory.to_owned(), cgroups.to_vec());
    let task = tokio::task::spawn_blocking(move || {
        for cgroup in &cgroups {
            clear(cgroup)?;
        }
        take_intent(&directory)?;
        // A shim that was still starting may have made its cgroup again before it lost the intent.
        cgroups.iter().try_for_each(clear)
    });
    task.await
        .unwrap_or_else(|error| Err(EngineError::Internal(format!("The engine failed: {error}."))))
}

/// Takes the lock that a living shim holds, killing the shim if it does not let go, and removes the intent under it.
fn take_intent(directory: &Path) -> Result<(), EngineError> {
    let path = directory.join(CONFIG_NAME);
    let failed = |error: io::Error| {
        EngineError::Internal(format!(
            "The sandbox's intent {} can't be taken back: {error}.",
            path.display()
        ))
    };
    let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_held) => {
                return match std::fs::remove_file(&path) {
                    // Whoever had the lock before was here for the same, and has done it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other.map_err(failed),
                };
            }
            Err((unlocked, nix::errno::Errno::EWOULDBLOCK)) if begun.elapsed() < END_TIMEOUT => {
                file = unlocked;
                if begun.elapsed() > END_PATIENCE {
                    kill_recorded(directory);
                }
                // The kernel tells nobody when a lock of another process is free, except who waits for it for ever.
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        }
    }
}

/// Kills the shim that the record names, if it is still that process.
fn kill_recorded(directory: &Path) {
    let Ok(Some(record)) = records::read::<ShimRecord>(&directory.join(RECORD_NAME)) else {
        return;
    };
    let Some(pid) = rustix::process::Pid::from_raw(record.pid) else {
        return;
    };
    // The descriptor is taken before the start time is compared: from then on it can't be another process.
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    if start_time(record.pid) == Some(record.start_time) {
        // A process that has ended meanwhile is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
    }
}

/// Field 22 of `/proc/<pid>/stat`, see proc_pid_stat(5).
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may contain both spaces and parentheses.
    stat[stat.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

/// Kills what is in a cgroup and removes it, with the scope that it is of; one that is not there is clear.
fn clear(Place { path: cgroup, scope }: &Place) -> Result<(), EngineError> {
    let cleared = || -> Result<(), CgroupError> {
        if let Some(cgroup) = Cgroup::open(&cgroup.to_string_lossy())? {
            cgroup.kill_all()?;
            cgroup.delete()?;
        }
        scope.as_ref().map_or(Ok(()), Scope::stop)
    };
    cleared().map_err(|error| {
        EngineError::Internal(format!(
            "The cgroup {} can't be removed: {error}",
            cgroup.display()
        ))
    })
}

/// Whether a shim lives, by its lock on the sandbox's intent.
pub(super) fn lives(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(CONFIG_NAME)) else {
        return false;
    };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many descriptors of this process lead to a file.
    fn opened(path: &Path) -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        entries
            .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path))
            .count()
    }

    #[test]
    fn an_intent_that_another_takes_back_meanwhile_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONFIG_NAME);
        let first = Flock::lock(File::create(&path).unwrap(), FlockArg::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| take_intent(directory.path()));
            let deadline = Instant::now() + END_TIMEOUT;
            while opened(&path) < 2 && Instant::now() < deadline {
                std::thread::yield_now();
            }
            std::fs::remove_file(&path).unwrap();
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
