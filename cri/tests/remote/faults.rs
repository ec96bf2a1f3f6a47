//! A runtime that is not there, leaves, hangs, or speaks nonsense: an error that says so, and no more than that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{Engine, EngineError, LocalEngine, RemoteEngine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::bench::{Bench, Place, Socket, container, words};

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.sock");
    let error = RemoteEngine::connect(path.to_str().unwrap()).await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable(_)));
    let said = error.to_string();
    assert!(
        said.contains("none.sock") && said.contains("No such file"),
        "{said}"
    );
    let error = RemoteEngine::connect("tcp://127.0.0.1:1")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("scheme tcp"), "{error}");
}

#[tokio::test]
async fn who_does_not_speak_the_protocol_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nonsense.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let _server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"SSH-2.0-nonsense\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    let error = RemoteEngine::connect(path.to_str().unwrap()).await.unwrap_err();
    assert!(matches!(error, EngineError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("nonsense.sock"), "{error}");
}

/// A socket before a socket, which can be told to keep everything to itself, or to break off.
struct Between {
    accepting: JoinHandle<()>,
}

impl Between {
    fn open(path: &Path, to: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        let (listener, to) = (UnixListener::bind(path).unwrap(), to.to_owned());
        let accepting = tokio::spawn(async move {
            let mut pumps = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                pumps.spawn(async move {
                    let Ok(mut far) = UnixStream::connect(&to).await else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { accepting }
    }

    /// Every connection breaks, and nobody listens.
    async fn cut(self, path: &Path) {
        self.accepting.abort();
        let _ = self.accepting.await;
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_connection_that_breaks_is_an_error_and_the_next_call_waits_for_the_runtime() {
    Bench::new().with_socket(async |node, _local: Arc<LocalEngine>, socket: Socket| {
        let path = node.scratch().join("between.sock");
        let between = Between::open(&path, &socket.path);
        let remote = Arc::new(RemoteEngine::connect(path.to_str().unwrap()).await.unwrap());
        let place = Place {
            node,
            engine: remote.clone(),
        };
        let sandbox = place.sandbox("cut").await;
        let id = place
            .started(&sandbox, container("main", &["sleep", "1000"]))
            .await;
        let call = {
            let (remote, id) = (remote.clone(), id.clone());
            let long = words(&["sh", "-c", "echo > /tmp/runs; sleep 1000"]);
            tokio::spawn(async move { remote.exec_sync(&id, long, Duration::ZERO, 10).await })
        };
        let runs = words(&["sh", "-c", "while ! [ -e /tmp/runs ]; do sleep 0.05; done"]);
        remote.exec_sync(&id, runs, Duration::ZERO, 10).await.unwrap();
        between.cut(&path).await;
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, EngineError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains("ExecSync"), "{error}");
        // A restart takes a moment, and callers need not know of it.
        let (next, _between) = tokio::join!(remote.container_status(&id), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Between::open(&path, &socket.path)
        });
        assert_eq!(next.unwrap().id, id);
    });
}

#[tokio::test]
async fn a_runtime_that_leaves_for_good_is_said_to_be_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gone.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // It reads, and never answers.
    let server = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            streams.push(tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(1..) = stream.read(&mut buffer).await {}
            }));
        }
    });
    let connecting = RemoteEngine::connect(path.to_str().unwrap());
    let hung = tokio::time::timeout(Duration::from_millis(300), connecting).await;
    assert!(hung.is_err(), "a runtime may be slow");
    server.abort();
}
