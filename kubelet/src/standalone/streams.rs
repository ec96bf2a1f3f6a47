//! A command's streams, or a container's, joined with those of this process.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::pin::pin;

use berth_cri::descriptor::{Output, Writer};
use tokio::sync::{mpsc, oneshot, watch};

use super::control::{CallError, Streams};
use super::terminal::{self, Endings, Raw};

/// So much is read at once.
const CHUNK: usize = 32 << 10;
/// So many chunks wait for a slow reader or writer.
const ROOM: usize = 4;

/// How it went on with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It ended with this exit code.
    Exited(i32),
    /// This process got a signal of that number; the command may go on.
    Interrupted(u8),
}

/// Passes everything on in both directions until the command has ended and all that it wrote is written. A terminal is
/// raw meanwhile, and its size is passed on.
///
/// # Errors
/// It is not known how it ended: who runs the pod was killed. What the command wrote until its output ended is written
/// then, too.
pub async fn join(streams: Streams) -> Result<Finished, CallError> {
    let raw = if streams.tty && streams.stdin.is_some() {
        Raw::enter()?
    } else {
        None
    };
    let mut endings = Endings::listen()?;
    let (over, ended) = watch::channel(false);
    if let Some(stdin) = streams.stdin {
        tokio::spawn(feed(Writer::new(stdin)?));
    }
    let output = |fd: Option<OwnedFd>| {
        fd.map(|fd| Output::new(fd, ended.clone(), streams.drain))
            .transpose()
    };
    let stdout = output(streams.stdout)?.map(|from| tokio::spawn(drain(from, To::Stdout)));
    let stderr = output(streams.stderr)?.map(|from| tokio::spawn(drain(from, To::Stderr)));
    let (connection, tty) = (streams.end, streams.tty);
    let sizes = async {
        // Without a terminal of our own there is nothing to tell.
        let (true, Ok(mut resized)) = (tty, terminal::resized()) else {
            return std::future::pending::<()>().await;
        };
        loop {
            if let Some((width, height)) = terminal::size() {
                // Who runs the pod may have gone; the end tells.
                let _ = connection.resize(width, height).await;
            }
            resized.recv().await;
        }
    };
    let end = async {
        let end = connection.ended().await;
        if end.is_ok() {
            over.send_replace(true);
        }
        for task in [stdout, stderr].into_iter().flatten() {
            // A task that broke off has written what it could.
            let _ = task.await;
        }
        end
    };
    let (mut sizes, mut end) = (pin!(sizes), pin!(end));
    let finished = tokio::select! {
        end = &mut end => end.map(Finished::Exited),
        number = endings.next() => Ok(Finished::Interrupted(number)),
        () = &mut sizes => Err(CallError::Lost),
    };
    drop(raw);
    finished
}

/// Standard input is read by a thread: a terminal that is shared with the shell can't be made non-blocking, and a file
/// can't be waited for. Its end is the end of the command's input.
async fn feed(mut to: Writer) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(ROOM);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if sender.blocking_send(buffer[..count].to_vec()).is_ok() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    while let Some(chunk) = chunks.recv().await {
        // A command that reads no more is no failure.
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy)]
enum To {
    Stdout,
    Stderr,
}

/// Output is written by a thread, so that a reader that stands still holds up nothing but that output.
async fn drain(mut from: Output, to: To) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(ROOM);
    let (done, written) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            let result = match to {
                To::Stdout => io::stdout().write_all(&chunk).and_then(|()| io::stdout().flush()),
                To::Stderr => io::stderr().write_all(&chunk),
            };
            if result.is_err() {
                break;
            }
        }
        drop(chunks);
        // Whoever waits may have given up.
        let _ = done.send(());
    });
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if sender.send(buffer[..count].to_vec()).await.is_err() {
            // Nobody reads it: the command is to hear of that as of any broken pipe.
            break;
        }
    }
    drop((from, sender));
    let _ = written.await;
}
