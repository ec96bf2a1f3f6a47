//! Bytes to messages and back: ttrpc messages, cut into the frames of a multiplexer that puts two connections on one
//! socket.
//!
//! A frame is a connection's number and a length, 32 bits each, then so many bytes of that connection's stream. In that
//! stream a message is a length, a stream's number (32 bits each), a type and flags (8 bits each), then so many bytes of
//! a protobuf message. All numbers are big-endian.

use std::fmt;

/// The longest message's body, as ttrpc has it.
pub const MAX_BODY: usize = 4 << 20;
const MESSAGE_HEADER: usize = 10;
const FRAME_HEADER: usize = 8;
const MAX_FRAME: usize = MESSAGE_HEADER + MAX_BODY;
/// A message's first frame must fit the buffer that a plugin written in Go reads a message's header with.
const FIRST_FRAME: usize = 4096;

/// One of the two connections on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The plugin serves, the runtime asks.
    Plugin,
    /// The runtime serves, the plugin asks.
    Runtime,
}

impl Channel {
    fn number(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }

    fn of(number: u32) -> Option<Self> {
        [Self::Plugin, Self::Runtime]
            .into_iter()
            .find(|channel| channel.number() == number)
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// Its answer, on the same stream.
    Response,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Request, Self::Response]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A message of one of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its connection.
    pub channel: Channel,
    /// Its call.
    pub stream: u32,
    /// What it is.
    pub kind: Kind,
    /// A protobuf message.
    pub body: Vec<u8>,
}

/// Bytes that are no messages, or a message that can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A frame of so many bytes.
    Frame(usize),
    /// A message of so many bytes.
    Body(usize),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, length, most) = match self {
            Self::Frame(length) => ("frame", length, MAX_FRAME),
            Self::Body(length) => ("message", length, MAX_BODY),
        };
        write!(f, "a {what} of {length} bytes, which may have {most}")
    }
}

/// A message as it goes over the socket.
///
/// # Errors
/// The body is too long.
pub fn encode(message: &Message) -> Result<Vec<u8>, FrameError> {
    let length = message.body.len();
    if length > MAX_BODY {
        return Err(FrameError::Body(length));
    }
    let mut whole = Vec::with_capacity(MESSAGE_HEADER + length);
    whole.extend(number(length));
    whole.extend(message.stream.to_be_bytes());
    whole.extend([message.kind.number(), 0]);
    whole.extend(&message.body);
    let (first, rest) = whole.split_at(whole.len().min(FIRST_FRAME));
    let mut bytes = Vec::with_capacity(whole.len() + 2 * FRAME_HEADER);
    for part in [first, rest] {
        if !part.is_empty() {
            bytes.extend(message.channel.number().to_be_bytes());
            bytes.extend(number(part.len()));
            bytes.extend(part);
        }
    }
    Ok(bytes)
}

/// Lengths have been held against the limits, which fit 32 bits.
fn number(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Makes messages of what comes from a socket, in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    header: Vec<u8>,
    /// The frame that is being read: its connection, unless that is unknown, and how much of it is to come.
    frame: Option<(Option<Channel>, usize)>,
    plugin: Vec<u8>,
    runtime: Vec<u8>,
}

impl Decoder {
    /// The messages that `bytes` complete. Connections and types that nobody knows are skipped. At most a message's length
    /// is kept of each connection.
    ///
    /// # Errors
    /// A frame or a message is longer than it may be; the socket is of no use any more.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Message>, FrameError> {
        while !bytes.is_empty() {
            let Some((channel, left)) = self.frame else {
                bytes = self.feed_header(bytes)?;
                continue;
            };
            let (part, rest) = bytes.split_at(left.min(bytes.len()));
            if let Some(channel) = channel {
                self.buffer(channel).extend(part);
            }
            self.frame = (left > part.len()).then_some((channel, left - part.len()));
            bytes = rest;
        }
        let mut messages = Vec::new();
        for channel in [Channel::Plugin, Channel::Runtime] {
            take_messages(channel, self.buffer(channel), &mut messages)?;
        }
        Ok(messages)
    }

    fn feed_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let missing = FRAME_HEADER - self.header.len();
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.header.extend(part);
        let ([a, b, c, d], [e, f, g, h]) = match *self.header.as_slice() {
            [a, b, c, d, e, f, g, h] => ([a, b, c, d], [e, f, g, h]),
            _ => return Ok(rest),
        };
        self.header.clear();
        let length = u32::from_be_bytes([e, f, g, h]) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::Frame(length));
        }
        let channel = Channel::of(u32::from_be_bytes([a, b, c, d]));
        self.frame = (length > 0).then_some((channel, length));
        Ok(rest)
    }

    fn buffer(&mut self, channel: Channel) -> &mut Vec<u8> {
        match channel {
            Channel::Plugin => &mut self.plugin,
            Channel::Runtime => &mut self.runtime,
        }
    }
}

fn take_messages(
    channel: Channel,
    buffer: &mut Vec<u8>,
    messages: &mut Vec<Message>,
) -> Result<(), FrameError> {
    let mut rest = buffer.as_slice();
    while let [a, b, c, d, e, f, g, h, kind, _flags, body @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if length > MAX_BODY {
            return Err(FrameError::Body(length));
        }
        let Some((body, after)) = body.split_at_checked(length) else {
            break;
        };
        rest = after;
        if let Some(kind) = Kind::of(*kind) {
            messages.push(Message {
                channel,
                stream: u32::from_be_bytes([*e, *f, *g, *h]),
                kind,
                body: body.to_vec(),
            });
        }
    }
    let taken = buffer.len() - rest.len();
    buffer.drain(..taken);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let channel = prop_oneof![Just(Channel::Plugin), Just(Channel::Runtime)];
        let kind = prop_oneof![Just(Kind::Request), Just(Kind::Response)];
        let body = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            (0_usize..12_000).prop_map(|length| vec![7; length]),
        ];
        (channel, any::<u32>(), kind, body).prop_map(|(channel, stream, kind, body)| Message {
            channel,
            stream,
            kind,
            body,
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_however_it_is_cut(
            messages in proptest::collection::vec(message(), 0..6),
            cut in 1_usize..5000,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut decoded = Vec::new();
            for piece in bytes.chunks(cut) {
                decoded.extend(decoder.feed(piece).unwrap());
            }
            for channel in [Channel::Plugin, Channel::Runtime] {
                let of = |messages: &[Message]| -> Vec<Message> {
                    messages.iter().filter(|message| message.channel == channel).cloned().collect()
                };
                prop_assert_eq!(of(&decoded), of(&messages));
            }
        }

        #[test]
        fn nothing_that_comes_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            let _ = decoder.feed(&bytes);
        }
    }

    #[test]
    fn a_go_plugin_can_read_the_header_of_every_message() {
        for length in [0, 1, 4085, 4086, 4087, 9000, MAX_BODY] {
            let message = Message {
                channel: Channel::Plugin,
                stream: 1,
                kind: Kind::Request,
                body: vec![0; length],
            };
            let bytes = encode(&message).unwrap();
            let first = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
            assert_eq!(first, (MESSAGE_HEADER + length).min(FIRST_FRAME));
            assert_eq!(Decoder::default().feed(&bytes).unwrap(), [message]);
        }
    }

    #[test]
    fn what_nobody_knows_is_skipped() {
        let known = Message {
            channel: Channel::Runtime,
            stream: 3,
            kind: Kind::Request,
            body: vec![1],
        };
        let mut bytes = [0, 0, 0, 9, 0, 0, 0, 2, 5, 5].to_vec();
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 4]);
        bytes.extend(encode(&known).unwrap());
        assert_eq!(Decoder::default().feed(&bytes).unwrap(), [known]);
    }

    #[test]
    fn lengths_have_an_end() {
        let frame = [0, 0, 0, 1, 0xff, 0, 0, 0];
        assert_eq!(
            Decoder::default().feed(&frame),
            Err(FrameError::Frame(0xff00_0000))
        );
        let body = [0, 0, 0, 1, 0, 0, 0, 10, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0];
        assert_eq!(Decoder::default().feed(&body), Err(FrameError::Body(0x0100_0000)));
        let long = Message {
            channel: Channel::Plugin,
            stream: 1,
            kind: Kind::Request,
            body: vec![0; MAX_BODY + 1],
        };
        assert_eq!(encode(&long), Err(FrameError::Body(MAX_BODY + 1)));
    }
}
