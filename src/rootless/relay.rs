//! What pasta and slirp4netns leave out of an ordinary user's node: ports of the machine, and names on its loopback. A process
//! that is in the machine's network, and has a thread in the node's, carries connections and datagrams between the two.
//!
//! Its guard starts another when it dies, which finds the ports of all pods by their records.

mod forward;
mod sides;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use berth_cri::Protocol;
use berth_cri::host_ports::{Answer, HostPort, MAX_MESSAGE, Request, recorded};
use clap::Args;
use nix::sched::{CloneFlags, setns};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

use super::guard::READY;
use super::network::ADDRESS;
use forward::{Forward, Room, forward, forward_once_free};
use sides::Side;

const DOMAIN: u16 = 53;
/// For one request, which comes from this machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Relay ports and names of an ordinary user's node; berth starts this itself
#[derive(Args, Debug)]
pub(crate) struct RelayArgs {
    /// The node's run directory
    #[arg(long)]
    run: PathBuf,

    /// The keeper of the node's namespaces
    #[arg(long)]
    keeper: i32,

    /// Another relay was there before, and the node's pods have their ports
    #[arg(long)]
    again: bool,
}

/// Runs the relay until its guard ends, whose lines go over standard output, which is a socket. Then the process ends, too, that
/// it was told of last, by pid. Standard input is where ports are asked for.
pub(crate) fn run(args: &RelayArgs) -> ExitCode {
    let failed = |error: io::Error| error.to_string();
    let Ok(guard) = rustix::io::dup(rustix::stdio::stdout()) else {
        return ExitCode::FAILURE;
    };
    let guard = std::os::unix::net::UnixStream::from(guard);
    let mut said = &guard;
    let outcome = Side::node(args.keeper).map_err(failed).and_then(|node| {
        let room = Room::of_descriptors(raise_limit());
        crate::pods::on_this_thread(async {
            let mut relay = Relay {
                node,
                room,
                forwards: HashMap::new(),
            };
            relay.begin(args).map_err(failed)?;
            io::Write::write_all(&mut said, READY.as_bytes()).map_err(failed)?;
            relay
                .serve(guard.try_clone().map_err(failed)?)
                .await
                .map_err(failed)
        })?
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Who does not listen any more has ended.
            let _ = io::Write::write_all(&mut said, format!("{why}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Allows as many descriptors as this user may have, and returns how many.
fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let allowed = match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    allowed.unwrap_or(u64::MAX)
}

/// A process that its parent has told of, and has not waited for.
fn held(pid: &str) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.parse().ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Into the user namespace, which gives the right to the network namespace. There may be one thread only.
fn enter_user_namespace(keeper: i32) -> io::Result<()> {
    let file = std::fs::File::open(format!("/proc/{keeper}/ns/user"))?;
    Ok(setns(file, CloneFlags::CLONE_NEWUSER)?)
}

struct Relay {
    node: Side,
    room: Room,
    /// By sandbox.
    forwards: HashMap<String, Forwarded>,
}

/// What a sandbox has.
struct Forwarded {
    ports: Vec<HostPort>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Relay {
    /// Begins with names, and with the ports that another relay had.
    fn begin(&mut self, args: &RelayArgs) -> io::Result<()> {
        let address: Ipv4Addr = ADDRESS.parse().map_err(io::Error::other)?;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // Pods ask the node's address for names, and the machine's first name server answers. The node may have no address
            // yet, because pasta is started anew, too.
            let names = Forward {
                protocol,
                from: self.node.clone(),
                at: SocketAddr::from((address, DOMAIN)),
                side: Side::Machine,
            };
            forward_once_free(names, &self.room, name_server);
        }
        let recorded = args.again.then(|| recorded(&args.run));
        for (sandbox, ports) in recorded.into_iter().flatten() {
            let again = |port: &HostPort| {
                let to = port.to;
                forward_once_free(self.forward(port), &self.room, move || Ok(to))
            };
            let tasks = ports.iter().map(again).collect();
            self.forwards.insert(sandbox, Forwarded { ports, tasks });
        }
        Ok(())
    }

    fn forward(&self, port: &HostPort) -> Forward {
        Forward {
            protocol: port.protocol,
            from: Side::Machine,
            at: port.at,
            side: self.node.clone(),
        }
    }

    async fn serve(&mut self, guard: std::os::unix::net::UnixStream) -> io::Result<()> {
        let listener = std::os::unix::net::UnixListener::from(rustix::io::dup(rustix::stdio::stdin())?);
        let listener = UnixListener::from_std(listener)?;
        guard.set_nonblocking(true)?;
        let mut guard = BufReader::new(UnixStream::from_std(guard)?).lines();
        let mut heir = None;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted?.0,
                line = guard.next_line() => match line {
                    Ok(Some(pid)) => {
                        heir = held(&pid);
                        continue;
                    }
                    _ => {
                        // One that has ended needs no signal.
                        let _ = heir.map(|heir| pidfd_send_signal(heir, Signal::KILL));
                        return Ok(());
                    }
                },
            };
            // Who goes away without hearing the answer has ended.
            let _ = tokio::time::timeout(PATIENCE, self.answer(stream)).await;
        }
    }

    async fn answer(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let mut text = Vec::new();
        (&mut stream).take(MAX_MESSAGE).read_to_end(&mut text).await?;
        let answer = match serde_json::from_slice(&text) {
            Ok(request) => self.execute(request).await,
            Err(error) => Answer::Misunderstood(format!("what was asked is not understood: {error}")),
        };
        stream.write_all(&serde_json::to_vec(&answer)?).await?;
        stream.shutdown().await
    }

    async fn execute(&mut self, request: Request) -> Answer {
        let (sandbox, ports) = match request {
            Request::Release { sandbox } => {
                self.forwards.remove(&sandbox);
                return Answer::Done;
            }
            Request::Forward { sandbox, ports } => (sandbox, ports),
        };
        if self.forwards.get(&sandbox).is_some_and(|has| has.ports == ports) {
            return Answer::Done;
        }
        self.forwards.remove(&sandbox);
        let mut forwarded = Forwarded {
            ports: Vec::new(),
            tasks: Vec::new(),
        };
        for port in &ports {
            let to = port.to;
            match forward(self.forward(port), &self.room, move || Ok(to)).await {
                Ok(task) => forwarded.tasks.push(task),
                // All of none.
                Err(error) if port.at.ip() == Ipv6Addr::UNSPECIFIED && has_no_such_family(&error) => {}
                Err(error) => {
                    return Answer::Taken {
                        at: port.at,
                        why: why_not(&error),
                    };
                }
            }
        }
        forwarded.ports = ports;
        self.forwards.insert(sandbox, forwarded);
        Answer::Done
    }
}

fn has_no_such_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

/// Why there is no listening at an address: part of a sentence.
fn why_not(error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => "something listens there",
        io::ErrorKind::PermissionDenied => "only root may",
        io::ErrorKind::AddrNotAvailable => "the machine does not have this address",
        _ if has_no_such_family(error) => "the machine has no IPv6",
        _ => return error.to_string(),
    };
    format!("{reason} ({error})")
}

/// The first name server of the machine, whose file may have changed.
fn name_server() -> io::Result<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    first_name_server(&text).ok_or_else(|| io::Error::other("the machine has no name server"))
}

fn first_name_server(text: &str) -> Option<SocketAddr> {
    let found = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    found.map(|address: IpAddr| SocketAddr::new(address, DOMAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_server_that_is_an_address_is_asked() {
        let text = "# x\nsearch a\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver 1.2.3.4\n";
        assert_eq!(
            first_name_server(text),
            Some(SocketAddr::from(([127, 0, 0, 53], 53)))
        );
        assert_eq!(first_name_server("search a\n"), None);
    }
}
