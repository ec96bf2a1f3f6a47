//! Following a log while it is written and rotated.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_cri::{ContainerState, EngineEventKind};

use crate::bench::{Place, container, on_both_engines, until};

/// Reads a log as a follower does: what has come, by the counter's word only, across rotations.
struct Tail {
    file: Option<File>,
    text: String,
}

impl Tail {
    fn read(&mut self, path: &Path) {
        loop {
            if self.file.is_none() {
                self.file = File::open(path).ok();
            }
            let Some(file) = &mut self.file else { return };
            file.read_to_string(&mut self.text).unwrap();
            let here = file.metadata().unwrap().ino();
            let there = path.metadata().map(|metadata| metadata.ino());
            if there.is_ok_and(|there| there != here) {
                // Rotated; the rest of the old one has been read after the new one was there.
                file.read_to_string(&mut self.text).unwrap();
                self.file = None;
                continue;
            }
            let _ = file.stream_position().unwrap();
            return;
        }
    }
}

pub(crate) async fn every_line_is_announced_across_rotations(place: Place<'_>) {
    let engine = &place.engine;
    let mut events = engine.events();
    let sandbox = place.sandbox("log").await;
    let script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; sleep 0.3; echo -n the end";
    let id = engine
        .create_container(&sandbox, container("main", &["sh", "-c", script]))
        .await
        .unwrap();
    let mut counter = engine.watch_log(&id).await.unwrap();
    engine.start_container(&id).await.unwrap();
    let path = engine.container_status(&id).await.unwrap().log_path;
    let mut tail = Tail {
        file: None,
        text: String::new(),
    };
    let mut rotated = false;
    loop {
        counter.borrow_and_update();
        tail.read(&path);
        if !rotated && tail.text.contains("line 100") {
            rotated = true;
            std::fs::rename(&path, path.with_extension("log.1")).unwrap();
            // It may have ended already; then there is nothing to open.
            let _ = engine.reopen_container_log(&id).await;
        }
        if counter.changed().await.is_err() {
            break;
        }
    }
    tail.read(&path);
    let found: Vec<_> = tail
        .text
        .lines()
        .filter(|line| line.contains(" F line "))
        .collect();
    assert_eq!(found.len(), 400, "{}", tail.text);
    assert!(tail.text.contains("the end"), "{}", tail.text);
    until(&mut events, &EngineEventKind::ContainerExited(id.clone())).await;
    assert_eq!(
        engine.container_status(&id).await.unwrap().state,
        ContainerState::Exited
    );
    let complete = engine.watch_log(&id).await.unwrap();
    assert!(
        complete.has_changed().is_err(),
        "the log of an ended container is complete"
    );
}

on_both_engines!(every_line_is_announced_across_rotations);
