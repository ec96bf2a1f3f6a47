//! Values of any type, as properties have them.

use super::wire::Writer;

/// A value that knows its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    /// Without a NUL.
    Text(String),
    /// The type of the elements, which an empty array has too.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    /// An array of bytes.
    pub(crate) fn bytes(bytes: &[u8]) -> Value {
        Value::Array(
            "y".to_owned(),
            bytes.iter().map(|byte| Value::Byte(*byte)).collect(),
        )
    }

    /// The type.
    pub(crate) fn signature(&self) -> String {
        let code = match self {
            Value::Bool(_) => "b",
            Value::Byte(_) => "y",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Text(_) => "s",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                let inner: String = fields.iter().map(Value::signature).collect();
                return format!("({inner})");
            }
        };
        code.to_owned()
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Value::Bool(value) => writer.u32(u32::from(*value)),
            Value::Byte(value) => writer.byte(*value),
            Value::I16(value) => writer.number(value.to_le_bytes()),
            Value::U16(value) => writer.number(value.to_le_bytes()),
            Value::I32(value) => writer.number(value.to_le_bytes()),
            Value::U32(value) => writer.u32(*value),
            Value::I64(value) => writer.number(value.to_le_bytes()),
            Value::U64(value) => writer.number(value.to_le_bytes()),
            Value::Double(value) => writer.number(value.to_le_bytes()),
            Value::Text(text) => writer.string(text),
            Value::Variant(inner) => inner.write_variant(writer),
            Value::Array(element, items) => {
                let boundary = match element.as_bytes().first() {
                    Some(b'y' | b'v' | b'g') => 1,
                    Some(b'n' | b'q') => 2,
                    Some(b'x' | b't' | b'd' | b'(') => 8,
                    _ => 4,
                };
                writer.array(boundary, |writer| {
                    items.iter().for_each(|item| item.write(writer))
                });
            }
            Value::Struct(fields) => {
                writer.align(8);
                fields.iter().for_each(|field| field.write(writer));
            }
        }
    }

    /// The value with its type before it.
    pub(crate) fn write_variant(&self, writer: &mut Writer) {
        writer.signature(&self.signature());
        self.write(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Reader;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_struct_in_an_array_is_aligned() {
        let pair = Value::Struct(vec![
            Value::Text("/dev/null".to_owned()),
            Value::Text("rw".to_owned()),
        ]);
        let list = Value::Array("(ss)".to_owned(), vec![pair.clone(), pair]);
        assert_eq!(list.signature(), "a(ss)");
        let mut writer = Writer::default();
        list.write_variant(&mut writer);
        let mut reader = Reader::new(&writer.bytes, false);
        assert_eq!(reader.signature().unwrap(), "a(ss)");
        assert_eq!(reader.u32().unwrap(), 47);
        reader.align(8).unwrap();
        assert_eq!(
            (reader.string().unwrap(), reader.string().unwrap()),
            ("/dev/null", "rw")
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<u8>().prop_map(Value::Byte),
            any::<i16>().prop_map(Value::I16),
            any::<u32>().prop_map(Value::U32),
            any::<u64>().prop_map(Value::U64),
            "[a-z]{0,5}".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                (inner.clone(), 0_usize..4).prop_map(|(v, n)| Value::Array(v.signature(), vec![v; n])),
                prop::collection::vec(inner.clone(), 1..4).prop_map(Value::Struct),
                inner.prop_map(|v| Value::Variant(Box::new(v))),
            ]
        })
    }

    proptest! {
        /// The reader, which knows only signatures, agrees with the writer about where a value ends.
        #[test]
        fn the_reader_finds_the_end(value in value(), offset in 0_usize..9) {
            let mut writer = Writer::default();
            (0..offset).for_each(|_| writer.byte(1));
            value.write_variant(&mut writer);
            let mut reader = Reader::new(&writer.bytes, false);
            (0..offset).for_each(|_| drop(reader.byte()));
            prop_assert_eq!(reader.skip("v").unwrap(), "");
            prop_assert!(reader.is_at_end());
        }
    }
}
