//! Pulling: from Debian's registry, and from servers that misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_images::{Credentials, Image, ImageError, LayerState, PullProgress, Store};
use support::server::{Answer, DockerRegistry, Request, Server, content};
use support::{Tar, TestImage, TestStore};

fn image() -> TestImage {
    // Not compressible, so that there is something to cut.
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from(state >> 33 & 63).unwrap())
    };
    let noise: String = (0..200_000).map(|_| next()).collect();
    TestImage::gzipped(vec![
        Tar::new().file("a", &noise).bytes(),
        Tar::new().file("b", "2").bytes(),
    ])
}

async fn pull(store: &Store, name: &str) -> Result<Image, ImageError> {
    pull_with(store, name, Credentials::Anonymous).await
}

async fn pull_with(store: &Store, name: &str, credentials: Credentials) -> Result<Image, ImageError> {
    store
        .pull_with(&name.parse().unwrap(), credentials, &|_| {})
        .await
}

/// The pull fails, and leaves nothing.
async fn fails(name: &str, credentials: Credentials) -> ImageError {
    let store = TestStore::new();
    let error = pull_with(&store.store, name, credentials).await.unwrap_err();
    assert!(
        error.to_string().contains(name.split('@').next().unwrap()),
        "the message does not name {name}: {error}"
    );
    // A thread that waited for a layer's lock when the pull was given up ends a moment later, its operation with it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        store.store.sweep().unwrap();
        if store.leftovers().is_empty() {
            return error;
        }
        assert!(std::time::Instant::now() < deadline, "{:?}", store.leftovers());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn someone() -> Credentials {
    Credentials::Basic {
        username: "someone".to_owned(),
        password: "secret word".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_from_debian_s_registry() {
    let registry = DockerRegistry::start();
    let image = image();
    registry.add("team/app", "1", &image);
    let store = TestStore::new();
    let name = format!("{}/team/app:1", registry.host());
    let progress: Mutex<Vec<PullProgress>> = Mutex::default();
    let pulled = store
        .store
        .pull(&name.parse().unwrap(), &|at| progress.lock().unwrap().push(at))
        .await
        .unwrap();
    assert_eq!(pulled.id, image.config);
    assert_eq!(pulled.names, std::slice::from_ref(&name));
    assert_eq!(
        pulled.digests,
        [format!("{}/team/app@{}", registry.host(), image.manifest)]
    );
    assert_eq!(store.store.lower_dirs(&pulled).unwrap().len(), 2);
    let progress = progress.into_inner().unwrap();
    for layer in &image.layers {
        let last = progress.iter().rfind(|at| at.layer == *layer).unwrap();
        assert_eq!((last.state, last.done), (LayerState::Complete, last.total));
        assert!(
            progress
                .iter()
                .any(|at| at.layer == *layer && at.state == LayerState::Fetching)
        );
    }
    let by_digest = format!("localhost:{}/team/app@{}", registry.port, image.manifest);
    let again = pull(&store.store, &by_digest).await.unwrap();
    assert_eq!(
        (again.id, again.names.len(), again.digests.len()),
        (pulled.id, 1, 2)
    );
    let missing = fails(&format!("{}/team/app:2", registry.host()), Credentials::Anonymous).await;
    assert!(matches!(missing, ImageError::NotFound(_)), "{missing:?}");
    let missing = fails(&format!("{}/none:1", registry.host()), Credentials::Anonymous).await;
    assert!(matches!(missing, ImageError::NotFound(_)), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_taken() {
    let registry = DockerRegistry::with_password();
    registry.add("app", "1", &image());
    let name = format!("{}/app:1", registry.host());
    let store = TestStore::new();
    pull_with(&store.store, &name, someone()).await.unwrap();
    let wrong = Credentials::Basic {
        username: "someone".to_owned(),
        password: "wrong".to_owned(),
    };
    for credentials in [Credentials::Anonymous, wrong] {
        let error = fails(&name, credentials).await;
        assert!(matches!(error, ImageError::Unauthorized(_)), "{error:?}");
        assert!(error.to_string().contains("docker login"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_come_from_docker_s_files_and_helpers() {
    let registry = DockerRegistry::with_password();
    registry.add("app", "1", &image());
    let name = format!("{}/app:1", registry.host());
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.json");
    let helper = home.path().join("docker-credential-test");
    let script = "#!/bin/sh\nread server; echo \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"someone\\\",\\\"Secret\\\":\\\"secret word\\\"}\"\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let auth = STANDARD.encode("someone:secret word");
    let configs = [
        (
            format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host()),
            true,
        ),
        (
            format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.host()),
            true,
        ),
        (r#"{"credsStore":"test"}"#.to_owned(), true),
        (r#"{"credsStore":"does-not-exist"}"#.to_owned(), false),
        (r"{}".to_owned(), false),
        (r"{".to_owned(), false),
    ];
    let program = std::env::current_exe().unwrap();
    for (text, works) in configs {
        fs::write(&config, &text).unwrap();
        let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
        let output = std::process::Command::new(&program)
            .args(["--exact", "child_pulls", "--ignored", "--nocapture"])
            .env("DOCKER_CONFIG", home.path())
            .env("PATH", path)
            .env("TEST_PULL", &name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.contains("child: ok"), works, "{text}: {said}");
        assert!(works || said.contains("Unauthorized"), "{text}: {said}");
    }
}

/// Not a test of its own: the process of the one above, with its environment.
#[tokio::test]
#[ignore = "run by credentials_come_from_docker_s_files_and_helpers"]
async fn child_pulls() {
    let Ok(name) = std::env::var("TEST_PULL") else {
        return;
    };
    let store = TestStore::new();
    match store.store.pull(&name.parse().unwrap(), &|_| {}).await {
        Ok(_) => println!("child: ok"),
        Err(error) => println!("child: {error:?}"),
    }
}

/// A registry that wants a bearer token, which its own path /token gives out.
fn with_token(accept: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Server {
    let image = image();
    Server::start(move |request| {
        let host = &request.headers["host"];
        if request.path.starts_with("/token") {
            return if accept(request) {
                Answer::new(200, r#"{"access_token":"t0ken","expires_in":60}"#)
            } else {
                Answer::new(401, r#"{"details":"incorrect username or password"}"#)
            };
        }
        if request.headers.get("authorization").map(String::as_str) == Some("Bearer t0ken") {
            return content(&image, request);
        }
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:a/b:pull\"");
        Answer::new(
            401,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        )
        .header("WWW-Authenticate", &challenge)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_fetched_once() {
    let anonymous = with_token(|request| !request.headers.contains_key("authorization"));
    let store = TestStore::new();
    pull(&store.store, &format!("{}/a/b:1", anonymous.host()))
        .await
        .unwrap();
    assert_eq!(
        anonymous.count("/token?service=test&scope=repository%3Aa%2Fb%3Apull"),
        1
    );

    let basic = format!("Basic {}", STANDARD.encode("someone:secret word"));
    let server = with_token(move |request| request.headers.get("authorization") == Some(&basic));
    let name = format!("{}/a/b:1", server.host());
    pull_with(&TestStore::new().store, &name, someone())
        .await
        .unwrap();
    let error = fails(&name, Credentials::Anonymous).await;
    assert!(
        matches!(error, ImageError::Unauthorized(_)) && error.to_string().contains("incorrect username"),
        "{error}"
    );

    let server = with_token(|request| {
        request.method == "POST"
            && String::from_utf8_lossy(&request.body).contains("refresh_token=id%2Ftoken")
    });
    let name = format!("{}/a/b:1", server.host());
    pull_with(
        &TestStore::new().store,
        &name,
        Credentials::IdentityToken("id/token".to_owned()),
    )
    .await
    .unwrap();
    pull_with(
        &TestStore::new().store,
        &name,
        Credentials::RegistryToken("t0ken".to_owned()),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_go_where_they_belong_only() {
    // A token server that is not reached over TLS.
    let server = Server::start(|_| {
        Answer::new(401, "").header("WWW-Authenticate", "Bearer realm=\"http://10.0.0.1:9/token\"")
    });
    let error = fails(&format!("{}/a:1", server.host()), someone()).await;
    assert!(error.to_string().contains("not reached over HTTPS"), "{error}");
    // A redirect to another host is followed without them.
    let image = image();
    let storage = Server::registry(&image, |_| None);
    let elsewhere = storage.host();
    let first = Server::registry(&image, move |request| {
        if !request.headers.contains_key("authorization") {
            return Some(Answer::new(401, "").header("WWW-Authenticate", "Basic realm=x"));
        }
        let to = format!("http://{elsewhere}{}", request.path);
        request
            .path
            .contains("/blobs/")
            .then(|| Answer::new(307, "").header("Location", &to))
    });
    pull_with(
        &TestStore::new().store,
        &format!("{}/a:1", first.host()),
        someone(),
    )
    .await
    .unwrap();
    let seen = storage.requests.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_end() {
    let server = Server::start(|request| Answer::new(302, "").header("Location", &request.path));
    let error = fails(&format!("{}/a:1", server.host()), Credentials::Anonymous).await;
    assert!(error.to_string().contains("redirects more than"), "{error}");
    for to in ["http://10.0.0.1/x", "file:///etc/passwd", "//evil/x", ""] {
        let server = Server::start(move |_| Answer::new(302, "").header("Location", to));
        let error = fails(&format!("{}/a:1", server.host()), Credentials::Anonymous).await;
        assert!(matches!(error, ImageError::Registry(_)), "{to}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passing_trouble_is_ridden_out() {
    let tries = AtomicUsize::new(0);
    let image = image();
    let server = Server::registry(&image, move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Some(Answer::new(503, "")),
        1 => Some(Answer::new(429, "").header("Retry-After", "0")),
        _ => None,
    });
    pull(&TestStore::new().store, &format!("{}/a:1", server.host()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_downloads_go_on_where_they_broke() {
    for honours_ranges in [true, false] {
        let image = image();
        let (layer, parts) = (image.layers[0].clone(), image.clone());
        let total = image.blob(&layer).len();
        let tries = AtomicUsize::new(0);
        let server = Server::registry(&image, move |request| {
            let cut = |answer: Answer| {
                let cut = answer.body.len().min(90_000);
                let whole = answer.body.len() == cut;
                Some(Answer {
                    cut: (!whole).then_some(cut),
                    ..answer
                })
            };
            match request.path.contains(&layer) {
                true if honours_ranges => cut(content(&parts, request)),
                true if tries.fetch_add(1, Ordering::SeqCst) == 0 => cut(content(&parts, request)),
                true => Some(Answer::new(200, parts.blob(&layer))),
                false => None,
            }
        });
        assert!(total > 100_000, "{total}");
        pull(&TestStore::new().store, &format!("{}/a:1", server.host()))
            .await
            .unwrap();
        let seen = server.requests.lock().unwrap();
        let ranges: Vec<&String> = seen
            .iter()
            .filter_map(|request| request.headers.get("range"))
            .collect();
        assert_eq!(ranges[0], "bytes=90000-", "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_is_checked() {
    let image = image();
    let corrupted = |digest: String, change: fn(&mut Vec<u8>)| {
        let parts = image.clone();
        Server::registry(&image, move |request| {
            request.path.ends_with(&digest).then(|| {
                let mut answer = content(&parts, request);
                change(&mut answer.body);
                answer
            })
        })
    };
    let flip: fn(&mut Vec<u8>) = |body| {
        let middle = body.len() / 2;
        body[middle] ^= 0x10;
    };
    for digest in [&image.layers[0], &image.layers[1], &image.config] {
        let server = corrupted(digest.clone(), flip);
        let error = fails(&format!("{}/a:1", server.host()), Credentials::Anonymous).await;
        assert!(matches!(error, ImageError::Corrupt(_)), "{error:?}");
        let server = corrupted(digest.clone(), |body| body.extend([0; 1000]));
        let error = fails(&format!("{}/a:1", server.host()), Credentials::Anonymous).await;
        assert!(
            matches!(error, ImageError::Corrupt(_) | ImageError::Registry(_)),
            "{error:?}"
        );
    }
    let server = corrupted(image.manifest.clone(), flip);
    let error = fails(
        &format!("{}/a@{}", server.host(), image.manifest),
        Credentials::Anonymous,
    )
    .await;
    assert!(matches!(error, ImageError::Corrupt(_)), "{error:?}");
    let server = Server::registry(&image, |request| {
        request
            .path
            .ends_with("/1")
            .then(|| Answer::new(200, vec![b' '; 5 << 20]))
    });
    let error = fails(&format!("{}/a:1", server.host()), Credentials::Anonymous).await;
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_not_there_is_told_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = fails(&format!("127.0.0.1:{port}/a:1"), Credentials::Anonymous).await;
    assert!(error.to_string().contains("nothing listens"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_download_serves_all() {
    let image = image();
    let server = Server::registry(&image, |_| None);
    let store = TestStore::new();
    // Another process's store, as far as locks go: it has descriptors of its own.
    let other = Store::open(&store.root()).unwrap();
    let (one, two) = (format!("{}/a:1", server.host()), format!("{}/b:1", server.host()));
    let results = tokio::join!(
        pull(&store.store, &one),
        pull(&store.store, &one),
        pull(&other, &one),
        pull(&other, &two),
        pull(&store.store, &two)
    );
    let ids = [results.0, results.1, results.2, results.3, results.4].map(|image| image.unwrap().id);
    assert!(ids.iter().all(|id| *id == image.config));
    for layer in &image.layers {
        assert_eq!(server.count(layer), 1, "{layer}");
    }
    let requests = server.requests.lock().unwrap().len();
    pull(&store.store, &one).await.unwrap();
    assert_eq!(
        server.requests.lock().unwrap().len(),
        requests + 2,
        "a second pull asks for manifest and configuration"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_whose_registry_hangs_comes_from_another_that_has_it() {
    let image = image();
    let (asked, first_asked) = std::sync::mpsc::channel();
    let layers = image.layers.clone();
    let hanging = Server::registry(&image, move |request| {
        if layers.iter().any(|layer| request.path.ends_with(layer.as_str())) {
            asked.send(()).unwrap();
            std::thread::sleep(Duration::from_secs(1000));
        }
        None
    });
    let good = Server::registry(&image, |_| None);
    let store = TestStore::new();
    let (hangs, first) = (format!("{}/a:1", hanging.host()), store.store.clone());
    let first = tokio::spawn(async move { pull(&first, &hangs).await });
    tokio::task::spawn_blocking(move || first_asked.recv_timeout(Duration::from_secs(20)).unwrap())
        .await
        .unwrap();
    // The shared layers are the first one's to get, as it seems.
    let name = format!("{}/a:1", good.host());
    for _ in 0..2 {
        let pulled = tokio::time::timeout(Duration::from_secs(60), pull(&store.store, &name)).await;
        assert_eq!(pulled.unwrap().unwrap().id, image.config);
    }
    first.abort();
    let _ = first.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_pull_leaves_nothing() {
    let image = image();
    let (layer, parts) = (image.layers[0].clone(), image.clone());
    let server = Server::registry(&image, move |request| {
        if !request.path.contains(&layer) {
            return None;
        }
        // Most of the layer, then silence.
        let answer = content(&parts, request);
        let length = answer.body.len().to_string();
        std::thread::sleep(std::time::Duration::from_millis(if length.is_empty() {
            1
        } else {
            300
        }));
        Some(Answer {
            cut: Some(10),
            ..answer
        })
    });
    let store = TestStore::new();
    let name = format!("{}/a:1", server.host());
    let started = tokio::sync::Notify::new();
    let reference = name.parse().unwrap();
    let report = |at: PullProgress| {
        if at.state == LayerState::Fetching && at.total > 1000 {
            started.notify_one();
        }
    };
    tokio::select! {
        outcome = store.store.pull_with(&reference, Credentials::Anonymous, &report) => panic!("{outcome:?}"),
        () = started.notified() => {}
    }
    // The unpackers notice, and the last of them cleans up.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while fs::read_dir(store.root().join("ingest"))
        .unwrap()
        .next()
        .is_some()
    {
        assert!(
            std::time::Instant::now() < deadline,
            "the pull is still under way"
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(store.store.list().unwrap().is_empty());
}

#[test]
fn many_pulls_of_the_same_layers_do_not_wait_for_each_other_in_a_circle() {
    let layers = (0..8)
        .map(|i| Tar::new().file(&format!("f{i}"), "x").bytes())
        .collect();
    let image = TestImage::gzipped(layers);
    let server = Server::registry(&image, |_| None);
    // Fewer threads than layers that are waited for.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(12)
        .enable_all()
        .build()
        .unwrap();
    let store = TestStore::new();
    runtime.block_on(async {
        let names: Vec<String> = (0..8).map(|i| format!("{}/r{i}:1", server.host())).collect();
        let pulls = names.iter().map(|name| pull(&store.store, name));
        for image in futures_util::future::join_all(pulls).await {
            image.unwrap();
        }
    });
    for layer in &image.layers {
        assert_eq!(server.count(layer), 1);
    }
}
