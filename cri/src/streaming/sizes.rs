//! The sizes of a client's terminal.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::stream::Input;
use crate::session::TerminalSize;

/// What a client may send of a terminal's size without being understood, in bytes.
const MAX_SIZE_TEXT: usize = 4 << 10;
/// How long a session waits for the client's first size, so that its program begins on a terminal that is as large as the
/// client's. Clients send it as soon as they are connected: a round trip away, over the API server two.
const FIRST_SIZE: Duration = Duration::from_millis(250);

/// What clients send of a terminal's size.
#[derive(Deserialize)]
struct SizeText {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// A client's stream of sizes.
pub(super) struct Sizes {
    from: Input,
    /// What has come of the next size.
    text: Vec<u8>,
}

impl Sizes {
    pub(super) fn new(from: Input) -> Self {
        Self {
            from,
            text: Vec::new(),
        }
    }

    /// The size that the client says at once, if it does.
    pub(super) async fn first(&mut self) -> Option<TerminalSize> {
        let deadline = Instant::now() + FIRST_SIZE;
        timeout_at(deadline, self.next()).await.ok().flatten()
    }

    /// The latest size; `None` after the last one. Nothing is lost where this is given up.
    async fn next(&mut self) -> Option<TerminalSize> {
        while let Some(piece) = self.from.read().await {
            self.text.extend_from_slice(&piece);
            match parse(&mut self.text) {
                Ok(None) => {}
                Ok(size) => return size,
                Err(error) => {
                    tracing::debug!("A client's terminal has a size that makes no sense: {error}.");
                    return None;
                }
            }
        }
        None
    }

    /// Passes on each new size.
    pub(super) async fn follow(mut self, to: watch::Sender<Option<TerminalSize>>) {
        while let Some(size) = self.next().await {
            to.send_replace(Some(size));
        }
    }
}

/// The last whole size in the text, which then begins with what follows it.
fn parse(text: &mut Vec<u8>) -> Result<Option<TerminalSize>, serde_json::Error> {
    let mut sizes = serde_json::Deserializer::from_slice(text).into_iter::<SizeText>();
    let (mut last, mut used) = (None, 0);
    while let Some(size) = sizes.next() {
        match size {
            Ok(SizeText { width, height }) => last = Some(TerminalSize { width, height }),
            Err(error) if error.is_eof() && text.len() - used <= MAX_SIZE_TEXT => break,
            Err(error) => return Err(error),
        }
        used = sizes.byte_offset();
    }
    text.drain(..used);
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let wire = b"{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}";
        for split in 0..wire.len() {
            let mut text = wire[..split].to_vec();
            parse(&mut text).unwrap();
            text.extend_from_slice(&wire[split..]);
            let last = parse(&mut text).unwrap().unwrap();
            assert_eq!((last.width, last.height), (132, 43));
            assert!(text.is_empty());
        }
    }

    #[test]
    fn text_that_is_no_size_is_an_error() {
        assert!(parse(&mut b"[1]".to_vec()).is_err());
        assert!(parse(&mut b"{\"Width\":70000,\"Height\":1}".to_vec()).is_err());
        let endless = [b"{\"x\":\"".as_slice(), &vec![b'y'; MAX_SIZE_TEXT]].concat();
        assert!(parse(&mut endless.clone()).is_err());
    }
}
