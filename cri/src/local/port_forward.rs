//! Connections to what listens on a pod's loopback.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use berth_shim::protocol::{Request, Response};
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::{Sandbox, lock, network};
use crate::engine::EngineError;

/// Connects to a TCP port of the pod's own loopback, IPv4 first, as upstream's runtimes do.
pub(super) async fn connect(sandbox: &Arc<Sandbox>, port: u16) -> Result<TcpStream, EngineError> {
    let v4 = dial(sandbox, (Ipv4Addr::LOCALHOST, port).into()).await;
    let Err(v4) = v4 else { return v4.map_err(internal) };
    let v6 = dial(sandbox, (Ipv6Addr::LOCALHOST, port).into()).await;
    v6.map_err(|v6| {
        EngineError::Unavailable(format!(
            "failed to connect to localhost:{port} inside the network of sandbox {}, \
             IPv4: dial tcp4 127.0.0.1:{port}: {}, IPv6: dial tcp6 [::1]:{port}: {}",
            sandbox.id,
            reason(&v4),
            reason(&v6)
        ))
    })
}

fn internal(error: io::Error) -> EngineError {
    EngineError::Internal(error.to_string())
}

/// In the words that people search for.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        _ => error.to_string(),
    }
}

async fn dial(sandbox: &Sandbox, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(sandbox, address.is_ipv4()).await?;
    socket.connect(address).await
}

/// A socket belongs for ever to the network namespace of the thread that made it.
async fn socket(sandbox: &Sandbox, v4: bool) -> io::Result<TcpSocket> {
    let make = move || {
        if v4 {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }
    };
    if lock(&sandbox.record).config.namespaces.host_network {
        return make();
    }
    let namespace = namespace(sandbox).await?;
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: one that has been in a pod's namespace serves nobody else.
    thread::Builder::new()
        .name("port-forward".into())
        .spawn(move || {
            let made = setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| make());
            // Nobody waits any more once the client has left.
            let _ = sender.send(made);
        })?;
    receiver
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread in the pod's network died")))
}

/// The namespace by way of the pause process. The shim reaps the pause, so as long as it has not, after the namespace
/// was opened, that number can't have been another process's.
async fn namespace(sandbox: &Sandbox) -> io::Result<File> {
    let gone = || io::Error::other(format!("sandbox {} has no pause process any more", sandbox.id));
    let path = network::netns(sandbox).ok_or_else(gone)?;
    let namespace = File::open(&path)?;
    let client = sandbox.live_shim().map_err(|_| gone())?.client;
    match client.call(Request::State).await {
        Ok(Response::State(state)) if state.pause_pid.is_some() => Ok(namespace),
        _ => Err(gone()),
    }
}
