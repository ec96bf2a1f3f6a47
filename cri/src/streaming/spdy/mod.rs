//! SPDY/3.1, as far as `moby/spdystream` speaks it: what kubectl and crictl use where they don't use WebSockets.
//!
//! It differs from the book in what that library does. It neither sends nor respects windows, so a peer's windows are
//! kept only if it sent SETTINGS, which that library never does; backpressure is the connection's own. Our own windows
//! are always opened again, for those who keep to them.

mod connection;
mod dictionary;
mod frame;
mod headers;
mod outgoing;

pub(super) use connection::{Connection, Stream};
pub use frame::{
    Decoder, Encoder, Frame, MAX_CONTROL_FRAME, MAX_PIECE, ProtocolError, SETTINGS_INITIAL_WINDOW_SIZE, reset,
};
pub use headers::{Headers, MAX_HEADER_BLOCK};
pub(super) use outgoing::{Credit, Writer};

#[cfg(test)]
mod tests;
