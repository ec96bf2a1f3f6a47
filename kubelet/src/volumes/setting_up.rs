//! Volumes that are being set up: how far that is, and its end when nobody wants it any more.
//!
//! What mounts a file system from elsewhere may wait for minutes for a server that does not answer. It is a program of its
//! own, so that it can be ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::Pod;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// A pod's volumes that are being set up.
#[derive(Debug)]
pub struct SettingUp {
    /// Readable once it is not wanted any more.
    unwanted: OwnedFd,
    /// How many of the pod's volumes are there.
    done: AtomicUsize,
}

/// Ends the setting up when it is dropped.
#[derive(Debug)]
pub struct Wanted(Arc<SettingUp>);

impl SettingUp {
    /// Nothing is there yet.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn begin() -> io::Result<(Arc<Self>, Wanted)> {
        let this = Arc::new(Self {
            unwanted: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            done: AtomicUsize::new(0),
        });
        Ok((Arc::clone(&this), Wanted(this)))
    }

    /// One more volume is there.
    pub(super) fn one_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// What upstream says of a pod whose volumes take too long.
    pub fn overdue(&self, pod: &Pod) -> String {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut missing: Vec<&str> = volumes
            .skip(self.done.load(Ordering::Relaxed))
            .map(|volume| volume.name.as_str())
            .collect();
        missing.sort_unstable();
        format!(
            "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[]: \
             context deadline exceeded",
            missing.join(" ")
        )
    }

    /// Runs a program to its end, or kills it with all that it has started when nobody wants it any more; `None` then.
    ///
    /// # Errors
    /// It can't be started or waited for.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<Option<ExitStatus>> {
        let mut child = command.process_group(0).spawn()?;
        let pid = Pid::from_child(&child);
        let watched = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let ended = watched.and_then(|process| {
            let mut events = [
                PollFd::new(&process, PollFlags::IN),
                PollFd::new(&self.unwanted, PollFlags::IN),
            ];
            loop {
                match poll(&mut events, None) {
                    Ok(_) => break Ok(!events[0].revents().is_empty()),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => break Err(errno.into()),
                }
            }
        });
        if !matches!(ended, Ok(true)) {
            // It has not been waited for, so that the number is still its own.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = child.wait()?;
        Ok(ended?.then_some(status))
    }
}

impl Wanted {
    /// It is not wanted any more.
    pub fn stop(&self) {
        // A full counter is readable, too.
        let _ = rustix::io::write(self.0.unwanted.as_fd(), &1_u64.to_ne_bytes());
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::testing::pod;

    #[test]
    fn what_is_not_wanted_any_more_is_killed_with_what_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let (going, wanted) = SettingUp::begin().unwrap();
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(dir.path());
            command
        };
        let status = going.run(&mut sh("exit 3")).unwrap().unwrap();
        assert_eq!(status.code(), Some(3));
        let begun = Instant::now();
        let ended = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                going
                    .run(&mut sh("sleep 1000 & echo $! > new; mv new pid; wait"))
                    .unwrap()
            });
            while !dir.path().join("pid").exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(wanted);
            run.join().unwrap()
        });
        assert!(ended.is_none());
        assert!(begun.elapsed() < Duration::from_secs(500));
        let child = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(500), "it lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Nothing more is begun.
        assert!(going.run(&mut sh("sleep 1000")).unwrap().is_none());
    }

    #[test]
    fn what_takes_too_long_is_said_as_upstream_says_it() {
        let pod = pod(r#"{"containers":[],"volumes":[{"name":"a"},{"name":"c"},{"name":"b"}]}"#);
        let (going, _wanted) = SettingUp::begin().unwrap();
        going.one_done();
        assert_eq!(
            going.overdue(&pod),
            "Unable to attach or mount volumes: unmounted volumes=[b c], unattached volumes=[], failed to process \
             volumes=[]: context deadline exceeded"
        );
    }
}
