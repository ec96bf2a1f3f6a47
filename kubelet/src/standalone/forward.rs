//! `berth port-forward`: local TCP ports that lead to a pod's loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::control::{CallError, Caller};
use crate::spec;

/// A port of this machine and the one of the pod that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPair {
    /// Here; 0 is any that is free.
    pub local: u16,
    /// In the pod.
    pub remote: u16,
}

/// Where connections are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// The loopback addresses, as many as there are: a machine may have no IPv6.
    Localhost,
    /// This one.
    Address(IpAddr),
}

impl std::str::FromStr for LocalAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "localhost" => Ok(Self::Localhost),
            _ => text
                .parse()
                .map(Self::Address)
                .map_err(|_| "expected an IP address or localhost".to_owned()),
        }
    }
}

impl LocalAddress {
    fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Self::Address(address) => vec![address],
        }
    }
}

/// `PORT`, `LOCAL:REMOTE` or `:REMOTE`; the pod's may be the name of a container's port.
///
/// # Errors
/// A sentence.
pub fn parse_ports(text: &str, pod: &Pod) -> Result<PortPair, String> {
    let (local, remote) = match text.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, text),
    };
    let number = |text: &str| text.parse::<u16>().ok();
    let remote = number(remote)
        .filter(|port| *port > 0)
        .or_else(|| named(pod, remote))
        .ok_or_else(|| format!("{remote:?} is neither a port nor the name of one in the pod"))?;
    let local = match local {
        None => Some(remote),
        Some("") => Some(0),
        Some(local) => number(local),
    };
    let local = local.ok_or_else(|| format!("{text:?} does not begin with a port of this machine"))?;
    Ok(PortPair { local, remote })
}

fn named(pod: &Pod, name: &str) -> Option<u16> {
    let ports = spec::all_containers(pod).flat_map(|(container, _)| container.ports.iter().flatten());
    let mut numbers = ports
        .filter(|port| port.name.as_deref() == Some(name))
        .map(|port| port.container_port);
    u16::try_from(numbers.next()?).ok()
}

/// Listens on local ports and forwards what connects, for ever; `say` is told what there is to say.
///
/// # Errors
/// No address of a port can be listened on. A connection that can't be forwarded is closed and told of.
pub async fn forward(
    caller: &Caller,
    pod: &str,
    ports: &[PortPair],
    addresses: &[LocalAddress],
    say: impl Fn(&str),
) -> Result<(), CallError> {
    let mut listeners = Vec::new();
    for pair in ports {
        listeners.extend(listen(*pair, addresses, &say).await?);
    }
    let mut accepting = JoinSet::new();
    for (listener, remote) in listeners {
        accepting.spawn(accept(listener, remote));
    }
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(accepted) = accepting.join_next() => {
                let Ok((listener, remote, accepted)) = accepted else { continue };
                accepting.spawn(accept(listener, remote));
                let Ok(local) = accepted else { continue };
                say(&format!("Handling connection for {}", port_of(&local)));
                match caller.forwarder(pod, remote).connect().await {
                    Ok(inside) => {
                        connections.spawn(splice(local, inside));
                    }
                    Err(error) => say(&format!("error: {error}")),
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn port_of(stream: &TcpStream) -> u16 {
    stream.local_addr().map_or(0, |address| address.port())
}

async fn accept(listener: TcpListener, remote: u16) -> (TcpListener, u16, io::Result<TcpStream>) {
    let accepted = listener.accept().await.map(|(stream, _)| stream);
    if accepted.is_err() {
        // A lack of descriptors passes.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    (listener, remote, accepted)
}

/// The same port on every address, also if any that is free will do.
async fn listen(
    pair: PortPair,
    addresses: &[LocalAddress],
    say: &impl Fn(&str),
) -> Result<Vec<(TcpListener, u16)>, CallError> {
    let mut listeners = Vec::new();
    let mut port = pair.local;
    for place in addresses {
        for address in place.addresses() {
            let address = SocketAddr::new(address, port);
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let own = listener.local_addr()?;
                    port = own.port();
                    say(&format!("Forwarding from {own} -> {}", pair.remote));
                    listeners.push((listener, pair.remote));
                }
                // One that somebody else has is none of those that may be missing: his would be the program that is reached.
                Err(error)
                    if place == &LocalAddress::Localhost && address.is_ipv6() && is_missing(&error) => {}
                Err(error) => {
                    return Err(CallError::Refused(format!(
                        "The address {address} can't be listened on: {error}."
                    )));
                }
            }
        }
    }
    Ok(listeners)
}

/// The machine has no such address.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(nix::libc::EADDRNOTAVAIL | nix::libc::EAFNOSUPPORT)
    )
}

/// Both directions, each to its own end.
async fn splice(mut local: TcpStream, inside: std::net::TcpStream) {
    let Ok(mut inside) = TcpStream::from_std(inside) else {
        return;
    };
    // A connection that breaks is told of by its breaking.
    let _ = tokio::io::copy_bidirectional(&mut local, &mut inside).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn ports_are_read_as_kubectl_does() {
        let pod = testing::pod(
            r#"{"containers":[{"name":"c","image":"i","ports":[{"name":"http","containerPort":8080}]}]}"#,
        );
        for (text, local, remote) in [
            ("80", 80, 80),
            ("8000:80", 8000, 80),
            (":80", 0, 80),
            ("http", 8080, 8080),
            ("90:http", 90, 8080),
        ] {
            assert_eq!(parse_ports(text, &pod), Ok(PortPair { local, remote }), "{text}");
        }
        for text in ["", "x", "80:", "70000", "x:80", "0", "80:0"] {
            assert!(parse_ports(text, &pod).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_numbers_or_localhost() {
        let any = LocalAddress::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        assert_eq!("0.0.0.0".parse(), Ok(any));
        assert_eq!(
            "::1".parse(),
            Ok(LocalAddress::Address(Ipv6Addr::LOCALHOST.into()))
        );
        assert_eq!("localhost".parse(), Ok(LocalAddress::Localhost));
        for text in ["", "example.com", "127.0.0.1:80"] {
            assert!(text.parse::<LocalAddress>().is_err(), "{text}");
        }
    }
}
