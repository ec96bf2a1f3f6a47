//! The client's end of exec, attach and port-forward: from a URL that a runtime gave to descriptors.

mod http;
mod port_forward;
mod remote_command;
mod session;
mod tls;

pub(crate) use port_forward::forward;
pub(crate) use session::session;
pub(crate) use tls::Trust;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// WebSocket: version 5 or 4 for sessions, the tunnel for ports.
    WebSocket,
    /// SPDY/3.1.
    Spdy,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server does not speak that, or not in a version that would do; the URL is used up all the same.
    Refused(String),
    /// Something else.
    Failed(String),
}

impl Failure {
    /// What there is to say of it.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Refused(why) | Self::Failed(why) => why,
        }
    }
}
