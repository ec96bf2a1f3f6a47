//! From bytes that a container wrote to lines in its log file.

use std::io;
use std::path::{Path, PathBuf};

use super::file::LogFile;
use super::format::{Line, PREFIX_LEN, Prefix, Splitter, Stream};
use crate::clock;

/// Lines are handed to the kernel in writes of about this size.
const BATCH: usize = 128 << 10;

/// How long a log may grow and how much of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// Bytes of one file; 0 is no limit.
    pub(crate) max_size: u64,
    /// Files, the live one included.
    pub(crate) max_files: u32,
}

/// Output that could not be logged, to be told of in the log once it can be written again.
struct Lost {
    bytes: u64,
    why: String,
}

/// A container's log. With no file, output is dropped.
pub(crate) struct LogWriter {
    path: PathBuf,
    file: Option<LogFile>,
    limits: LogLimits,
    splitters: [Splitter; 2],
    last: u64,
    lost: Option<Lost>,
}

impl LogWriter {
    /// Opens the log, or with no path throws everything away.
    pub(crate) fn open(path: Option<&Path>, limits: LogLimits) -> io::Result<Self> {
        Ok(Self {
            path: path.map(Path::to_owned).unwrap_or_default(),
            file: path.map(LogFile::open).transpose()?,
            limits,
            splitters: Default::default(),
            last: 0,
            lost: None,
        })
    }

    /// Opens the file anew at its path. The old one stays in use if that fails.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            self.file = Some(LogFile::open(&self.path)?);
        }
        Ok(())
    }

    /// Logs what was read from one output. `batch` is scratch space that is empty between calls.
    pub(crate) fn feed(&mut self, stream: Stream, data: &[u8], batch: &mut Vec<u8>) {
        self.lines(stream, batch, |splitter, sink| {
            splitter.feed(data, |line| sink.line(&line))
        });
    }

    /// Logs what has no newline at the end of one output.
    pub(crate) fn finish(&mut self, stream: Stream, batch: &mut Vec<u8>) {
        self.lines(stream, batch, |splitter, sink| {
            splitter.finish(|line| sink.line(&line))
        });
    }

    fn lines(&mut self, stream: Stream, batch: &mut Vec<u8>, run: impl FnOnce(&mut Splitter, &mut Sink<'_>)) {
        let Some(file) = &mut self.file else { return };
        // Lines of one log never go back in time, whatever the clock does.
        self.last = self.last.max(clock::now());
        let prefix = Prefix::new(self.last, stream);
        let (limits, now, path) = (self.limits, self.last, &self.path);
        let mut sink = Sink {
            file,
            limits,
            now,
            prefix,
            path,
            batch,
            lost: &mut self.lost,
        };
        run(&mut self.splitters[stream.index()], &mut sink);
        sink.flush();
    }
}

/// One batch on its way into the file.
struct Sink<'a> {
    file: &'a mut LogFile,
    limits: LogLimits,
    now: u64,
    prefix: Prefix,
    path: &'a Path,
    batch: &'a mut Vec<u8>,
    lost: &'a mut Option<Lost>,
}

impl Sink<'_> {
    fn line(&mut self, line: &Line<'_>) {
        let length = PREFIX_LEN + line.head.len() + line.tail.len() + 1;
        if self.batch.is_empty() {
            self.tell_of_loss();
        }
        if self.is_over_limit(length) {
            self.flush();
            if self.file.size() > 0 && self.is_over_limit(length) && self.rotate().is_err() {
                self.lose(length, None);
                return;
            }
        } else if self.batch.len() + length > BATCH {
            self.flush();
        }
        self.batch.extend_from_slice(self.prefix.tagged(line.whole));
        self.batch.extend_from_slice(line.head);
        self.batch.extend_from_slice(line.tail);
        self.batch.push(b'\n');
    }

    fn is_over_limit(&self, length: usize) -> bool {
        let size = self.file.size() + self.batch.len() as u64;
        self.limits.max_size > 0 && size > 0 && size + length as u64 > self.limits.max_size
    }

    fn rotate(&mut self) -> io::Result<()> {
        let keep = usize::try_from(self.limits.max_files.saturating_sub(1)).unwrap_or(usize::MAX);
        let done = self.file.rotate(self.now, keep);
        if let Err(error) = &done {
            self.lose(0, Some(error));
        }
        done
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.file.append(self.batch) {
            Ok(()) => *self.lost = None,
            Err(short) => {
                let missing = self.batch.len() - short.kept;
                self.lose(missing, Some(&short.error));
            }
        }
        self.batch.clear();
    }

    /// Once per outage, to the shim's own log, which may be on a disk with room.
    fn lose(&mut self, bytes: usize, error: Option<&io::Error>) {
        if self.lost.is_none() {
            let why = error.map_or_else(|| "it could not be rotated".to_owned(), ToString::to_string);
            eprintln!(
                "The log {} can't be written, output is being dropped: {why}.",
                self.path.display()
            );
            *self.lost = Some(Lost { bytes: 0, why });
        }
        if let Some(lost) = self.lost.as_mut() {
            lost.bytes += bytes as u64;
        }
    }

    fn tell_of_loss(&mut self) {
        if let Some(lost) = self.lost.as_ref() {
            let Lost { bytes, why } = lost;
            let mut prefix = Prefix::new(self.now, Stream::Stderr);
            self.batch.extend_from_slice(prefix.tagged(true));
            let note = format!("berth: {bytes} bytes of this log were dropped here: {why}.\n");
            self.batch.extend_from_slice(note.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn content(path: &Path) -> Vec<u8> {
        let text = fs::read(path).unwrap();
        let mut out = Vec::new();
        for line in text.split_inclusive(|b| *b == b'\n') {
            assert_eq!(line.last(), Some(&b'\n'));
            let body = &line[PREFIX_LEN..];
            let whole = line[PREFIX_LEN - 2] == b'F';
            out.extend_from_slice(if whole { body } else { &body[..body.len() - 1] });
        }
        out
    }

    fn rotated(dir: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap() != "0.log")
            .collect();
        files.sort();
        files
    }

    #[test]
    fn rotation_never_overruns_by_more_than_a_line_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pods/web/0.log");
        let limits = LogLimits {
            max_size: 1000,
            max_files: 1000,
        };
        let mut log = LogWriter::open(Some(&path), limits).unwrap();
        let mut sent = Vec::new();
        for turn in 0..200usize {
            let line = format!(
                "{turn} {}\n",
                "x".repeat(turn % 97 * if turn % 50 == 0 { 40 } else { 1 })
            );
            log.feed(Stream::Stdout, line.as_bytes(), &mut Vec::new());
            sent.extend_from_slice(line.as_bytes());
        }
        log.finish(Stream::Stdout, &mut Vec::new());
        let mut files = rotated(path.parent().unwrap());
        files.push(path);
        let mut got = Vec::new();
        for file in &files {
            let text = fs::read(file).unwrap();
            let lines = text.iter().filter(|b| **b == b'\n').count();
            assert!(
                text.len() <= 1000 || lines == 1,
                "{} has {} bytes in {lines} lines",
                file.display(),
                text.len()
            );
            got.extend(content(file));
        }
        assert_eq!(String::from_utf8(got).unwrap(), String::from_utf8(sent).unwrap());
    }

    #[test]
    fn one_file_only_means_that_nothing_old_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(
            Some(&path),
            LogLimits {
                max_size: 100,
                max_files: 1,
            },
        )
        .unwrap();
        for _ in 0..20 {
            log.feed(Stream::Stderr, b"some output\n", &mut Vec::new());
        }
        assert!(rotated(dir.path()).is_empty());
        assert!(fs::metadata(&path).unwrap().len() <= 100);
    }

    #[test]
    fn a_link_in_place_of_the_log_or_its_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs/pod/web");
        fs::create_dir_all(&logs).unwrap();
        fs::write(dir.path().join("victim"), "precious").unwrap();
        let limits = LogLimits {
            max_size: 0,
            max_files: 1,
        };
        std::os::unix::fs::symlink(dir.path().join("victim"), logs.join("0.log")).unwrap();
        assert!(LogWriter::open(Some(&logs.join("0.log")), limits).is_err());
        fs::remove_dir_all(dir.path().join("logs/pod")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("logs/pod")).unwrap();
        assert!(LogWriter::open(Some(&logs.join("0.log")), limits).is_err());
        assert!(!dir.path().join("web").exists());
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"precious");
        assert!(LogWriter::open(Some(Path::new("relative/0.log")), limits).is_err());
    }

    #[test]
    fn reopening_follows_a_file_that_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(
            Some(&path),
            LogLimits {
                max_size: 0,
                max_files: 1,
            },
        )
        .unwrap();
        log.feed(Stream::Stdout, b"before\n", &mut Vec::new());
        fs::rename(&path, dir.path().join("moved")).unwrap();
        log.feed(Stream::Stdout, b"between\n", &mut Vec::new());
        log.reopen().unwrap();
        log.feed(Stream::Stdout, b"after\n", &mut Vec::new());
        assert_eq!(content(&dir.path().join("moved")), b"before\nbetween\n");
        assert_eq!(content(&path), b"after\n");
    }
}
