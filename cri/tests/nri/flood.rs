//! Plugins that send without pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use berth_cri::Engine;

use super::bench::{Bench, PATIENCE, idle};
use super::plugin::{Answer, Calls, Plugin, PluginConfig, request};
use crate::node::started;

/// What is sent with each call, and means nothing.
const PAYLOAD: usize = 4096;
/// As many calls as a flood has at least.
const MANY: usize = 30_000;
/// KiB that the process, which is also the plugin, may need more for pods and for what the plugin remembers. What is sent
/// is some 120 MiB.
const GROWTH: usize = 48 << 10;

/// KiB of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Calls of a plugin that asks on and on, until it is told that it is enough or its socket is closed.
struct Flood {
    asked: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<bool>,
}

impl Flood {
    fn of(calls: Calls) -> Self {
        let (asked, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (asked, enough) = (Arc::clone(&asked), Arc::clone(&enough));
            // Field 15, a string of this length: no message has it, and it is skipped.
            let mut payload = vec![0x7a, 0x80, 0x20];
            payload.resize(payload.len() + PAYLOAD, b'x');
            move || {
                let mut stream = 1;
                while !enough.load(Ordering::Relaxed) {
                    stream += 2;
                    if !calls.send(&request("UpdateContainers", &payload, stream)) {
                        return false;
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                true
            }
        });
        Self {
            asked,
            enough,
            thread,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether its socket was open to the end.
    fn was_open(self) -> bool {
        self.thread.join().unwrap()
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it takes too long");
}

#[test]
fn who_asks_without_pause_is_answered_each_time_and_pods_go_on() {
    let bench = Bench::new();
    let calls = bench.plugin(PluginConfig::new("00", "flood"));
    let pods = ["a", "b", "c"].map(|uid| bench.pod(uid));
    let before = resident();
    let flood = Flood::of(calls.clone());
    bench.run(async |engine| {
        for pod in pods {
            let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
            started(engine, &sandbox, idle("main")).await;
            engine.remove_pod_sandbox(&sandbox).await.unwrap();
        }
        until(|| flood.asked() >= MANY).await;
        flood.enough.store(true, Ordering::Relaxed);
        until(|| flood.thread.is_finished()).await;
        // Served or refused for there being too many, but none is lost.
        until(|| calls.answered() >= flood.asked()).await;
        assert_eq!(calls.answered(), flood.asked());
    });
    assert!(flood.was_open(), "a plugin that reads its answers is not closed");
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB more");
    assert_eq!(
        calls
            .methods()
            .iter()
            .filter(|method| *method == "RemoveContainer")
            .count(),
        3,
        "it was told of everything meanwhile"
    );
    bench.finish();
}

#[test]
fn who_asks_without_pause_and_reads_no_answer_is_closed() {
    let bench = Bench::new();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let deaf = PluginConfig::answering("00", "deaf", move |method, _| {
        if method == "RunPodSandbox" {
            // The thread that reads the plugin's socket hangs here.
            let _ = held.recv();
        }
        Answer::empty()
    });
    let calls = bench.plugin(deaf);
    let flood = Flood::of(calls.clone());
    let pod = bench.pod("deaf");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        until(|| flood.thread.is_finished()).await;
    });
    assert!(!flood.was_open(), "its socket is closed");
    drop(release);
    bench.finish();
}

#[test]
fn who_asks_without_pause_before_it_registers_is_closed() {
    let bench = Bench::with(berth_cri::nri::Timeouts {
        registration: Duration::from_millis(500),
        request: PATIENCE,
    });
    // Its index is none, so that it never is a plugin.
    let calls = Plugin::connect(&bench.socket(), PluginConfig::new("x", "nobody")).calls();
    let flood = Flood::of(calls);
    let pod = bench.pod("early");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        until(|| flood.thread.is_finished()).await;
    });
    assert!(!flood.was_open());
    bench.finish();
}
