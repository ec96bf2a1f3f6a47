//! Floods of output, under both ways of rotating logs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_cri::v1;
use berth_tests::Node;

use crate::daemon::{Client, Daemon, PATIENCE, container};

/// Lines of each container: written as fast as it goes, which is more than 10,000 a second.
const LINES: usize = 60_000;
/// Containers at once.
const WRITERS: usize = 3;

/// What a log says: the contents of its whole lines, put together of their pieces, file after file.
fn lines(files: &[PathBuf]) -> Vec<String> {
    let (mut lines, mut pieces, mut last) = (Vec::new(), String::new(), String::new());
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.split_inclusive('\n') {
            assert!(line.ends_with('\n'), "{}: half a line", file.display());
            let mut words = line.trim_end_matches('\n').splitn(4, ' ');
            let (time, stream) = (words.next().unwrap(), words.next().unwrap());
            let (tag, content) = (words.next().unwrap(), words.next().unwrap());
            assert!(time >= &*last, "{}: time goes back", file.display());
            last = time.to_owned();
            assert_eq!(stream, "stdout", "{line}");
            pieces.push_str(content);
            match tag {
                "F" => lines.push(std::mem::take(&mut pieces)),
                tag => assert_eq!(tag, "P"),
            }
        }
    }
    assert_eq!(pieces, "");
    lines
}

fn assert_whole(found: &[String], length: usize) {
    for (number, line) in found.iter().enumerate() {
        assert!(
            line.starts_with(&format!("{number:08} ")),
            "{line:.30} is not the {number}th line"
        );
        assert_eq!(line.len(), length, "line {number}");
    }
}

/// The files of a log, the oldest first: their names sort by age.
fn files(log: &Path) -> Vec<PathBuf> {
    let name = log.file_name().unwrap().to_string_lossy().into_owned();
    let all = std::fs::read_dir(log.parent().unwrap()).unwrap().flatten();
    let mut old: Vec<_> = all
        .map(|entry| entry.path())
        .filter(|path| path != log && path.file_name().unwrap().to_string_lossy().starts_with(&name))
        .collect();
    old.sort();
    old.push(log.to_owned());
    old
}

async fn writers(client: &mut Client, sandbox: &str, pod: &v1::PodSandboxConfig) -> Vec<(String, PathBuf)> {
    let (number, long) = (LINES.to_string(), (LINES / 300).to_string());
    let mut made = Vec::new();
    for writer in 0..WRITERS {
        // One of them writes lines that are longer than a line of the log.
        let arguments = match writer {
            0 => ["lines", &*long, "40000"],
            _ => ["lines", &*number, "100"],
        };
        let id = client
            .started(sandbox, pod, container(&format!("c{writer}"), &arguments))
            .await;
        let log = client.status(&id).await.unwrap().log_path;
        made.push((id, PathBuf::from(log)));
    }
    made
}

fn assert_all_whole(writers: &[(String, PathBuf)]) {
    for (number, (_, log)) in writers.iter().enumerate() {
        let (count, length) = if number == 0 {
            (LINES / 300, 40_000)
        } else {
            (LINES, 100)
        };
        let found = lines(&files(log));
        assert_eq!(found.len(), count, "{}", log.display());
        assert_whole(&found, length);
    }
}

#[test]
fn a_flood_is_whole_while_a_kubelet_rotates() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("flood");
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let writers = writers(&mut client, &sandbox, &pod).await;
        let (deadline, mut rotations) = (Instant::now() + PATIENCE, 0);
        loop {
            let mut over = true;
            for (id, log) in &writers {
                // It ends at any moment.
                let running =
                    client.status(id).await.unwrap().state() == v1::ContainerState::ContainerRunning;
                if running {
                    over = false;
                    let aside = format!("{}.{rotations:08}", log.display());
                    std::fs::rename(log, aside).unwrap();
                    let reopen = v1::ReopenContainerLogRequest {
                        container_id: id.clone(),
                    };
                    if client.runtime.reopen_container_log(reopen).await.is_err() {
                        let state = client.status(id).await.unwrap().state();
                        assert_eq!(state, v1::ContainerState::ContainerExited);
                        // As a kubelet does: there is always a file.
                        std::fs::write(log, "").unwrap();
                    }
                    rotations += 1;
                }
            }
            if over {
                break;
            }
            assert!(Instant::now() < deadline, "they do not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("{rotations} rotations");
        assert!(rotations > WRITERS);
        assert_all_whole(&writers);
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_flood_is_whole_under_a_limit_of_our_own() {
    let config = "[container_log]\nmax_size = 262144\nmax_files = 100000\n";
    let mut daemon = Daemon::start_on(Node::new(), config);
    let pod = daemon.sandbox("flood");
    let (sandbox, writers) = daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let writers = writers(&mut client, &sandbox, &pod).await;
        (sandbox, writers)
    });
    // Nobody's log waits for the daemon.
    daemon.restart();
    daemon.with(async |mut client| {
        let deadline = Instant::now() + PATIENCE;
        for (id, _) in &writers {
            while client.status(id).await.unwrap().state() == v1::ContainerState::ContainerRunning {
                assert!(Instant::now() < deadline, "{id} does not end");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_all_whole(&writers);
        for (_, log) in &writers {
            let all = files(log);
            assert!(all.len() > 10, "{all:?}");
            assert!(all.iter().all(|file| file.metadata().unwrap().len() <= 262_144));
        }
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}
