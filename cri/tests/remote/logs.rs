//! Following a log while it is written and rotated.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use berth_cri::{ContainerState, EngineEventKind};

use crate::bench::{Place, container, on_both_engines, until};

/// Reads a log as a follower does: what has come, by the counter's word only, across rotations. A runtime may go on writing
/// what it had in hand to a file that was rotated away when the new one is there, so no file is ever left.
#[derive(Default)]
struct Tail {
    files: Vec<(File, String)>,
}

impl Tail {
    fn read(&mut self, path: &Path) {
        if let Ok(live) = File::open(path) {
            let inode = |file: &File| file.metadata().unwrap().ino();
            if self
                .files
                .last()
                .is_none_or(|(file, _)| inode(file) != inode(&live))
            {
                self.files.push((live, String::new()));
            }
        }
        for (file, text) in &mut self.files {
            file.read_to_string(text).unwrap();
        }
    }

    fn text(&self) -> String {
        self.files.iter().map(|(_, text)| text.as_str()).collect()
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
    let mut tail = Tail::default();
    let mut rotated = false;
    loop {
        counter.borrow_and_update();
        tail.read(&path);
        if !rotated && tail.text().contains("line 100") {
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
    let text = tail.text();
    let found: Vec<_> = text.lines().filter(|line| line.contains(" F line ")).collect();
    assert_eq!(found.len(), 400, "{text}");
    assert!(text.contains("the end"), "{text}");
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
