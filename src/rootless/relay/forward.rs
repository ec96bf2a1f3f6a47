//! An address of one network that leads to an address of another.

mod connections;
mod datagrams;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::Protocol;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::Side;

/// Of connections and of senders of datagrams, of all ports, at the same time.
const MAX_CARRIED: u64 = 8192;
/// Of one port.
const MAX_OF_PORT: usize = 4096;
/// Descriptors that are for something else.
const OTHERS: u64 = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Where it listens, and on which side it connects.
#[derive(Clone)]
pub(super) struct Forward {
    pub(super) protocol: Protocol,
    pub(super) from: Side,
    pub(super) at: SocketAddr,
    pub(super) side: Side,
}

/// How much may be carried at the same time. What comes beyond waits (connections), or ends what was silent for the longest
/// time (datagrams).
#[derive(Clone)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    of_port: usize,
}

impl Room {
    /// A connection takes two descriptors.
    pub(super) fn of_descriptors(limit: u64) -> Self {
        let all = (limit.saturating_sub(OTHERS) / 2).clamp(8, MAX_CARRIED);
        let all = usize::try_from(all).unwrap_or(MAX_OF_PORT);
        Self {
            all: Arc::new(Semaphore::new(all)),
            // So that not one port takes the place of all others.
            of_port: MAX_OF_PORT.min(all / 2),
        }
    }
}

enum Listening {
    Tcp(TcpListener),
    Udp(Arc<UdpSocket>),
}

/// Listens at an address of one side, and carries what comes to an address of the other. Ends, with all that it carries, when
/// the handle is aborted.
///
/// # Errors
/// The address can't be had.
pub(super) async fn forward<T>(what: Forward, room: &Room, target: T) -> io::Result<AbortHandle>
where
    T: Fn() -> io::Result<SocketAddr> + Send + 'static,
{
    let listening = listen(&what).await?;
    let task = tokio::spawn(carry(listening, what.side, room.clone(), target));
    Ok(task.abort_handle())
}

/// The same, as soon as the address can be had.
pub(super) fn forward_once_free<T>(what: Forward, room: &Room, target: T) -> AbortHandle
where
    T: Fn() -> io::Result<SocketAddr> + Send + 'static,
{
    let room = room.clone();
    let task = tokio::spawn(async move {
        let listening = loop {
            match listen(&what).await {
                Ok(listening) => break listening,
                // Nothing tells when somebody else lets go of it.
                Err(_) => sleep(PAUSE).await,
            }
        };
        carry(listening, what.side, room, target).await;
    });
    task.abort_handle()
}

async fn listen(what: &Forward) -> io::Result<Listening> {
    let (at, protocol) = (what.at, what.protocol);
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
    };
    let make = move || -> io::Result<OwnedFd> {
        let family = match at {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if at.is_ipv6() {
            // Each family has its own port, as in the Pod's hostIP.
            set_ipv6_v6only(&socket, true)?;
        }
        if kind == SocketType::STREAM {
            set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &at)?;
        if kind == SocketType::STREAM {
            rustix::net::listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    };
    let socket = what.from.make(make).await?;
    Ok(match protocol {
        Protocol::Tcp => Listening::Tcp(TcpListener::from_std(socket.into())?),
        _ => Listening::Udp(Arc::new(UdpSocket::from_std(socket.into())?)),
    })
}

async fn carry<T>(listening: Listening, side: Side, room: Room, target: T)
where
    T: Fn() -> io::Result<SocketAddr> + Send + 'static,
{
    match listening {
        Listening::Tcp(listener) => connections::carry(listener, side, room, target).await,
        Listening::Udp(socket) => datagrams::carry(socket, side, room, target).await,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    pub(super) fn local(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// What leads from a port that nobody has at the moment, on this machine alone.
    pub(super) fn here(protocol: Protocol) -> Forward {
        let free = std::net::TcpListener::bind(local(0)).unwrap();
        Forward {
            protocol,
            from: Side::Machine,
            at: free.local_addr().unwrap(),
            side: Side::Machine,
        }
    }

    pub(super) fn room() -> Room {
        Room::of_descriptors(200)
    }

    #[test]
    fn there_is_room_for_as_much_as_there_are_descriptors() {
        for (limit, all, of_port) in [
            (0, 8, 4),
            (1024, 480, 240),
            (20_000, 8192, 4096),
            (u64::MAX, 8192, 4096),
        ] {
            let room = Room::of_descriptors(limit);
            assert_eq!(
                (room.all.available_permits(), room.of_port),
                (all, of_port),
                "{limit}"
            );
        }
    }

    #[tokio::test]
    async fn an_address_is_taken_as_soon_as_it_is_free() {
        let what = here(Protocol::Tcp);
        let at = what.at;
        let taken = std::net::TcpListener::bind(at).unwrap();
        let refused = forward(what.clone(), &room(), move || Ok(at)).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let task = forward_once_free(what, &room(), || Err(io::ErrorKind::Other.into()));
        drop(taken);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(at).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "nobody listens at {at}");
            sleep(Duration::from_millis(10)).await;
        }
        task.abort();
    }

    #[tokio::test]
    async fn families_have_their_own_ports() {
        let four = here(Protocol::Tcp);
        let at = SocketAddr::from(([0; 8], four.at.port()));
        let six = Forward { at, ..four.clone() };
        let four = Forward {
            at: ([0; 4], at.port()).into(),
            ..four
        };
        for what in [six, four] {
            forward(what, &room(), move || Ok(at)).await.unwrap();
        }
    }
}
