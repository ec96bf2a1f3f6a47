//! `<RFC3339Nano> stdout|stderr P|F <line>`: a line is `F`, a piece of one that is longer than 16 KiB or that the
//! output ended within is `P`.

use memchr::memchr;

use crate::clock::{self, RFC3339_LEN};

/// The longest content of one log line; kubelet's reader expects no more.
pub(crate) const MAX_CONTENT: usize = 16 << 10;

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// File descriptor 1, or the terminal.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

impl Stream {
    /// 0 for stdout, 1 for stderr.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// What stands before a line's content.
#[derive(Clone, Copy)]
pub(crate) struct Prefix([u8; PREFIX_LEN]);

const TAG_AT: usize = RFC3339_LEN + 8;
/// How long a [`Prefix`] is.
pub(crate) const PREFIX_LEN: usize = RFC3339_LEN + 10;

impl Prefix {
    /// For the lines that arrived together at one time.
    pub(crate) fn new(nanos: u64, stream: Stream) -> Self {
        let mut text = [b' '; PREFIX_LEN];
        text[..RFC3339_LEN].copy_from_slice(&clock::rfc3339(nanos));
        let name = match stream {
            Stream::Stdout => b"stdout",
            Stream::Stderr => b"stderr",
        };
        text[RFC3339_LEN + 1..RFC3339_LEN + 7].copy_from_slice(name);
        text[TAG_AT] = b'F';
        Self(text)
    }

    /// The bytes, tagged as a whole line or as a piece.
    pub(crate) fn tagged(&mut self, whole: bool) -> &[u8] {
        self.0[TAG_AT] = if whole { b'F' } else { b'P' };
        &self.0
    }
}

/// One line of the log: its content in two parts, the first of which arrived earlier.
pub(crate) struct Line<'a> {
    /// Ended by a newline, rather than cut.
    pub(crate) whole: bool,
    /// What was kept from earlier reads.
    pub(crate) head: &'a [u8],
    /// What came now.
    pub(crate) tail: &'a [u8],
}

/// Cuts one stream of output into lines, and keeps the unfinished one.
#[derive(Default)]
pub(crate) struct Splitter {
    kept: Vec<u8>,
}

impl Splitter {
    /// Hands each line that `data` finishes to `emit`, and keeps the rest.
    pub(crate) fn feed(&mut self, mut data: &[u8], mut emit: impl FnMut(Line<'_>)) {
        while !data.is_empty() {
            let room = MAX_CONTENT - self.kept.len();
            let window = &data[..data.len().min(room + 1)];
            let (tail, used, whole) = match memchr(b'\n', window) {
                Some(at) => (&data[..at], at + 1, true),
                None if window.len() > room => (&data[..room], room, false),
                None => {
                    self.kept.extend_from_slice(data);
                    return;
                }
            };
            emit(Line {
                whole,
                head: &self.kept,
                tail,
            });
            if !self.kept.is_empty() {
                // An idle pod keeps no buffer.
                self.kept = Vec::new();
            }
            data = &data[used..];
        }
    }

    /// Hands out what has no newline, now that none will come.
    pub(crate) fn finish(&mut self, emit: impl FnOnce(Line<'_>)) {
        let kept = std::mem::take(&mut self.kept);
        if !kept.is_empty() {
            emit(Line {
                whole: false,
                head: &kept,
                tail: &[],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[Vec<u8>]) -> Vec<(bool, Vec<u8>)> {
        let mut out = Vec::new();
        let mut splitter = Splitter::default();
        for chunk in chunks {
            splitter.feed(chunk, |line| {
                out.push((line.whole, [line.head, line.tail].concat()))
            });
        }
        splitter.finish(|line| out.push((line.whole, [line.head, line.tail].concat())));
        out
    }

    fn joined(lines: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (whole, content) in lines {
            out.extend_from_slice(content);
            if *whole {
                out.push(b'\n');
            }
        }
        out
    }

    #[test]
    fn sixteen_kib_and_a_newline_is_one_whole_line() {
        let mut exact = vec![b'x'; MAX_CONTENT];
        exact.push(b'\n');
        assert_eq!(lines(&[exact.clone()]).len(), 1);
        assert!(lines(&[exact.clone()])[0].0);
        exact.insert(0, b'y');
        let cut = lines(&[exact]);
        assert_eq!(
            cut.iter().map(|(whole, c)| (*whole, c.len())).collect::<Vec<_>>(),
            [(false, MAX_CONTENT), (true, 1)]
        );
    }

    #[test]
    fn a_missing_last_newline_is_a_piece() {
        assert_eq!(
            lines(&[b"a\nb".to_vec()]),
            [(true, b"a".to_vec()), (false, b"b".to_vec())]
        );
    }

    #[test]
    fn the_prefix_is_as_cri_says() {
        let mut prefix = Prefix::new(1_709_251_199_999_999_999, Stream::Stderr);
        assert_eq!(prefix.tagged(false), b"2024-02-29T23:59:59.999999999Z stderr P ");
        assert_eq!(prefix.tagged(true), b"2024-02-29T23:59:59.999999999Z stderr F ");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_added(chunks in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(prop_oneof![4 => Just(b'\n'), 6 => any::<u8>()], 0..100),
                (0..40_000usize).prop_map(|n| vec![b'x'; n]),
            ], 0..12))
        {
            let cut = lines(&chunks);
            prop_assert_eq!(joined(&cut), chunks.concat());
            prop_assert!(cut.iter().all(|(_, content)| content.len() <= MAX_CONTENT));
        }
    }
}
