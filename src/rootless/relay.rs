//! What pasta leaves out of an ordinary user's node: ports of the machine, and names. A process that is in the machine's
//! network, and has a thread in the node's, carries connections and datagrams between the two.
//!
//! It is asked in the words that slirp4netns(1) has for its API socket, so that the engine knows one way only.

mod forward;
mod sides;

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

use super::pasta::ADDRESS;
use forward::{Protocol, forward};
use sides::Side;

/// A request is a few words.
const MAX_REQUEST: u64 = 64 << 10;
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
}

/// Runs the relay until who started it ends. Then the pasta ends, too, that it was told of last, by pid, on standard input.
pub(crate) fn run(args: &RelayArgs) -> ExitCode {
    let failed = |error: io::Error| error.to_string();
    let outcome = Side::node(args.keeper).map_err(failed).and_then(|node| {
        crate::pods::on_this_thread(async {
            let mut relay = Relay {
                node,
                forwards: HashMap::new(),
                next: 1,
            };
            relay.names().await.map_err(failed)?;
            let listener = listen(args).map_err(failed)?;
            let mut output = io::stdout();
            output.write_all(b"ready\n").map_err(failed)?;
            relay.serve(&listener).await
        })?
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Who does not listen any more has ended.
            let _ = io::stdout().write_all(format!("{why}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// The directory is held, because a socket's address has room for 107 bytes only.
fn listen(args: &RelayArgs) -> io::Result<UnixListener> {
    let path = super::api_socket(&args.run);
    match std::fs::remove_file(&path) {
        // Left by a node that was killed.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let held = std::fs::File::open(&args.run)?;
    let name = path.file_name().unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())).join(name);
    let listener = UnixListener::bind(&short)?;
    // The directory is the user's alone, too.
    std::fs::set_permissions(&short, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
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

#[derive(Deserialize)]
struct Request {
    execute: String,
    arguments: Value,
}

#[derive(Deserialize)]
struct Forward {
    proto: String,
    host_addr: IpAddr,
    host_port: u16,
    guest_port: u16,
}

struct Relay {
    node: Side,
    forwards: HashMap<i64, AbortHandle>,
    next: i64,
}

impl Relay {
    /// Pods ask the node's address for names, and the machine's first name server answers.
    async fn names(&self) -> io::Result<()> {
        let address: Ipv4Addr = ADDRESS.parse().map_err(io::Error::other)?;
        let own = SocketAddr::from((address, DOMAIN));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            forward(protocol, &self.node, own, &Side::Machine, name_server).await?;
        }
        Ok(())
    }

    async fn serve(&mut self, listener: &UnixListener) -> Result<(), String> {
        let starter = pipe::Receiver::from_owned_fd(
            rustix::io::dup(rustix::stdio::stdin()).map_err(|errno| errno.to_string())?,
        )
        .map_err(|error| error.to_string())?;
        let mut starter = BufReader::new(starter).lines();
        let mut pasta = None;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.map_err(|error| error.to_string())?.0,
                line = starter.next_line() => match line {
                    Ok(Some(pid)) => {
                        pasta = held(&pid);
                        continue;
                    }
                    _ => {
                        // One that has ended needs no signal.
                        let _ = pasta.map(|pasta| pidfd_send_signal(pasta, Signal::KILL));
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
        (&mut stream).take(MAX_REQUEST).read_to_end(&mut text).await?;
        let answer = match self.execute(&text).await {
            Ok(value) => json!({ "return": value }),
            Err(error) => json!({ "error": { "desc": error.to_string() } }),
        };
        stream.write_all(answer.to_string().as_bytes()).await?;
        stream.shutdown().await
    }

    async fn execute(&mut self, text: &[u8]) -> io::Result<Value> {
        let request: Request = serde_json::from_slice(text)?;
        match request.execute.as_str() {
            "add_hostfwd" => {
                let wanted: Forward = serde_json::from_value(request.arguments)?;
                let protocol = match wanted.proto.as_str() {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    other => return Err(io::Error::other(format!("{other} is not forwarded"))),
                };
                let at = SocketAddr::from((wanted.host_addr, wanted.host_port));
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, wanted.guest_port));
                let task = forward(protocol, &Side::Machine, at, &self.node, move || Ok(to)).await?;
                let id = self.next;
                self.next += 1;
                self.forwards.insert(id, task);
                Ok(json!({ "id": id }))
            }
            "remove_hostfwd" => {
                let id = request.arguments.get("id").and_then(Value::as_i64);
                match id.and_then(|id| self.forwards.remove(&id)) {
                    Some(task) => {
                        task.abort();
                        Ok(json!({}))
                    }
                    None => Err(io::Error::other("there is no such port")),
                }
            }
            other => Err(io::Error::other(format!("{other} is not known"))),
        }
    }
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
