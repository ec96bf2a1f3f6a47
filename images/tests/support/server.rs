//! Registries of tests: Debian's, and a tiny one that misbehaves on purpose.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::TestImage;

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What to answer. Without a body, the connection is closed.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    pub cut: Option<usize>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// An HTTP server on loopback that answers by a function.
pub struct Server {
    pub port: u16,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(connection, &seen, &*answer));
            }
        });
        Self { port, requests }
    }

    /// A registry that has `image` as `repository:1`, with a chance to answer otherwise.
    pub fn registry(
        image: &TestImage,
        special: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let image = image.clone();
        Self::start(move |request| special(request).unwrap_or_else(|| content(&image, request)))
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn count(&self, part: &str) -> usize {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|request| request.path.contains(part))
            .count()
    }
}

/// What a good registry answers.
pub fn content(image: &TestImage, request: &Request) -> Answer {
    let last = request.path.rsplit('/').next().unwrap();
    let at = if last == "1" {
        image.manifest.as_str()
    } else {
        last
    };
    match image.blobs.iter().find(|(digest, _)| digest == at) {
        None => Answer::new(
            404,
            r#"{"errors":[{"code":"UNKNOWN","message":"no such thing"}]}"#,
        ),
        Some((_, bytes)) => {
            let range = request
                .headers
                .get("range")
                .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            match range {
                Some(offset) if offset > 0usize => Answer::new(206, &bytes[offset..]),
                _ => Answer::new(200, bytes.clone()),
            }
        }
    }
}

fn serve(
    connection: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Answer + Send + Sync),
) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    while let Some(request) = read_request(&mut reader) {
        let answer = answer(&request);
        seen.lock().unwrap().push(request);
        let mut head = format!(
            "HTTP/1.1 {} X\r\ncontent-length: {}\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let sent = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
        if writer
            .write_all(format!("{head}\r\n").as_bytes())
            .and_then(|()| writer.write_all(sent))
            .is_err()
            || answer.cut.is_some()
        {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut parts = line.split(' ');
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}

/// Debian's docker-registry, with its storage in a temporary directory.
pub struct DockerRegistry {
    child: Child,
    directory: tempfile::TempDir,
    pub port: u16,
}

impl DockerRegistry {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With a user `someone` whose password is `secret word`.
    pub fn with_password() -> Self {
        Self::with("auth:\n  htpasswd:\n    realm: test\n    path: HTPASSWD\n")
    }

    fn with(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The port is free now; whoever takes it in between makes the registry end, and the test say so.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let at = |name: &str| directory.path().join(name);
        // htpasswd -nbB someone 'secret word'
        let hash = "someone:$2b$04$abcdefghijklmnopqrstuuP6/q0obcGuk6SuzN66aTZwHeRCLMzKO";
        std::fs::write(at("htpasswd"), format!("{hash}\n")).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: x\n{}",
            at("storage").display(),
            more.replace("HTPASSWD", at("htpasswd").to_str().unwrap())
        );
        std::fs::write(at("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is missing: apt-get install docker-registry");
        let mut registry = Self {
            child,
            directory,
            port,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                registry.child.try_wait().unwrap().is_none(),
                "docker-registry ended"
            );
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an image into the storage, as a push would.
    pub fn add(&self, repository: &str, tag: &str, image: &TestImage) {
        let base = self.directory.path().join("storage/docker/registry/v2");
        let write = |path: &Path, bytes: &[u8]| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let repo = base.join("repositories").join(repository);
        for (digest, bytes) in &image.blobs {
            let hex = &digest[7..];
            write(
                &base.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2])),
                bytes,
            );
            write(
                &repo.join(format!("_layers/sha256/{hex}/link")),
                digest.as_bytes(),
            );
        }
        let hex = &image.manifest[7..];
        for link in [
            format!("_manifests/revisions/sha256/{hex}/link"),
            format!("_manifests/tags/{tag}/current/link"),
            format!("_manifests/tags/{tag}/index/sha256/{hex}/link"),
        ] {
            write(&repo.join(link), image.manifest.as_bytes());
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
