//! Links, addresses and routes of one network namespace, over rtnetlink(7).
//!
//! The socket belongs to the namespace of the thread that opened it. Calls block: plugins are short sequences of
//! requests, each of which must be answered before the next makes sense.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, MulticastGroup,
    RouteMessageBuilder,
};
use tokio::runtime::{Builder, Runtime};

use crate::netns::NetNs;
use crate::result::{PluginError, Route, code};

/// A connection to the kernel.
pub(crate) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// `aa:bb:cc:dd:ee:ff`
    pub(crate) mac: String,
    pub(crate) mtu: u32,
    /// The bridge that it is a port of.
    pub(crate) master: Option<u32>,
    pub(crate) up: bool,
    pub(crate) is_bridge: bool,
    pub(crate) alias: String,
}

/// A route of the kernel, as far as it matters for finding a free subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsedRoute {
    pub(crate) dst: IpNet,
    pub(crate) interface: Option<u32>,
}

/// A veth pair to be made: one end here, the other in a sandbox.
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) bridge: &'a Link,
    pub(crate) sandbox: &'a NetNs,
    pub(crate) sandbox_name: &'a str,
    pub(crate) sandbox_mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace.
    pub(crate) fn open() -> Result<Netlink, PluginError> {
        let open = || {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let (connection, handle, _) = {
                let _context = runtime.enter();
                rtnetlink::new_connection()?
            };
            runtime.spawn(connection);
            Ok(Netlink { runtime, handle })
        };
        open().map_err(|e| failure("open a netlink socket", &e))
    }

    fn ask<T>(&self, request: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, io::Error> {
        self.runtime.block_on(request).map_err(|e| match e {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        })
    }

    /// The interface of that name, if there is one.
    pub(crate) fn link(&self, name: &str) -> Result<Option<Link>, PluginError> {
        let found = self.ask(self.handle.link().get().match_name(name).execute().try_next());
        match found {
            Ok(message) => Ok(message.map(|m| link(&m))),
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(e) => Err(failure(&format!("look up the interface {name}"), &e)),
        }
    }

    /// All interfaces.
    pub(crate) fn links(&self) -> Result<Vec<Link>, PluginError> {
        let all = self.ask(self.handle.link().get().execute().try_collect::<Vec<_>>());
        Ok(all
            .map_err(|e| failure("list interfaces", &e))?
            .iter()
            .map(link)
            .collect())
    }

    /// Whether an interface is another one's master. The kernel is asked for its ports only, and for no more than it says at once.
    pub(crate) fn has_ports(&self, bridge: &Link) -> Result<bool, PluginError> {
        let mut request = self.handle.link().get();
        let filter = LinkAttribute::Controller(bridge.index);
        request.message_mut().attributes.push(filter);
        let ports = request.execute().try_filter(|message| {
            let is_port = link(message).master == Some(bridge.index);
            async move { is_port }
        });
        let first = self.ask(Box::pin(ports).try_next());
        let first = first.map_err(|e| failure(&format!("list the ports of {}", bridge.name), &e))?;
        Ok(first.is_some())
    }

    /// Makes a bridge, up. One that exists already is left as it is.
    pub(crate) fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: Option<u32>) -> Result<(), PluginError> {
        let mut message = LinkBridge::new(name).address(mac.to_vec());
        if let Some(mtu) = mtu {
            message = message.mtu(mtu);
        }
        match self.ask(self.handle.link().add(message.build()).execute()) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(failure(&format!("make the bridge {name}"), &e))
            }
            _ => Ok(()),
        }
    }

    /// Makes both ends at once, where they belong; the host's is up. (The other can't be: the kernel refuses to bring
    /// an end up that has no peer yet.)
    pub(crate) fn add_veth(&self, veth: &Veth<'_>) -> Result<(), PluginError> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.sandbox_name)
            .setns_by_fd(veth.sandbox.file().as_raw_fd());
        let mut host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.host_name)
            .controller(veth.bridge.index)
            .up();
        if let Some(mac) = veth.sandbox_mac {
            peer = peer.address(mac.to_vec());
        }
        if let Some(mtu) = veth.mtu {
            peer = peer.mtu(mtu);
            host = host.mtu(mtu);
        }
        let message = host
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
            .build();
        self.ask(self.handle.link().add(message).execute()).map_err(|e| {
            let what = format!(
                "make the veth pair {} and {} in {}",
                veth.host_name,
                veth.sandbox_name,
                veth.sandbox.path().display()
            );
            failure(&what, &e)
        })
    }

    /// Takes a bridge's port down and off its bridge: nothing gets through it any more. Unlike its removal this does not wait
    /// for the kernel's other processors.
    pub(crate) fn cut_off(&self, port: &Link) -> Result<(), PluginError> {
        let message = LinkUnspec::new_with_index(port.index).nocontroller().down();
        match self.set(message.build(), port, "cut off") {
            Err(_) if self.link(&port.name)?.is_none() => Ok(()),
            done => done,
        }
    }

    /// Removes an interface; one that is gone is removed.
    pub(crate) fn delete_link(&self, link: &Link) -> Result<(), PluginError> {
        match self.ask(self.handle.link().del(link.index).execute()) {
            Err(e) if e.raw_os_error() != Some(nix::libc::ENODEV) => {
                Err(failure(&format!("remove the interface {}", link.name), &e))
            }
            _ => Ok(()),
        }
    }

    /// Waits until a bridge forwards what a port sends. The kernel lets it begin only after it has noticed that the
    /// other end is up, a moment after that; a frame that is sent before is lost, and a client would wait a second
    /// before it tries again. A bridge that takes longer than `patience` (one with spanning tree) is not waited for.
    pub(crate) fn wait_forwarding(&self, port: &Link, patience: Duration) -> Result<(), PluginError> {
        let doing = format!("watch the interface {}", port.name);
        let state = || {
            self.ask(
                self.handle
                    .link()
                    .get()
                    .match_index(port.index)
                    .execute()
                    .try_next(),
            )
        };
        let forwards = || state().map(|message| message.is_none_or(|m| is_forwarding(&m)));
        if forwards().map_err(|e| failure(&doing, &e))? {
            return Ok(());
        }
        let subscribe = || {
            let _context = self.runtime.enter();
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        };
        let (connection, _handle, mut changes) = subscribe().map_err(|e| failure(&doing, &e))?;
        let listening = self.runtime.spawn(connection);
        let deadline = Instant::now() + patience;
        // It may have happened just before the subscription.
        while !forwards().map_err(|e| failure(&doing, &e))? {
            let change = async { tokio::time::timeout_at(deadline.into(), changes.next()).await };
            if !matches!(self.runtime.block_on(change), Ok(Some(_))) {
                break;
            }
        }
        listening.abort();
        Ok(())
    }

    /// Lets a bridge send a frame back out of the port that it came in by.
    pub(crate) fn set_hairpin(&self, port: &Link) -> Result<(), PluginError> {
        let message = LinkBridgePort::new(port.index).hairpin(true).build();
        self.ask(self.handle.link().set_port(message).execute())
            .map_err(|e| failure(&format!("set hairpin mode on {}", port.name), &e))
    }

    /// Tells the kernel which MAC address an address has behind an interface, as if it had asked and been answered some time
    /// ago: it looks whether that is true while it uses it. So nobody else on the wire is asked.
    pub(crate) fn suggest_neighbour(
        &self,
        link: &Link,
        address: IpAddr,
        mac: &[u8],
    ) -> Result<(), PluginError> {
        let neighbours = self.handle.neighbours();
        let request = neighbours
            .add(link.index, address)
            .link_layer_address(mac)
            .state(NeighbourState::Stale)
            .replace();
        self.ask(request.execute())
            .map_err(|e| failure(&format!("remember the neighbour {address} at {}", link.name), &e))
    }

    /// Tells a bridge which of its ports leads to a MAC address, as if it had seen a frame from there: else it sends what is
    /// first said to it out of all of them.
    pub(crate) fn suggest_port(&self, port: &Link, mac: &[u8]) -> Result<(), PluginError> {
        let neighbours = self.handle.neighbours();
        let request = neighbours
            .add_bridge(port.index, mac)
            .flags(NeighbourFlags::Controller)
            .state(NeighbourState::Reachable)
            .replace();
        self.ask(request.execute())
            .map_err(|e| failure(&format!("remember what is behind {}", port.name), &e))
    }

    /// Keeps the kernel from giving an interface an IPv6 address that it has made up (IN6_ADDR_GEN_MODE_NONE). Not by
    /// `/proc/sys`, where a look-up gets longer with each namespace that was looked into.
    pub(crate) fn make_up_no_address(&self, link: &Link) -> Result<(), PluginError> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let message = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
        self.set(message.build(), link, "make up no address for")
    }

    pub(crate) fn set_up(&self, link: &Link) -> Result<(), PluginError> {
        self.set(
            LinkUnspec::new_with_index(link.index).up().build(),
            link,
            "bring up",
        )
    }

    pub(crate) fn set_promiscuous(&self, link: &Link) -> Result<(), PluginError> {
        let message = LinkUnspec::new_with_index(link.index).promiscuous(true).build();
        self.set(message, link, "set promiscuous mode on")
    }

    pub(crate) fn set_alias(&self, link: &Link, alias: &str) -> Result<(), PluginError> {
        self.set(
            LinkUnspec::new_with_index(link.index).alias(alias).build(),
            link,
            "set the alias of",
        )
    }

    fn set(&self, message: LinkMessage, link: &Link, what: &str) -> Result<(), PluginError> {
        // A plain NEWLINK changes what the message names and nothing else.
        self.ask(self.handle.link().change(message).execute())
            .map_err(|e| failure(&format!("{what} the interface {}", link.name), &e))
    }

    /// The addresses of an interface, with their prefixes.
    pub(crate) fn addresses(&self, link: &Link) -> Result<Vec<IpNet>, PluginError> {
        let request = self
            .handle
            .address()
            .get()
            .set_link_index_filter(link.index)
            .execute();
        let all = self.ask(request.try_collect::<Vec<_>>());
        let all = all.map_err(|e| failure(&format!("list the addresses of {}", link.name), &e))?;
        Ok(all.iter().filter_map(address).collect())
    }

    /// The addresses of all interfaces.
    pub(crate) fn all_addresses(&self) -> Result<Vec<IpNet>, PluginError> {
        let all = self.ask(self.handle.address().get().execute().try_collect::<Vec<_>>());
        let all = all.map_err(|e| failure("list addresses", &e))?;
        Ok(all.iter().filter_map(address).collect())
    }

    /// Adds an address, usable at once (IPv6: without duplicate address detection; the address manager hands each
    /// address out once). One that is there already is fine.
    pub(crate) fn add_address(&self, link: &Link, address: IpNet) -> Result<(), PluginError> {
        let mut request = self
            .handle
            .address()
            .add(link.index, address.addr(), address.prefix_len())
            .replace();
        if address.addr().is_ipv6() {
            request
                .message_mut()
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.ask(request.execute())
            .map_err(|e| failure(&format!("add the address {address} to {}", link.name), &e))
    }

    /// Removes an address; one that is gone is removed.
    pub(crate) fn delete_address(&self, link: &Link, address: IpNet) -> Result<(), PluginError> {
        let message = self
            .handle
            .address()
            .add(link.index, address.addr(), address.prefix_len())
            .message_mut()
            .clone();
        match self.ask(self.handle.address().del(message).execute()) {
            Err(e) if e.kind() != io::ErrorKind::AddrNotAvailable => Err(failure(
                &format!("remove the address {address} from {}", link.name),
                &e,
            )),
            _ => Ok(()),
        }
    }

    /// Adds a route through an interface; the same one that is there already is fine.
    pub(crate) fn add_route(&self, link: &Link, route: &Route) -> Result<(), PluginError> {
        let doing = || format!("add the route to {} through {}", route.dst, link.name);
        let wrong =
            |_| PluginError::config("routes", format!("{} has a gateway of another family", route.dst));
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.dst.network(), route.dst.prefix_len())
            .map_err(wrong)?
            .output_interface(link.index);
        match route.gw {
            Some(gateway) => message = message.gateway(gateway).map_err(wrong)?,
            None => message = message.scope(RouteScope::Link),
        }
        if let Some(priority) = route.priority {
            message = message.priority(priority);
        }
        if let Some(table) = route.table {
            message = message.table_id(table);
        }
        if let Some(scope) = route.scope {
            message = message.scope(RouteScope::from(scope));
        }
        let mut message = message.build();
        let metrics: Vec<RouteMetric> = route
            .mtu
            .map(RouteMetric::Mtu)
            .into_iter()
            .chain(route.advmss.map(RouteMetric::Advmss))
            .collect();
        if !metrics.is_empty() {
            message.attributes.push(RouteAttribute::Metrics(metrics));
        }
        match self.ask(self.handle.route().add(message).execute()) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failure(&doing(), &e)),
            _ => Ok(()),
        }
    }

    /// The destinations of all unicast and local routes of all tables.
    pub(crate) fn routes(&self) -> Result<Vec<UsedRoute>, PluginError> {
        let mut used = Vec::new();
        for family in ["0.0.0.0/0", "::/0"] {
            let family: IpNet = family.parse().unwrap_or_default();
            let query = RouteMessageBuilder::<IpAddr>::new().destination_prefix(family.addr(), 0);
            let mut query = query.map(RouteMessageBuilder::build).unwrap_or_default();
            // Without a destination the kernel lists them all; of the header, only the family counts.
            query.attributes.clear();
            let all = self.ask(self.handle.route().get(query).execute().try_collect::<Vec<_>>());
            let all = all.map_err(|e| failure("list routes", &e))?;
            used.extend(all.iter().filter_map(|message| used_route(message, family)));
        }
        Ok(used)
    }
}

fn is_forwarding(message: &LinkMessage) -> bool {
    let infos = message.attributes.iter().filter_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
            port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
        }
        _ => false,
    })
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    // With a peer, the interface's own address is the local one.
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let peer = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    IpNet::new(local.or(peer)?, message.header.prefix_len).ok()
}

fn used_route(message: &RouteMessage, family: IpNet) -> Option<UsedRoute> {
    if !matches!(message.header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    let dst = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    });
    let interface = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let dst = IpNet::new(
        dst.unwrap_or_else(|| family.addr()),
        message.header.destination_prefix_length,
    )
    .ok()?;
    Some(UsedRoute { dst, interface })
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: String::new(),
        mtu: 0,
        master: None,
        up: message.header.flags.contains(LinkFlags::Up),
        is_bridge: false,
        alias: String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = show_mac(mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos
                    .iter()
                    .any(|i| matches!(i, LinkInfo::Kind(InfoKind::Bridge)));
            }
            _ => {}
        }
    }
    link
}

pub(crate) fn show_mac(mac: &[u8]) -> String {
    mac.iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

/// Reads `aa:bb:cc:dd:ee:ff`.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            (part.len() == 2)
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
        })
        .collect();
    bytes?.try_into().ok()
}

fn failure(doing: &str, error: &io::Error) -> PluginError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "; this needs root (CAP_NET_ADMIN)",
        _ if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {
            "; the kernel lacks support for it (a module: bridge, veth)"
        }
        _ => "",
    };
    PluginError::new(code::KERNEL, format!("can't {doing}: {error}{hint}"))
}
