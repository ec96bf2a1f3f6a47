//! An address of one network that leads to an address of another.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Side;

/// For how long answers to a datagram may come, as the kernel's connection tracking has it for both directions.
const SILENCE: Duration = Duration::from_secs(120);
/// At the same time, of one port. What comes from more addresses is lost, as datagrams may be.
const MAX_SESSIONS: usize = 4096;
const MAX_DATAGRAM: usize = 65536;
/// Before the next attempt to accept a connection, when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Listens at an address of one side, and carries what comes to an address of the other. Ends, with all that it carries, when
/// the handle is aborted.
///
/// # Errors
/// The address can't be had.
pub(super) async fn forward<T>(
    protocol: Protocol,
    from: &Side,
    at: SocketAddr,
    side: &Side,
    target: T,
) -> io::Result<AbortHandle>
where
    T: Fn() -> io::Result<SocketAddr> + Send + 'static,
{
    let side = side.clone();
    let task = match protocol {
        Protocol::Tcp => {
            let listener = from.make(move || std::net::TcpListener::bind(at)).await?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(connections(listener, side, target))
        }
        Protocol::Udp => {
            let socket = from.make(move || std::net::UdpSocket::bind(at)).await?;
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            tokio::spawn(datagrams(Arc::new(socket), side, target))
        }
    };
    Ok(task.abort_handle())
}

async fn connections(listener: TcpListener, side: Side, target: impl Fn() -> io::Result<SocketAddr>) {
    let mut carried = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while carried.try_join_next().is_some() {}
        let (Ok((stream, _)), Ok(to)) = (accepted, target()) else {
            sleep(PAUSE).await;
            continue;
        };
        carried.spawn(carry(stream, side.clone(), to));
    }
}

/// A connection that can't be made there is closed here.
async fn carry(mut stream: TcpStream, side: Side, to: SocketAddr) -> io::Result<()> {
    let socket = side
        .make(move || match to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })
        .await?;
    let mut other = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    other.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut stream, &mut other).await?;
    Ok(())
}

/// Each address that datagrams come from has a socket of its own on the other side, so that answers find their way.
async fn datagrams(socket: Arc<UdpSocket>, side: Side, target: impl Fn() -> io::Result<SocketAddr>) {
    let mut sessions: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answering = JoinSet::new();
    let (tell, mut silent) = mpsc::unbounded_channel();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(from) = silent.recv() => {
                sessions.remove(&from);
                while answering.try_join_next().is_some() {}
                continue;
            }
        };
        // An error tells of a datagram that was sent before.
        let Ok((count, from)) = received else { continue };
        let session = match sessions.get(&from) {
            Some(session) => Arc::clone(session),
            None if sessions.len() >= MAX_SESSIONS => continue,
            None => {
                let Ok(to) = target() else { continue };
                let Ok(session) = session(&side, to).await else {
                    continue;
                };
                let session = Arc::new(session);
                sessions.insert(from, Arc::clone(&session));
                let (socket, answers, tell) = (Arc::clone(&socket), Arc::clone(&session), tell.clone());
                answering.spawn(async move {
                    pass_answers(&answers, &socket, from).await;
                    // Who would hear of it may have ended.
                    let _ = tell.send(from);
                });
                session
            }
        };
        // What can't be sent is lost, as datagrams may be.
        let _ = session.send(buffer.get(..count).unwrap_or_default()).await;
    }
}

async fn session(side: &Side, to: SocketAddr) -> io::Result<UdpSocket> {
    let made = side.make(move || {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    UdpSocket::from_std(made.await?)
}

async fn pass_answers(answers: &UdpSocket, socket: &UdpSocket, to: SocketAddr) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    while let Ok(received) = timeout(SILENCE, answers.recv(&mut buffer)).await {
        // An error says that nobody listens there; somebody may later.
        let Ok(count) = received else { continue };
        let _ = socket.send_to(buffer.get(..count).unwrap_or_default(), to).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn local(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// A port that nobody has at the moment.
    fn free() -> SocketAddr {
        std::net::TcpListener::bind(local(0))
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[tokio::test]
    async fn connections_are_carried_and_end_with_the_port() {
        let server = TcpListener::bind(local(0)).await.unwrap();
        let (at, to) = (free(), server.local_addr().unwrap());
        let side = Side::Machine;
        let port = forward(Protocol::Tcp, &side, at, &side, move || Ok(to))
            .await
            .unwrap();
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"asked").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut heard = [0; 5];
        served.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"asked");
        served.write_all(b"told").await.unwrap();
        let mut heard = [0; 4];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"told");
        let taken = forward(Protocol::Tcp, &side, at, &side, move || Ok(to)).await;
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        port.abort();
        // Both ends hear of it.
        assert!(matches!(client.read(&mut heard).await, Ok(0) | Err(_)));
        assert!(matches!(served.read(&mut heard).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn datagrams_and_their_answers_find_their_way() {
        let server = UdpSocket::bind(local(0)).await.unwrap();
        let (at, to) = (free(), server.local_addr().unwrap());
        let side = Side::Machine;
        forward(Protocol::Udp, &side, at, &side, move || Ok(to))
            .await
            .unwrap();
        let clients = [
            UdpSocket::bind(local(0)).await.unwrap(),
            UdpSocket::bind(local(0)).await.unwrap(),
        ];
        let mut buffer = [0; 16];
        for (client, word) in clients.iter().zip(["one", "two"]) {
            client.send_to(word.as_bytes(), at).await.unwrap();
            let (count, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], word.as_bytes());
            server.send_to(&buffer[..count], from).await.unwrap();
        }
        for (client, word) in clients.iter().zip(["one", "two"]) {
            let (count, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..count], from), (word.as_bytes(), at));
        }
    }
}
