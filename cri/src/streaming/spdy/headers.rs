//! Names and values of a SPDY stream, compressed: one zlib stream a direction for the whole connection.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use super::frame::ProtocolError;

/// A header block may not be longer than this once it is uncompressed, in bytes.
pub const MAX_HEADER_BLOCK: usize = 64 << 10;
/// Nor have more names than this.
const MAX_HEADERS: u32 = 256;

/// Headers in their order; names are in lower case and unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The headers of these pairs.
    pub fn new<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into().to_ascii_lowercase(), value.into()))
                .collect(),
        )
    }

    /// The first value of a name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(known, _)| known == name)?;
        values.split('\0').next()
    }

    fn encode(&self, block: &mut BytesMut) {
        block.put_u32(length(self.0.len()));
        for (name, value) in &self.0 {
            for text in [name, value] {
                block.put_u32(length(text.len()));
                block.put_slice(text.as_bytes());
            }
        }
    }

    fn decode(mut block: &[u8]) -> Result<Self, ProtocolError> {
        let count = block.try_get_u32().map_err(|_| ProtocolError::HeaderBlock)?;
        if count > MAX_HEADERS {
            return Err(ProtocolError::HeaderBomb);
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?;
            let value = text(&mut block)?;
            let lower_case =
                !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == 0);
            if !lower_case || headers.iter().any(|(known, _)| *known == name) {
                return Err(ProtocolError::HeaderName);
            }
            headers.push((name, value));
        }
        if block.is_empty() {
            Ok(Self(headers))
        } else {
            Err(ProtocolError::HeaderBlock)
        }
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn text(block: &mut &[u8]) -> Result<String, ProtocolError> {
    let length = block.try_get_u32().map_err(|_| ProtocolError::HeaderBlock)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(ProtocolError::HeaderBlock)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| ProtocolError::HeaderBlock)
}

/// The compressing end.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        // It is refused only in the middle of a stream.
        let _ = compress.set_dictionary(dictionary());
        Self(compress)
    }

    pub(super) fn deflate(&mut self, headers: &Headers, out: &mut BytesMut) {
        let mut block = BytesMut::new();
        headers.encode(&mut block);
        let mut input = &block[..];
        let mut buffer = [0; 512];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.compress(input, &mut buffer, FlushCompress::Sync);
            let read = difference(self.0.total_in(), read);
            let written = difference(self.0.total_out(), written);
            input = &input[read..];
            out.put_slice(&buffer[..written]);
            let full = written == buffer.len();
            if status.is_err() || (input.is_empty() && !full) {
                return;
            }
        }
    }
}

/// The uncompressing end.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// # Errors
    /// It is no header block, or one that is too long. The compression is out of step from then on.
    pub(super) fn inflate(&mut self, mut input: &[u8]) -> Result<Headers, ProtocolError> {
        let mut block = Vec::with_capacity(input.len().clamp(64, MAX_HEADER_BLOCK) * 2);
        loop {
            if block.len() > MAX_HEADER_BLOCK {
                return Err(ProtocolError::HeaderBomb);
            }
            if block.len() == block.capacity() {
                block.reserve(block.len());
            }
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(input, &mut block, FlushDecompress::Sync);
            let consumed = difference(self.0.total_in(), read);
            let produced = difference(self.0.total_out(), written);
            input = input.get(consumed..).unwrap_or_default();
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    // It can be asked for only once in a stream.
                    let set = self.0.set_dictionary(dictionary());
                    set.map_err(|_| ProtocolError::Compression)?;
                    continue;
                }
                Ok(Status::StreamEnd) | Err(_) => return Err(ProtocolError::Compression),
                Ok(_) => {}
            }
            let full = block.len() == block.capacity();
            if input.is_empty() && !full {
                return Headers::decode(&block);
            }
            if consumed == 0 && produced == 0 && !full {
                return Err(ProtocolError::Compression);
            }
        }
    }
}

fn difference(later: u64, earlier: u64) -> usize {
    usize::try_from(later.saturating_sub(earlier)).unwrap_or(usize::MAX)
}
