//! When a connection was last used, and whether its client is still there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long nothing may happen on a connection that the client has closed while it is not read from, because nobody
/// takes what the client has sent. A command that is slow to take its input gets the rest of it.
const GRACE: Duration = Duration::from_secs(5);
/// After how long without a packet a client is asked whether it is there, and how often: as Go's servers do.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_PROBES: u32 = 9;

/// The last time that anything came or went on a connection. Copies are the same one.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    last: Mutex<Instant>,
    /// The connection's socket, to see whether the client has closed it.
    socket: Option<OwnedFd>,
}

impl Activity {
    /// Of a connection that is ours: we are the client.
    pub(super) fn new() -> Self {
        Self::with(None)
    }

    fn with(socket: Option<OwnedFd>) -> Self {
        Self(Arc::new(Inner {
            last: Mutex::new(Instant::now()),
            socket,
        }))
    }

    /// Of a client's connection whose TCP socket this is. A client whose machine is gone is found out from now on.
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
        sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE)?;
        sockopt::set_tcp_keepcnt(&socket, KEEP_ALIVE_PROBES)?;
        Ok(Self::with(Some(socket.as_fd().try_clone_to_owned()?)))
    }

    /// Something came or went.
    pub(super) fn touch(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when nothing has happened for that long.
    pub(super) async fn idle_for(&self, timeout: Duration) {
        loop {
            let Some(over) = self.last().checked_add(timeout) else {
                return std::future::pending().await;
            };
            if over <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(over).await;
        }
    }

    /// Resolves when the client has closed the connection, or is found to be gone, and nothing has happened on it for a
    /// while. Who reads from it sees the end too, but only behind all that the client has sent, and that may be stuck.
    pub(super) async fn abandoned(&self) {
        loop {
            self.idle_for(GRACE).await;
            // The socket is watched only now: while data moves nobody needs to be told of each piece.
            if self.closed_while_idle().await {
                self.idle_for(GRACE).await;
                return;
            }
        }
    }

    /// Whether the client closes the connection before anything happens on it again.
    async fn closed_while_idle(&self) -> bool {
        let since = self.last();
        let Some(socket) = &self.0.socket else {
            return std::future::pending().await;
        };
        let copy = socket.try_clone().map(std::net::TcpStream::from);
        let Ok(watched) = copy.and_then(TcpStream::from_std) else {
            // Without a descriptor to watch it by, the idle timeout has to do.
            return std::future::pending().await;
        };
        loop {
            match watched.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return true,
            }
            if self.last() != since {
                return false;
            }
            // What is there to read is not for us: only the next event is.
            let _ = watched.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
    }
}
