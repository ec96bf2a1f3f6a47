//! kill -9 in the middle of a pull, at many instants: what was acknowledged is there, and nothing else stays.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_images::{Credentials, Store, StoreOptions};
use support::server::Server;
use support::{Tar, TestImage, leftovers};

fn image(seed: u64) -> TestImage {
    let layer = |n: u64| {
        (0..40).fold(Tar::new(), |tar, i| {
            let noise: String = (0..2000u64)
                .map(|j| char::from(b'a' + ((i + j * j * 31 + n + seed) % 26) as u8))
                .collect();
            tar.file(&format!("d{n}/f{seed}-{i}"), &noise)
        })
    };
    TestImage::gzipped((0..4).map(|n| layer(n).bytes()).collect())
}

fn child(root: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_pulls", "--ignored", "--nocapture"])
        .env("TEST_ROOT", root)
        .env("TEST_PULL", name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests here"]
async fn child_pulls() {
    let (Ok(root), Ok(name)) = (std::env::var("TEST_ROOT"), std::env::var("TEST_PULL")) else {
        return;
    };
    let store = Store::open(Path::new(&root)).unwrap();
    println!("child: begin");
    store
        .pull_with(&name.parse().unwrap(), Credentials::Anonymous, &|_| {})
        .await
        .unwrap();
    println!("child: done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_pulls_lose_and_leak_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("images");
    let mut acknowledged = Vec::new();
    for round in 0..12u64 {
        let image = image(round);
        let server = Server::registry(&image, |_| None);
        let name = format!("{}/r{round}:1", server.host());
        let mut child = child(&root, &name);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test harness prints before the child does.
        while !lines.next().unwrap().unwrap().contains("child: begin") {}
        // Later and later: from the first request to after the end.
        std::thread::sleep(Duration::from_millis(round * 9));
        let _ = child.kill();
        child.wait().unwrap();
        if lines
            .map_while(Result::ok)
            .any(|line| line.contains("child: done"))
        {
            acknowledged.push(name.clone());
        }
        let store = Store::open(&root).unwrap();
        assert_eq!(
            fs::read_dir(root.join("ingest")).unwrap().count(),
            0,
            "round {round}: not swept"
        );
        for name in &acknowledged {
            let image = store.find(name).unwrap().expect("an acknowledged image is gone");
            assert_eq!(store.lower_dirs(&image).unwrap().len(), 4);
        }
        // Trying again works, from whatever was there.
        let pulled = store
            .pull_with(&name.parse().unwrap(), Credentials::Anonymous, &|_| {})
            .await
            .unwrap();
        for directory in store.lower_dirs(&pulled).unwrap() {
            let inner = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
            assert_eq!(fs::read_dir(inner).unwrap().count(), 40);
        }
        acknowledged.push(name);
    }
    let none = StoreOptions {
        grace: Duration::ZERO,
        ..StoreOptions::default()
    };
    let store = Store::open_with(&root, none).unwrap();
    for image in store.list().unwrap() {
        store.remove(&image.id, false).unwrap();
    }
    assert!(leftovers(&root).is_empty(), "{:?}", leftovers(&root));
}
