//! Clients that lie, flood or do not know the protocol.

use std::sync::Arc;
use std::time::Duration;

use berth_cri::spdy::{Frame, Headers, MAX_CONTROL_FRAME};
use berth_cri::{
    AttachRequest, ContainerId, Engine, EngineError, ExecRequest, LocalEngine, PortForwardRequest, SandboxId,
    StreamOptions, StreamingConfig, StreamingError, StreamingServer, TlsFiles,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as WebSocketFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::bench::{Bench, idle, words};
use crate::client::{Spdy, WebSocket, request};

const INPUT: StreamOptions = StreamOptions {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: false,
    size: None,
};

async fn serve(engine: &Arc<LocalEngine>) -> StreamingServer {
    let engine: Arc<dyn Engine> = Arc::<LocalEngine>::clone(engine);
    StreamingServer::start(StreamingConfig::default(), engine)
        .await
        .unwrap()
}

async fn cat(server: &StreamingServer, id: &ContainerId) -> String {
    let request = ExecRequest {
        container: id.clone(),
        command: words(&["cat"]),
        options: INPUT,
    };
    server.exec_url(request).await.unwrap()
}

#[test]
fn a_token_is_good_once_and_for_what_it_was_given_for() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "SPDY/3.1"),
            ("X-Stream-Protocol-Version", "v4.channel.k8s.io"),
        ];
        let url = cat(&server, &id).await;
        let wrong = url.replace("/exec/", "/attach/");
        assert_eq!(request(&wrong, "POST", &upgrade).await.1.status, 404);
        assert_eq!(
            request(&url, "POST", &upgrade).await.1.status,
            404,
            "it is used up"
        );
        let url = cat(&server, &id).await;
        assert_eq!(request(&url, "PUT", &upgrade).await.1.status, 404);
        assert_eq!(request(&url, "POST", &upgrade).await.1.status, 101);
        assert_eq!(request(&url, "POST", &upgrade).await.1.status, 404);
        let url = cat(&server, &id).await;
        let (_, answer) = request(&url, "GET", &[]).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let url = cat(&server, &id).await;
        let Err(answer) = Spdy::connect(&url, &["v9.channel.k8s.io"]).await else {
            panic!("it speaks no version 9")
        };
        assert_eq!(answer.status, 403);
        assert!(answer.headers.contains_key("x-accepted-stream-protocol-versions"));
        assert!(
            WebSocket::connect(&cat(&server, &id).await, Some("chat"))
                .await
                .is_err()
        );
        for path in ["", "exec/", "exec/../exec/x", "exec/%00"] {
            let url = format!("http://{}/{path}", server.address());
            assert_eq!(request(&url, "GET", &upgrade).await.1.status, 404, "{path}");
        }
    });
}

#[test]
fn requests_that_make_no_sense_get_no_url() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let exec = |container: &ContainerId, options| ExecRequest {
            container: container.clone(),
            command: words(&["true"]),
            options,
        };
        let terminal = StreamOptions {
            stderr: true,
            tty: true,
            ..INPUT
        };
        for options in [terminal, StreamOptions::default()] {
            let error = server.exec_url(exec(&id, options)).await.unwrap_err();
            assert!(matches!(error, EngineError::InvalidArgument(_)), "{error}");
            let container = id.clone();
            let attach = AttachRequest { container, options };
            assert!(matches!(
                server.attach_url(attach).await,
                Err(EngineError::InvalidArgument(_))
            ));
        }
        let missing = exec(&ContainerId("none".into()), INPUT);
        assert!(matches!(
            server.exec_url(missing).await,
            Err(EngineError::NotFound(_))
        ));
        engine.stop_container(&id, Duration::ZERO).await.unwrap();
        assert!(matches!(
            server.exec_url(exec(&id, INPUT)).await,
            Err(EngineError::FailedPrecondition(_))
        ));
        let ports = PortForwardRequest {
            sandbox: SandboxId("none".into()),
            ports: vec![],
        };
        assert!(matches!(
            server.port_forward_url(ports).await,
            Err(EngineError::NotFound(_))
        ));
    });
}

#[test]
fn what_is_not_spdy_ends_the_connection_with_a_reason() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let open = |stream| Frame::SynStream {
            stream,
            fin: false,
            unidirectional: false,
            headers: Headers::new([("streamtype", "x")]),
        };
        let bomb = Frame::SynStream {
            stream: 1,
            fin: false,
            unidirectional: false,
            headers: Headers::new([("a", "x".repeat(5 << 20))]),
        };
        let oversized = [
            &[0x80, 3, 0, 1, 0][..],
            &u32::try_from(MAX_CONTROL_FRAME + 1).unwrap().to_be_bytes()[1..],
        ]
        .concat();
        let cases: [(&str, Vec<Frame>, &[u8]); 6] = [
            ("an even stream", vec![open(2)], b""),
            ("a stream again", vec![open(3), open(3)], b""),
            ("a stream of the past", vec![open(5), open(3)], b""),
            ("a header bomb", vec![bomb], b""),
            ("an oversized frame", vec![], &oversized),
            ("HTTP", vec![], b"GET / HTTP/1.1\r\n\r\n"),
        ];
        for (what, frames, raw) in cases {
            let mut client = Spdy::connect(&cat(&server, &id).await, &["v4.channel.k8s.io"])
                .await
                .unwrap();
            for frame in frames {
                client.send(frame).await;
            }
            client.send_raw(raw).await;
            if what == "HTTP" {
                // It looks like the beginning of very much data for a stream that is not there.
                client.send_raw(&[0; 100]).await;
                client.leave().await;
                continue;
            }
            assert_eq!(client.left().await, Some(1), "{what}");
        }
    });
}

#[test]
fn data_for_streams_that_are_not_there_is_answered_and_thrown_away() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let client = Spdy::connect(&cat(&server, &id).await, &["v4.channel.k8s.io"])
            .await
            .unwrap();
        let data = |stream: u32, size: usize| Frame::Data {
            stream,
            fin: false,
            bytes: Bytes::from(vec![1; size]),
        };
        client.send(data(99, 1_000_000)).await;
        let error = client.open(&[("streamtype", "error")]).await;
        let stdin = client.open(&[("streamtype", "stdin")]).await;
        let second = client.open(&[("streamtype", "stdin")]).await;
        assert!(second.read_to_end().await.is_err());
        let stdout = client.open(&[("streamtype", "stdout")]).await;
        stdin.send(b"typed", true).await;
        assert_eq!(stdout.read_to_end().await.unwrap(), b"typed");
        assert!(!error.read_to_end().await.unwrap().is_empty());
        client.leave().await;
    });
}

#[test]
fn websocket_fragments_are_put_together_and_too_much_of_them_is_refused() {
    Bench::new().with_pod(async |engine, sandbox| {
        let (server, id) = (serve(engine).await, idle(engine, sandbox).await);
        let fragment = |bytes: &[u8], first, last| {
            let code = if first { Data::Binary } else { Data::Continue };
            Message::Frame(WebSocketFrame::message(bytes.to_vec(), OpCode::Data(code), last))
        };
        let mut client = WebSocket::connect(&cat(&server, &id).await, Some("v5.channel.k8s.io"))
            .await
            .unwrap();
        for (bytes, first, last) in [
            (b"\0fr" as &[u8], true, false),
            (b"", false, false),
            (b"agments", false, true),
        ] {
            client.sink.send(fragment(bytes, first, last)).await.unwrap();
            client.sink.send(Message::Ping(vec![1].into())).await.unwrap();
        }
        client.send(255, &[0]).await;
        let mut seen = Vec::new();
        while let Some((channel, bytes)) = client.read().await {
            if channel == 1 {
                seen.extend(bytes);
            }
        }
        assert_eq!(seen, b"fragments");

        let mut client = WebSocket::connect(&cat(&server, &id).await, Some("v5.channel.k8s.io"))
            .await
            .unwrap();
        let piece = vec![0; 1 << 20];
        let mut first = true;
        while client.sink.send(fragment(&piece, first, false)).await.is_ok() {
            first = false;
        }
        while let Some(Ok(_)) = client.stream.next().await {}
    });
}

#[test]
fn the_server_speaks_tls_with_its_certificate() {
    Bench::new().with_pod(async |engine, sandbox| {
        let directory = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let files = TlsFiles {
            certificate: directory.path().join("cert.pem"),
            key: directory.path().join("key.pem"),
        };
        std::fs::write(&files.certificate, pem("CERTIFICATE", pair.cert.der())).unwrap();
        let config = StreamingConfig {
            tls: Some(files.clone()),
            ..StreamingConfig::default()
        };
        let dynamic: Arc<dyn Engine> = Arc::<LocalEngine>::clone(engine);
        let error = StreamingServer::start(config.clone(), Arc::clone(&dynamic))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, StreamingError::Tls { path, .. } if *path == files.key),
            "{error}"
        );
        std::fs::write(&files.key, pem("PRIVATE KEY", &pair.signing_key.serialize_der())).unwrap();
        let server = StreamingServer::start(config, dynamic).await.unwrap();
        let id = idle(engine, sandbox).await;
        let url = cat(&server, &id).await;
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");

        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(trust))
            .connect(name, tcp)
            .await
            .unwrap();
        let address = url.replacen("https", "ws", 1);
        let (mut socket, _) = tokio_tungstenite::client_async(address, tls).await.unwrap();
        socket
            .send(Message::Binary(b"\0typed".to_vec().into()))
            .await
            .unwrap();
        loop {
            let message = socket.next().await.unwrap().unwrap().into_data();
            if message.len() > 1 {
                assert_eq!(&message[..], b"\x01typed");
                break;
            }
        }
    });
}

fn pem(kind: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}
