//! Where buses listen: environment variables and well-known sockets.

use std::env;

use rustix::net::SocketAddrUnix;

use super::{DbusError, Result};

/// The system bus where `DBUS_SYSTEM_BUS_ADDRESS` doesn't say otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// In the file system.
    Path(String),
    /// In the abstract namespace.
    Abstract(String),
}

impl Endpoint {
    pub(super) fn socket_address(&self) -> rustix::io::Result<SocketAddrUnix> {
        match self {
            Endpoint::Path(path) => SocketAddrUnix::new(path.as_str()),
            Endpoint::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Endpoint::Path(path) => path.clone(),
            Endpoint::Abstract(name) => format!("@{name}"),
        }
    }
}

/// Where the system bus may listen, in the order to try.
pub(crate) fn system_bus() -> Result<Vec<Endpoint>> {
    match variable("DBUS_SYSTEM_BUS_ADDRESS") {
        Some(address) => parse(&address),
        None => Ok(vec![Endpoint::Path(SYSTEM_BUS.to_owned())]),
    }
}

/// Where this user's session bus may listen, in the order to try.
pub(crate) fn session_bus() -> Result<Vec<Endpoint>> {
    if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
        return parse(&address);
    }
    let directory = variable("XDG_RUNTIME_DIR").ok_or(DbusError::NoSession)?;
    Ok(vec![Endpoint::Path(format!("{directory}/bus"))])
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Addresses separated by semicolons; those with other transports are passed over unless there is nothing else.
pub(super) fn parse(text: &str) -> Result<Vec<Endpoint>> {
    let found: Vec<Endpoint> = text.split(';').filter_map(parse_one).collect();
    if found.is_empty() {
        return Err(DbusError::Address(text.to_owned()));
    }
    Ok(found)
}

fn parse_one(text: &str) -> Option<Endpoint> {
    let pairs = text
        .strip_prefix("unix:")?
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find_map(|(key, value)| match key {
        "path" => Some(Endpoint::Path(unescape(value)?)),
        "abstract" => Some(Endpoint::Abstract(unescape(value)?)),
        _ => None,
    })
}

/// Undoes `%` and two hexadecimal digits.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let path = |text: &str| Endpoint::Path(text.to_owned());
        assert_eq!(
            parse("unix:path=/run/user/0/bus,guid=1").unwrap(),
            [path("/run/user/0/bus")]
        );
        assert_eq!(
            parse("tcp:host=x;unix:guid=2,abstract=/tmp/a%20b;unix:path=/c").unwrap(),
            [Endpoint::Abstract("/tmp/a b".to_owned()), path("/c")]
        );
        for bad in [
            "",
            "tcp:host=localhost",
            "unix:",
            "unix:path=%2",
            "unix:path=%zz",
            "unix:tmpdir=/tmp",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
