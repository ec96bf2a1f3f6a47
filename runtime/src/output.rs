//! What a command prints, of which so much is kept.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// How much is read at once.
const READ: usize = 4 << 10;
/// How often one output is read before anything else is looked at.
const READS_IN_TURN: usize = 16;

/// One output of a command.
#[derive(Debug)]
pub struct Output<F> {
    /// Where it comes from; `None` once nobody can write any more.
    from: Option<F>,
    limit: usize,
    kept: Vec<u8>,
}

impl<F: AsFd> Output<F> {
    /// What comes from a pipe whose reads don't block, of which the first `limit` bytes are kept.
    pub fn new(from: F, limit: usize) -> Output<F> {
        Output {
            from: Some(from),
            limit,
            kept: Vec::new(),
        }
    }

    /// Reads what is there, so that the command is not held up; what is past the limit is dropped.
    pub fn read(&mut self) {
        if let Some(from) = &self.from
            && !read(from.as_fd(), self.limit, &mut self.kept)
        {
            self.from = None;
        }
    }

    /// Where it comes from, while somebody may write.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(AsFd::as_fd)
    }

    /// Forgets what was kept.
    pub fn clear(&mut self) {
        self.kept = Vec::new();
    }

    /// What was kept.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }
}

/// Returns whether there may be more some time.
fn read(from: BorrowedFd<'_>, limit: usize, kept: &mut Vec<u8>) -> bool {
    let mut buffer = [0; READ];
    for _ in 0..READS_IN_TURN {
        match rustix::io::read(from, &mut buffer) {
            Ok(count @ 1..) => {
                let room = limit.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&buffer[..room]);
            }
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Ok(0) | Err(_) => return false,
        }
    }
    true
}

/// A file of the memory with all that was kept, one output after the other; `None` if that is nothing.
///
/// # Errors
/// When there is no memory for it.
pub fn file_of<F: AsFd>(outputs: &[Output<F>; 2]) -> io::Result<Option<OwnedFd>> {
    file_with(outputs.each_ref().map(Output::kept))
}

fn file_with(parts: [&[u8]; 2]) -> io::Result<Option<OwnedFd>> {
    if parts.iter().all(|part| part.is_empty()) {
        return Ok(None);
    }
    let mut file = File::from(memfd_create("output", MemfdFlags::CLOEXEC)?);
    parts.iter().try_for_each(|part| file.write_all(part))?;
    Ok(Some(file.into()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn what_is_past_the_limit_is_read_and_dropped() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut output = Output::new(reader, 5);
        output.read();
        assert_eq!(output.kept(), b"");
        rustix::io::write(&writer, b"abc").unwrap();
        output.read();
        rustix::io::write(&writer, b"defg").unwrap();
        output.read();
        assert_eq!(output.kept(), b"abcde");
        assert!(output.source().is_some());
        drop(writer);
        output.read();
        assert!(output.source().is_none());
        let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut both = [output, Output::new(reader, 5)];
        let mut text = String::new();
        let mut file = File::from(file_of(&both).unwrap().unwrap());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");
        both[0].clear();
        assert!(file_of(&both).unwrap().is_none());
    }
}
