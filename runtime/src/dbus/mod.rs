//! A small synchronous client of D-Bus, for the few calls that a container's life takes.
//!
//! What the peer sends is not trusted: every length is checked before memory is taken for it, nesting is bounded, and
//! each wait has a deadline. Byte order of the peer is respected; descriptors are neither sent nor taken.
//!
//! The protocol is in <https://dbus.freedesktop.org/doc/dbus-specification.html>.

mod address;
mod authenticate;
mod connection;
#[cfg(test)]
pub(crate) mod fake;
mod message;
mod value;
mod wire;

use std::time::Duration;

use thiserror::Error;

pub(crate) use address::{Endpoint, session_bus, system_bus};
pub(crate) use connection::{Call, Connection};
pub(crate) use message::Incoming;
pub(crate) use value::Value;
pub(crate) use wire::Writer;

/// Why a peer was not understood, or did not do what it was asked.
#[derive(Debug, Error)]
pub enum DbusError {
    /// Nobody listens, or not for us.
    #[error("Could not connect to D-Bus at {address}: {error}")]
    Connect {
        /// Where.
        address: String,
        /// The kernel's answer.
        error: std::io::Error,
    },
    /// An address that is no unix socket.
    #[error("The D-Bus address {0:?} can't be used: only unix:path= and unix:abstract= are supported")]
    Address(String),
    /// There is no address to try.
    #[error("There is no session bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")]
    NoSession,
    /// The peer doesn't take us for who we are.
    #[error("D-Bus refused the authentication: {0:?}")]
    Refused(String),
    /// Sending or receiving failed.
    #[error("The D-Bus connection failed: {0}")]
    Connection(#[from] std::io::Error),
    /// The peer closed the connection.
    #[error("The D-Bus connection was closed by the other side")]
    Closed,
    /// The peer didn't answer.
    #[error("D-Bus gave no answer within {0:?}")]
    Timeout(Duration),
    /// The peer sent something that the protocol doesn't allow for.
    #[error("D-Bus sent a malformed message: {0}")]
    Malformed(&'static str),
    /// The service answered with an error.
    #[error("{message} ({name})")]
    Remote {
        /// The error's name: `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// What it says.
        message: String,
    },
}

impl DbusError {
    /// Whether it is the service's answer of that name, without the service's prefix.
    pub(crate) fn is_remote(&self, last: &str) -> bool {
        matches!(self, DbusError::Remote { name, .. } if name.rsplit('.').next() == Some(last))
    }
}

/// Result of this module.
pub(crate) type Result<T> = std::result::Result<T, DbusError>;
