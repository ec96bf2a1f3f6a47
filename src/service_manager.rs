//! What a service manager is told, as sd_notify(3) has it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the manager of this process says that it listens.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";

/// Says that the program does its work now. Nothing is said where nobody asked for it.
///
/// # Errors
/// The manager's socket can't be reached.
pub(crate) fn ready() -> io::Result<()> {
    match connect()? {
        Some(manager) => manager.send(b"READY=1").map(drop),
        None => Ok(()),
    }
}

/// A socket that the manager hears, if there is a manager that listens.
///
/// # Errors
/// The manager's socket can't be reached.
pub(crate) fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else {
        return Ok(None);
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&socket)?,
    };
    let manager = UnixDatagram::unbound()?;
    manager.connect_addr(&address)?;
    Ok(Some(manager))
}
