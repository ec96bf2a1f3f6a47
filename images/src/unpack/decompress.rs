//! Compression, told by its first bytes: media types are not always right about it.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::UnpackError;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Frames that a decoder skips have 16 magic numbers, `0x184D2A50` and up, in little-endian order.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// Memory that a stream may ask for: the window of `zstd -22`.
const ZSTD_MAX_WINDOW: u64 = 128 << 20;
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z'];

/// Whether a stream is compressed, in a way that we know or not.
pub(crate) fn is_compressed(stream: &mut impl BufRead) -> io::Result<bool> {
    let start = stream.fill_buf()?;
    Ok([GZIP, ZSTD, BZIP2, XZ]
        .iter()
        .any(|magic| start.starts_with(magic))
        || is_skippable(start))
}

fn is_skippable(start: &[u8]) -> bool {
    start.len() >= 4 && start[1..4] == *ZSTD_SKIPPABLE && start[0] & 0xf0 == 0x50
}

/// The uncompressed bytes of a blob: gzip, zstd or plain.
pub(crate) fn open<'a, R: BufRead + Send>(blob: &'a mut R) -> Result<Box<dyn Read + Send + 'a>, UnpackError> {
    let start = blob.fill_buf().map_err(UnpackError::Source)?;
    if start.starts_with(GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(blob)));
    }
    if start.starts_with(ZSTD) || is_skippable(start) {
        return Ok(Box::new(ZstdReader::new(blob)));
    }
    if start.starts_with(BZIP2) || start.starts_with(XZ) {
        return Err(UnpackError::Unsupported(
            "it is compressed with bzip2 or xz; layers are gzip, zstd or plain tar archives".to_owned(),
        ));
    }
    Ok(Box::new(blob))
}

/// All frames of a zstd stream, one after the other.
struct ZstdReader<R> {
    source: R,
    frame: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(ZSTD_MAX_WINDOW);
        Self {
            source,
            frame,
            in_frame: false,
        }
    }

    /// Begins the next frame; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.frame.reset(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => skip(&mut self.source, u64::from(length))?,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            let n = self.frame.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            self.in_frame = false;
        }
    }
}

fn skip(source: &mut impl Read, length: u64) -> io::Result<()> {
    let skipped = io::copy(&mut source.take(length), &mut io::sink())?;
    if skipped < length {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}
