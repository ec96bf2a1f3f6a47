//! Connections from one network to the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::super::Side;
use super::Room;

/// Before the next attempt to accept a connection, when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// Who has gone without a word is asked after this time; the kernel's own is two hours.
const SILENCE: Duration = Duration::from_secs(300);

pub(super) async fn carry(
    listener: TcpListener,
    side: Side,
    room: Room,
    target: impl Fn() -> io::Result<SocketAddr>,
) {
    let of_port = Arc::new(Semaphore::new(room.of_port));
    let mut carried = JoinSet::new();
    loop {
        // Whoever there is no room for waits in the kernel's queue. Neither semaphore is ever closed.
        let Ok(own) = Arc::clone(&of_port).acquire_owned().await else {
            return;
        };
        let accepted = listener.accept().await;
        while carried.try_join_next().is_some() {}
        let (Ok((stream, _)), Ok(to)) = (accepted, target()) else {
            sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room.all).acquire_owned().await else {
            return;
        };
        let side = side.clone();
        carried.spawn(async move {
            let _places = (own, place);
            connect(stream, side, to).await
        });
    }
}

/// A connection that can't be made there is closed here.
async fn connect(mut stream: TcpStream, side: Side, to: SocketAddr) -> io::Result<()> {
    let socket = side
        .make(move || match to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })
        .await?;
    let mut other = socket.connect(to).await?;
    for end in [&stream, &other] {
        end.set_nodelay(true)?;
        set_socket_keepalive(end.as_fd(), true)?;
        set_tcp_keepidle(end.as_fd(), SILENCE)?;
    }
    tokio::io::copy_bidirectional(&mut stream, &mut other).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::tests::{here, local, room};
    use super::super::{Room, forward};
    use berth_cri::Protocol;

    #[tokio::test]
    async fn connections_are_carried_and_end_with_the_port() {
        let server = TcpListener::bind(local(0)).await.unwrap();
        let (what, to) = (here(Protocol::Tcp), server.local_addr().unwrap());
        let at = what.at;
        let port = forward(what.clone(), &room(), move || Ok(to)).await.unwrap();
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
        let taken = forward(what, &room(), move || Ok(to)).await;
        assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        port.abort();
        // Both ends hear of it.
        assert!(matches!(client.read(&mut heard).await, Ok(0) | Err(_)));
        assert!(matches!(served.read(&mut heard).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn who_has_closed_its_side_hears_the_answer() {
        let server = TcpListener::bind(local(0)).await.unwrap();
        let (what, to) = (here(Protocol::Tcp), server.local_addr().unwrap());
        let at = what.at;
        forward(what, &room(), move || Ok(to)).await.unwrap();
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"all that I ask").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut heard = String::new();
        served.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all that I ask");
        // More than the buffers on the way have room for.
        let answer = vec![b'x'; 8 << 20];
        let (sent, received) = tokio::join!(
            async {
                served.write_all(&answer).await.unwrap();
                drop(served);
            },
            async {
                let mut received = Vec::new();
                client.read_to_end(&mut received).await.unwrap();
                received.len()
            },
        );
        assert_eq!((sent, received), ((), 8 << 20));
    }

    #[tokio::test]
    async fn beyond_its_share_a_port_accepts_nobody_and_another_port_does() {
        let server = TcpListener::bind(local(0)).await.unwrap();
        let to = server.local_addr().unwrap();
        let (one, other) = (here(Protocol::Tcp), here(Protocol::Tcp));
        let (crowded, quiet) = (one.at, other.at);
        // Eight altogether, four of a port.
        let room = Room::of_descriptors(0);
        for what in [one, other] {
            forward(what, &room, move || Ok(to)).await.unwrap();
        }
        let mut clients = Vec::new();
        for number in 0..6_u8 {
            let mut client = TcpStream::connect(crowded).await.unwrap();
            client.write_all(&[number]).await.unwrap();
            clients.push(client);
        }
        let mut served = Vec::new();
        for number in 0..4 {
            let (mut stream, _) = server.accept().await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), number);
            served.push(stream);
        }
        // The next that comes is of the other port, though two wait at the first one.
        let mut client = TcpStream::connect(quiet).await.unwrap();
        client.write_all(b"q").await.unwrap();
        let (mut stream, _) = server.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'q');
        // Who goes makes room.
        drop((served.remove(0), clients.remove(0)));
        let (mut stream, _) = server.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 4);
    }
}
