//! Reading and writing descriptors that the kernel tells readiness of: pipes, terminals and sockets.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::Instant;

/// A descriptor to read: a pipe's end, a terminal's master or a socket.
#[derive(Debug)]
pub struct Reader(pipe::Receiver);

impl Reader {
    /// Takes a descriptor over; its open file becomes non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(pipe::Receiver::from_file_unchecked(nonblocking(fd)?)?))
    }

    /// Reads what is there. 0 is the end, also of a terminal that was hung up.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer).await {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            result => result,
        }
    }

    fn readable_bytes(&self) -> usize {
        let count = rustix::io::ioctl_fionread(&self.0).unwrap_or(0);
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

/// A descriptor to write.
#[derive(Debug)]
pub struct Writer(pipe::Sender);

impl Writer {
    /// Takes a descriptor over; its open file becomes non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(pipe::Sender::from_file_unchecked(nonblocking(fd)?)?))
    }

    /// Writes all of it.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Resolves when nobody reads what would be written.
    pub(crate) async fn broken(&self) {
        // The kernel tells it as an error; a descriptor that can't be asked is as good as broken.
        let _ = self.0.ready(Interest::ERROR).await;
    }
}

fn nonblocking(fd: OwnedFd) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd.into())
}

/// The output of a process: read to its end, or until some time after the process has ended, since what it left
/// behind may hold it open for ever. Nothing that the process itself wrote is lost.
#[derive(Debug)]
pub struct Output {
    from: Reader,
    ended: watch::Receiver<bool>,
    drain: Option<Duration>,
    after: Option<After>,
}

/// What is still waited for after the end.
#[derive(Clone, Copy, Debug)]
struct After {
    until: Instant,
    /// Bytes that were there when the process ended.
    owed: usize,
}

impl Output {
    /// `ended` becomes true when the process has ended; without a `drain` that makes no difference.
    pub fn new(fd: OwnedFd, ended: watch::Receiver<bool>, drain: Option<Duration>) -> io::Result<Self> {
        Ok(Self {
            from: Reader::new(fd)?,
            ended,
            drain,
            after: None,
        })
    }

    /// Reads what is there; 0 is the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(drain) = self.drain else {
            return self.from.read(buffer).await;
        };
        let after = match self.after {
            Some(after) => after,
            None => {
                tokio::select! {
                    biased;
                    count = self.from.read(buffer) => return count,
                    // A sender that is gone has nothing more to tell: the end too.
                    _ = self.ended.wait_for(|ended| *ended) => {}
                }
                After {
                    until: Instant::now() + drain,
                    owed: self.from.readable_bytes(),
                }
            }
        };
        let count = if after.owed > 0 {
            self.from.read(buffer).await?
        } else if Instant::now() >= after.until {
            0
        } else {
            tokio::select! {
                biased;
                count = self.from.read(buffer) => count?,
                () = tokio::time::sleep_until(after.until) => 0,
            }
        };
        self.after = Some(After {
            owed: after.owed.saturating_sub(count),
            ..after
        });
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(drain: Option<Duration>) -> (Output, OwnedFd, watch::Sender<bool>) {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let (over, ended) = watch::channel(false);
        (Output::new(read, ended, drain).unwrap(), write, over)
    }

    #[tokio::test]
    async fn a_writer_hears_of_a_reader_that_leaves() {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let writer = Writer::new(write).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), writer.broken());
        assert!(early.await.is_err());
        drop(read);
        tokio::time::timeout(Duration::from_secs(20), writer.broken())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read_after_any_time() {
        let (mut output, write, over) = output(Some(Duration::ZERO));
        rustix::io::write(&write, &[7; 50_000]).unwrap();
        over.send_replace(true);
        let mut buffer = [0; 1000];
        let mut total = 0;
        while let count @ 1.. = output.read(&mut buffer).await.unwrap() {
            total += count;
            assert!(total <= 50_000);
        }
        assert_eq!(
            total, 50_000,
            "the writer still holds it, and that does not matter"
        );
    }

    #[tokio::test]
    async fn a_pipe_that_stays_open_is_left_but_one_that_must_end_is_not() {
        let (mut left, held, over) = output(Some(Duration::from_millis(20)));
        over.send_replace(true);
        assert_eq!(left.read(&mut [0; 10]).await.unwrap(), 0);
        drop(held);
        let (mut ends, write, over) = output(None);
        over.send_replace(true);
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            rustix::io::write(&write, b"late").unwrap();
            drop(write);
        };
        let mut buffer = [0; 10];
        let (count, ()) = tokio::join!(ends.read(&mut buffer), late);
        assert_eq!(count.unwrap(), 4);
        assert_eq!(ends.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_endless_writer_does_not_keep_the_reader() {
        let (mut output, write, over) = output(Some(Duration::from_millis(50)));
        let mut writer = Writer::new(write).unwrap();
        let endless = async { while writer.write_all(&[1; 4096]).await.is_ok() {} };
        over.send_replace(true);
        let reader = async {
            let mut buffer = vec![0; 4096];
            while output.read(&mut buffer).await.unwrap() > 0 {}
        };
        tokio::select! {
            () = endless => panic!("the reader is there"),
            () = reader => {}
        }
    }
}
