//! Host ports: from the node, from another pod, and gone with their pod.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use berth_cri::v1;
use tonic::Code;

use crate::daemon::{Client, Daemon, container};

fn mapping(protocol: v1::Protocol, host_ip: &str, host_port: i32, container_port: i32) -> v1::PortMapping {
    v1::PortMapping {
        protocol: protocol.into(),
        host_port,
        container_port,
        host_ip: host_ip.into(),
    }
}

fn rules() -> String {
    let rules = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(rules.stdout).unwrap()
}

fn udp(address: &str, text: &str) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut buffer = [0; 100];
    // Datagrams may be lost.
    for _ in 0..5 {
        socket.send_to(text.as_bytes(), address.parse::<SocketAddr>().unwrap())?;
        if let Ok(length) = socket.recv(&mut buffer) {
            return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    Err(std::io::ErrorKind::TimedOut.into())
}

fn tcp(address: &str, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

async fn listening(client: &mut Client, id: &str) {
    let path = client.status(id).await.unwrap().log_path;
    while !std::fs::read_to_string(&path)
        .unwrap_or_default()
        .contains("listening")
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn ports_of_the_node_lead_to_their_pod() {
    use v1::Protocol::{Sctp, Tcp, Udp};
    let daemon = Daemon::start();
    let added = Command::new("ip")
        .args(["address", "add", "192.0.2.7/32", "dev", "lo"])
        .status();
    assert!(added.unwrap().success());
    let mut server = daemon.sandbox("server");
    server.port_mappings = vec![
        mapping(Tcp, "", 8080, 80),
        mapping(Udp, "", 8080, 80),
        mapping(Udp, "192.0.2.7", 9090, 80),
        mapping(Sctp, "", 7070, 80),
    ];
    let peer = daemon.sandbox("peer");
    daemon.with(async |mut client| {
        // The network and its rules come with the first pod, and stay.
        let other = client.run(&peer).await;
        let before = rules();
        let sandbox = client.run(&server).await;
        for protocol in ["tcp", "udp"] {
            let arguments = ["listen", protocol, "80"];
            let id = client
                .started(&sandbox, &server, container(protocol, &arguments))
                .await;
            listening(&mut client, &id).await;
        }
        assert_eq!(tcp("127.0.0.1:8080", "hello").unwrap(), "hello");
        assert_eq!(udp("127.0.0.1:8080", "hello").unwrap(), "hello");
        assert_eq!(udp("192.0.2.7:9090", "here").unwrap(), "here");
        udp("127.0.0.1:9090", "not here").unwrap_err();
        // Nothing here speaks SCTP; the rule is there.
        let sctp = rules()
            .lines()
            .find(|line| line.contains("sctp") && line.contains("7070"))
            .map(str::to_owned);
        assert!(sctp.is_some(), "{}", rules());
        // From another pod, by an address of the node.
        let asker = client
            .started(&other, &peer, container("c", &["sleep", "1000"]))
            .await;
        for (protocol, address) in [("tcp", "192.0.2.7:8080"), ("udp", "192.0.2.7:9090")] {
            let exec = v1::ExecSyncRequest {
                container_id: asker.clone(),
                cmd: ["/bin/helper", "connect", protocol, address, "from a pod"]
                    .map(str::to_owned)
                    .to_vec(),
                timeout: 20,
            };
            let output = client.runtime.exec_sync(exec).await.unwrap().into_inner();
            assert_eq!(output.stdout, b"from a pod\n", "{protocol}: {output:?}");
        }
        client.remove_sandbox(&sandbox).await;
        assert_eq!(rules(), before, "rules of a pod that is gone");
        tcp("127.0.0.1:8080", "hello").unwrap_err();
        client.remove_sandbox(&other).await;
    });
    Command::new("ip")
        .args(["address", "del", "192.0.2.7/32", "dev", "lo"])
        .status()
        .unwrap();
    daemon.finish();
}

#[test]
fn a_port_that_is_taken_is_refused_until_it_is_free() {
    use v1::Protocol::{Tcp, Udp};
    let daemon = Daemon::start();
    let with = |name: &str, ports: Vec<v1::PortMapping>| v1::PodSandboxConfig {
        port_mappings: ports,
        ..daemon.sandbox(name)
    };
    let first = with("first", vec![mapping(Udp, "127.0.0.1", 5353, 53)]);
    let second = with("second", vec![mapping(Udp, "", 5353, 53)]);
    let beside = with(
        "beside",
        vec![mapping(Tcp, "", 5353, 53), mapping(Udp, "127.0.0.2", 5353, 53)],
    );
    daemon.with(async |mut client| {
        let holder = client.run(&first).await;
        let failure = client.try_run(&second).await.unwrap_err();
        assert_eq!(failure.code(), Code::Unavailable);
        assert!(failure.message().contains("default/first"), "{failure}");
        let other = client.run(&beside).await;
        client.remove_sandbox(&other).await;
        client.remove_sandbox(&holder).await;
        let now = client.run(&second).await;
        client.remove_sandbox(&now).await;
    });
    daemon.finish();
}
