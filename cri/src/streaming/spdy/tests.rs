//! Frames there and back, in any pieces, and what is refused.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::*;
use super::headers::*;

fn decode_all(decoder: &mut Decoder, wire: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, ProtocolError> {
    let mut frames = Vec::new();
    let mut input = BytesMut::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().copied();
    while !rest.is_empty() {
        let cut = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
        input.put_slice(&rest[..cut]);
        rest = &rest[cut..];
        while let Some(frame) = decoder.decode(&mut input)? {
            frames.push(frame);
        }
    }
    Ok(join(frames))
}

/// The pieces of a data frame put together again: they end with the one that says so, or with another stream's.
fn join(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match (joined.last_mut(), &frame) {
            (
                Some(Frame::Data { stream, fin, bytes }),
                Frame::Data {
                    stream: next,
                    fin: last,
                    bytes: more,
                },
            ) if stream == next && !*fin => {
                *bytes = [&bytes[..], &more[..]].concat().into();
                *fin = *last;
            }
            _ => joined.push(frame),
        }
    }
    joined
}

fn headers() -> impl Strategy<Value = Headers> {
    proptest::collection::btree_map("[a-z-]{1,20}", "[ -~]{0,40}", 0..6).prop_map(Headers::new)
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = 1..0x7fff_ffff_u32;
    prop_oneof![
        (id.clone(), any::<bool>(), any::<bool>(), headers()).prop_map(
            |(stream, fin, unidirectional, headers)| {
                Frame::SynStream {
                    stream,
                    fin,
                    unidirectional,
                    headers,
                }
            }
        ),
        (id.clone(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (id.clone(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (id.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
        vec((0..0x0100_0000_u32, any::<u32>()), 0..4).prop_map(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (id.clone(), any::<u32>()).prop_map(|(last_stream, status)| Frame::GoAway { last_stream, status }),
        (id.clone(), 0..0x8000_0000_u32).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        // With an end of its own, so that pieces of two frames are not taken for one.
        (id, vec(any::<u8>(), 0..50_000)).prop_map(|(stream, bytes)| Frame::Data {
            stream,
            fin: true,
            bytes: bytes.into()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded_in_any_pieces(
        frames in vec(frame(), 1..12),
        cuts in vec(1..5000_usize, 0..200),
    ) {
        let (mut encoder, mut wire) = (Encoder::default(), BytesMut::new());
        for frame in &frames {
            encoder.encode(frame, &mut wire);
        }
        let decoded = decode_all(&mut Decoder::default(), &wire, &cuts).unwrap();
        prop_assert_eq!(decoded, frames);
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(wire in vec(any::<u8>(), 0..400), cuts in vec(1..50_usize, 0..20)) {
        let whole = decode_all(&mut Decoder::default(), &wire, &[]);
        prop_assert_eq!(decode_all(&mut Decoder::default(), &wire, &cuts), whole);
    }
}

/// A SYN_STREAM as `moby/spdystream` writes one: zlib at its best compression, with the dictionary, flushed.
fn syn_stream(block: &[u8]) -> BytesMut {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
    compress.set_dictionary(super::dictionary::dictionary()).unwrap();
    let mut compressed = Vec::with_capacity(block.len() + 1000);
    compress
        .compress_vec(block, &mut compressed, flate2::FlushCompress::Sync)
        .unwrap();
    let mut wire = BytesMut::new();
    wire.put_u16(0x8003);
    wire.put_u16(1);
    wire.put_u32(u32::try_from(compressed.len() + 10).unwrap());
    wire.put_u32(1);
    wire.put_u32(0);
    wire.put_u16(0);
    wire.put_slice(&compressed);
    wire
}

fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    block.put_u32(u32::try_from(pairs.len()).unwrap());
    for (name, value) in pairs {
        for text in [name, value] {
            block.put_u32(u32::try_from(text.len()).unwrap());
            block.put_slice(text.as_bytes());
        }
    }
    block
}

fn refused(wire: &[u8]) -> ProtocolError {
    decode_all(&mut Decoder::default(), wire, &[]).unwrap_err()
}

#[test]
fn headers_of_a_client_are_read() {
    let wire = syn_stream(&block(&[("streamtype", "stdin"), ("port", "80\u{0}81")]));
    let frames = decode_all(&mut Decoder::default(), &wire, &[3, 9, 1]).unwrap();
    let [
        Frame::SynStream {
            stream: 1, headers, ..
        },
    ] = &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!(headers.get("streamtype"), Some("stdin"));
    assert_eq!(headers.get("port"), Some("80"));
    assert_eq!(headers.get("none"), None);
}

#[test]
fn headers_that_are_bombs_or_nonsense_are_refused() {
    let long = "x".repeat(20 << 20);
    assert_eq!(
        refused(&syn_stream(&block(&[("a", &long)]))),
        ProtocolError::HeaderBomb
    );
    assert_eq!(
        refused(&syn_stream(&u32::MAX.to_be_bytes())),
        ProtocolError::HeaderBomb,
        "a count"
    );
    for (pairs, error) in [
        (vec![("Upper", "")], ProtocolError::HeaderName),
        (vec![("", "")], ProtocolError::HeaderName),
        (vec![("a", "1"), ("a", "2")], ProtocolError::HeaderName),
    ] {
        assert_eq!(refused(&syn_stream(&block(&pairs))), error);
    }
    let mut truncated = block(&[("a", "b")]);
    truncated.pop();
    assert_eq!(refused(&syn_stream(&truncated)), ProtocolError::HeaderBlock);
    let mut broken = syn_stream(&block(&[("a", "b")]));
    broken[20] ^= 0xff;
    assert_eq!(refused(&broken), ProtocolError::Compression);
}

#[test]
fn frames_that_are_too_long_or_make_no_sense_are_refused() {
    let control = |kind: u8, length: u32, body: &[u8]| {
        let mut wire = vec![0x80, 3, 0, kind];
        wire.put_u32(length);
        wire.put_slice(body);
        wire
    };
    let too_long = u32::try_from(MAX_CONTROL_FRAME + 1).unwrap();
    assert_eq!(
        refused(&control(1, too_long, &[])),
        ProtocolError::Oversized(MAX_CONTROL_FRAME + 1),
        "before it comes"
    );
    assert_eq!(refused(&control(6, 3, &[0; 3])), ProtocolError::Length(6));
    assert_eq!(refused(&control(6, 5, &[0; 5])), ProtocolError::Length(6));
    assert_eq!(
        refused(&control(4, 8, &[0, 0, 0, 1, 0, 0, 0, 0])),
        ProtocolError::Length(4)
    );
    assert_eq!(refused(&control(3, 8, &[0; 8])), ProtocolError::StreamZero(3));
    assert_eq!(refused(&[0, 0, 0, 0, 0, 0, 0, 0]), ProtocolError::StreamZero(0));
    assert_eq!(refused(&[0x80, 2, 0, 1, 0, 0, 0, 0]), ProtocolError::Version(2));
    assert_eq!(
        decode_all(&mut Decoder::default(), &control(10, 3, &[1; 3]), &[]).unwrap(),
        [Frame::Unknown(10)]
    );
}

#[test]
fn a_large_frame_comes_through_in_pieces_that_are_bounded() {
    let bytes = Bytes::from(vec![7; (1 << 24) + 5]);
    let mut wire = BytesMut::new();
    let frame = Frame::Data {
        stream: 9,
        fin: true,
        bytes: bytes.clone(),
    };
    Encoder::default().encode(&frame, &mut wire);
    let mut decoder = Decoder::default();
    let (mut total, mut ended) = (0, false);
    while let Some(frame) = decoder.decode(&mut wire).unwrap() {
        let Frame::Data {
            stream: 9,
            fin,
            bytes,
        } = frame
        else {
            panic!("{frame:?}")
        };
        assert!(!ended && bytes.len() <= MAX_PIECE);
        total += bytes.len();
        ended = fin;
    }
    assert_eq!((total, ended), (bytes.len(), true));
}
