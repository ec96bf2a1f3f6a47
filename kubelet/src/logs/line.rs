//! One line of a CRI log file: `<RFC 3339 time> <stream> <tag> <text>`.

use std::fmt;

/// Which output of the container a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// A whole line of a container's output, its parts joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When its first part was written, as the file says it (RFC 3339 with nanoseconds).
    pub time: String,
    /// Where it came from.
    pub stream: Stream,
    /// What the container wrote, without the newline; not necessarily UTF-8.
    pub text: Vec<u8>,
}

/// One record of the file: a whole line or a part of one.
#[derive(Debug, PartialEq, Eq)]
struct Record<'a> {
    time: &'a str,
    stream: Stream,
    partial: bool,
    text: &'a [u8],
}

/// Joins the records of a log file to lines.
///
/// Records of the two streams may interleave; each stream has its own line under construction. A record that is not in
/// the CRI format (written by somebody else) is passed on as a line of standard output without a time, so that nothing
/// is lost.
#[derive(Debug, Default)]
pub struct LineJoiner {
    stdout: Option<LogLine>,
    stderr: Option<LogLine>,
}

/// A joined line is cut here, so that a container that never ends a line can't fill our memory.
const MAX_LINE: usize = 1 << 20;

impl LineJoiner {
    /// Takes one record without its newline; returns a line when that record ended one.
    pub fn push(&mut self, record: &[u8]) -> Option<LogLine> {
        let Some(record) = Record::parse(record) else {
            return Some(LogLine {
                time: String::new(),
                stream: Stream::Stdout,
                text: record.to_vec(),
            });
        };
        let slot = match record.stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let line = slot.get_or_insert_with(|| LogLine {
            time: record.time.to_owned(),
            stream: record.stream,
            text: Vec::new(),
        });
        line.text.extend_from_slice(record.text);
        if record.partial && line.text.len() < MAX_LINE {
            return None;
        }
        slot.take()
    }

    /// What is left at the end of the log: lines that were never ended.
    pub fn finish(&mut self) -> Vec<LogLine> {
        [self.stdout.take(), self.stderr.take()]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl<'a> Record<'a> {
    fn parse(record: &'a [u8]) -> Option<Self> {
        let (time, rest) = split_space(record)?;
        let (stream, rest) = split_space(rest)?;
        // A record may end right after its tag when the line is empty.
        let (tags, text) = split_space(rest).unwrap_or((rest, &[]));
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Tags are separated by colons; the first says whether the line goes on.
        let partial = match tags.split(|&b| b == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        let time = std::str::from_utf8(time).ok()?;
        Some(Record {
            time,
            stream,
            partial,
            text,
        })
    }
}

fn split_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&b| b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "2026-01-02T03:04:05.000000006Z";

    fn line(stream: Stream, text: &str) -> LogLine {
        LogLine {
            time: T.to_owned(),
            stream,
            text: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn full_lines_and_empty_lines() {
        let mut joiner = LineJoiner::default();
        assert_eq!(
            joiner.push(format!("{T} stdout F hello  world").as_bytes()),
            Some(line(Stream::Stdout, "hello  world"))
        );
        assert_eq!(
            joiner.push(format!("{T} stderr F ").as_bytes()),
            Some(line(Stream::Stderr, ""))
        );
        assert_eq!(
            joiner.push(format!("{T} stderr F").as_bytes()),
            Some(line(Stream::Stderr, ""))
        );
    }

    #[test]
    fn parts_of_two_streams_are_joined_apart() {
        let mut joiner = LineJoiner::default();
        assert_eq!(joiner.push(format!("{T} stdout P ab").as_bytes()), None);
        assert_eq!(joiner.push(format!("{T} stderr P xy").as_bytes()), None);
        assert_eq!(
            joiner.push(format!("{T} stdout F cd").as_bytes()),
            Some(line(Stream::Stdout, "abcd"))
        );
        assert_eq!(joiner.finish(), vec![line(Stream::Stderr, "xy")]);
        assert_eq!(joiner.finish(), vec![]);
    }

    #[test]
    fn foreign_text_is_not_lost() {
        let mut joiner = LineJoiner::default();
        let got = joiner.push(b"not a cri line").unwrap();
        assert_eq!(
            (got.time.as_str(), got.text.as_slice()),
            ("", b"not a cri line".as_slice())
        );
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut joiner = LineJoiner::default();
        let record = [format!("{T} stdout P ").into_bytes(), vec![b'x'; 16 << 10]].concat();
        let cut = std::iter::repeat_with(|| joiner.push(&record))
            .take(65)
            .flatten()
            .count();
        assert_eq!(cut, 1);
    }
}
