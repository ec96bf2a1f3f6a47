//! A registry that does as a test wants: answers, hangs, trickles, forgets.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_images::Digest;
use serde_json::json;

use crate::daemon::PATIENCE;

/// How a repository answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Honest,
    /// Takes requests and says nothing.
    Silent,
    /// Stops in the middle of the layer.
    Stops,
    /// Sends a byte of the layer now and then.
    Trickles,
    /// Has the manifest, and no layer any more.
    Forgetful,
}

/// What is there under one name.
#[derive(Debug)]
struct Repository {
    manner: Manner,
    manifest: Vec<u8>,
    blobs: HashMap<String, Vec<u8>>,
    layer: String,
}

#[derive(Debug, Default)]
struct State {
    repositories: HashMap<String, Repository>,
    /// Layers that were asked for: a repository each.
    asked: Vec<String>,
    /// Layers under way.
    open: Vec<String>,
}

/// The registry, on loopback.
pub(crate) struct Registry {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Registry {
    /// One in the network of the calling thread.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A client that goes away is what tests are about.
                    let _ = serve(connection, &state);
                });
            }
        });
        Self { port, state }
    }

    /// Puts an image there whose only layer has the file `/FILE`, of so many bytes. Returns its name.
    pub(crate) fn put(&self, scratch: &Path, name: &str, manner: Manner, length: usize) -> String {
        let tree = scratch.join(format!("{name}.tree"));
        std::fs::create_dir_all(&tree).unwrap();
        let content = name.as_bytes().iter().copied().cycle().take(length);
        std::fs::write(tree.join(name), content.collect::<Vec<u8>>()).unwrap();
        let tar = Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .args(["-cf", "-", "."])
            .output();
        let layer = tar.unwrap().stdout;
        let diff_id = Digest::sha256(&layer).to_string();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Entrypoint": [format!("/{name}")] },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = config.to_string().into_bytes();
        let config_digest = Digest::sha256(&config).to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id, "size": layer.len() }],
        });
        let repository = Repository {
            manner,
            manifest: manifest.to_string().into_bytes(),
            blobs: HashMap::from([(config_digest, config), (diff_id.clone(), layer)]),
            layer: diff_id,
        };
        self.state().repositories.insert(name.to_owned(), repository);
        format!("127.0.0.1:{}/{name}:1", self.port)
    }

    /// From now on it answers so.
    pub(crate) fn set(&self, name: &str, manner: Manner) {
        self.state().repositories.get_mut(name).unwrap().manner = manner;
    }

    /// How often a repository's layer was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == name).count()
    }

    /// Waits until a repository's layer is on its way so many times.
    pub(crate) async fn await_open(&self, name: &str, times: usize) {
        self.wait(|state| state.open.iter().filter(|open| *open == name).count() == times)
            .await;
    }

    /// Waits until a repository's layer was asked for so many times.
    pub(crate) async fn await_asked(&self, name: &str, times: usize) {
        self.wait(|state| state.asked.iter().filter(|asked| *asked == name).count() == times)
            .await;
    }

    async fn wait(&self, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.state()) {
            assert!(Instant::now() < deadline, "{:?}", *self.state());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn serve(connection: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut offset = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let range = line.to_ascii_lowercase();
            if let Some(range) = range.strip_prefix("range: bytes=") {
                offset = range.trim().trim_end_matches('-').parse().unwrap_or(0);
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        answer(&connection, path, offset, state)?;
    }
}

fn answer(connection: &TcpStream, path: &str, offset: usize, state: &Mutex<State>) -> std::io::Result<()> {
    let mut parts = path.trim_start_matches("/v2/").split('/');
    let (name, kind, version) = (parts.next(), parts.next(), parts.next());
    let (Some(name), Some(kind), Some(version)) = (name, kind, version) else {
        return head(connection, 200, 0);
    };
    let (manner, is_layer, body) = {
        let state = state.lock().unwrap();
        let Some(repository) = state.repositories.get(name) else {
            return head(connection, 404, 0);
        };
        let body = match kind {
            "manifests" => Some(&repository.manifest),
            _ => repository.blobs.get(version),
        };
        (repository.manner, repository.layer == version, body.cloned())
    };
    let Some(body) = body.filter(|_| !(is_layer && manner == Manner::Forgetful)) else {
        return head(connection, 404, 0);
    };
    if manner == Manner::Silent {
        return until_closed(connection);
    }
    let status = if offset > 0 { 206 } else { 200 };
    let mut writer = connection;
    if !is_layer {
        head(connection, status, body.len())?;
        return writer.write_all(&body);
    }
    state.lock().unwrap().asked.push(name.to_owned());
    state.lock().unwrap().open.push(name.to_owned());
    let sent = head(connection, status, body.len() - offset)
        .and_then(|()| layer(connection, &body[offset..], (name, state)));
    let mut state = state.lock().unwrap();
    let at = state.open.iter().position(|open| open == name).unwrap();
    state.open.remove(at);
    sent
}

/// Sends a layer in the manner of its repository, which may change meanwhile.
fn layer(connection: &TcpStream, body: &[u8], (name, state): (&str, &Mutex<State>)) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut writer = connection;
    let mut sent = 0;
    while sent < body.len() {
        let manner = state.lock().unwrap().repositories[name].manner;
        let up_to = match manner {
            Manner::Honest => body.len(),
            Manner::Trickles => sent + 1,
            // Some has gone out before it stops.
            _ => sent.max(body.len() / 2),
        };
        writer.write_all(&body[sent..up_to])?;
        sent = up_to;
        if sent < body.len() && is_closed(connection) {
            return Ok(());
        }
    }
    connection.set_read_timeout(None)
}

/// Whether the client went; waits a moment for that.
fn is_closed(mut connection: &TcpStream) -> bool {
    !matches!(connection.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn until_closed(mut connection: &TcpStream) -> std::io::Result<()> {
    connection.read(&mut [0]).map(drop)
}

fn head(mut connection: &TcpStream, status: u16, length: usize) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n");
    connection.write_all(text.as_bytes())
}
