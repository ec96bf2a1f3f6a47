//! What the fuzz target `spdy` runs: any bytes, and a panic where a property does not hold. In tests and with the
//! feature `fuzzing` only.

use bytes::{BufMut, BytesMut};

use super::spdy::{Decoder, Encoder, Frame, MAX_PIECE};

/// Frames of a client, and the headers in them. However the bytes are cut the frames are the same, or the same error
/// comes after the same frames; pieces are bounded; and what was read is written and read again without a difference.
pub fn spdy(data: &[u8]) {
    // The first byte says how the rest is cut.
    let Some((cut, wire)) = data.split_first() else {
        return;
    };
    let (whole, failure) = decode(wire, wire.len());
    let (pieces, same_failure) = decode(wire, usize::from(*cut) + 1);
    assert_eq!(joined(&whole), joined(&pieces));
    assert_eq!(failure, same_failure);

    let (mut encoder, mut again) = (Encoder::default(), BytesMut::new());
    for frame in &whole {
        encoder.encode(frame, &mut again);
    }
    let (read_again, failure) = decode(&again, again.len());
    assert_eq!(failure, None);
    let known = |frame: &&Frame| !matches!(frame, Frame::Unknown(_));
    assert_eq!(
        read_again,
        whole.iter().filter(known).cloned().collect::<Vec<_>>()
    );
}

fn decode(mut wire: &[u8], cut: usize) -> (Vec<Frame>, Option<String>) {
    let (mut decoder, mut input, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    while !wire.is_empty() {
        let (now, later) = wire.split_at(cut.min(wire.len()));
        wire = later;
        input.put_slice(now);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => {
                    if let Frame::Data { bytes, .. } = &frame {
                        assert!(bytes.len() <= MAX_PIECE);
                    }
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    let sentence = error.to_string();
                    assert!(sentence.ends_with('.'));
                    return (frames, Some(sentence));
                }
            }
        }
    }
    (frames, None)
}

/// Data by what it says, not by the pieces in which it came.
fn joined(frames: &[Frame]) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match (joined.last_mut(), frame) {
            (
                Some(Frame::Data {
                    stream,
                    fin: fin @ false,
                    bytes,
                }),
                Frame::Data {
                    stream: same,
                    fin: last,
                    bytes: more,
                },
            ) if stream == same => {
                *bytes = [&bytes[..], &more[..]].concat().into();
                *fin = *last;
            }
            _ => joined.push(frame.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_of_spdy() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/spdy");
        let mut count = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            super::spdy(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
