//! Frames on the wire: a 32-bit little-endian length and that many bytes of JSON. Pure functions, so that a fuzzer
//! can be let loose on them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::MAX_FRAME;

/// The length in front of each frame.
const HEADER: usize = 4;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("A frame of {0} bytes is longer than the {MAX_FRAME} that the protocol allows.")]
    TooLong(usize),
    /// The payload is not the message that was expected.
    #[error("A frame does not hold what the protocol says: {0}.")]
    Payload(#[from] serde_json::Error),
}

/// Finds the first frame of a buffer: its payload and how many bytes it took with its header; `None` if more bytes
/// must come first. A length over the limit is refused as soon as the header is there.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn split(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    Ok(rest.get(..length).map(|payload| (payload, HEADER + length)))
}

/// Reads a frame's payload.
///
/// # Errors
/// [`FrameError::Payload`] if it is not JSON or not a `T`.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(payload)?)
}

/// A whole frame, header included.
///
/// # Errors
/// [`FrameError::TooLong`] for a message that no peer would accept.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER;
    match u32::try_from(length) {
        Ok(header) if length <= MAX_FRAME => frame[..HEADER].copy_from_slice(&header.to_le_bytes()),
        _ => return Err(FrameError::TooLong(length)),
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Call, Request};

    #[test]
    fn an_oversized_length_is_refused_before_its_payload_arrives() {
        let header = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
        assert!(matches!(split(&header), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_call_survives_the_wire_byte_by_byte() {
        let call = Call {
            seq: 7,
            request: Request::Start {
                container: "a".into(),
            },
        };
        let frame = encode(&call).unwrap();
        for end in 0..frame.len() {
            assert!(split(&frame[..end]).unwrap().is_none());
        }
        let (payload, used) = split(&frame).unwrap().unwrap();
        assert_eq!(used, frame.len());
        assert_eq!(decode::<Call>(payload).unwrap(), call);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((payload, used))) = split(&bytes) {
                prop_assert!(used <= bytes.len());
                let _ = decode::<Call>(payload);
            }
        }
    }
}
