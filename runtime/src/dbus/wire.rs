//! The marshalling of basic types: writing in little-endian order, reading in either.

use super::{DbusError, Result};

/// How deeply types may be nested, structs and arrays together; the specification's limit.
const DEPTH: usize = 64;

/// A message, or a part of it, as it grows. Positions count from the beginning of the message.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(super) bytes: Vec<u8>,
}

impl Writer {
    /// Fills up with zeros to a multiple of `boundary`.
    pub(crate) fn align(&mut self, boundary: usize) {
        let length = self.bytes.len().next_multiple_of(boundary);
        self.bytes.resize(length, 0);
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A number, by its little-endian bytes: numbers are aligned to their own size.
    pub(crate) fn number<const N: usize>(&mut self, little_endian: [u8; N]) {
        self.align(N);
        self.bytes.extend_from_slice(&little_endian);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.number(value.to_le_bytes());
    }

    /// A string or an object path. The text holds no NUL: that is for the caller to check.
    pub(crate) fn string(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes.extend_from_slice(text.as_bytes());
        self.byte(0);
    }

    /// A signature, of at most 255 bytes.
    pub(crate) fn signature(&mut self, text: &str) {
        self.byte(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.byte(0);
    }

    /// An array, whose elements are aligned to `boundary` and written by `elements`.
    pub(crate) fn array(&mut self, boundary: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let prefix = self.bytes.len() - 4;
        // The padding before the first element is not part of the length, and is there without elements too.
        self.align(boundary);
        let first = self.bytes.len();
        elements(self);
        let size = length(self.bytes.len() - first);
        self.bytes[prefix..prefix + 4].copy_from_slice(&size.to_le_bytes());
    }
}

/// Nothing that is sent comes near the protocol's limit of 128 MiB.
pub(super) fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A message that was received, or its body: both begin at a multiple of eight.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], big_endian: bool) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            big_endian,
        }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DbusError::Malformed("it ends in the middle of a value"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn align(&mut self, boundary: usize) -> Result<()> {
        let padding = self.at.next_multiple_of(boundary) - self.at;
        self.take(padding).map(drop)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    /// A string or an object path.
    pub(crate) fn string(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    pub(crate) fn signature(&mut self) -> Result<&'a str> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<&'a str> {
        let bytes = self.take(length)?;
        if self.byte()? != 0 {
            return Err(DbusError::Malformed("a string has no end"));
        }
        std::str::from_utf8(bytes).map_err(|_| DbusError::Malformed("a string is not UTF-8"))
    }

    /// Passes over one value of the type that `signature` begins with; returns the rest of the signature.
    pub(crate) fn skip<'s>(&mut self, signature: &'s str) -> Result<&'s str> {
        self.skip_nested(signature, DEPTH)
    }

    fn skip_nested<'s>(&mut self, signature: &'s str, depth: usize) -> Result<&'s str> {
        let depth = depth
            .checked_sub(1)
            .ok_or(DbusError::Malformed("types are nested too deeply"))?;
        let (code, mut rest) = split(signature)?;
        match code {
            b'y' => drop(self.take(1)?),
            b'n' | b'q' => self.aligned(2)?,
            b'b' | b'i' | b'u' | b'h' => self.aligned(4)?,
            b'x' | b't' | b'd' => self.aligned(8)?,
            b's' | b'o' => drop(self.string()?),
            b'g' => drop(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                if !self.skip_nested(inner, depth)?.is_empty() {
                    return Err(DbusError::Malformed("a variant has more than one type"));
                }
            }
            b'a' => {
                let size = self.u32()? as usize;
                self.align(boundary(rest)?)?;
                self.take(size)?;
                rest = after_type(rest, depth)?;
            }
            b'(' | b'{' => {
                self.align(8)?;
                while !rest.starts_with([')', '}']) {
                    rest = self.skip_nested(rest, depth)?;
                }
                rest = &rest[1..];
            }
            _ => return Err(DbusError::Malformed("a type is unknown")),
        }
        Ok(rest)
    }

    fn aligned(&mut self, size: usize) -> Result<()> {
        self.align(size)?;
        self.take(size).map(drop)
    }
}

/// The first type's code, and what follows it.
fn split(signature: &str) -> Result<(u8, &str)> {
    match signature.as_bytes().first() {
        Some(code) if code.is_ascii() => Ok((*code, &signature[1..])),
        _ => Err(DbusError::Malformed("a signature is incomplete")),
    }
}

/// What a value of the type that the signature begins with is aligned to.
fn boundary(signature: &str) -> Result<usize> {
    Ok(match split(signature)?.0 {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    })
}

/// The signature without its first complete type.
fn after_type(signature: &str, depth: usize) -> Result<&str> {
    let depth = depth
        .checked_sub(1)
        .ok_or(DbusError::Malformed("types are nested too deeply"))?;
    let (code, mut rest) = split(signature)?;
    match code {
        b'a' => after_type(rest, depth),
        b'(' | b'{' => {
            while !rest.starts_with([')', '}']) {
                rest = after_type(rest, depth)?;
            }
            Ok(&rest[1..])
        }
        _ => Ok(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_aligned_and_skipped() {
        let mut writer = Writer::default();
        writer.byte(7);
        writer.string("text");
        writer.array(8, |elements| {
            elements.align(8);
            elements.string("a");
            elements.signature("u");
            elements.u32(9);
        });
        writer.number(5_u64.to_le_bytes());
        let mut reader = Reader::new(&writer.bytes, false);
        assert_eq!(reader.skip("ysa(sv)t").unwrap(), "sa(sv)t");
        assert_eq!(reader.string().unwrap(), "text");
        assert_eq!(reader.skip("a(sv)t").unwrap(), "t");
        assert_eq!(reader.skip("t").unwrap(), "");
        assert!(reader.is_at_end());
        assert!(reader.byte().is_err());
    }

    #[test]
    fn both_byte_orders() {
        assert_eq!(Reader::new(&[1, 0, 0, 0], false).u32().unwrap(), 1);
        assert_eq!(Reader::new(&[0, 0, 0, 1], true).u32().unwrap(), 1);
    }

    #[test]
    fn hostile_lengths_and_types_are_errors() {
        let huge = [0xff, 0xff, 0xff, 0x7f, b'x', 0];
        assert!(Reader::new(&huge, false).string().is_err());
        assert!(Reader::new(&huge, false).skip("ay").is_err());
        assert!(
            Reader::new(&[1, 0, 0, 0, 0xff, 0], false).string().is_err(),
            "not UTF-8"
        );
        assert!(
            Reader::new(&[1, 0, 0, 0, b'x', 1], false).string().is_err(),
            "no end"
        );
        for bad in ["", "(", "a", "(u", "a(", "z", "é", "a{s"] {
            assert!(Reader::new(&[0; 64], false).skip(bad).is_err(), "{bad}");
        }
        let deep = "(".repeat(200);
        assert!(Reader::new(&[0; 8], false).skip(&deep).is_err());
        assert!(Reader::new(&[0; 8], false).skip(&"a".repeat(200)).is_err());
        // A variant in a variant in a variant …
        let variants = [1, b'v', 0].repeat(100);
        assert!(Reader::new(&variants, false).skip("v").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_signature_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), signature in "[ybnqiuxtdsogvah(){}é]{0,12}") {
            let _ = Reader::new(&bytes, false).skip(&signature);
        }
    }
}
