//! The clients of a shim: accepted, served, told of events, let go.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::connection::{Connection, ConnectionError};
use crate::error::RequestError;
use crate::handler::Asked;
use crate::poller::{Interest, Source, Wakeup, Watched};
use crate::protocol::{Call, Event, Message, Response};
use crate::shim::Shim;

/// Clients at one time; more are turned away.
const MAX_CLIENTS: usize = 64;
/// How long to wait for descriptors to be had again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A connected client.
pub(crate) struct Client {
    pub(crate) connection: Watched<Connection>,
    pub(crate) subscribed: bool,
}

impl Client {
    fn update_interest(&mut self) -> io::Result<()> {
        let interest = if self.connection.get().has_output() {
            Interest::ReadWrite
        } else {
            Interest::Read
        };
        self.connection.wake_on(interest)
    }
}

impl Shim {
    pub(crate) fn accept(&mut self) {
        let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(error) => return self.pause_accepting(error),
        };
        if self.clients.len() >= MAX_CLIENTS {
            return;
        }
        let number = self.next_number();
        match Watched::new(
            &self.poller,
            Connection::new(socket),
            Source::Client(number),
            Interest::Read,
        ) {
            Ok(connection) => drop(self.clients.insert(
                number,
                Client {
                    connection,
                    subscribed: false,
                },
            )),
            Err(error) => eprintln!("A client can't be served: {error}."),
        }
    }

    /// Without descriptors to be had, the waiting client would wake us for ever.
    fn pause_accepting(&mut self, error: Errno) {
        eprintln!(
            "No client can be served for now: {}.",
            std::io::Error::from(error)
        );
        if self.listener.wake_on(Interest::Nothing).is_ok() {
            self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
        }
    }

    pub(crate) fn resume_accepting(&mut self) {
        self.accept_again = None;
        if let Err(error) = self.listener.wake_on(Interest::Read) {
            eprintln!("No client can be served any more: {error}.");
        }
    }

    /// A client sent something, takes something, or went.
    pub(crate) fn on_client(&mut self, number: u32, wakeup: Wakeup) {
        if let Err(error) = self.serve_client(number, wakeup) {
            self.drop_client(number, &error);
        }
    }

    fn serve_client(&mut self, number: u32, wakeup: Wakeup) -> Result<(), ConnectionError> {
        let Some(client) = self.clients.get_mut(&number) else {
            return Ok(());
        };
        if wakeup.writable {
            client.connection.get_mut().flush()?;
            client.update_interest()?;
        }
        if wakeup.readable {
            client.connection.get_mut().receive()?;
            self.serve_calls(number)?;
        }
        Ok(())
    }

    fn serve_calls(&mut self, number: u32) -> Result<(), ConnectionError> {
        loop {
            // The client may be dropped while one of its calls is served.
            let Some(client) = self.clients.get_mut(&number) else {
                return Ok(());
            };
            let Some((call, fds)) = client.connection.get_mut().next::<Call>()? else {
                return Ok(());
            };
            let Some((result, fds)) = self.handle(call.request, fds, number, call.seq) else {
                continue;
            };
            self.reply(
                number,
                Message::Reply {
                    seq: call.seq,
                    result,
                },
                fds,
            )?;
        }
    }

    fn reply(&mut self, number: u32, message: Message, fds: Vec<OwnedFd>) -> Result<(), ConnectionError> {
        let Some(client) = self.clients.get_mut(&number) else {
            return Ok(());
        };
        client.connection.get_mut().send(&message, fds)?;
        Ok(client.update_interest()?)
    }

    /// Answers a call that had to wait. Who asked may have gone.
    pub(crate) fn answer(&mut self, asked: Asked, result: Result<Response, RequestError>, fds: Vec<OwnedFd>) {
        let message = Message::Reply {
            seq: asked.seq,
            result: result.map_err(Into::into),
        };
        if let Err(error) = self.reply(asked.client, message, fds) {
            self.drop_client(asked.client, &error);
        }
    }

    /// Its execs are killed: nobody else could hear of their ends. An engine that was killed has told its own clients
    /// nothing, and they ask again.
    fn drop_client(&mut self, number: u32, error: &ConnectionError) {
        if self.clients.remove(&number).is_none() {
            return;
        }
        for exec in self.execs.values().filter(|exec| exec.client == number) {
            if exec.pid().is_some()
                && let Err(error) = exec.kill()
            {
                eprintln!("A command of a client that is gone can't be killed: {error}");
            }
        }
        if !matches!(error, ConnectionError::Closed) {
            eprintln!("A client was disconnected: {error}");
        }
    }

    /// Tells every subscriber.
    pub(crate) fn emit(&mut self, event: &Event) {
        let message = Message::Event(event.clone());
        let subscribers: Vec<u32> = self
            .clients
            .iter()
            .filter(|(_, c)| c.subscribed)
            .map(|(n, _)| *n)
            .collect();
        for number in subscribers {
            if let Err(error) = self.reply(number, message.clone(), Vec::new()) {
                self.drop_client(number, &error);
            }
        }
    }
}
