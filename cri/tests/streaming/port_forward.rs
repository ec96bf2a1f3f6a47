//! Port-forward through the streaming server.

use std::sync::Arc;

use berth_cri::{
    ContainerConfig, Engine, LocalEngine, PortForwardRequest, SandboxId, StreamingConfig, StreamingServer,
};
use futures_util::SinkExt;
use sha2::{Digest, Sha256};

use crate::bench::{Bench, container, noise};
use crate::client::spdy::{Reset, Stream};
use crate::client::{Spdy, WebSocket};
use crate::node::started;

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

async fn serve(engine: &Arc<LocalEngine>) -> StreamingServer {
    let engine: Arc<dyn Engine> = Arc::<LocalEngine>::clone(engine);
    StreamingServer::start(StreamingConfig::default(), engine)
        .await
        .unwrap()
}

async fn url(server: &StreamingServer, sandbox: &SandboxId, ports: &[u16]) -> String {
    let request = PortForwardRequest {
        sandbox: sandbox.clone(),
        ports: ports.to_vec(),
    };
    server.port_forward_url(request).await.unwrap()
}

/// Something in the pod that sends back what it gets.
async fn echo(engine: &Arc<LocalEngine>, sandbox: &SandboxId, port: u16) {
    let config = ContainerConfig {
        name: format!("echo-{port}"),
        log_path: format!("echo-{port}/0.log").into(),
        ..container(&["/bin/helper", "listen", "tcp", &port.to_string()])
    };
    started(engine, sandbox, config).await;
    while engine.port_forward(sandbox, port).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// The pair of streams of one forwarded connection: error, data.
async fn pair(client: &Spdy, request: &str, port: &str) -> (Stream, Stream) {
    let headers = |kind| [("streamtype", kind), ("port", port), ("requestID", request)];
    let error = client.open(&headers("error")).await;
    error.send(b"", true).await;
    (error, client.open(&headers("data")).await)
}

/// Sends all, and returns what came back, and the error.
async fn there_and_back(
    client: &Spdy,
    request: &str,
    port: &str,
    sent: &[u8],
) -> (Result<Vec<u8>, Reset>, String) {
    let (error, data) = pair(client, request, port).await;
    let id = data.id;
    let write = async {
        for piece in sent.chunks(30_000) {
            let bytes = bytes::Bytes::copy_from_slice(piece);
            client
                .send(berth_cri::spdy::Frame::Data {
                    stream: id,
                    fin: false,
                    bytes,
                })
                .await;
        }
        let bytes = bytes::Bytes::new();
        client
            .send(berth_cri::spdy::Frame::Data {
                stream: id,
                fin: true,
                bytes,
            })
            .await;
    };
    let ((), back, error) = tokio::join!(write, data.read_to_end(), error.read_to_end());
    (back, String::from_utf8(error.unwrap()).unwrap())
}

#[test]
fn many_connections_share_one_of_the_clients() {
    Bench::new().with_pod(async |engine, sandbox| {
        echo(engine, sandbox, 7000).await;
        echo(engine, sandbox, 7001).await;
        let server = serve(engine).await;
        let url = url(&server, sandbox, &[]).await;
        let client = Spdy::connect(&url, &[PROTOCOL]).await.unwrap();
        let sent = noise(200_000);
        let all = (0..40).map(|number| {
            let (client, sent) = (&client, &sent[..5000 * (number + 1)]);
            async move {
                let port = if number % 2 == 0 { "7000" } else { "7001" };
                let (back, error) = there_and_back(client, &number.to_string(), port, sent).await;
                assert!(back.unwrap() == sent && error.is_empty(), "{number}: {error}");
            }
        });
        futures_util::future::join_all(all).await;
        client.leave().await;
    });
}

#[test]
fn large_transfers_lose_no_byte_directly_and_through_the_tunnel() {
    Bench::new().with_pod(async |engine, sandbox| {
        echo(engine, sandbox, 7000).await;
        let server = serve(engine).await;
        let sent = noise(100_000_000);
        let direct = Spdy::connect(&url(&server, sandbox, &[]).await, &[PROTOCOL])
            .await
            .unwrap();
        let socket = WebSocket::connect(&url(&server, sandbox, &[]).await, Some(TUNNEL))
            .await
            .unwrap();
        let tunnelled = Spdy::over(Box::new(socket.tunnel()));
        for client in [direct, tunnelled] {
            let (back, error) = there_and_back(&client, "0", "7000", &sent).await;
            let back = back.unwrap();
            assert_eq!((back.len(), error.as_str()), (sent.len(), ""));
            assert_eq!(Sha256::digest(&back), Sha256::digest(&sent));
            client.leave().await;
        }
    });
}

#[test]
fn what_does_not_listen_is_said_on_the_error_stream() {
    Bench::new().with_pod(async |engine, sandbox| {
        echo(engine, sandbox, 7000).await;
        let server = serve(engine).await;
        let client = Spdy::connect(&url(&server, sandbox, &[]).await, &[PROTOCOL])
            .await
            .unwrap();
        let (back, error) = there_and_back(&client, "0", "9999", b"hello").await;
        assert_eq!(back, Err(Reset(5)));
        let wanted = format!("error forwarding port 9999 to pod {sandbox}, uid : ");
        assert!(
            error.starts_with(&wanted) && error.contains("connect: connection refused"),
            "{error}"
        );
        // The connection is good for others.
        let (back, error) = there_and_back(&client, "1", "7000", b"hello").await;
        assert_eq!(
            (back.unwrap().as_slice(), error.as_str()),
            (b"hello".as_slice(), "")
        );

        // Nonsense is refused, stream by stream.
        for headers in [
            [("streamtype", "data"), ("port", "0")],
            [("streamtype", "data"), ("port", "eighty")],
            [("streamtype", "stdin"), ("port", "7000")],
        ] {
            assert_eq!(
                client.open(&headers).await.read_to_end().await,
                Err(Reset(3)),
                "{headers:?}"
            );
        }
        let (_error, _data) = pair(&client, "7", "7000").await;
        let (again, _) = pair(&client, "8", "7000").await;
        drop(again);
        client.leave().await;
    });
}

#[test]
fn either_side_may_end_its_direction_first_or_break_off() {
    Bench::new().with_pod(async |engine, sandbox| {
        // Says something at once, ends, and then tells how much it was sent.
        let script = "busybox nc -ll -p 7000 -e sh -c 'echo hello; wc -c >> /tmp/counts'";
        started(engine, sandbox, container(&["sh", "-c", script])).await;
        while engine.port_forward(sandbox, 7000).await.is_err() {}
        let server = serve(engine).await;
        let client = Spdy::connect(&url(&server, sandbox, &[]).await, &[PROTOCOL])
            .await
            .unwrap();
        let (_error, mut data) = pair(&client, "0", "7000").await;
        assert_eq!(&data.read().await.unwrap().unwrap()[..], b"hello\n");
        // It is still there to be sent something to.
        data.send(&[1; 4321], true).await;
        assert_eq!(data.read_to_end().await, Ok(Vec::new()));
        let (_error, mut data) = pair(&client, "1", "7000").await;
        assert_eq!(&data.read().await.unwrap().unwrap()[..], b"hello\n");
        data.send(&[1; 99], false).await;
        data.reset().await;
        // The server is still there.
        let (_error, mut data) = pair(&client, "2", "7000").await;
        assert_eq!(&data.read().await.unwrap().unwrap()[..], b"hello\n");
        client.leave().await;
    });
}

#[test]
fn websocket_channels_forward_as_well() {
    Bench::new().with_pod(async |engine, sandbox| {
        echo(engine, sandbox, 7000).await;
        let server = serve(engine).await;
        for (protocol, query, ports) in [
            (Some("v4.channel.k8s.io"), "", vec![7000, 9999]),
            (Some("v4.base64.channel.k8s.io"), "?port=7000,9999", vec![]),
            (None, "?port=7000&port=9999", vec![]),
        ] {
            let url = url(&server, sandbox, &ports).await + query;
            let mut client = WebSocket::connect(&url, protocol).await.unwrap();
            let mut channels = [const { Vec::new() }; 4];
            let sent = noise(1_000_000);
            for piece in sent.chunks(50_000) {
                client.send(0, piece).await;
            }
            while channels[0].len() < sent.len() + 2 || channels[3].len() < 20 {
                let (channel, bytes) = client.read().await.unwrap();
                channels[usize::from(channel)].extend(bytes);
            }
            let port = |channel: usize| u16::from_le_bytes([channels[channel][0], channels[channel][1]]);
            assert_eq!([port(0), port(1), port(2), port(3)], [7000, 7000, 9999, 9999]);
            assert!(channels[0][2..] == sent, "{protocol:?}");
            let error = String::from_utf8_lossy(&channels[3][2..]);
            assert!(error.contains("connection refused"), "{error}");
            client.sink.close().await.unwrap();
        }
        let without = url(&server, sandbox, &[]).await;
        assert!(
            WebSocket::connect(&without, Some("v4.channel.k8s.io"))
                .await
                .is_err()
        );
    });
}
