//! Exec and attach through the streaming server.

use std::sync::Arc;
use std::time::Duration;

use berth_cri::{
    AttachRequest, ContainerConfig, ContainerId, Engine, ExecRequest, LocalEngine, StreamOptions,
    StreamingConfig, StreamingServer,
};
use sha2::{Digest, Sha256};

use crate::bench::{Bench, container, idle, noise, words};
use crate::client::{BOTH, Spdy, Transport, WebSocket};
use crate::node::started;

const ALL: StreamOptions = StreamOptions {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
    size: None,
};
const OUTPUT: StreamOptions = StreamOptions { stdin: false, ..ALL };
const TERMINAL: StreamOptions = StreamOptions {
    stderr: false,
    tty: true,
    ..ALL
};

async fn serve(engine: &Arc<LocalEngine>) -> StreamingServer {
    serve_with(engine, StreamingConfig::default()).await
}

async fn serve_with(engine: &Arc<LocalEngine>, config: StreamingConfig) -> StreamingServer {
    let engine: Arc<dyn Engine> = Arc::<LocalEngine>::clone(engine);
    StreamingServer::start(config, engine).await.unwrap()
}

async fn exec_url(
    server: &StreamingServer,
    id: &ContainerId,
    command: &[&str],
    options: StreamOptions,
) -> String {
    let request = ExecRequest {
        container: id.clone(),
        command: words(command),
        options,
    };
    server.exec_url(request).await.unwrap()
}

async fn attach_url(server: &StreamingServer, id: &ContainerId, options: StreamOptions) -> String {
    let request = AttachRequest {
        container: id.clone(),
        options,
    };
    server.attach_url(request).await.unwrap()
}

#[test]
fn a_command_is_talked_to_by_every_protocol() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        // Not every client can end the input.
        let script = "head -c 100000; echo done >&2; exit 7";
        let stdin = noise(100_000);
        for (transport, json) in [
            (Transport::WebSocket("v5.channel.k8s.io"), true),
            (Transport::WebSocket("v4.channel.k8s.io"), true),
            (Transport::WebSocket("v4.base64.channel.k8s.io"), true),
            (Transport::WebSocket("channel.k8s.io"), false),
            (Transport::WebSocket("base64.channel.k8s.io"), false),
            (Transport::Spdy("v4.channel.k8s.io"), true),
            (Transport::Spdy("v3.channel.k8s.io"), false),
            (Transport::Spdy("v2.channel.k8s.io"), false),
            (Transport::Spdy("channel.k8s.io"), false),
        ] {
            let url = exec_url(&server, &id, &["sh", "-c", script], ALL).await;
            let told = transport.run(&url, ALL, &stdin).await;
            assert!(told.stdout == stdin, "{transport:?}: {} bytes", told.stdout.len());
            assert_eq!(told.stderr, b"done\n", "{transport:?}");
            if json {
                assert_eq!(told.exit_code(), 7, "{transport:?}");
            } else {
                let error = String::from_utf8(told.error).unwrap();
                assert!(error.contains("exit code 7"), "{transport:?}: {error}");
            }
            let url = exec_url(&server, &id, &["true"], OUTPUT).await;
            let told = transport.run(&url, OUTPUT, b"").await;
            assert!(told.stdout.is_empty() && told.stderr.is_empty());
            assert_eq!(told.error.is_empty(), !json, "{transport:?}");
        }
    });
}

#[test]
fn large_transfers_lose_no_byte_in_either_direction() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let sent = noise(150_000_000);
        let hash = Sha256::digest(&sent);
        for transport in BOTH {
            let url = exec_url(&server, &id, &["cat"], ALL).await;
            let told = transport.run(&url, ALL, &sent).await;
            assert_eq!(told.exit_code(), 0);
            assert_eq!(told.stdout.len(), sent.len(), "{transport:?}");
            assert_eq!(Sha256::digest(&told.stdout), hash, "{transport:?}");
        }
    });
}

#[test]
fn a_client_that_reads_slowly_gets_everything_and_the_exit_code() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let command = ["sh", "-c", "head -c 8000000 /dev/zero; exit 3"];
        let url = exec_url(&server, &id, &command, OUTPUT).await;
        let client = Spdy::connect(&url, &["v4.channel.k8s.io"]).await.unwrap();
        let error = client.open(&[("streamtype", "error")]).await;
        let mut stdout = client.open(&[("streamtype", "stdout")]).await;
        let stderr = client.open(&[("streamtype", "stderr")]).await;
        let mut total = 0;
        while let Some(piece) = stdout.read().await {
            total += piece.unwrap().len();
            // What a client sends meanwhile must not cost it what it has not read yet.
            client.send(berth_cri::spdy::Frame::Ping(1)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(total, 8_000_000);
        assert!(stderr.read_to_end().await.unwrap().is_empty());
        let error = String::from_utf8(error.read_to_end().await.unwrap()).unwrap();
        assert!(error.contains(r#""message":"3""#), "{error}");
        client.leave().await;
    });
}

#[test]
fn a_terminal_follows_the_clients_size_and_hangs_up_with_it() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let script = "stty size; trap 'stty size; exit 9' WINCH; echo ready; while :; do sleep 0.1; done";
        let command = ["sh", "-c", script];
        let url = exec_url(&server, &id, &command, TERMINAL).await;
        let mut client = WebSocket::connect(&url, Some("v5.channel.k8s.io")).await.unwrap();
        let mut seen = String::new();
        let mut error = Vec::new();
        while let Some((channel, bytes)) = client.read().await {
            if channel == 3 {
                error = bytes;
                continue;
            }
            let before = seen.contains("ready");
            seen.push_str(std::str::from_utf8(&bytes).unwrap());
            if !before && seen.contains("ready") {
                client.send(4, br#"{"Width":132,"#).await;
                client.send(4, br#""Height":43}"#).await;
            }
        }
        assert!(seen.ends_with("43 132\r\n"), "{seen:?}");
        assert!(String::from_utf8(error).unwrap().contains(r#""message":"9""#));

        let url = exec_url(&server, &id, &command, TERMINAL).await;
        let client = Spdy::connect(&url, &["v4.channel.k8s.io"]).await.unwrap();
        let error = client.open(&[("streamtype", "error")]).await;
        let _stdin = client.open(&[("streamtype", "stdin")]).await;
        let mut stdout = client.open(&[("streamtype", "stdout")]).await;
        let resize = client.open(&[("streamtype", "resize")]).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"ready\r\n") {
            seen.extend_from_slice(&stdout.read().await.unwrap().unwrap());
        }
        resize.send(b"{\"Width\":99,\"Height\":11}\n", false).await;
        let rest = stdout.read_to_end().await.unwrap();
        assert_eq!(rest, b"11 99\r\n");
        assert!(
            String::from_utf8(error.read_to_end().await.unwrap())
                .unwrap()
                .contains(r#""message":"9""#)
        );
        client.leave().await;

        let url = exec_url(&server, &id, &["sh", "-c", "echo here; sleep 777"], TERMINAL).await;
        let mut client = WebSocket::connect(&url, Some("v5.channel.k8s.io")).await.unwrap();
        let mut seen = Vec::new();
        while seen != b"here\r\n" {
            seen.extend(client.read().await.unwrap().1);
        }
        drop(client);
        let list = words(&["sh", "-c", "busybox ps -o args | busybox grep -c '[s]leep 777'"]);
        loop {
            let left = engine
                .exec_sync(&id, list.clone(), Duration::ZERO, 100)
                .await
                .unwrap();
            if left.stdout == b"0\n" {
                break;
            }
        }
    });
}

#[test]
fn a_terminal_begins_with_the_clients_size() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let size = br#"{"Width":132,"Height":43}"#;
        let url = exec_url(&server, &id, &["stty", "size"], TERMINAL).await;
        let mut client = WebSocket::connect(&url, Some("v5.channel.k8s.io")).await.unwrap();
        client.send(4, size).await;
        let mut seen = Vec::new();
        while let Some((channel, bytes)) = client.read().await {
            if channel == 1 {
                seen.extend(bytes);
            }
        }
        assert_eq!(seen, b"43 132\r\n");

        let url = exec_url(&server, &id, &["stty", "size"], TERMINAL).await;
        let client = Spdy::connect(&url, &["v4.channel.k8s.io"]).await.unwrap();
        let _error = client.open(&[("streamtype", "error")]).await;
        let _stdin = client.open(&[("streamtype", "stdin")]).await;
        let stdout = client.open(&[("streamtype", "stdout")]).await;
        let resize = client.open(&[("streamtype", "resize")]).await;
        resize.send(size, false).await;
        assert_eq!(stdout.read_to_end().await.unwrap(), b"43 132\r\n");
        client.leave().await;

        // A client that says nothing of its size is not waited for; busybox prints no size of 0.
        let url = exec_url(
            &server,
            &id,
            &["sh", "-c", "echo $(stty size 2>/dev/null)."],
            TERMINAL,
        )
        .await;
        let mut client = WebSocket::connect(&url, Some("v5.channel.k8s.io")).await.unwrap();
        let mut seen = Vec::new();
        while let Some((channel, bytes)) = client.read().await {
            if channel == 1 {
                seen.extend(bytes);
            }
        }
        assert_eq!(seen, b".\r\n");

        // The container's own: who attaches makes it as large as its client before anything is seen.
        let mut config = container(&["sh", "-c", "while read line; do stty size; done"]);
        (config.tty, config.stdin) = (true, true);
        config.name = "attached".into();
        let attached = engine.create_container(sandbox, config).await.unwrap();
        engine.start_container(&attached).await.unwrap();
        let url = attach_url(&server, &attached, TERMINAL).await;
        let mut client = WebSocket::connect(&url, Some("v5.channel.k8s.io")).await.unwrap();
        client.send(4, size).await;
        client.send(0, b"\n").await;
        let mut seen = String::new();
        while !seen.ends_with("43 132\r\n") {
            let (_, bytes) = client.read().await.unwrap();
            seen.push_str(std::str::from_utf8(&bytes).unwrap());
            assert!(!seen.contains("0 0"), "{seen:?}");
        }
    });
}

/// Between a client and the server. When it goes both connections are reset, as by the system of a client that was killed.
struct Relay {
    _tasks: tokio::task::JoinSet<()>,
}

impl Relay {
    /// A relay to a URL's server, and the URL by it.
    async fn to(url: &str) -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (authority, rest) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let by_relay = format!("http://{}/{rest}", listener.local_addr().unwrap());
        let authority = authority.to_owned();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(authority).await.unwrap();
            for socket in [&client, &server] {
                socket.set_zero_linger().unwrap();
            }
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        (Self { _tasks: tasks }, by_relay)
    }

    /// Sends until nothing goes in any more, and vanishes.
    async fn until_stuck(self, mut send: impl AsyncFnMut()) {
        let stuck = Duration::from_secs(1);
        while tokio::time::timeout(stuck, send()).await.is_ok() {}
    }
}

#[test]
fn a_client_that_leaves_while_its_input_is_not_read_leaves_nothing() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        // What is opened with the first session stays open.
        let url = exec_url(&server, &id, &["true"], ALL).await;
        BOTH[0].run(&url, ALL, b"").await;
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        // It reads nothing, so that the pipe, the queues and the connection fill up.
        let command = ["sh", "-c", "echo here; exec sleep 778"];
        for transport in BOTH {
            let url = exec_url(&server, &id, &command, ALL).await;
            let (relay, url) = Relay::to(&url).await;
            let piece = [b'x'; 16 << 10];
            match transport {
                Transport::WebSocket(protocol) => {
                    let mut client = WebSocket::connect(&url, Some(protocol)).await.unwrap();
                    while client.read().await.unwrap().1 != b"here\n" {}
                    relay.until_stuck(async || client.send(0, &piece).await).await;
                }
                Transport::Spdy(protocol) => {
                    let client = Spdy::connect(&url, &[protocol]).await.unwrap();
                    let _error = client.open(&[("streamtype", "error")]).await;
                    let stdin = client.open(&[("streamtype", "stdin")]).await;
                    let mut stdout = client.open(&[("streamtype", "stdout")]).await;
                    let _stderr = client.open(&[("streamtype", "stderr")]).await;
                    stdout.read().await.unwrap().unwrap();
                    relay.until_stuck(async || stdin.send(&piece, false).await).await;
                }
            }
        }
        // Pipes, sockets: all of it goes, though the commands go on, as over ssh(1).
        let deadline = std::time::Instant::now() + Duration::from_secs(50);
        while descriptors() > before {
            assert!(
                std::time::Instant::now() < deadline,
                "{} descriptors, {before} before",
                descriptors()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_command_that_can_not_run_says_why() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        for transport in BOTH {
            let url = exec_url(&server, &id, &["/no/such/program"], OUTPUT).await;
            let status = transport.run(&url, OUTPUT, b"").await.status();
            assert_eq!(status["status"], "Failure");
            assert_eq!(status["reason"], "InternalError");
            let message = status["message"].as_str().unwrap();
            assert!(
                message.contains("error executing command in container")
                    && message.contains("/no/such/program"),
                "{message}"
            );
        }
    });
}

#[test]
fn a_container_is_attached_to() {
    Bench::new().with_pod(async |engine, sandbox| {
        let server = serve(engine).await;
        for (attempt, transport) in (0..).zip(BOTH) {
            let config = ContainerConfig {
                attempt,
                stdin: true,
                stdin_once: true,
                ..container(&["sh", "-c", "cat; echo end >&2; exit 5"])
            };
            let id = started(engine, sandbox, config).await;
            let url = attach_url(&server, &id, ALL).await;
            let sent = noise(5_000_000);
            let told = transport.run(&url, ALL, &sent).await;
            assert!(told.stdout == sent, "{transport:?}: {} bytes", told.stdout.len());
            assert_eq!(told.stderr, b"end\n");
            // As upstream: it was the attaching that succeeded.
            assert_eq!(told.exit_code(), 0);
        }
    });
}

#[test]
fn a_container_without_an_input_takes_none_from_who_is_attached() {
    Bench::new().with_pod(async |engine, sandbox| {
        let server = serve(engine).await;
        let config = container(&["sh", "-c", "while ! cat /tmp/go; do sleep 0.1; done 2>/dev/null"]);
        let id = started(engine, sandbox, config).await;
        let url = attach_url(&server, &id, ALL).await;
        let client = WebSocket::connect(&url, Some("v5.channel.k8s.io")).await.unwrap();
        let command = words(&["sh", "-c", "echo went > /tmp/new && busybox mv /tmp/new /tmp/go"]);
        let go = async {
            // Enough that it had to be waited for, if it were kept.
            tokio::time::sleep(Duration::from_millis(200)).await;
            engine.exec_sync(&id, command, Duration::ZERO, 100).await.unwrap();
        };
        let unwanted = noise(3_000_000);
        let (told, ()) = tokio::join!(client.run(ALL, &unwanted), go);
        assert_eq!(told.stdout, b"went\n");
    });
}

#[test]
fn a_client_may_leave_at_any_time() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        for transport in BOTH {
            let url = exec_url(&server, &id, &["yes"], OUTPUT).await;
            match transport {
                Transport::WebSocket(protocol) => {
                    let mut client = WebSocket::connect(&url, Some(protocol)).await.unwrap();
                    while client.read().await.unwrap().1.is_empty() {}
                }
                Transport::Spdy(protocol) => {
                    let client = Spdy::connect(&url, &[protocol]).await.unwrap();
                    let _error = client.open(&[("streamtype", "error")]).await;
                    let mut stdout = client.open(&[("streamtype", "stdout")]).await;
                    let _stderr = client.open(&[("streamtype", "stderr")]).await;
                    stdout.read().await.unwrap().unwrap();
                    client.leave().await;
                }
            }
        }
        let list = words(&["sh", "-c", "busybox ps -o comm | busybox grep -c yes"]);
        loop {
            let left = engine
                .exec_sync(&id, list.clone(), Duration::ZERO, 100)
                .await
                .unwrap();
            if left.stdout == b"0\n" {
                break;
            }
        }
    });
}

#[test]
fn an_idle_connection_is_closed_and_so_is_one_without_streams() {
    Bench::new().with_pod(async |engine, sandbox| {
        let config = StreamingConfig {
            idle_timeout: Duration::from_millis(600),
            creation_timeout: Duration::from_millis(300),
            ..StreamingConfig::default()
        };
        let (server, id) = (serve_with(engine, config).await, idle(engine, sandbox).await);
        let url = exec_url(&server, &id, &["sleep", "888"], OUTPUT).await;
        let mut client = Spdy::connect(&url, &["v4.channel.k8s.io"]).await.unwrap();
        let _error = client.open(&[("streamtype", "error")]).await;
        client.left().await;

        let url = exec_url(&server, &id, &["sleep", "888"], OUTPUT).await;
        let mut client = Spdy::connect(&url, &["v4.channel.k8s.io"]).await.unwrap();
        for kind in ["error", "stdout", "stderr"] {
            client.open(&[("streamtype", kind)]).await;
        }
        // Who is heard of is not idle.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(client.end.borrow().is_none());
            client.send(berth_cri::spdy::Frame::Ping(1)).await;
        }
        client.left().await;
    });
}
