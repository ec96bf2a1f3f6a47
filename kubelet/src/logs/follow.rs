//! Following a container's log while it is written.

use std::collections::VecDeque;
use std::io;

use berth_cri::{ContainerId, Engine, EngineError};
use tokio::sync::watch;

use super::line::LogLine;
use super::reader::LogReader;

/// Reads a container's log until it is complete or the engine has forgotten the container.
#[derive(Debug)]
pub struct Follower {
    reader: LogReader,
    /// Changes with the log; `None` once it is complete.
    counter: Option<watch::Receiver<u64>>,
    /// Lines that were never ended, found at the very end.
    rest: Option<VecDeque<LogLine>>,
}

impl Follower {
    /// Begins where the reader is.
    pub async fn new(engine: &dyn Engine, container: &ContainerId, reader: LogReader) -> io::Result<Self> {
        let counter = match engine.watch_log(container).await {
            Ok(counter) => Some(counter),
            Err(EngineError::NotFound(_)) => None,
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        Ok(Follower {
            reader,
            counter,
            rest: None,
        })
    }

    /// The next line, as soon as there is one; `None` at the end.
    ///
    /// The engine's counter is marked as seen before the file is read, so what is written between the read and the
    /// wait ends the wait.
    pub async fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if let Some(counter) = &mut self.counter {
                counter.borrow_and_update();
            }
            if let Some(line) = self.reader.next_line()? {
                return Ok(Some(line));
            }
            let Some(counter) = &mut self.counter else {
                let rest = self.rest.get_or_insert_with(|| self.reader.finish().into());
                return Ok(rest.pop_front());
            };
            if counter.changed().await.is_err() {
                // What was written last comes with one more look.
                self.counter = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::reader::Start;
    use super::*;

    #[tokio::test]
    async fn no_line_is_missed_while_a_writer_rotates() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("0.log");
        let (sender, receiver) = watch::channel(0_u64);
        let path = live.clone();
        let writer = std::thread::spawn(move || {
            let mut file = fs::File::options().create(true).append(true).open(&path).unwrap();
            for number in 0..3000_u32 {
                if number % 100 == 99 {
                    let rotated = path.with_file_name(format!("0.log.20260102-{number:06}"));
                    fs::rename(&path, rotated).unwrap();
                    file = fs::File::options().create(true).append(true).open(&path).unwrap();
                }
                writeln!(file, "2026-01-02T03:04:05Z stdout F {number}").unwrap();
                sender.send_modify(|count| *count += 1);
            }
        });
        let mut follower = Follower {
            reader: LogReader::new(&live, Start::Oldest),
            counter: Some(receiver),
            rest: None,
        };
        let mut expected = 0_u32;
        while let Some(line) = follower.next().await.unwrap() {
            assert_eq!(String::from_utf8(line.text).unwrap(), expected.to_string());
            expected += 1;
        }
        writer.join().unwrap();
        assert_eq!(expected, 3000);
    }
}
