//! SPDY/3.1 frames: bytes to frames and back, without any I/O.
//!
//! A control frame is read whole, and may not be large. A data frame may have 16 MiB; its content is handed on in the
//! pieces in which it comes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};

/// A control frame longer than this is refused, in bytes.
pub const MAX_CONTROL_FRAME: usize = 32 << 10;
/// Data is handed on in pieces up to this size, in bytes.
pub const MAX_PIECE: usize = 32 << 10;
/// A piece smaller than this does not keep the buffer alive that it came in, in bytes.
const COPIED: usize = 4 << 10;
/// The largest length that a frame can have.
const MAX_LENGTH: usize = (1 << 24) - 1;
const HEADER: usize = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const STREAM_ID: u32 = 0x7fff_ffff;

/// Why a connection can't go on: the peer does not speak the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not version 3.
    #[error("The peer speaks version {0} of SPDY, not 3.")]
    Version(u16),
    /// A control frame that is too long.
    #[error("The peer sent a control frame of {0} bytes; {MAX_CONTROL_FRAME} are allowed.")]
    Oversized(usize),
    /// A control frame whose length does not fit its type.
    #[error("The peer sent a control frame of type {0} whose length is wrong.")]
    Length(u16),
    /// Stream 0.
    #[error("The peer sent a frame of type {0} for stream 0.")]
    StreamZero(u16),
    /// The zlib stream is broken.
    #[error("The peer's header compression is broken.")]
    Compression,
    /// The uncompressed block is too long.
    #[error(
        "The peer sent a header block that is longer than {} bytes.",
        super::headers::MAX_HEADER_BLOCK
    )]
    HeaderBomb,
    /// The uncompressed block is no header block.
    #[error("The peer sent a header block that is none.")]
    HeaderBlock,
    /// A name in upper case, an empty one, or one that is there twice.
    #[error("The peer sent a header whose name is empty, in upper case, or there twice.")]
    HeaderName,
    /// A stream id that a client may not use, or not any more.
    #[error("The peer opened stream {0}, which is not the next of its own.")]
    StreamId(u32),
    /// More control frames in answer to the peer's than it reads.
    #[error("The peer asks for more than it reads.")]
    Flood,
    /// Flow control was broken.
    #[error("The peer opened a window further than 2^31 - 1.")]
    Window,
}

/// Statuses of [`Frame::Reset`].
pub mod reset {
    /// The stream breaks the protocol.
    pub const PROTOCOL_ERROR: u32 = 1;
    /// There is no such stream.
    pub const INVALID_STREAM: u32 = 2;
    /// The stream is not wanted.
    pub const REFUSED_STREAM: u32 = 3;
    /// The stream is not wanted any more.
    pub const CANCEL: u32 = 5;
    /// Data after the end.
    pub const STREAM_ALREADY_CLOSED: u32 = 9;
}

/// The setting of a stream's first window.
pub const SETTINGS_INITIAL_WINDOW_SIZE: u32 = 7;

/// One frame; of data, a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// The new stream.
        stream: u32,
        /// The peer will send nothing on it.
        fin: bool,
        /// The peer takes nothing on it.
        unidirectional: bool,
        /// What it is for.
        headers: Headers,
    },
    /// Accepts a stream.
    SynReply {
        /// The stream.
        stream: u32,
        /// Nothing will be sent on it.
        fin: bool,
        /// Anything to tell.
        headers: Headers,
    },
    /// Ends a stream in both directions.
    Reset {
        /// The stream.
        stream: u32,
        /// Why: one of [`reset`].
        status: u32,
    },
    /// Identifiers and values.
    Settings(Vec<(u32, u32)>),
    /// To be sent back.
    Ping(u32),
    /// No more streams.
    GoAway {
        /// The last stream that was accepted.
        last_stream: u32,
        /// 0 is no error.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        stream: u32,
        /// Nothing more will be sent on it.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// More may be sent.
    WindowUpdate {
        /// The stream; 0 for all of them together.
        stream: u32,
        /// So many bytes more.
        delta: u32,
    },
    /// Content of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// Nothing more will be sent on it.
        fin: bool,
        /// The content, or a piece of it.
        bytes: Bytes,
    },
    /// A type that this version does not have; to be ignored.
    Unknown(u16),
}

/// Bytes to frames.
pub struct Decoder {
    inflater: Inflater,
    data: Option<DataLeft>,
}

/// A data frame of which only the beginning came.
struct DataLeft {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            inflater: Inflater::new(),
            data: None,
        }
    }
}

impl Decoder {
    /// Takes the next frame off the front of `input`; `None` if more bytes have to come first.
    ///
    /// # Errors
    /// The bytes are not the protocol. There is no way to go on then.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        if let Some(data) = self.data.take() {
            return Ok(self.piece(data, input));
        }
        let Some(header) = input.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let word = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let flags = header[4];
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        if word & !STREAM_ID == 0 {
            if word == 0 {
                return Err(ProtocolError::StreamZero(0));
            }
            input.advance(HEADER);
            let data = DataLeft {
                stream: word,
                fin: flags & FIN != 0,
                left: length,
            };
            return Ok(self.piece(data, input));
        }
        let (version, kind) = (header_half(word >> 16) & 0x7fff, header_half(word));
        if version != VERSION {
            return Err(ProtocolError::Version(version));
        }
        if length > MAX_CONTROL_FRAME {
            return Err(ProtocolError::Oversized(length));
        }
        if input.len() < HEADER + length {
            input.reserve(HEADER + length - input.len());
            return Ok(None);
        }
        input.advance(HEADER);
        let body = input.split_to(length);
        self.control(kind, flags, &body).map(Some)
    }

    fn piece(&mut self, data: DataLeft, input: &mut BytesMut) -> Option<Frame> {
        let DataLeft { stream, fin, left } = data;
        if left > 0 && input.is_empty() {
            self.data = Some(data);
            return None;
        }
        let size = left.min(input.len()).min(MAX_PIECE);
        let bytes = if size < COPIED {
            let bytes = Bytes::copy_from_slice(&input[..size]);
            input.advance(size);
            bytes
        } else {
            input.split_to(size).freeze()
        };
        let left = left - size;
        if left > 0 {
            self.data = Some(DataLeft { stream, fin, left });
        }
        Some(Frame::Data {
            stream,
            fin: fin && left == 0,
            bytes,
        })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Frame, ProtocolError> {
        let wrong = |_| ProtocolError::Length(kind);
        let fin = flags & FIN != 0;
        let frame = match kind {
            1 => {
                let stream = stream_id(&mut body, kind)?;
                // An associated stream, a priority and a slot: nothing that a client of ours uses.
                body.try_get_u32().map_err(wrong)?;
                body.try_get_u16().map_err(wrong)?;
                Frame::SynStream {
                    stream,
                    fin,
                    unidirectional: flags & UNIDIRECTIONAL != 0,
                    headers: self.inflater.inflate(std::mem::take(&mut body))?,
                }
            }
            2 => Frame::SynReply {
                stream: stream_id(&mut body, kind)?,
                fin,
                headers: self.inflater.inflate(std::mem::take(&mut body))?,
            },
            3 => Frame::Reset {
                stream: stream_id(&mut body, kind)?,
                status: body.try_get_u32().map_err(wrong)?,
            },
            4 => {
                let count = body.try_get_u32().map_err(wrong)? as usize;
                if body.len() != count.saturating_mul(8) {
                    return Err(ProtocolError::Length(kind));
                }
                let settings = std::mem::take(&mut body).chunks_exact(8).map(|mut entry| {
                    let id = entry.get_u32() & 0x00ff_ffff;
                    (id, entry.get_u32())
                });
                Frame::Settings(settings.collect())
            }
            6 => Frame::Ping(body.try_get_u32().map_err(wrong)?),
            7 => Frame::GoAway {
                last_stream: body.try_get_u32().map_err(wrong)? & STREAM_ID,
                status: body.try_get_u32().map_err(wrong)?,
            },
            8 => Frame::Headers {
                stream: stream_id(&mut body, kind)?,
                fin,
                headers: self.inflater.inflate(std::mem::take(&mut body))?,
            },
            9 => Frame::WindowUpdate {
                stream: body.try_get_u32().map_err(wrong)? & STREAM_ID,
                delta: body.try_get_u32().map_err(wrong)? & STREAM_ID,
            },
            _ => {
                body = &[];
                Frame::Unknown(kind)
            }
        };
        if body.is_empty() {
            Ok(frame)
        } else {
            Err(ProtocolError::Length(kind))
        }
    }
}

fn header_half(word: u32) -> u16 {
    let bytes = word.to_be_bytes();
    u16::from_be_bytes([bytes[2], bytes[3]])
}

fn stream_id(body: &mut &[u8], kind: u16) -> Result<u32, ProtocolError> {
    match body.try_get_u32().map_err(|_| ProtocolError::Length(kind))? & STREAM_ID {
        0 => Err(ProtocolError::StreamZero(kind)),
        stream => Ok(stream),
    }
}

/// Frames to bytes.
pub struct Encoder {
    deflater: Deflater,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            deflater: Deflater::new(),
        }
    }
}

impl Encoder {
    /// Appends a frame. Data that is longer than a frame may be becomes several; an unknown frame none.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::Data { stream, fin, bytes } => encode_data(*stream, *fin, bytes, out),
            Frame::Unknown(_) => {}
            control => self.encode_control(control, out),
        }
    }

    fn encode_control(&mut self, frame: &Frame, out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0, HEADER);
        let (kind, flags) = match frame {
            Frame::SynStream {
                stream,
                fin,
                unidirectional,
                headers,
            } => {
                out.put_u32(*stream);
                out.put_u32(0);
                out.put_u16(0);
                self.deflater.deflate(headers, out);
                (1, flag(*fin, FIN) | flag(*unidirectional, UNIDIRECTIONAL))
            }
            Frame::SynReply { stream, fin, headers } => {
                out.put_u32(*stream);
                self.deflater.deflate(headers, out);
                (2, flag(*fin, FIN))
            }
            Frame::Reset { stream, status } => {
                out.put_u32(*stream);
                out.put_u32(*status);
                (3, 0)
            }
            Frame::Settings(settings) => {
                out.put_u32(u32::try_from(settings.len()).unwrap_or(u32::MAX));
                for (id, value) in settings {
                    out.put_u32(*id);
                    out.put_u32(*value);
                }
                (4, 0)
            }
            Frame::Ping(id) => {
                out.put_u32(*id);
                (6, 0)
            }
            Frame::GoAway { last_stream, status } => {
                out.put_u32(*last_stream);
                out.put_u32(*status);
                (7, 0)
            }
            Frame::Headers { stream, fin, headers } => {
                out.put_u32(*stream);
                self.deflater.deflate(headers, out);
                (8, flag(*fin, FIN))
            }
            Frame::WindowUpdate { stream, delta } => {
                out.put_u32(*stream);
                out.put_u32(*delta);
                (9, 0)
            }
            Frame::Data { .. } | Frame::Unknown(_) => return,
        };
        let length = out.len() - start - HEADER;
        let mut header = &mut out[start..start + HEADER];
        header.put_u16(0x8000 | VERSION);
        header.put_u16(kind);
        header.put_u32(flags_and_length(flags, length));
    }
}

fn encode_data(stream: u32, fin: bool, bytes: &[u8], out: &mut BytesMut) {
    let mut rest = bytes;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_LENGTH));
        rest = later;
        out.put_u32(stream);
        out.put_u32(flags_and_length(flag(fin && rest.is_empty(), FIN), now.len()));
        out.put_slice(now);
        if rest.is_empty() {
            return;
        }
    }
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn flags_and_length(flags: u8, length: usize) -> u32 {
    u32::from(flags) << 24 | u32::try_from(length.min(MAX_LENGTH)).unwrap_or_default()
}
