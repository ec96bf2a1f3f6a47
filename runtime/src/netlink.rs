//! rtnetlink(7): the few requests that move a network device, over a raw socket.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `NLMSG_ERROR`, which without an error is the acknowledgement.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a list.
const DONE: u16 = 3;
const NEW_LINK: u16 = libc::RTM_NEWLINK;
const GET_LINK: u16 = libc::RTM_GETLINK;
const NEW_ADDRESS: u16 = libc::RTM_NEWADDR;
const GET_ADDRESS: u16 = libc::RTM_GETADDR;

const REQUEST: u16 = 0x01;
const ACKNOWLEDGE: u16 = 0x04;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

const HEADER: usize = 16;
/// `struct ifinfomsg`.
const LINK: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS: usize = 8;

/// Attributes of a link.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
/// Attributes of an address.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Flags of an address.
const NO_DAD: u32 = 0x02;
const PERMANENT: u32 = 0x80;
const NO_PREFIX_ROUTE: u32 = 0x200;
/// `IFF_UP`.
const UP: u32 = 1;

/// A socket for rtnetlink, of the network namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

/// A network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) is_up: bool,
}

/// An address of a network device that moves with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    family: u8,
    prefix_length: u8,
    flags: u32,
    /// Attributes as the kernel sent them.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Netlink {
    /// Opens a socket in this process's network namespace.
    pub(crate) fn open() -> rustix::io::Result<Netlink> {
        socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map(Netlink)
    }

    /// The device of that name. ENODEV: there is none.
    pub(crate) fn link(&self, name: &str) -> rustix::io::Result<Link> {
        let mut request = Request::new(GET_LINK, REQUEST | ACKNOWLEDGE, &[0; LINK]);
        request.text(IFLA_IFNAME, name);
        let mut found = None;
        self.ask(request, |kind, body| {
            if let (NEW_LINK, Some(index), Some(flags)) = (kind, word(body, 4), word(body, 8)) {
                found = Some(Link {
                    index,
                    is_up: flags & UP != 0,
                });
            }
        })?;
        found.ok_or(Errno::NODEV)
    }

    /// Moves a device into the network namespace `to`, under another name; it is down from then on.
    pub(crate) fn move_link(&self, index: u32, to: i32, name: &str) -> rustix::io::Result<()> {
        let mut request = Request::new(NEW_LINK, REQUEST | ACKNOWLEDGE, &link_header(index, 0, 0));
        request.bytes(IFLA_NET_NS_FD, &to.to_ne_bytes());
        request.text(IFLA_IFNAME, name);
        self.ask(request, |_, _| ())
    }

    /// Names a device that is down; `%d` in the name becomes the first number that is free. EEXIST: there is another
    /// one of that name.
    pub(crate) fn rename(&self, index: u32, name: &str) -> rustix::io::Result<()> {
        let mut request = Request::new(NEW_LINK, REQUEST | ACKNOWLEDGE, &link_header(index, 0, 0));
        request.text(IFLA_IFNAME, name);
        self.ask(request, |_, _| ())
    }

    /// Lets a device send and receive.
    pub(crate) fn set_up(&self, index: u32) -> rustix::io::Result<()> {
        let request = Request::new(NEW_LINK, REQUEST | ACKNOWLEDGE, &link_header(index, UP, UP));
        self.ask(request, |_, _| ())
    }

    /// The addresses of a device that hold for everybody and for ever: not those that the kernel made for the link, nor
    /// those that were leased.
    pub(crate) fn addresses(&self, index: u32) -> rustix::io::Result<Vec<Address>> {
        let mut addresses = Vec::new();
        self.ask(
            Request::new(GET_ADDRESS, REQUEST | DUMP, &[0; ADDRESS]),
            |kind, body| {
                if kind == NEW_ADDRESS && word(body, 4) == Some(index) {
                    addresses.extend(Address::parse(body));
                }
            },
        )?;
        Ok(addresses)
    }

    /// Gives a device an address.
    pub(crate) fn add_address(&self, index: u32, address: &Address) -> rustix::io::Result<()> {
        let mut header = [0; ADDRESS];
        header[..2].copy_from_slice(&[address.family, address.prefix_length]);
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE, &header);
        for (kind, value) in &address.attributes {
            request.bytes(*kind, value);
        }
        request.bytes(
            IFA_FLAGS,
            &(address.flags & (NO_DAD | NO_PREFIX_ROUTE)).to_ne_bytes(),
        );
        self.ask(request, |_, _| ())
    }

    /// Sends a request, and hands each message of the answer to `each`: its type, and what follows its header.
    fn ask(&self, request: Request, mut each: impl FnMut(u16, &[u8])) -> rustix::io::Result<()> {
        /// The kernel makes no longer messages.
        const BUFFER: usize = 32 * 1024;
        let request = request.finish();
        retry(|| send(&self.0, &request, SendFlags::empty()))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = retry(|| recv(&self.0, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, after)) = split_message(rest) {
                rest = after;
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = word(body, 0).map_or(0, u32::cast_signed);
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(Errno::from_raw_os_error(-code))
                        };
                    }
                    other => each(other, body),
                }
            }
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `struct ifinfomsg` with the flags that change.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut header = [0; LINK];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A request while it is written.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Request {
        let mut message = vec![0; HEADER];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(body);
        Request(message)
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// Adds an attribute, which is a few bytes long.
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// A number at a place of a message.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

/// The first message: its type, what follows its header, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((half(bytes, 4)?, body, after))
}

/// The first attribute: its type, its value, and what follows it.
fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(half(bytes, 0)?);
    let value = bytes.get(4..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((half(bytes, 2)?, value, after))
}

impl Address {
    /// Reads what follows a message's header, unless the address is none that moves.
    fn parse(body: &[u8]) -> Option<Address> {
        let [family, prefix_length, flags, scope, ..] = *body else {
            return None;
        };
        let mut address = Address {
            family,
            prefix_length,
            flags: u32::from(flags),
            attributes: Vec::new(),
        };
        let mut rest = body.get(ADDRESS..)?;
        while let Some((kind, value, after)) = split_attribute(rest) {
            rest = after;
            match kind {
                // Newer flags don't fit into the header.
                IFA_FLAGS => address.flags = word(value, 0)?,
                IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => address.attributes.push((kind, value.to_vec())),
                _ => {}
            }
        }
        /// `RT_SCOPE_UNIVERSE`.
        const UNIVERSE: u8 = 0;
        (scope == UNIVERSE && address.flags & PERMANENT != 0).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(flags: u8, scope: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut request = Request::new(NEW_ADDRESS, 0, &[2, 24, flags, scope, 7, 0, 0, 0]);
        for (kind, value) in attributes {
            request.bytes(*kind, value);
        }
        request.finish()
    }

    #[test]
    fn permanent_addresses_of_everywhere_move() {
        let local: (u16, &[u8]) = (IFA_LOCAL, &[192, 0, 2, 1]);
        let flags: (u16, &[u8]) = (IFA_FLAGS, &0x280_u32.to_ne_bytes());
        for (message, moves) in [
            (address(0x80, 0, &[local]), true),
            (address(0, 0, &[local]), false),
            (address(0x80, 253, &[local]), false),
            (address(0, 0, &[local, flags]), true),
        ] {
            let (kind, body, after) = split_message(&message).unwrap();
            assert_eq!((kind, word(body, 4), after.len()), (NEW_ADDRESS, Some(7), 0));
            let address = Address::parse(body);
            assert_eq!(address.is_some(), moves);
            if let Some(address) = address {
                assert_eq!(address.attributes, [(IFA_LOCAL, vec![192, 0, 2, 1])]);
            }
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Some((_, body, after)) = split_message(rest) {
                let _ = Address::parse(body);
                prop_assert!(after.len() < rest.len());
                rest = after;
            }
        }
    }
}
