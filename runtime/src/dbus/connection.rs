//! A connection: calls with their replies, and signals in between.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::address::Endpoint;
use super::authenticate::authenticate;
use super::message::{self, ERROR, FIXED, Header, Incoming, METHOD_RETURN, SIGNAL};
use super::wire::Writer;
use super::{DbusError, Result};

/// How long a peer may take for one answer; the usual value of D-Bus libraries.
const PATIENCE: Duration = Duration::from_secs(25);
/// Signals that are kept while a reply is waited for; a peer that sends more is not the one that we want.
const MOST_SIGNALS: usize = 1024;

/// A method, and whose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The service, by name. Without a bus there is nobody else.
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    /// The arguments' types.
    pub(crate) signature: &'a str,
}

/// A socket whose reads end at a deadline.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) file: UnixStream,
}

/// A connection to a bus, or to one service directly.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    serial: u32,
    signals: VecDeque<Incoming>,
    direct: bool,
}

impl Connection {
    /// Connects to the first of some addresses that answers.
    pub(crate) fn bus(endpoints: &[Endpoint]) -> Result<Connection> {
        let mut result = Err(DbusError::NoSession);
        for endpoint in endpoints {
            result = Connection::open(endpoint, false);
            if result.is_ok() {
                break;
            }
        }
        let mut connection = result?;
        connection.call(
            Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                signature: "",
            },
            |_| {},
        )?;
        Ok(connection)
    }

    /// Connects to a service that listens itself.
    pub(crate) fn direct(endpoint: &Endpoint) -> Result<Connection> {
        Connection::open(endpoint, true)
    }

    fn open(endpoint: &Endpoint, direct: bool) -> Result<Connection> {
        let file = connect_to(endpoint).map_err(|error| DbusError::Connect {
            address: endpoint.text(),
            error: error.into(),
        })?;
        Connection::over(file, direct)
    }

    fn over(file: UnixStream, direct: bool) -> Result<Connection> {
        let mut stream = Stream { file };
        authenticate(&mut stream, Instant::now() + PATIENCE)?;
        Ok(Connection {
            stream,
            serial: 0,
            signals: VecDeque::new(),
            direct,
        })
    }

    /// Calls a method and waits for its reply. An error as reply is an error.
    pub(crate) fn call(&mut self, call: Call<'_>, arguments: impl FnOnce(&mut Writer)) -> Result<Incoming> {
        let mut body = Writer::default();
        arguments(&mut body);
        self.serial += 1;
        let serial = self.serial;
        let header = Header {
            serial,
            destination: (!self.direct).then_some(call.destination),
            path: call.path,
            interface: call.interface,
            member: call.member,
            signature: call.signature,
        };
        let message = message::method_call(&header, &body.bytes);
        self.stream.file.write_all(&message).map_err(closed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                METHOD_RETURN if message.reply_serial == Some(serial) => return Ok(message),
                ERROR if message.reply_serial == Some(serial) => return Err(message.into_error()),
                SIGNAL if self.signals.len() < MOST_SIGNALS => self.signals.push_back(message),
                SIGNAL => return Err(DbusError::Malformed("there are too many signals")),
                _ => {}
            }
        }
    }

    /// Waits for a signal that `wanted` takes: those that came meanwhile first, in their order.
    pub(crate) fn signal<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&Incoming) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline).map_err(|error| match error {
                    DbusError::Timeout(_) => DbusError::Timeout(patience),
                    other => other,
                })?,
            };
            if message.kind == SIGNAL
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Incoming> {
        let mut fixed = [0; FIXED];
        self.stream.read_exact(&mut fixed, deadline)?;
        let remaining = message::remaining(&fixed)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED + remaining, 0);
        self.stream.read_exact(&mut bytes[FIXED..], deadline)?;
        Incoming::parse(&bytes)
    }
}

impl Stream {
    /// Fills the buffer, or fails at the deadline.
    pub(super) fn read_exact(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DbusError::Timeout(PATIENCE));
            }
            self.file.set_read_timeout(Some(left))?;
            match self.file.read(buffer) {
                Ok(0) => return Err(DbusError::Closed),
                Ok(n) => buffer = &mut buffer[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed(error)),
            }
        }
        Ok(())
    }
}

fn closed(error: io::Error) -> DbusError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => DbusError::Closed,
        _ => DbusError::Connection(error),
    }
}

/// A peer whose queue is full makes connect(2) and write(2) wait: not for longer than the timeout of sending.
fn connect_to(endpoint: &Endpoint) -> rustix::io::Result<UnixStream> {
    let address = endpoint.socket_address()?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::fake::{self, Reply};
    use super::*;

    const CALL: Call<'_> = Call {
        destination: "org.example",
        path: "/org/example",
        interface: "org.example",
        member: "Ask",
        signature: "s",
    };

    fn ask(connection: &mut Connection) -> Result<String> {
        let reply = connection.call(CALL, |arguments| arguments.string("question"))?;
        Ok(reply.body("s")?.string()?.to_owned())
    }

    #[test]
    fn replies_errors_and_signals_find_their_way() {
        let mut asked = 0;
        let server = fake::Server::start(move |call| {
            assert_eq!(call.member, "Ask");
            assert_eq!(call.body("s").unwrap().string().unwrap(), "question");
            asked += 1;
            match asked {
                // A signal and somebody else's reply before ours.
                1 => vec![
                    Reply::signal("Happened", "first"),
                    Reply::stray(),
                    Reply::text("answer"),
                    Reply::signal("Happened", "second"),
                ],
                _ => vec![Reply::error("org.example.No", "It can't be.")],
            }
        });
        let mut connection = Connection::direct(&server.endpoint()).unwrap();
        assert_eq!(ask(&mut connection).unwrap(), "answer");
        let text = |signal: &Incoming| Some(signal.body("s").ok()?.string().ok()?.to_owned());
        assert_eq!(connection.signal(PATIENCE, text).unwrap(), "first");
        assert_eq!(connection.signal(PATIENCE, text).unwrap(), "second");
        let error = ask(&mut connection).unwrap_err();
        assert_eq!(error.to_string(), "It can't be (org.example.No)");
        let error = connection.signal(Duration::from_millis(20), text).unwrap_err();
        assert!(matches!(error, DbusError::Timeout(_)), "{error}");
    }

    #[test]
    fn a_hostile_peer_gets_nowhere() {
        let cases: [(&str, Vec<u8>); 4] = [
            (
                "a length of 2 GiB",
                [b'l', 2, 0, 1, 0xff, 0xff, 0xff, 0x7f]
                    .into_iter()
                    .chain([0; 8])
                    .collect(),
            ),
            ("no message at all", vec![0xaa; 64]),
            ("an end in the middle", vec![b'l', 2, 0, 1, 1]),
            ("nothing", Vec::new()),
        ];
        for (what, bytes) in cases {
            let server = fake::Server::start(move |_| vec![Reply::raw(bytes.clone()), Reply::close()]);
            let mut connection = Connection::direct(&server.endpoint()).unwrap();
            let error = ask(&mut connection).unwrap_err();
            assert!(
                matches!(error, DbusError::Malformed(_) | DbusError::Closed),
                "{what}: {error}"
            );
        }
        let server =
            fake::Server::start(|_| (0..=MOST_SIGNALS).map(|_| Reply::signal("Again", "")).collect());
        let error = ask(&mut Connection::direct(&server.endpoint()).unwrap()).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }

    #[test]
    fn who_refuses_or_babbles_is_not_a_bus() {
        for (said, expected) in [
            ("REJECTED EXTERNAL\r\n".to_owned(), "refused"),
            ("x".repeat(1000), "too long"),
            (String::new(), "closed"),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(said.as_bytes()).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            let error = Connection::over(ours, true).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let nobody = Endpoint::Path("/nowhere/bus".to_owned());
        let error = Connection::bus(&[nobody]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/bus"), "{error}");
    }

    /// The reference implementation, where it is installed.
    #[test]
    fn a_real_bus_understands() {
        let mut command = Command::new("dbus-daemon");
        command
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped());
        let Ok(mut daemon) = command.spawn() else { return };
        let mut address = String::new();
        let mut output = io::BufReader::new(daemon.stdout.take().unwrap());
        io::BufRead::read_line(&mut output, &mut address).unwrap();
        let endpoints = super::super::address::parse(address.trim()).unwrap();
        let mut connection = Connection::bus(&endpoints).unwrap();
        let bus = |member, signature| Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
            signature,
        };
        let reply = connection
            .call(bus("NameHasOwner", "s"), |arguments| {
                arguments.string("org.freedesktop.DBus")
            })
            .unwrap();
        assert_eq!(reply.body("b").unwrap().u32().unwrap(), 1);
        assert_eq!(reply.sender, "org.freedesktop.DBus");
        let error = connection
            .call(bus("GetNameOwner", "s"), |arguments| {
                arguments.string("org.example.Nobody")
            })
            .unwrap_err();
        assert!(error.to_string().contains("NameHasNoOwner"), "{error}");
        // The bus said our name when we came.
        let acquired = connection.signal(PATIENCE, |signal| (signal.member == "NameAcquired").then_some(()));
        acquired.unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(matches!(
            connection.call(bus("GetId", ""), |_| {}),
            Err(DbusError::Closed)
        ));
    }
}
