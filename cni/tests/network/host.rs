//! A host and its pods: network namespaces that exist for one test.

use std::collections::HashSet;
use std::fs::{self, File};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use berth_cni::{Attachment, CniConfig, CniError, DefaultNetwork, Network, PortMapping, Protocol};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// The host's side of a test.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
}

/// A pod's network namespace. It goes when this is dropped.
pub(crate) struct Pod {
    pub(crate) id: String,
    ns: File,
}

/// Runs a test in a fresh network namespace with `lo` up, and looks for leftovers at its end.
pub(crate) fn on_a_host(test: impl FnOnce(&Host) + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the tests need root");
        ip("link set lo up");
        let host = Host {
            dir: TempDir::new().unwrap(),
        };
        let before = inventory();
        test(&host);
        assert_eq!(inventory(), before, "the test left something behind");
        assert!(
            host.files("state/attachments").is_empty(),
            "records are left: {:?}",
            host.files("state/attachments")
        );
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Links, addresses, routes and firewall rules of the host, without what the kernel changes by itself: whether it has
/// noticed a carrier yet, and IPv6's addresses for the link.
pub(crate) fn inventory() -> String {
    let by_itself = |line: &&str| !line.contains("fe80:") && !line.contains("ff00::");
    let kept = |command: &str, line: &str| match command {
        "ip -o link" => line.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        _ => line.replace(" linkdown", ""),
    };
    let commands = [
        "ip -o link",
        "ip -o addr",
        "ip route show table all",
        "nft list ruleset",
    ];
    let texts = commands.map(|command| {
        let text = sh(command);
        let lines = text.lines().filter(by_itself).map(|line| kept(command, line));
        lines.collect::<Vec<_>>().join("\n")
    });
    texts.join("\n")
}

/// Runs a command line and returns what it prints; it must succeed.
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn ip(arguments: &str) {
    sh(&format!("ip {arguments}"));
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

impl Host {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All state and configuration in the test's directory; no plugins are installed.
    pub(crate) fn config(&self) -> CniConfig {
        CniConfig::new(self.path("net.d"), vec![self.path("bin")], self.path("state"))
    }

    pub(crate) fn network(&self) -> Network {
        Network::load(&self.config()).unwrap()
    }

    pub(crate) fn network_with(&self, change: impl FnOnce(&mut CniConfig)) -> Network {
        let mut config = self.config();
        change(&mut config);
        Network::load(&config).unwrap()
    }

    pub(crate) fn default_network(&self) -> DefaultNetwork {
        self.config().default_network.unwrap()
    }

    /// Writes a network's configuration.
    pub(crate) fn write_conf(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("net.d")).unwrap();
        fs::write(self.path("net.d").join(name), text).unwrap();
    }

    /// Installs a plugin that is a shell script.
    pub(crate) fn write_plugin(&self, name: &str, script: &str) {
        fs::create_dir_all(self.path("bin")).unwrap();
        let path = self.path("bin").join(name);
        // Written under another name first: the file must not be open for writing when it is run.
        let temporary = self.path("bin").join(format!(".{name}"));
        fs::write(&temporary, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    /// The names in a directory below the test's.
    pub(crate) fn files(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The addresses that the built-in address manager has handed out.
    pub(crate) fn reserved(&self, network: &str) -> Vec<String> {
        let mut names = self.files(&format!("state/networks/{network}"));
        names.retain(|name| name.parse::<IpAddr>().is_ok());
        names
    }

    pub(crate) fn pod(&self, id: &str) -> Pod {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Pod {
            id: id.to_owned(),
            ns: thread::spawn(make).join().unwrap(),
        }
    }

    /// Another machine on the wire: `10.99.0.1` is the host, `10.99.0.2` the neighbour.
    pub(crate) fn neighbour(&self) -> Pod {
        let neighbour = self.pod("neighbour");
        ip(&format!(
            "link add wire type veth peer name wire netns {}",
            neighbour.path().display()
        ));
        ip("addr add 10.99.0.1/24 dev wire");
        ip("link set wire up");
        neighbour.run(|| {
            ip("addr add 10.99.0.2/24 dev wire");
            ip("link set wire up");
            ip("link set lo up");
        });
        neighbour
    }
}

impl Pod {
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.ns.as_raw_fd()))
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.id.clone(),
            netns: self.path(),
            ifname: "eth0".into(),
            pod_name: self.id.clone(),
            pod_namespace: "default".into(),
            pod_uid: format!("uid-{}", self.id),
            ..Attachment::default()
        }
    }

    pub(crate) fn with_ports(&self, ports: &[(u16, u16, Protocol)]) -> Attachment {
        let map = |(host_port, container_port, protocol): &(u16, u16, Protocol)| PortMapping {
            host_port: *host_port,
            container_port: *container_port,
            protocol: *protocol,
            host_ip: None,
        };
        Attachment {
            port_mappings: ports.iter().map(map).collect(),
            ..self.attachment()
        }
    }

    /// Attaches the pod and returns its first address.
    pub(crate) fn join(&self, network: &Network) -> IpAddr {
        self.join_as(network, &self.attachment())
    }

    pub(crate) fn join_as(&self, network: &Network, attachment: &Attachment) -> IpAddr {
        block_on(network.add(attachment)).unwrap().ips[0]
    }

    pub(crate) fn leave(&self, network: &Network) {
        block_on(network.del(&self.id, Some(&self.path()))).unwrap();
    }

    /// Runs something inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.ns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a TCP server inside that answers every connection with the client's address.
    pub(crate) fn serve(&self, port: u16) {
        let listener = self.run(|| TcpListener::bind((IpAddr::from([0u16; 8]), port)).unwrap());
        serve(listener);
    }

    /// The same over UDP.
    pub(crate) fn serve_udp(&self, port: u16) {
        let socket = self.run(|| UdpSocket::bind((IpAddr::from([0u16; 8]), port)).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(plain(peer).as_bytes(), peer).unwrap();
            }
        });
    }
}

/// Answers every connection with the client's address.
pub(crate) fn serve(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut connection, peer)) = listener.accept() {
            let _ = connection.write_all(plain(peer).as_bytes());
        }
    });
}

fn plain(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// Connects and returns the client's address as the server saw it.
pub(crate) fn ask(address: impl Into<IpAddr>, port: u16) -> Result<IpAddr, std::io::Error> {
    ask_within(address, port, PATIENCE)
}

pub(crate) fn ask_within(
    address: impl Into<IpAddr>,
    port: u16,
    patience: Duration,
) -> Result<IpAddr, std::io::Error> {
    let mut connection = TcpStream::connect_timeout(&SocketAddr::new(address.into(), port), patience)?;
    connection.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    answer.parse().map_err(std::io::Error::other)
}

pub(crate) fn ask_udp(address: impl Into<IpAddr>, port: u16) -> Result<IpAddr, std::io::Error> {
    let address = address.into();
    let any: IpAddr = if address.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        [0u16; 8].into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect((address, port))?;
    socket.send(b"?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    String::from_utf8_lossy(&answer[..length])
        .parse()
        .map_err(std::io::Error::other)
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn add(network: &Network, attachment: &Attachment) -> Result<berth_cni::AddResult, CniError> {
    block_on(network.add(attachment))
}

pub(crate) fn reconcile(network: &Network, live: &[&str]) -> Vec<String> {
    let live: HashSet<String> = live.iter().map(|id| (*id).to_owned()).collect();
    block_on(network.reconcile(&live)).unwrap()
}
