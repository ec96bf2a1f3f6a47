//! Reading a container's log across rotations.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::files::{self, LogFile};
use super::line::{LineJoiner, LogLine};

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest line that rotation has left.
    Oldest,
    /// At the beginning of the live file.
    Live,
    /// After what is in the live file already.
    End,
}

/// Reads a container's log, line by line, and goes on to the next file where one was rotated away.
///
/// It never loses a line between two files: a file is left only when a later one exists, and it stays open until there
/// is a third. A runtime that reopens a log may have lines in hand that it still writes to the old file when the new
/// one is there already: containerd's writer is a task of its own for each file, and nobody waits for the old one.
#[derive(Debug)]
pub struct LogReader {
    live: PathBuf,
    from: Start,
    /// The file before the current one, to which late lines may come.
    left: Option<OpenLog>,
    current: Option<OpenLog>,
    lines: Lines,
}

impl LogReader {
    /// A reader of the log whose live file is `live`. The file need not be there yet.
    pub fn new(live: impl Into<PathBuf>, from: Start) -> Self {
        LogReader {
            live: live.into(),
            from,
            left: None,
            current: None,
            lines: Lines::default(),
        }
    }

    /// The live file's path.
    pub fn path(&self) -> &Path {
        &self.live
    }

    /// The next line, or `None` if there is none for now.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        while self.lines.ready.is_empty() {
            if let Some(left) = &mut self.left
                && left.read_chunk(&mut self.lines)? > 0
            {
                continue;
            }
            if !self.open()? {
                return Ok(None);
            }
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            if current.read_chunk(&mut self.lines)? > 0 {
                continue;
            }
            let Some(next) = current.log.next(&self.live)? else {
                return Ok(None);
            };
            // The writer may have written its last lines between our read and the rotation.
            while current.read_chunk(&mut self.lines)? > 0 {}
            let left = self.current.replace(OpenLog::new(next));
            if let Some(mut before) = std::mem::replace(&mut self.left, left) {
                before.give_up(&mut self.lines);
            }
        }
        Ok(self.lines.ready.pop_front())
    }

    /// What is left when the log is complete: lines that were never ended.
    pub fn finish(&mut self) -> Vec<LogLine> {
        for log in [&mut self.left, &mut self.current].into_iter().flatten() {
            log.give_up(&mut self.lines);
        }
        let mut lines: Vec<LogLine> = self.lines.ready.drain(..).collect();
        lines.extend(self.lines.joiner.finish());
        lines
    }

    fn open(&mut self) -> io::Result<bool> {
        if self.current.is_none() {
            self.current = match self.from {
                Start::Oldest => files::oldest(&self.live)?,
                Start::Live => LogFile::open_live(&self.live)?,
                Start::End => LogFile::open_live_at_end(&self.live)?,
            }
            .map(OpenLog::new);
            if self.from == Start::End {
                // Files that come later are new from their beginning.
                self.from = Start::Oldest;
            }
        }
        Ok(self.current.is_some())
    }
}

/// Lines that were read and not taken yet, and parts of lines.
#[derive(Debug, Default)]
struct Lines {
    joiner: LineJoiner,
    ready: VecDeque<LogLine>,
}

/// A log file and how far it was read.
#[derive(Debug)]
struct OpenLog {
    log: LogFile,
    /// Bytes of a record whose newline has not come yet.
    unfinished: Vec<u8>,
}

impl OpenLog {
    fn new(log: LogFile) -> Self {
        OpenLog {
            log,
            unfinished: Vec::new(),
        }
    }

    /// How many bytes were read; 0 at the end.
    fn read_chunk(&mut self, lines: &mut Lines) -> io::Result<usize> {
        let start = self.unfinished.len();
        // Not in what is kept: a log that is followed, and says nothing, would keep as much for ever.
        let mut chunk = [0; CHUNK];
        let read = self.log.file.read(&mut chunk)?;
        self.unfinished.extend_from_slice(&chunk[..read]);
        let Some(last) = self.unfinished[start..].iter().rposition(|&b| b == b'\n') else {
            return Ok(read);
        };
        let rest = self.unfinished.split_off(start + last + 1);
        let records = std::mem::replace(&mut self.unfinished, rest);
        for record in records[..records.len() - 1].split(|&b| b == b'\n') {
            lines.ready.extend(lines.joiner.push(record));
        }
        Ok(read)
    }

    /// Takes a record that was never ended as it is.
    fn give_up(&mut self, lines: &mut Lines) {
        let unfinished = std::mem::take(&mut self.unfinished);
        if !unfinished.is_empty() {
            lines.ready.extend(lines.joiner.push(&unfinished));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    const T: &str = "2026-01-02T03:04:05.000000006Z";

    struct Log {
        dir: tempfile::TempDir,
        rotations: u32,
    }

    impl Log {
        fn new() -> Self {
            Log {
                dir: tempfile::tempdir().unwrap(),
                rotations: 0,
            }
        }
        fn path(&self) -> PathBuf {
            self.dir.path().join("0.log")
        }
        fn write(&self, text: &str) {
            let mut file = fs::File::options()
                .create(true)
                .append(true)
                .open(self.path())
                .unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        fn line(&self, text: &str) {
            self.write(&format!("{T} stdout F {text}\n"));
        }
        fn rotate(&mut self) {
            self.rotations += 1;
            let to = self
                .dir
                .path()
                .join(format!("0.log.20260102-0304{:02}", self.rotations));
            fs::rename(self.path(), to).unwrap();
        }
    }

    fn drain(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line().unwrap())
            .map(|l| String::from_utf8(l.text).unwrap())
            .collect()
    }

    #[test]
    fn nothing_is_lost_over_several_rotations() {
        let mut log = Log::new();
        let mut reader = LogReader::new(log.path(), Start::Live);
        assert_eq!(drain(&mut reader), Vec::<String>::new());
        log.line("a");
        assert_eq!(drain(&mut reader), ["a"]);
        log.line("b");
        log.rotate();
        log.line("c");
        log.rotate();
        log.line("d");
        log.rotate();
        assert_eq!(drain(&mut reader), ["b", "c", "d"]);
        log.line("e");
        assert_eq!(drain(&mut reader), ["e"]);
    }

    #[test]
    fn lines_that_come_late_to_a_rotated_file_are_read() {
        let mut log = Log::new();
        log.line("a");
        let mut reader = LogReader::new(log.path(), Start::Live);
        assert_eq!(drain(&mut reader), ["a"]);
        let mut old = fs::File::options().append(true).open(log.path()).unwrap();
        log.rotate();
        log.line("c");
        assert_eq!(drain(&mut reader), ["c"]);
        writeln!(old, "{T} stdout F b").unwrap();
        write!(old, "{T} stdout F half").unwrap();
        log.line("d");
        assert_eq!(drain(&mut reader), ["b", "d"]);
        writeln!(old, " a line").unwrap();
        assert_eq!(drain(&mut reader), ["half a line"]);
        write!(old, "{T} stdout F never ended").unwrap();
        log.rotate();
        log.line("e");
        assert_eq!(drain(&mut reader), ["never ended", "e"]);
    }

    #[test]
    fn a_file_deleted_while_it_is_read_is_read_to_its_end() {
        let mut log = Log::new();
        log.line("a");
        let mut reader = LogReader::new(log.path(), Start::Oldest);
        assert_eq!(drain(&mut reader), ["a"]);
        log.line("b");
        log.rotate();
        fs::remove_file(log.dir.path().join("0.log.20260102-030401")).unwrap();
        log.line("c");
        log.rotate();
        log.line("d");
        assert_eq!(drain(&mut reader), ["b", "c", "d"]);
    }

    #[test]
    fn the_oldest_file_comes_first_and_other_logs_are_not_ours() {
        let mut log = Log::new();
        log.line("a");
        log.rotate();
        log.line("b");
        fs::write(log.dir.path().join("0.logs"), "x\n").unwrap();
        fs::write(log.dir.path().join("1.log"), "y\n").unwrap();
        assert_eq!(drain(&mut LogReader::new(log.path(), Start::Oldest)), ["a", "b"]);
        assert_eq!(drain(&mut LogReader::new(log.path(), Start::Live)), ["b"]);
    }

    #[test]
    fn half_a_record_waits_for_the_rest() {
        let log = Log::new();
        let mut reader = LogReader::new(log.path(), Start::Live);
        log.write(&format!("{T} stdout P he"));
        assert_eq!(drain(&mut reader), Vec::<String>::new());
        log.write(&format!("l\n{T} stdout F lo\n{T} stderr P end"));
        assert_eq!(drain(&mut reader), ["hello"]);
        assert_eq!(
            reader
                .finish()
                .iter()
                .map(|l| l.text.as_slice())
                .collect::<Vec<_>>(),
            [b"end"]
        );
    }

    #[test]
    fn a_link_in_place_of_the_log_is_refused() {
        let log = Log::new();
        let secret = log.dir.path().join("secret");
        fs::write(&secret, "s\n").unwrap();
        std::os::unix::fs::symlink(&secret, log.path()).unwrap();
        assert!(LogReader::new(log.path(), Start::Live).next_line().is_err());
        assert_eq!(
            drain(&mut LogReader::new(log.path(), Start::Oldest)),
            Vec::<String>::new()
        );
    }
}
