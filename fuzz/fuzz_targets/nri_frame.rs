//! What comes over an NRI plugin's socket: frames of a multiplexer with ttrpc messages in them.
#![no_main]

#[allow(dead_code, reason = "the engine uses what the target does not")]
#[path = "../../cri/src/nri/frame.rs"]
mod frame;

use frame::{Channel, Decoder, FrameError, Message};

/// However a stream is cut, the same messages come out of it, and what is encoded again is decoded the same.
fn check(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, usize::from(*cut) + 1);
    for channel in [Channel::Plugin, Channel::Runtime] {
        let of = |messages: &[Message]| -> Vec<Message> {
            let of = messages.iter().filter(|message| message.channel == channel);
            of.cloned().collect()
        };
        if whole.1.is_none() {
            assert_eq!(of(&whole.0), of(&pieces.0));
        }
    }
    // Which of two faults is found first depends on the cut.
    assert_eq!(whole.1.is_some(), pieces.1.is_some());
    for message in &pieces.0 {
        let again = frame::encode(message).map(|bytes| decode(&bytes, 4096).0);
        assert_eq!(again.as_deref(), Ok(std::slice::from_ref(message)));
    }
}

fn decode(bytes: &[u8], size: usize) -> (Vec<Message>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(size) {
        match decoder.feed(piece) {
            Ok(more) => messages.extend(more),
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));
