//! What the kernel remembers of UDP flows (nf_conntrack, over its netlink interface).
//!
//! A flow's first packet decides where all of its packets go, and a client that never pauses never starts a new flow.
//! So when a host port begins to lead to a pod, or ends to, the flows that it had must be forgotten.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// A UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Where the client sends to.
    pub(crate) asked: IpAddr,
    pub(crate) port: u16,
    /// Who answers.
    pub(crate) answers: IpAddr,
    /// The attribute that names it, for the kernel.
    key: Vec<u8>,
    family: u8,
}

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

const ERROR: u16 = 2;
const DONE: u16 = 3;

const UDP: u8 = 17;
const HEADER: usize = 16;
/// `struct nfgenmsg`
const GENERIC: usize = 4;

/// Forgets the UDP flows to one of the ports that `stale` picks.
pub(crate) fn forget_udp(ports: &HashSet<u16>, stale: impl Fn(&Flow) -> bool) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    for flow in list(&socket)?
        .iter()
        .filter(|flow| ports.contains(&flow.port) && stale(flow))
    {
        let mut body = vec![flow.family, 0, 0, 0];
        body.extend_from_slice(&flow.key);
        socket.send(&message(DELETE, REQUEST | ACK, &body), 0)?;
        // One that ended meanwhile is forgotten too.
        let _ = receive(&socket, |_, _| ());
    }
    Ok(())
}

fn list(socket: &Socket) -> io::Result<Vec<Flow>> {
    socket.send(&message(GET, REQUEST | DUMP, &[0, 0, 0, 0]), 0)?;
    let mut flows = Vec::new();
    receive(socket, |kind, body| {
        flows.extend((kind == NEW).then(|| flow(body)).flatten())
    })?;
    Ok(flows)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// Reads messages until the kernel says that it was the last one.
fn receive(socket: &Socket, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while let Some((kind, body, next)) = split_message(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if code == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                _ => each(kind, body),
            }
            rest = next;
        }
    }
}

/// Kind, body and what follows.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((
        kind,
        body,
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// The attributes of a message or of an attribute: number, value, and all of it.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let number = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let (value, whole) = (bytes.get(4..length)?, bytes.get(..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper bits are flags: "nested" and "network byte order".
        Some((number & 0x3fff, value, whole))
    })
}

fn attribute(bytes: &[u8], number: u16) -> Option<(&[u8], &[u8])> {
    attributes(bytes)
        .find(|(n, ..)| *n == number)
        .map(|(_, value, whole)| (value, whole))
}

/// Reads a flow, if it is one of UDP.
fn flow(body: &[u8]) -> Option<Flow> {
    let family = *body.first()?;
    let body = body.get(GENERIC..)?;
    let (original, key) = attribute(body, 1)?;
    let (reply, _) = attribute(body, 2)?;
    let (protocol, _) = attribute(original, 2)?;
    if attribute(protocol, 1)?.0 != [UDP] {
        return None;
    }
    let port = u16::from_be_bytes(*attribute(protocol, 3)?.0.first_chunk()?);
    let mut padded = key.to_vec();
    padded.resize(key.len().next_multiple_of(4), 0);
    Some(Flow {
        asked: address(attribute(original, 1)?.0, [2, 4])?,
        port,
        answers: address(attribute(reply, 1)?.0, [1, 3])?,
        key: padded,
        family,
    })
}

fn address(tuple: &[u8], [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    if let Some((value, _)) = attribute(tuple, v4) {
        return <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    }
    <[u8; 16]>::try_from(attribute(tuple, v6)?.0)
        .ok()
        .map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, reading ends and stays within the bytes.
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = flow(&bytes);
            let mut rest = bytes.as_slice();
            while let Some((_, body, next)) = split_message(rest) {
                prop_assert!(next.len() < rest.len());
                let _ = flow(body);
                rest = next;
            }
        }
    }
}
