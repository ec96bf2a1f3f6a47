//! Reading tar archives: ustar, pax (POSIX.1-2001) and the GNU extensions that layers use.
//!
//! Written for untrusted input: nothing that an archive says makes it allocate more than a few MiB.

use std::io::{self, Read};

use super::UnpackError;

pub(crate) const BLOCK: usize = 512;
/// Longest GNU long name.
const MAX_LONG_NAME: u64 = 64 * 1024;
/// Largest pax header: room for the largest extended attributes that Linux takes.
const MAX_PAX: u64 = 1 << 20;
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";

/// What kind of file an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// A time, as utimensat(2) takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// An entry's header.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// One of that kind, of root's, without a name.
    pub(crate) fn of(kind: Kind) -> Self {
        Self {
            name: Vec::new(),
            link: Vec::new(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

/// An archive, entry by entry. It reads as the contents of the entry that it is at.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry that were not read yet.
    content: u64,
    /// Bytes between its end and the next header.
    padding: u64,
}

/// What extension headers say about the entry after them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            content: 0,
            padding: 0,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Bytes of the current entry that were not read yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.content
    }

    /// Goes past the current entry's contents without reading them: `seek` moves the source by so many bytes.
    pub(crate) fn skip_content(&mut self, seek: impl FnOnce(&mut R, u64)) {
        let content = std::mem::take(&mut self.content);
        seek(&mut self.inner, content);
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry. `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extension = Extension::default();
        let mut headers = 0;
        loop {
            self.skip_to_next_header()?;
            let Some(block) = self.read_header()? else {
                if headers > 0 {
                    return Err(UnpackError::Corrupt(
                        "the archive ends after an extension header".to_owned(),
                    ));
                }
                return Ok(None);
            };
            let size = number(&block[124..136], "size")?;
            self.content = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
            match block[156] {
                b'L' => extension.name = Some(self.read_long_name(size)?),
                b'K' => extension.link = Some(self.read_long_name(size)?),
                b'x' => extension.read_pax(&self.read_content(size, MAX_PAX, "pax header")?)?,
                // Defaults for all entries after it; writers put comments there (git) and nothing that a layer needs.
                b'g' => {}
                _ => return self.entry(&block, extension).map(Some),
            }
            headers += 1;
            if headers > 8 {
                return Err(UnpackError::Corrupt(
                    "an entry has more than 8 extension headers".to_owned(),
                ));
            }
        }
    }

    /// Reads what comes after the end of the archive: padding, which counts for the digest.
    pub(crate) fn drain(&mut self) -> Result<(), UnpackError> {
        io::copy(&mut self.inner, &mut io::sink()).map_err(UnpackError::Source)?;
        Ok(())
    }

    fn entry(&mut self, block: &[u8; BLOCK], extension: Extension) -> Result<Entry, UnpackError> {
        let name = extension.name.unwrap_or_else(|| header_name(block));
        let kind = kind(block[156], &name)?;
        if let Some(size) = extension.size {
            self.content = size;
            self.padding = size
                .checked_next_multiple_of(BLOCK as u64)
                .map(|end| end - size)
                .ok_or_else(|| UnpackError::Corrupt("an entry's size is past 2^64".to_owned()))?;
        }
        // Only regular files have contents. Some writers give links the size of their target, and Go's reader, by
        // which most layers were checked, skips nothing after them.
        if kind != Kind::Regular {
            self.content = 0;
            self.padding = 0;
        }
        let id = |pax: Option<u64>, field: &[u8], what: &str| -> Result<u32, UnpackError> {
            let id = pax.map_or_else(|| number(field, what), Ok)?;
            u32::try_from(id)
                .map_err(|_| UnpackError::Corrupt(format!("an entry's {what} {id} is past 2^32")))
        };
        let mtime = match extension.mtime {
            Some(time) => time,
            None => Time {
                seconds: signed_number(&block[136..148], "mtime")?,
                nanos: 0,
            },
        };
        Ok(Entry {
            link: extension
                .link
                .unwrap_or_else(|| until_zero(&block[157..257]).to_vec()),
            kind,
            mode: u32::try_from(number(&block[100..108], "mode")? & 0o7777).unwrap_or(0),
            uid: id(extension.uid, &block[108..116], "uid")?,
            gid: id(extension.gid, &block[116..124], "gid")?,
            mtime,
            device: device(kind, block)?,
            xattrs: extension.xattrs,
            name,
        })
    }

    fn skip_to_next_header(&mut self) -> Result<(), UnpackError> {
        let skip = self.content.saturating_add(self.padding);
        let skipped =
            io::copy(&mut (&mut self.inner).take(skip), &mut io::sink()).map_err(UnpackError::Source)?;
        self.content = 0;
        self.padding = 0;
        if skipped < skip { Err(cut_short()) } else { Ok(()) }
    }

    /// A header block. `None` at the end: a block of zeros, or, from lenient writers, nothing.
    fn read_header(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_short()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Source(error)),
            }
        }
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(i, &b)| {
                if (148..156).contains(&i) {
                    u64::from(b' ')
                } else {
                    u64::from(b)
                }
            })
            .sum();
        if !number(&block[148..156], "checksum").is_ok_and(|said| said == sum) {
            return Err(UnpackError::Corrupt(
                "it is not a tar archive: a header's checksum is wrong".to_owned(),
            ));
        }
        Ok(Some(block))
    }

    fn read_long_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let bytes = self.read_content(size, MAX_LONG_NAME, "long name")?;
        Ok(until_zero(&bytes).to_vec())
    }

    fn read_content(&mut self, size: u64, limit: u64, what: &str) -> Result<Vec<u8>, UnpackError> {
        if size > limit {
            return Err(UnpackError::Refused(format!(
                "a {what} of {size} bytes is longer than {limit}"
            )));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(UnpackError::Source)?;
        Ok(bytes)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.content).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is cut short",
            ));
        }
        self.content -= n as u64;
        Ok(n)
    }
}

impl Extension {
    /// Records of the form `length key=value\n`.
    fn read_pax(&mut self, mut bytes: &[u8]) -> Result<(), UnpackError> {
        let bad = || UnpackError::Corrupt("a pax header is malformed".to_owned());
        while !bytes.is_empty() {
            let space = bytes.iter().position(|&b| b == b' ').ok_or_else(bad)?;
            let length: usize = ascii(&bytes[..space])
                .and_then(|n| n.parse().ok())
                .ok_or_else(bad)?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &bytes[space + 1..length - 1];
            let equals = record.iter().position(|&b| b == b'=').ok_or_else(bad)?;
            self.pax_record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn pax_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        let decimal = || {
            ascii(value)
                .and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| UnpackError::Corrupt("a pax header has a number that is none".to_owned()))
        };
        match key {
            // An empty value takes the record back.
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal()?),
            b"uid" => self.uid = Some(decimal()?),
            b"gid" => self.gid = Some(decimal()?),
            b"mtime" => self.mtime = Some(pax_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
            _ => {
                if let Some(name) = key.strip_prefix(PAX_XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn cut_short() -> UnpackError {
    UnpackError::Corrupt("the archive is cut short".to_owned())
}

fn sparse() -> UnpackError {
    UnpackError::Unsupported("it has a sparse file; pack it without --sparse".to_owned())
}

fn kind(flag: u8, name: &[u8]) -> Result<Kind, UnpackError> {
    match flag {
        // Before POSIX, a slash at the end made a directory.
        b'0' | 0 | b'7' if name.ends_with(b"/") => Ok(Kind::Directory),
        b'0' | 0 | b'7' => Ok(Kind::Regular),
        b'1' => Ok(Kind::HardLink),
        b'2' => Ok(Kind::Symlink),
        b'3' => Ok(Kind::CharDevice),
        b'4' => Ok(Kind::BlockDevice),
        b'5' => Ok(Kind::Directory),
        b'6' => Ok(Kind::Fifo),
        b'S' => Err(sparse()),
        _ => Err(UnpackError::Unsupported(format!(
            "entry {:?} has the unknown type {:?}",
            String::from_utf8_lossy(name),
            char::from(flag)
        ))),
    }
}

fn header_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&block[..100]);
    let prefix = if block[257..263] == *b"ustar\0" {
        until_zero(&block[345..500])
    } else {
        b""
    };
    if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    }
}

fn device(kind: Kind, block: &[u8; BLOCK]) -> Result<(u32, u32), UnpackError> {
    if !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        return Ok((0, 0));
    }
    let part = |field: &[u8]| {
        u32::try_from(number(field, "device number")?)
            .map_err(|_| UnpackError::Corrupt("a device number is past 2^32".to_owned()))
    };
    Ok((part(&block[329..337])?, part(&block[337..345])?))
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.starts_with('+'))
}

/// A number that can't be negative.
fn number(field: &[u8], what: &str) -> Result<u64, UnpackError> {
    u64::try_from(signed_number(field, what)?)
        .map_err(|_| UnpackError::Corrupt(format!("a header has a negative {what}")))
}

/// Octal digits, or, with the first bit set, a big-endian two's complement number (GNU).
fn signed_number(field: &[u8], what: &str) -> Result<i64, UnpackError> {
    let bad = || UnpackError::Corrupt(format!("a header has no number as its {what}"));
    let Some(&first) = field.first() else {
        return Err(bad());
    };
    if first & 0x80 != 0 {
        let start = if first & 0x40 != 0 {
            i64::from(first) - 256
        } else {
            i64::from(first & 0x3f)
        };
        return field[1..].iter().try_fold(start, |n, &b| {
            n.checked_mul(256)
                .and_then(|n| n.checked_add(i64::from(b)))
                .ok_or_else(bad)
        });
    }
    let text = ascii(until_zero(field)).ok_or_else(bad)?.trim_matches(' ');
    if text.is_empty() {
        return Ok(0);
    }
    i64::from_str_radix(text, 8).map_err(|_| bad())
}

/// Seconds with a fraction, perhaps negative.
fn pax_time(value: &[u8]) -> Result<Time, UnpackError> {
    let bad = || UnpackError::Corrupt("a pax header has a time that is none".to_owned());
    let text = ascii(value).ok_or_else(bad)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| bad())?;
    if whole.starts_with('-') && nanos > 0 {
        let seconds = seconds.checked_sub(1).ok_or_else(bad)?;
        return Ok(Time {
            seconds,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Ok(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let table: &[(&[u8], i64)] = &[
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"644     ", 0o644),
            (b"\0\0\0\0", 0),
            (&[0x80, 0, 0, 0, 0, 0, 1, 0], 256),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], -2),
        ];
        for (field, value) in table {
            assert_eq!(signed_number(field, "x").unwrap(), *value, "{field:?}");
        }
        for bad in [
            &b"9"[..],
            b"-1x",
            b"+7",
            b"0x1",
            &[0x80, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert!(signed_number(bad, "x").is_err(), "{bad:?}");
        }
        assert!(number(b"-1\0", "x").is_err());
    }

    #[test]
    fn pax_times_have_fractions_and_signs() {
        let time = |text: &str| pax_time(text.as_bytes()).ok().map(|t| (t.seconds, t.nanos));
        assert_eq!(time("1"), Some((1, 0)));
        assert_eq!(time("1.5"), Some((1, 500_000_000)));
        assert_eq!(time("1.1234567891"), Some((1, 123_456_789)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        for bad in ["", ".", "x", "1.x", "1e9", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn pax_records_are_exact() {
        let mut extension = Extension::default();
        extension
            .read_pax(b"12 path=a b\n9 uid=17\n28 SCHILY.xattr.user.x=a=\0b\n")
            .unwrap();
        assert_eq!(extension.name.as_deref(), Some(&b"a b"[..]));
        assert_eq!(extension.uid, Some(17));
        assert_eq!(extension.xattrs, [(b"user.x".to_vec(), b"a=\0b".to_vec())]);
        for bad in [
            &b"x"[..],
            b"4 a=\n",
            b"6 a=b\n ",
            b"99 a=b\n",
            b"2 \n",
            b"0 a=b\n",
            b"6 aab\n",
            b"8 uid=x\n",
        ] {
            assert!(
                Extension::default().read_pax(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(0u8.., 0..2048)) {
            let mut reader = TarReader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next_entry() {}
        }

        #[test]
        fn well_summed_noise_never_panics(mut bytes in proptest::collection::vec(0u8.., 512..2048), flag in "[0-7LKxgS]") {
            bytes[156] = flag.as_bytes()[0];
            bytes[124..136].copy_from_slice(b"00000001000\0");
            let sum: u64 = bytes[..512].iter().enumerate()
                .map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u64::from(b) }).sum();
            bytes[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
            let mut reader = TarReader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
