//! Pulling as `hosts.toml` says: from mirrors, over TLS that is configured, and with whose credentials.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth_images::{Credentials, Image, ImageError, StoreOptions};
use rustls::pki_types::PrivateKeyDer;
use support::server::{Answer, DockerRegistry, Server, content};
use support::{Tar, TestImage, TestStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A registry that is nowhere.
const REGISTRY: &str = "registry.invalid";

fn image() -> TestImage {
    TestImage::gzipped(vec![Tar::new().file("a", "1").bytes()])
}

fn configure(directory: &Path, text: &str) -> StoreOptions {
    fs::create_dir_all(directory.join(REGISTRY)).unwrap();
    fs::write(directory.join(REGISTRY).join("hosts.toml"), text).unwrap();
    StoreOptions {
        registry_dir: Some(directory.to_owned()),
        ..Default::default()
    }
}

async fn pull(options: StoreOptions, credentials: Credentials) -> Result<Image, ImageError> {
    let store = TestStore::with(options);
    let name = format!("{REGISTRY}/team/app:1");
    store
        .store
        .pull_with(&name.parse().unwrap(), credentials, &|_| {})
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_mirror_that_has_an_image_gives_it() {
    let certificates = tempfile::tempdir().unwrap();
    let (empty, registry) = (DockerRegistry::start(), DockerRegistry::start());
    let image = image();
    registry.add("team/app", "1", &image);
    // One that is not there, one that does not have it, one that has.
    let text = format!(
        "[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n[host.\"http://{}\"]\n",
        empty.host(),
        registry.host()
    );
    let pulled = pull(configure(certificates.path(), &text), Credentials::Anonymous)
        .await
        .unwrap();
    assert_eq!(pulled.id, image.config);
    // It is known by the name that it was asked for by.
    assert_eq!(pulled.names, [format!("{REGISTRY}/team/app:1")]);
    assert_eq!(
        pulled.digests,
        [format!("{REGISTRY}/team/app@{}", image.manifest)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_sees_the_registry_s_name_and_headers_but_no_credentials() {
    let certificates = tempfile::tempdir().unwrap();
    let image = image();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, contents) = (Arc::clone(&seen), image.clone());
    let mirror = Server::start(move |request| {
        let mut noted = noted.lock().unwrap();
        noted.push(format!("{} {:?}", request.path, request.headers).to_lowercase());
        if request.headers.contains_key("authorization") {
            return Answer::new(403, "");
        }
        let mut plain = request.clone();
        plain.path = request.path.split('?').next().unwrap().to_owned();
        content(&contents, &plain)
    });
    let text = format!(
        "[host.\"http://{0}\"]\n[host.\"http://{0}\".header]\nx-node = \"n1\"\n",
        mirror.host()
    );
    let secret = Credentials::RegistryToken("hunter2".to_owned());
    let pulled = pull(configure(certificates.path(), &text), secret).await.unwrap();
    assert_eq!(pulled.id, image.config);
    let seen = seen.lock().unwrap();
    for request in seen.iter() {
        assert!(request.contains(&format!("?ns={REGISTRY}")), "{request}");
        assert!(request.contains("n1"), "{request}");
        assert!(!request.contains("hunter2"), "{request}");
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_as_strict_as_it_is_configured() {
    let certificates = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start();
    let image = image();
    registry.add("team/app", "1", &image);
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let authority: PathBuf = certificates.path().join("authority.pem");
    fs::write(&authority, certified.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), registry.host());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not like the certificate goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut plain = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    // `server` too, so that nobody else is asked.
    let with = |more: &str| format!("server = \"https://localhost:{port}\"\n{more}\n");
    let strict = pull(configure(certificates.path(), &with("")), Credentials::Anonymous).await;
    let message = strict.unwrap_err().to_string();
    assert!(
        message.contains("TLS") || message.contains("certificate"),
        "{message}"
    );
    for more in [format!("ca = {authority:?}"), "skip_verify = true".to_owned()] {
        let pulled = pull(
            configure(certificates.path(), &with(&more)),
            Credentials::Anonymous,
        )
        .await;
        assert_eq!(pulled.unwrap().id, image.config, "{more}");
    }
    let missing = pull(
        configure(certificates.path(), &with("ca = \"none.pem\"")),
        Credentials::Anonymous,
    )
    .await;
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("none.pem"), "{message}");
}
