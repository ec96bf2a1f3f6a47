//! The text dialogue before the first message.

use std::io::Write;
use std::time::Instant;

use super::connection::Stream;
use super::{DbusError, Result};

/// Longer than any line that a server says.
const LONGEST_LINE: usize = 512;

/// Proves who we are by the socket's credentials, which the kernel vouches for. No user id is named, so that it also
/// works in a user namespace, where ours is not the server's number for us.
///
/// Everything is said at once, as systemd's own library does: its servers leave a message lying that comes together with
/// the BEGIN, until something follows it.
pub(super) fn authenticate(stream: &mut Stream, deadline: Instant) -> Result<()> {
    stream.file.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
    for expected in ["DATA", "OK"] {
        let answer = line(stream, deadline)?;
        if answer.split(' ').next() != Some(expected) {
            return Err(DbusError::Refused(answer));
        }
    }
    Ok(())
}

/// One line. It is read by single bytes, so that nothing of the first message is taken along.
fn line(stream: &mut Stream, deadline: Instant) -> Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte, deadline)?;
        line.extend(byte);
        if line.len() > LONGEST_LINE {
            return Err(DbusError::Malformed("a line of the authentication is too long"));
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
