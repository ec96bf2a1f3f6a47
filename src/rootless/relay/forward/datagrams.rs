//! Datagrams from one network to the other, and their answers.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::super::Side;
use super::Room;

/// For how long answers to a datagram may come, as the kernel's connection tracking has it for both directions.
const SILENCE: Duration = Duration::from_secs(120);
/// No datagram is longer, in bytes.
const MAX_DATAGRAM: usize = 65536;

/// What is carried for one sender. It has a socket of its own on the other side, so that answers find their way.
struct Session {
    socket: Arc<UdpSocket>,
    answers: AbortHandle,
    used: Instant,
    number: u64,
    _place: OwnedSemaphorePermit,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// One for all: what is read is sent before anything else is done.
type Buffer = Arc<Mutex<Vec<u8>>>;

pub(super) async fn carry(
    socket: Arc<UdpSocket>,
    side: Side,
    room: Room,
    target: impl Fn() -> io::Result<SocketAddr>,
) {
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut answering = JoinSet::new();
    let answer_buffer: Buffer = Arc::new(Mutex::new(vec![0; MAX_DATAGRAM]));
    let (tell, mut silent) = mpsc::unbounded_channel();
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut next = 0;
    loop {
        while answering.try_join_next().is_some() {}
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some((from, number)) = silent.recv() => {
                if sessions.get(&from).is_some_and(|session| session.number == number) {
                    sessions.remove(&from);
                }
                continue;
            }
        };
        // An error tells of a datagram that was sent before.
        let Ok((count, from)) = received else { continue };
        if !sessions.contains_key(&from) {
            let Some(place) = place(&mut sessions, &room) else {
                continue;
            };
            let Ok(to) = target() else { continue };
            let Ok(own) = connected(&side, to).await else {
                continue;
            };
            let own = Arc::new(own);
            let number = next;
            next += 1;
            let (answers, socket, tell) = (Arc::clone(&own), Arc::clone(&socket), tell.clone());
            let buffer = Arc::clone(&answer_buffer);
            let answers = answering.spawn(async move {
                pass_answers(&answers, &socket, from, &buffer).await;
                // Who would hear of it may have ended.
                let _ = tell.send((from, number));
            });
            let session = Session {
                socket: own,
                answers,
                used: Instant::now(),
                number,
                _place: place,
            };
            sessions.insert(from, session);
        }
        if let Some(session) = sessions.get_mut(&from) {
            session.used = Instant::now();
            // What can't be sent is lost, as datagrams may be.
            let _ = session.socket.send(buffer.get(..count).unwrap_or_default()).await;
        }
    }
}

/// A place for one more sender, that of the one who was silent for the longest time if there is no other. `None`: others have
/// all places.
fn place(sessions: &mut HashMap<SocketAddr, Session>, room: &Room) -> Option<OwnedSemaphorePermit> {
    let free = || Arc::clone(&room.all).try_acquire_owned().ok();
    if sessions.len() < room.of_port
        && let Some(place) = free()
    {
        return Some(place);
    }
    let oldest = sessions.iter().min_by_key(|(_, session)| session.used);
    let oldest = oldest.map(|(from, _)| *from)?;
    sessions.remove(&oldest);
    free()
}

async fn connected(side: &Side, to: SocketAddr) -> io::Result<UdpSocket> {
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

/// Returns when there was none for long.
async fn pass_answers(answers: &UdpSocket, socket: &UdpSocket, to: SocketAddr, buffer: &Buffer) {
    while let Ok(ready) = timeout(SILENCE, answers.readable()).await {
        if ready.is_err() {
            return;
        }
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        // An error says that nobody listens there; somebody may later.
        let Ok(count) = answers.try_recv(&mut buffer) else {
            continue;
        };
        let _ = socket.try_send_to(buffer.get(..count).unwrap_or_default(), to);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::super::tests::{here, local, room};
    use super::super::{Room, forward};
    use super::*;
    use berth_cri::Protocol;

    /// A server that sends back what comes, at the address, and the port that leads to it.
    async fn echo(room: &Room) -> SocketAddr {
        let server = UdpSocket::bind(local(0)).await.unwrap();
        let (what, to) = (here(Protocol::Udp), server.local_addr().unwrap());
        let at = what.at;
        forward(what, room, move || Ok(to)).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; MAX_DATAGRAM];
            loop {
                let (count, from) = server.recv_from(&mut buffer).await.unwrap();
                server.send_to(&buffer[..count], from).await.unwrap();
            }
        });
        at
    }

    async fn asks(client: &UdpSocket, at: SocketAddr, text: &[u8]) {
        client.send_to(text, at).await.unwrap();
        let mut buffer = vec![0; MAX_DATAGRAM];
        let (count, from) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..count], from), (text, at));
    }

    #[tokio::test]
    async fn datagrams_and_their_answers_find_their_way() {
        let at = echo(&room()).await;
        let clients = [
            UdpSocket::bind(local(0)).await.unwrap(),
            UdpSocket::bind(local(0)).await.unwrap(),
        ];
        for (client, word) in clients.iter().zip(["one", "two"]) {
            client.send_to(word.as_bytes(), at).await.unwrap();
        }
        for (client, word) in clients.iter().zip(["one", "two"]) {
            let mut buffer = [0; 16];
            let (count, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..count], from), (word.as_bytes(), at));
        }
    }

    #[tokio::test]
    async fn the_longest_and_the_shortest_datagram_are_whole() {
        let at = echo(&room()).await;
        let client = UdpSocket::bind(local(0)).await.unwrap();
        for length in [0, 1, 10_000, 65_507] {
            asks(&client, at, &vec![b'n'; length]).await;
        }
    }

    #[tokio::test]
    async fn more_senders_than_there_is_room_for_are_heard_all_the_same() {
        // Eight altogether, four of a port.
        let room = Room::of_descriptors(0);
        let at = echo(&room).await;
        let mut clients = Vec::new();
        for number in 0..50_u8 {
            let client = UdpSocket::bind(local(0)).await.unwrap();
            asks(&client, at, &[number]).await;
            clients.push(client);
            assert!(room.all.available_permits() >= 4);
        }
        // The first of them has lost its place, and gets another.
        asks(&clients[0], at, b"again").await;
    }
}
