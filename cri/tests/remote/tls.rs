//! Runtimes whose streaming server has TLS.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_cri::{Engine, RemoteEngine, StreamOptions, StreamingConfig, TlsFiles};
use tokio::io::AsyncReadExt;

use crate::bench::{Bench, Socket, container, words};

fn write_pem(path: &Path, kind: &str, der: &[u8]) {
    let text = STANDARD.encode(der);
    std::fs::write(
        path,
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n"),
    )
    .unwrap();
}

/// A certificate of 127.0.0.1 and its key.
fn certificate(directory: &Path, name: &str) -> TlsFiles {
    let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}-key.pem")),
    };
    write_pem(&files.certificate, "CERTIFICATE", pair.cert.der());
    write_pem(&files.key, "PRIVATE KEY", &pair.signing_key.serialize_der());
    files
}

#[test]
fn streams_go_over_tls_to_those_whose_certificate_is_believed() {
    Bench::new().with_socket(async |node, local, plain| {
        let directory = tempfile::tempdir().unwrap();
        let (files, others) = (
            certificate(directory.path(), "own"),
            certificate(directory.path(), "other"),
        );
        let config = StreamingConfig {
            tls: Some(files.clone()),
            ..StreamingConfig::default()
        };
        let path = node.scratch().join("tls.sock");
        let socket = Socket::streaming(&path, local.clone(), config).await;
        let trusting = RemoteEngine::connect_with(&socket.endpoint(), Some(&files.certificate))
            .await
            .unwrap();
        let sandbox = trusting
            .run_pod_sandbox(crate::node::pod(node, "tls"))
            .await
            .unwrap();
        let serve = container("main", &["sleep", "1000"]);
        let id = trusting.create_container(&sandbox, serve).await.unwrap();
        trusting.start_container(&id).await.unwrap();

        let options = StreamOptions {
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
            size: None,
        };
        let command = words(&["echo", "over TLS"]);
        let session = trusting.exec(&id, command.clone(), options).await.unwrap();
        let stdout = session.stdout.unwrap();
        let read = move || std::io::read_to_string(std::fs::File::from(stdout));
        let said = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
        assert_eq!(said, "over TLS\n");

        // It is known behind the streams, over TLS, that nobody listens there.
        let mut port = trusting.port_forward(&sandbox, 80).await.unwrap();
        assert!(!matches!(port.read(&mut [0; 4]).await, Ok(1..)));

        for (ca, expected) in [
            (None, "--container-runtime-streaming-ca"),
            (Some(&*others.certificate), "can't be trusted"),
        ] {
            let engine = RemoteEngine::connect_with(&socket.endpoint(), ca).await.unwrap();
            let error = engine.exec(&id, command.clone(), options).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = RemoteEngine::connect_with(&plain.endpoint(), Some(&files.key))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    });
}
