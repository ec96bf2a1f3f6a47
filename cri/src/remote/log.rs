//! Following the log that another runtime writes: the kernel tells of each write in the log's directory.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Inner, Result};
use crate::descriptor::Reader;
use crate::engine::{EngineError, EventStream};
use crate::types::{ContainerId, ContainerState, EngineEventKind};

/// After a container's end its log is complete once nothing has come for this long: its runtime passes on what was in the
/// pipes, and tells the end without waiting for that.
const QUIET: Duration = Duration::from_millis(200);
/// Something else may write in that directory for ever.
const LONGEST_DRAIN: Duration = Duration::from_secs(2);

/// A number that changes with the log; see [`Engine::watch_log`](crate::Engine::watch_log).
pub(super) async fn watch(inner: &Arc<Inner>, id: &ContainerId) -> Result<watch::Receiver<u64>> {
    // Before the status, so that no end comes between the two.
    let events = inner.subscribe();
    let (status, _) = inner.container_status(id, false).await?;
    let (sender, receiver) = watch::channel(0);
    if matches!(status.state, ContainerState::Exited | ContainerState::Unknown) {
        return Ok(receiver);
    }
    let path = status.log_path.as_path();
    let failed = |error: io::Error| {
        EngineError::Unavailable(format!(
            "The log {} of container {id} can't be watched: {error}.",
            path.display()
        ))
    };
    let watched = Watched::new(path).map_err(failed)?;
    tokio::spawn(count(watched, events, id.clone(), sender));
    Ok(receiver)
}

async fn count(mut watched: Watched, mut events: EventStream, id: ContainerId, sender: watch::Sender<u64>) {
    let growing = async {
        loop {
            tokio::select! {
                grown = watched.grown() => match grown {
                    Ok(()) => sender.send_modify(|number| *number += 1),
                    Err(error) => {
                        tracing::warn!("The log of container {id} can't be watched any more: {error}.");
                        return;
                    }
                },
                ended = ended(&mut events, &id) => if ended { return },
            }
        }
    };
    tokio::select! {
        () = growing => {}
        () = sender.closed() => return,
    }
    let drain = async { while let Ok(Ok(())) = timeout(QUIET, watched.grown()).await {} };
    // What is still written then is not the container's.
    let _ = timeout(LONGEST_DRAIN, drain).await;
    sender.send_modify(|number| *number += 1);
}

/// Whether the next event ends the container. The engine's end does, too.
async fn ended(events: &mut EventStream, id: &ContainerId) -> bool {
    match events.recv().await {
        Some(event) => matches!(
            &event.kind,
            EngineEventKind::ContainerExited(ended) | EngineEventKind::ContainerRemoved(ended) if ended == id
        ),
        None => true,
    }
}

/// A log file and those that it is renamed to.
#[derive(Debug)]
struct Watched {
    queue: Reader,
    name: OsString,
}

impl Watched {
    /// The directory is watched, since a log that is rotated becomes another file.
    fn new(path: &Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the container has no log",
            ));
        };
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let grows = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&queue, directory, grows)?;
        Ok(Self {
            queue: Reader::new(queue)?,
            name: name.to_owned(),
        })
    }

    /// Waits until the log has grown or was rotated.
    async fn grown(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let count = self.queue.read(&mut buffer).await?;
            if concerns(&buffer[..count], self.name.as_bytes()) {
                return Ok(());
            }
        }
    }
}

/// Whether one of the events in inotify(7)'s form is of a file whose name begins so.
fn concerns(mut events: &[u8], name: &[u8]) -> bool {
    /// The descriptor of the watch, the kind, a cookie, and the length of the name that follows.
    const HEAD: usize = 16;
    while let Some((head, rest)) = events.split_first_chunk::<HEAD>() {
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        // Too many to be remembered: some are sure to be of it.
        if ReadFlags::from_bits_retain(word(4)).contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        let length = usize::try_from(word(12)).unwrap_or(usize::MAX);
        let (file, next) = rest.split_at(length.min(rest.len()));
        if file.starts_with(name) {
            return true;
        }
        events = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs::{File, rename};
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn growths_and_rotations_are_noticed_and_other_files_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = File::create(&path).unwrap();
        let mut watched = Watched::new(&path).unwrap();
        let patience = Duration::from_secs(20);
        let mut wait = async || timeout(patience, watched.grown()).await.unwrap().unwrap();
        log.write_all(b"1").unwrap();
        wait().await;
        rename(&path, directory.path().join("0.log.20260101")).unwrap();
        wait().await;
        log.write_all(b"after the rename").unwrap();
        wait().await;
        let mut new = File::create(&path).unwrap();
        wait().await;
        new.write_all(b"2").unwrap();
        wait().await;
        File::create(directory.path().join("other.log")).unwrap();
        assert!(timeout(Duration::from_millis(50), watched.grown()).await.is_err());
    }

    #[test]
    fn a_container_without_a_log_has_none_to_watch() {
        assert!(Watched::new(Path::new("")).is_err());
        assert!(Watched::new(Path::new("/nonexistent/0.log")).is_err());
    }
}
