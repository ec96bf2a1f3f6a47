//! Writing tar archives: pax (POSIX.1-2001), with extended headers only for what plain ones have no room for.

use std::io::{self, Read, Write};

use crate::unpack::{TarEntry, TarKind};

const BLOCK: usize = 512;
/// What a plain header's name has room for, and eleven octal digits are enough for.
const MAX_NAME: usize = 100;
const MAX_SIZE: u64 = 0o77_777_777_777;
const MAX_ID: u32 = 0o7_777_777;

/// An archive that is being written.
pub(crate) struct TarWriter<W> {
    to: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to }
    }

    /// Adds an entry with the first `size` bytes of `contents`. Where these end early, which files do that somebody cuts
    /// meanwhile, zeros take their place.
    pub(crate) fn add(&mut self, entry: &TarEntry, contents: &mut dyn Read, size: u64) -> io::Result<()> {
        let pax = extended(entry, size);
        if !pax.is_empty() {
            let about = TarEntry {
                name: b"pax".to_vec(),
                ..TarEntry::of(TarKind::Regular)
            };
            self.to.write_all(&header(&about, b'x', pax.len() as u64))?;
            self.to.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.to.write_all(&header(entry, flag(entry.kind), size))?;
        let copied = io::copy(&mut contents.take(size), &mut self.to)?;
        io::copy(&mut io::repeat(0).take(size - copied), &mut self.to)?;
        self.pad(size)
    }

    /// Adds an entry without contents.
    pub(crate) fn add_empty(&mut self, entry: &TarEntry) -> io::Result<()> {
        self.add(entry, &mut io::empty(), 0)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut io::repeat(0).take(rest), &mut self.to).map(|_| ())
    }
}

fn flag(kind: TarKind) -> u8 {
    match kind {
        TarKind::Regular => b'0',
        TarKind::HardLink => b'1',
        TarKind::Symlink => b'2',
        TarKind::CharDevice => b'3',
        TarKind::BlockDevice => b'4',
        TarKind::Directory => b'5',
        TarKind::Fifo => b'6',
    }
}

/// The records for what does not fit into the plain header.
fn extended(entry: &TarEntry, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in [("path", &entry.name), ("linkpath", &entry.link)] {
        if value.len() > MAX_NAME {
            record(&mut records, key.as_bytes(), value);
        }
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if id > MAX_ID {
            record(&mut records, key.as_bytes(), id.to_string().as_bytes());
        }
    }
    if size > MAX_SIZE {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    let (seconds, nanos) = (entry.mtime.seconds, entry.mtime.nanos);
    if let Some(time) = precise_time(seconds, nanos) {
        record(&mut records, b"mtime", time.as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// A time that a plain header can't have: before 1970, or with a part of a second.
fn precise_time(seconds: i64, nanos: u32) -> Option<String> {
    match (seconds, nanos) {
        (0.., 0) => None,
        (0.., _) => Some(format!("{seconds}.{nanos:09}")),
        (_, 0) => Some(seconds.to_string()),
        // -2 s and 0.75 s are -1.25 s.
        (_, _) => Some(format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)),
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().into_bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

fn header(entry: &TarEntry, flag: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block[..MAX_NAME], &entry.name);
    octal(&mut block[100..108], u64::from(entry.mode));
    octal(&mut block[108..116], u64::from(entry.uid.min(MAX_ID)));
    octal(&mut block[116..124], u64::from(entry.gid.min(MAX_ID)));
    octal(&mut block[124..136], size.min(MAX_SIZE));
    let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(0);
    octal(&mut block[136..148], seconds.min(MAX_SIZE));
    block[156] = flag;
    put(&mut block[157..257], &entry.link);
    put(&mut block[257..265], b"ustar\x0000");
    octal(&mut block[329..337], u64::from(entry.device.0));
    octal(&mut block[337..345], u64::from(entry.device.1));
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    octal(&mut block[148..155], sum);
    block
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let n = bytes.len().min(field.len());
    field[..n].copy_from_slice(&bytes[..n]);
}

/// Digits up to the last byte, which ends the field.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7).to_le_bytes()[0];
        value >>= 3;
    }
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::{TarReader, TarTime};

    #[test]
    fn what_is_written_is_read_again() {
        let long = |byte: u8| vec![byte; 300];
        let of = TarEntry::of;
        let entries = [
            TarEntry {
                name: b"a/short".to_vec(),
                mode: 0o4755,
                uid: 1000,
                gid: 7,
                mtime: TarTime {
                    seconds: 1_700_000_000,
                    nanos: 0,
                },
                ..of(TarKind::Regular)
            },
            TarEntry {
                name: long(b'n'),
                uid: 3_000_000,
                gid: u32::MAX - 1,
                mtime: TarTime {
                    seconds: 5,
                    nanos: 60,
                },
                xattrs: vec![
                    (b"security.capability".to_vec(), vec![1, 0, b'\n', b'=']),
                    (b"user.empty".to_vec(), Vec::new()),
                ],
                ..of(TarKind::Regular)
            },
            TarEntry {
                name: b"link".to_vec(),
                link: long(b'l'),
                mode: 0o777,
                ..of(TarKind::Symlink)
            },
            TarEntry {
                name: b"old".to_vec(),
                mtime: TarTime {
                    seconds: -2,
                    nanos: 750_000_000,
                },
                ..of(TarKind::Directory)
            },
            TarEntry {
                name: b"dev".to_vec(),
                device: (8, 17),
                ..of(TarKind::BlockDevice)
            },
        ];
        let contents = [&b"hello"[..], &[7; 512], b"", b"", b""];
        let mut writer = TarWriter::new(Vec::new());
        for (entry, bytes) in entries.iter().zip(contents) {
            writer.add(entry, &mut &*bytes, bytes.len() as u64).unwrap();
        }
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % BLOCK, 0);
        let mut reader = TarReader::new(&archive[..]);
        for (entry, bytes) in entries.iter().zip(contents) {
            let found = reader.next_entry().unwrap().unwrap();
            assert_eq!(format!("{found:?}"), format!("{entry:?}"));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(read, bytes);
        }
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn contents_that_end_early_are_filled_up() {
        let mut writer = TarWriter::new(Vec::new());
        let entry = |name: &str| TarEntry {
            name: name.into(),
            ..TarEntry::of(TarKind::Regular)
        };
        writer.add(&entry("cut"), &mut &b"abc"[..], 5).unwrap();
        writer.add(&entry("grown"), &mut &b"abcdef"[..], 2).unwrap();
        let archive = writer.finish().unwrap();
        let mut reader = TarReader::new(&archive[..]);
        for expected in [&b"abc\0\0"[..], b"ab"] {
            reader.next_entry().unwrap().unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!(read, expected);
        }
    }
}
