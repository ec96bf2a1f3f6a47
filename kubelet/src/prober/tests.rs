//! Probes against servers that behave well and badly.

mod runner;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::grpc::{self, Grpc};
use super::http_get::{HttpGet, attempt};
use super::outcome::Outcome;
use super::tcp_socket;

const LIMIT: Duration = Duration::from_secs(20);

/// A server that answers the n-th request with the n-th answer, then hangs; it notes what it was asked.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut open = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = read_head(&mut stream).await;
                noted.lock().unwrap().push(head);
                let _ = stream.write_all(answer.as_bytes()).await;
                open.push(stream);
            }
            std::future::pending::<()>().await;
        });
        Server { port, requests }
    }

    fn get(&self, path: &str) -> HttpGet {
        HttpGet {
            scheme: "HTTP".into(),
            host: "127.0.0.1".into(),
            port: self.port,
            path: path.into(),
            headers: vec![("X-Own".into(), "1".into())],
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn statuses_from_200_to_399_are_good() {
    for (status, good) in [
        (200, true),
        (204, true),
        (399, true),
        (400, false),
        (404, false),
        (503, false),
    ] {
        let server = Server::start(vec![answer(status, "", "")]).await;
        let outcome = attempt(&server.get("/healthz?full=1"), LIMIT).await;
        assert_eq!(
            matches!(outcome, Outcome::Success | Outcome::Warning(_)),
            good,
            "{status}: {outcome:?}"
        );
        let request = server.requests.lock().unwrap()[0].to_ascii_lowercase();
        assert!(
            request.starts_with("get /healthz?full=1 http/1.1\r\n"),
            "{request}"
        );
        for header in [
            "x-own: 1",
            "user-agent: kube-probe/",
            "connection: close",
            "accept: */*",
        ] {
            assert!(request.contains(&format!("\r\n{header}")), "{request}");
        }
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let server = Server::start(vec![answer(302, "location: /there\r\n", ""), answer(500, "", "")]).await;
    let outcome = attempt(&server.get("/"), LIMIT).await;
    assert_eq!(
        outcome,
        Outcome::Failure("HTTP probe failed with statuscode: 500".into())
    );
    assert!(server.requests.lock().unwrap()[1].starts_with("GET /there "));

    let server = Server::start(vec![answer(301, "location: http://elsewhere.test/\r\n", "")]).await;
    assert!(matches!(
        attempt(&server.get("/"), LIMIT).await,
        Outcome::Warning(_)
    ));

    let server = Server::start(vec![answer(302, "location: /again\r\n", ""); 20]).await;
    let outcome = attempt(&server.get("/"), LIMIT).await;
    assert!(
        matches!(&outcome, Outcome::Failure(why) if why.contains("redirects")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_huge_body_is_not_read_to_its_end() {
    let endless = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{}",
        "x".repeat(64 << 10)
    );
    let server = Server::start(vec![endless]).await;
    assert_eq!(attempt(&server.get("/"), LIMIT).await, Outcome::Success);
}

#[tokio::test]
async fn silence_and_nonsense_are_failures() {
    let silent = Server::start(vec![String::new()]).await;
    let outcome = attempt(&silent.get("/"), Duration::from_millis(50)).await;
    assert!(
        matches!(&outcome, Outcome::Failure(why) if why.contains("no answer within 50ms")),
        "{outcome:?}"
    );
    let nonsense = Server::start(vec!["SSH-2.0-x\r\n\r\n".into()]).await;
    assert!(matches!(
        attempt(&nonsense.get("/"), LIMIT).await,
        Outcome::Failure(_)
    ));
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_closed_port_is_a_failure() {
    let port = closed_port().await;
    let outcome = tcp_socket::attempt("127.0.0.1", port, LIMIT).await;
    assert!(
        matches!(&outcome, Outcome::Failure(why) if why.contains("refused")),
        "{outcome:?}"
    );
    let get = Server {
        port,
        requests: Arc::default(),
    }
    .get("/");
    let outcome = attempt(&get, LIMIT).await;
    assert!(
        matches!(&outcome, Outcome::Failure(why) if why.contains("refused")),
        "{outcome:?}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(
        tcp_socket::attempt("127.0.0.1", port, LIMIT).await,
        Outcome::Success
    );
}

#[tokio::test]
async fn https_is_spoken_with_servers_that_nobody_vouches_for() {
    let certified = rcgen::generate_simple_self_signed(vec!["elsewhere.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        stream
            .write_all(answer(200, "", "well").as_bytes())
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
    });
    let get = Server {
        port,
        requests: Arc::default(),
    }
    .get("/");
    let get = HttpGet {
        scheme: "HTTPS".into(),
        ..get
    };
    assert_eq!(attempt(&get, LIMIT).await, Outcome::Success);
}

/// A gRPC server that is asked for the service "db" and answers with a fixed status and these trailers.
async fn grpc_server(status: u8, trailers: &'static [(&'static str, &'static str)]) -> u16 {
    use http_body_util::{BodyExt, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::header::{HeaderMap, HeaderName};
    use hyper::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |request: Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let agent = request.headers()["user-agent"].to_str().unwrap();
        assert!(agent.starts_with("kube-probe/"), "{agent}");
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body[..], *b"\0\0\0\0\x04\x0a\x02db");
        let map: HeaderMap = trailers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let message = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
        let body = message.with_trailers(std::future::ready(Some(Ok(map))));
        Ok::<_, std::convert::Infallible>(Response::new(body))
    };
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(answer);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    port
}

fn grpc_at(port: u16) -> Grpc {
    Grpc {
        host: "127.0.0.1".into(),
        port,
        service: "db".into(),
    }
}

#[tokio::test]
async fn a_grpc_server_says_whether_it_serves() {
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    for (status, trailers, expected) in [
        (1, OK, ""),
        (2, OK, "service unhealthy (responded with \"NOT_SERVING\")"),
        (3, OK, "service unhealthy (responded with \"SERVICE_UNKNOWN\")"),
        (
            0,
            &[("grpc-status", "12"), ("grpc-message", "what?")],
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): what?",
        ),
        (
            0,
            &[("grpc-status", "5"), ("grpc-message", "unknown service")],
            "error: health rpc probe failed: rpc error: code = NotFound: unknown service",
        ),
        (
            1,
            &[],
            "error: health rpc probe failed: the answer has no grpc-status",
        ),
    ] {
        let port = grpc_server(status, trailers).await;
        let outcome = grpc::attempt(&grpc_at(port), LIMIT).await;
        assert_eq!(outcome.message(), expected);
        assert_eq!(outcome == Outcome::Success, expected.is_empty(), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_grpc_is_a_failure() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let outcome = grpc::attempt(&grpc_at(port), Duration::from_millis(50)).await;
    let message = "timeout: health rpc did not complete within 50ms";
    assert_eq!(outcome, Outcome::Failure(message.into()));
    drop(silent);
    let outcome = grpc::attempt(&grpc_at(port), LIMIT).await;
    let refused = format!("error: failed to connect service at \"127.0.0.1:{port}\"");
    assert!(outcome.message().starts_with(&refused), "{outcome:?}");
    let http = Server::start(vec![answer(200, "", "")]).await;
    let outcome = grpc::attempt(&grpc_at(http.port), LIMIT).await;
    assert!(matches!(outcome, Outcome::Failure(_)), "{outcome:?}");
}
