//! The little of protobuf's encoding that criu's service speaks: numbers, texts, and messages in messages.

/// A message that is being written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

impl Message {
    /// Adds a number.
    pub(crate) fn number(&mut self, field: u64, value: u64) -> &mut Message {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// Adds a descriptor or a pid: a signed number, of which the negative ones are as long as 64 bits.
    pub(crate) fn signed(&mut self, field: u64, value: i32) -> &mut Message {
        self.number(field, i64::from(value).cast_unsigned())
    }

    /// Adds what is true; nothing says false.
    pub(crate) fn switch(&mut self, field: u64, value: bool) -> &mut Message {
        if value {
            self.number(field, 1);
        }
        self
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, field: u64, value: &str) -> &mut Message {
        self.bytes(field, value.as_bytes())
    }

    /// Adds a text unless it is empty.
    pub(crate) fn text_if_any(&mut self, field: u64, value: &str) -> &mut Message {
        if !value.is_empty() {
            self.text(field, value);
        }
        self
    }

    /// Adds a message of two texts.
    pub(crate) fn pair(&mut self, field: u64, first: &str, second: &str) -> &mut Message {
        let mut pair = Message::default();
        pair.text(1, first).text(2, second);
        self.message(field, &pair)
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, field: u64, value: &Message) -> &mut Message {
        self.bytes(field, &value.0)
    }

    fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Message {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// As it goes over the wire.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number, or true and false.
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order that they came in; `None` for what is no message.
pub(crate) fn parse(mut text: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    const FIXED_64: u64 = 1;
    const FIXED_32: u64 = 5;
    let mut fields = Vec::new();
    while !text.is_empty() {
        let tag = read_varint(&mut text)?;
        let value = match tag & 7 {
            VARINT => Value::Number(read_varint(&mut text)?),
            LENGTH_DELIMITED => {
                let length = usize::try_from(read_varint(&mut text)?).ok()?;
                let (value, rest) = text.split_at_checked(length)?;
                text = rest;
                Value::Bytes(value)
            }
            kind @ (FIXED_64 | FIXED_32) => {
                let (value, rest) = text.split_at_checked(if kind == FIXED_64 { 8 } else { 4 })?;
                text = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

fn read_varint(text: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = text.split_first()?;
        *text = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protobuf_says() {
        let mut message = Message::default();
        message
            .number(1, 150)
            .text(2, "testing")
            .switch(3, true)
            .switch(4, false)
            .signed(5, -1)
            .pair(23, "a", "b");
        let expected = b"\x08\x96\x01\x12\x07testing\x18\x01\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\
            \xba\x01\x06\x0a\x01a\x12\x01b";
        assert_eq!(message.as_bytes(), expected);
        let fields = parse(message.as_bytes()).unwrap();
        assert_eq!(fields[0], (1, Value::Number(150)));
        assert_eq!(fields[1], (2, Value::Bytes(b"testing")));
        assert_eq!(fields[3], (5, Value::Number(u64::MAX)));
        assert_eq!(fields[4].0, 23);
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        for text in [
            &b"\x08"[..],
            b"\x08\x96",
            b"\x12\x07test",
            b"\x0b",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x0d\0\0",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(b""), Some(Vec::new()));
    }
}
