//! Whole messages: a header of fixed size, header fields, a body.

use super::wire::{Reader, Writer, length};
use super::{DbusError, Result};

/// The header up to and with the size of its fields.
pub(super) const FIXED: usize = 16;
/// No message that is asked for here has more; the protocol allows 128 MiB.
const LARGEST: usize = 1 << 20;

pub(super) const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// A method that is called.
pub(super) struct Header<'a> {
    pub(super) serial: u32,
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) signature: &'a str,
}

/// A method call as bytes.
pub(super) fn method_call(header: &Header<'_>, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    for byte in [b'l', METHOD_CALL, 0, 1] {
        writer.byte(byte);
    }
    writer.u32(length(body.len()));
    writer.u32(header.serial);
    writer.array(8, |fields| {
        let mut field = |code: u8, kind: &str, text: &str| {
            fields.align(8);
            fields.byte(code);
            fields.signature(kind);
            if kind == "g" {
                fields.signature(text);
            } else {
                fields.string(text);
            }
        };
        field(1, "o", header.path);
        field(2, "s", header.interface);
        field(3, "s", header.member);
        if let Some(destination) = header.destination {
            field(6, "s", destination);
        }
        if !header.signature.is_empty() {
            field(8, "g", header.signature);
        }
    });
    writer.align(8);
    writer.bytes.extend_from_slice(body);
    writer.bytes
}

/// A message that was received.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(super) kind: u8,
    pub(super) reply_serial: Option<u32>,
    path: String,
    pub(crate) interface: String,
    pub(crate) member: String,
    pub(super) error_name: String,
    /// The sender's unique name; empty where there is no bus in between.
    pub(crate) sender: String,
    signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

/// How many bytes follow the fixed part of a header.
pub(super) fn remaining(fixed: &[u8; FIXED]) -> Result<usize> {
    if fixed[3] != 1 {
        return Err(DbusError::Malformed("its version is not 1"));
    }
    let mut reader = Reader::new(fixed, big_endian(fixed[0])?);
    reader.skip("u")?;
    let body = reader.u32()? as usize;
    reader.skip("u")?;
    let fields = reader.u32()? as usize;
    if body > LARGEST || fields > LARGEST {
        return Err(DbusError::Malformed("it is longer than 1 MiB"));
    }
    Ok(fields.next_multiple_of(8) + body)
}

fn big_endian(mark: u8) -> Result<bool> {
    match mark {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(DbusError::Malformed("its byte order is unknown")),
    }
}

impl Incoming {
    /// Understands a whole message, with its fixed part.
    pub(super) fn parse(bytes: &[u8]) -> Result<Incoming> {
        let first = *bytes.first().ok_or(DbusError::Malformed("it is empty"))?;
        let big_endian = big_endian(first)?;
        let mut message = Incoming {
            big_endian,
            ..Incoming::default()
        };
        let mut reader = Reader::new(bytes, big_endian);
        reader.byte()?;
        message.kind = reader.byte()?;
        reader.skip("q")?;
        let body = reader.u32()? as usize;
        reader.skip("u")?;
        let fields = reader.u32()? as usize;
        let end = FIXED.saturating_add(fields);
        let list = bytes
            .get(..end)
            .ok_or(DbusError::Malformed("its header is cut short"))?;
        let mut reader = Reader::new(list, big_endian);
        reader.skip("(yyyyuuu)")?;
        while !reader.is_at_end() {
            message.take_field(&mut reader)?;
        }
        let body_at = end.next_multiple_of(8);
        let content = body_at.checked_add(body).and_then(|end| bytes.get(body_at..end));
        message.body = content
            .ok_or(DbusError::Malformed("its body is cut short"))?
            .to_vec();
        Ok(message)
    }

    fn take_field(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        reader.align(8)?;
        let code = reader.byte()?;
        let kind = reader.signature()?;
        let field = match (code, kind) {
            (1, "o") => &mut self.path,
            (2, "s") => &mut self.interface,
            (3, "s") => &mut self.member,
            (4, "s") => &mut self.error_name,
            (7, "s") => &mut self.sender,
            (5, "u") => {
                self.reply_serial = Some(reader.u32()?);
                return Ok(());
            }
            (8, "g") => {
                reader.signature()?.clone_into(&mut self.signature);
                return Ok(());
            }
            (1..=8, _) if code != 6 => {
                return Err(DbusError::Malformed("a header field has another type than usual"));
            }
            (9, _) => {
                return Err(DbusError::Malformed(
                    "it has descriptors, which were not asked for",
                ));
            }
            _ => {
                return match reader.skip(kind)? {
                    "" => Ok(()),
                    _ => Err(DbusError::Malformed("a header field has more than one value")),
                };
            }
        };
        reader.string()?.clone_into(field);
        Ok(())
    }

    /// The body, if it has the types that the caller is about to read.
    pub(crate) fn body(&self, signature: &str) -> Result<Reader<'_>> {
        if self.signature == signature {
            Ok(Reader::new(&self.body, self.big_endian))
        } else {
            Err(DbusError::Malformed("its body has other types than expected"))
        }
    }

    /// What an error message says.
    pub(super) fn into_error(self) -> DbusError {
        let text = (self.signature.starts_with('s')).then(|| {
            Reader::new(&self.body, self.big_endian)
                .string()
                .unwrap_or_default()
                .to_owned()
        });
        DbusError::Remote {
            message: text.unwrap_or_default().trim_end_matches('.').to_owned(),
            name: self.error_name,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn call() -> Vec<u8> {
        let header = Header {
            serial: 9,
            destination: Some("org.example"),
            path: "/org/example",
            interface: "org.example.Manager",
            member: "Do",
            signature: "su",
        };
        let mut body = Writer::default();
        body.string("text");
        body.u32(7);
        method_call(&header, &body.bytes)
    }

    #[test]
    fn what_is_written_is_understood() {
        let bytes = call();
        let mut fixed = [0; FIXED];
        fixed.copy_from_slice(&bytes[..FIXED]);
        assert_eq!(FIXED + remaining(&fixed).unwrap(), bytes.len());
        let message = Incoming::parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "Do"));
        assert_eq!(message.path, "/org/example");
        let mut body = message.body("su").unwrap();
        assert_eq!((body.string().unwrap(), body.u32().unwrap()), ("text", 7));
        assert!(message.body("s").is_err());
    }

    #[test]
    fn hostile_headers_are_errors() {
        let mut fixed = [0; FIXED];
        fixed.copy_from_slice(&call()[..FIXED]);
        for (at, byte) in [(0, b'x'), (3, 2), (7, 0x7f), (15, 0x7f)] {
            let mut bad = fixed;
            bad[at] = byte;
            assert!(remaining(&bad).is_err(), "byte {at}");
        }
        let bytes = call();
        for length in 0..bytes.len() {
            assert!(Incoming::parse(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0_usize..150, byte: u8, more in prop::collection::vec((0_usize..150, any::<u8>()), 0..4)) {
            let mut bytes = call();
            for (at, byte) in more.into_iter().chain([(at, byte)]) {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(message) = Incoming::parse(&bytes) {
                let _ = message.into_error();
            }
        }
    }
}
