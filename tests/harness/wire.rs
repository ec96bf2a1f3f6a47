//! A machine that is connected with something, and servers on it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::node::Node;
use crate::ordinary_user::{OrdinaryUser, as_user};

/// A way into the world, and a name server on the machine's loopback.
pub struct Wire {
    resolv_conf: PathBuf,
}

impl Wire {
    /// The machine's address on it.
    pub const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 5);

    /// Connects the machine that the node is.
    ///
    /// # Panics
    /// If that is refused.
    pub fn new(node: &Node) -> Self {
        ip("link add wire type veth peer name far");
        ip("link set far up");
        ip(&format!("addr add {}/24 dev wire", Self::MACHINE));
        ip("link set wire up");
        ip("route add default via 192.168.77.1");
        let own = node.file("resolv.conf", "nameserver 127.0.0.1\nsearch of.the.machine\n");
        let resolv_conf = fs::canonicalize("/etc/resolv.conf").expect("the machine has one");
        mount(
            Some(&own),
            &resolv_conf,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("a bind mount");
        Self { resolv_conf }
    }

    /// Takes it away.
    ///
    /// # Panics
    /// If that is refused.
    pub fn remove(self) {
        umount2(&self.resolv_conf, MntFlags::MNT_DETACH).expect("the machine's file shows again");
        ip("link del wire");
    }

    /// Runs a test as a user of a machine that has such a wire, see [`as_user`].
    ///
    /// # Panics
    /// If anything is left, or the test panics.
    pub fn with(test: impl FnOnce(&Node, &OrdinaryUser<'_>)) {
        as_user(|node, user| {
            let wire = Self::new(node);
            test(node, user);
            user.ends();
            wire.remove();
        });
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {arguments}");
}

/// Answers each connection with a word. The threads last as long as the test's program.
///
/// # Panics
/// If the address can't be had.
pub fn tell(at: (Ipv4Addr, u16), word: &'static str) {
    let listener = TcpListener::bind(at).expect("an address of the machine's");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{word}");
            // To the end: what is left unread resets the connection, and the answer is lost.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
}

/// Answers each datagram with a word.
///
/// # Panics
/// If the address can't be had.
pub fn tell_datagrams(at: (Ipv4Addr, u16), word: &'static str) {
    let socket = UdpSocket::bind(at).expect("an address of the machine's");
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            let _ = socket.send_to(word.as_bytes(), from);
        }
    });
}
