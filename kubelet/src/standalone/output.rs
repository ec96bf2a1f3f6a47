//! Writing to a terminal or pipe that may be slow, or that nobody reads for a while (`| less`), without holding up pods.
//!
//! One thread writes, whole lines in their order. Containers' lines are let in only so fast as they go out; what berth
//! itself says always is.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bars::Bars;
use crate::logs::Stream;

/// So many lines of containers may wait to be written.
const ROOM: usize = 1024;
/// So many are written at once.
const BATCH: usize = 256;
/// At the end, a reader that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// The writing thread's other end.
#[derive(Debug)]
pub(super) struct Output {
    lines: Mutex<Option<mpsc::Sender<Line>>>,
    room: Arc<Semaphore>,
    written: Arc<AtomicU64>,
    ended: Mutex<mpsc::Receiver<()>>,
}

#[derive(Debug)]
struct Line {
    to: Stream,
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Output {
    /// Starts to write to standard output and standard error, where these bars may be drawn.
    pub(super) fn start(bars: Option<Arc<Bars>>) -> Self {
        let (lines, receiver) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        std::thread::spawn(move || {
            while let Ok(line) = receiver.recv() {
                let several = || {
                    // The bars are drawn anew afterwards, which takes longer than a line.
                    for line in std::iter::once(line).chain(receiver.try_iter().take(BATCH)) {
                        write(&line);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                };
                match &bars {
                    Some(bars) => bars.around(several),
                    None => several(),
                }
            }
            if let Some(bars) = &bars {
                bars.clear();
            }
            // Nobody may be waiting for it.
            let _ = end.send(());
        });
        Output {
            lines: Mutex::new(Some(lines)),
            room: Arc::new(Semaphore::new(ROOM)),
            written,
            ended: Mutex::new(ended),
        }
    }

    /// Writes a line of a container, once there is room for it.
    pub(super) async fn log(&self, to: Stream, bytes: Vec<u8>) {
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        self.send(Line {
            to,
            bytes,
            _room: room,
        });
    }

    /// Writes a line of berth's own.
    pub(super) fn say(&self, bytes: Vec<u8>) {
        self.send(Line {
            to: Stream::Stderr,
            bytes,
            _room: None,
        });
    }

    fn send(&self, line: Line) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = lines.as_ref() {
            // The thread lives as long as the channel.
            let _ = lines.send(line);
        }
    }

    /// Returns when all is written, or when nobody reads it. Nothing is written afterwards.
    pub(super) fn finish(&self) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = self.written.load(Ordering::Relaxed);
        while ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let now = self.written.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }
}

/// A line goes out in one write, so that it is not torn apart by what other programs write.
fn write(line: &Line) {
    // A reader that has gone is nobody's concern: the pod runs on.
    let _ = match line.to {
        Stream::Stdout => io::stdout()
            .write_all(&line.bytes)
            .and_then(|()| io::stdout().flush()),
        Stream::Stderr => io::stderr().write_all(&line.bytes),
    };
}
