//! Host ports that someone else has.

use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use super::{leads_to, pod_ips};
use crate::attachment::{PortMapping, Protocol};
use crate::firewall::Element;
use crate::result::{CniResult, PluginError, code};

/// A host port: `None` is every address of the family that the set has.
pub(super) fn port_of(element: &Element) -> Option<(char, Option<&str>, &str)> {
    let family = element.set.strip_prefix("port")?.chars().next()?;
    match element.set.ends_with("_any") {
        true => Some((family, None, &element.key)),
        false => element
            .key
            .split_once(" . ")
            .map(|(ip, port)| (family, Some(ip), port)),
    }
}

/// A port that another pod has, on the same address or on every one, can't be had again.
pub(super) fn refuse_conflicts(wanted: &[Element], present: &[Element]) -> Result<(), PluginError> {
    for (index, element) in wanted.iter().enumerate() {
        let Some((family, ip, port)) = port_of(element) else {
            continue;
        };
        let clashes = |other: &&Element| {
            port_of(other)
                .is_some_and(|(f, i, p)| f == family && p == port && (i.is_none() || ip.is_none() || i == ip))
        };
        let taken = present
            .iter()
            .find(clashes)
            .or_else(|| wanted[..index].iter().find(clashes));
        if let Some(other) = taken {
            let (protocol, number) = port.split_once(" . ").unwrap_or(("", port));
            let by = match other.tag == element.tag {
                true => "this pod maps it twice".to_owned(),
                false => format!("it belongs to the attachment {}", other.tag),
            };
            return Err(conflict(protocol, number, by));
        }
    }
    Ok(())
}

/// A port that a program on the host listens on would be taken away from it.
pub(super) fn refuse_listener(mapping: &PortMapping, result: &CniResult) -> Result<(), PluginError> {
    for pod in pod_ips(result)
        .map(|ip| ip.address.addr())
        .filter(|pod| leads_to(mapping.host_ip, *pod))
    {
        let any: IpAddr = match pod {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let address = SocketAddr::new(mapping.host_ip.unwrap_or(any), mapping.host_port);
        if is_taken(address, mapping.protocol) {
            let by = format!("a program on the host uses {address}");
            return Err(conflict(
                mapping.protocol.as_str(),
                &mapping.host_port.to_string(),
                by,
            ));
        }
    }
    Ok(())
}

/// Whether the address can't be bound because someone else has it. What can't be tried counts as free.
fn is_taken(address: SocketAddr, protocol: Protocol) -> bool {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, Some(SockProtocol::Tcp)),
        Protocol::Udp => (SockType::Datagram, Some(SockProtocol::Udp)),
        // SCTP has no listeners to be taken from where the kernel has no SCTP; where it has, its own rules apply.
        Protocol::Sctp => return false,
    };
    let Ok(probe) = socket(family, kind, SockFlag::SOCK_CLOEXEC, number) else {
        return false;
    };
    // Connections that linger after their listener is gone don't count; a listener does. UDP knows no such
    // difference: with this option two sockets would share the port.
    if protocol == Protocol::Tcp && setsockopt(&probe, sockopt::ReuseAddr, &true).is_err() {
        return false;
    }
    if address.is_ipv6() && setsockopt(&probe, sockopt::Ipv6V6Only, &true).is_err() {
        return false;
    }
    use std::os::fd::AsRawFd;
    bind(probe.as_raw_fd(), &SockaddrStorage::from(address)) == Err(Errno::EADDRINUSE)
}

fn conflict(protocol: &str, port: &str, by: String) -> PluginError {
    PluginError {
        code: code::PORT_CONFLICT,
        msg: format!("{port}/{protocol}"),
        details: by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    #[test]
    fn ports_clash_on_the_same_or_on_every_address() {
        let element = |set: &str, key: &str, tag: &str| Element::new(set, key.into(), tag);
        let table = [
            (("port4_any", "tcp . 80"), ("port4_any", "tcp . 80"), true),
            (("port4_any", "tcp . 80"), ("port4", "10.1.1.1 . tcp . 80"), true),
            (("port4", "10.1.1.1 . tcp . 80"), ("port4_any", "tcp . 80"), true),
            (
                ("port4", "10.1.1.1 . tcp . 80"),
                ("port4", "10.1.1.1 . tcp . 80"),
                true,
            ),
            (
                ("port4", "10.1.1.2 . tcp . 80"),
                ("port4", "10.1.1.1 . tcp . 80"),
                false,
            ),
            (("port4_any", "udp . 80"), ("port4_any", "tcp . 80"), false),
            (("port6_any", "tcp . 80"), ("port4_any", "tcp . 80"), false),
            (
                ("hairpin4", "10.1.1.1 . 10.1.0.0/16"),
                ("hairpin4", "10.1.1.1 . 10.1.0.0/16"),
                false,
            ),
        ];
        for (wanted, present, expected) in table {
            let wanted = element(wanted.0, wanted.1, "n/b/eth0");
            let present = element(present.0, present.1, "n/a/eth0");
            let error = refuse_conflicts(from_ref(&wanted), from_ref(&present)).err();
            assert_eq!(error.is_some(), expected, "{wanted:?} {present:?}");
            assert!(error.is_none_or(|e| e.code == code::PORT_CONFLICT && e.details.contains("n/a/eth0")));
        }
    }
}
