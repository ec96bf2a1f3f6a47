//! Workers against an engine in memory, on a clock that jumps.

mod changes;
mod daemon;
mod faults;
mod gates;
mod life;
mod pauses;
mod post_start;
mod preemption;
mod probes;
mod random;
mod resize;
mod told;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::fake::{Answer, Behaviour, FakeCgroups, FakeEngine, Fault};
use super::*;
use crate::identity::PodUid;
use crate::plan::{Desired, Objects};
use crate::pulls::Pulls;

struct Bench {
    root: tempfile::TempDir,
    engine: FakeEngine,
    cgroups: Arc<FakeCgroups>,
    node: Arc<Node>,
    router: EventRouter,
}

impl Bench {
    fn new() -> Self {
        let begun = Instant::now();
        let clock = Clock::new(move || {
            1_700_000_000_000_000_000 + u64::try_from(begun.elapsed().as_nanos()).unwrap()
        });
        let root = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new(clock.clone());
        engine.add_image("i");
        let cgroups = Arc::new(FakeCgroups::default());
        let node = Arc::new(Node {
            runtime_endpoint: None,
            engine: Arc::new(engine.clone()),
            kubelet_root: root.path().join("kubelet"),
            facts: Arc::new(NodeFacts {
                log_root: root.path().join("logs"),
                ..NodeFacts::default()
            }),
            cgroups: Arc::clone(&cgroups) as Arc<dyn PodCgroups>,
            clock,
            pulls: Pulls::default(),
            workers: Workers::default(),
        });
        let router = EventRouter::start(&engine);
        Bench {
            root,
            engine,
            cgroups,
            node,
            router,
        }
    }

    fn spawn(&self, spec: &str) -> Running {
        self.take_on(crate::testing::pod(spec))
    }

    /// A pod of this name; the others are all `p`.
    fn spawn_as(&self, name: &str, spec: &str) -> Running {
        let mut pod = crate::testing::pod(spec);
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(name.to_owned());
        self.take_on(pod)
    }

    fn take_on(&self, pod: Pod) -> Running {
        let mut pod = self.take_on_with_reader(pod);
        pod.handle.release_logs();
        pod
    }

    /// Somebody reads the pod's logs.
    fn take_on_with_reader(&self, pod: Pod) -> Running {
        let uid = PodUid(pod.metadata.uid.clone().unwrap());
        let desired = Desired {
            pod: Arc::new(pod),
            uid: uid.clone(),
            objects: Arc::new(Objects::default()),
            node: Arc::clone(&self.node.facts),
            user_ids: None,
            deletion: None,
        };
        let (sender, events) = mpsc::unbounded_channel();
        let engine_events = self.router.subscribe(&uid);
        let handle = spawn(Arc::clone(&self.node), desired, engine_events, sender).unwrap();
        Running { handle, events }
    }

    /// Ends the last pod.
    async fn end(&self, pod: Running) {
        pod.handle.delete(None);
        pod.gone().await;
        self.assert_clean();
    }

    /// Nothing of any pod may be left.
    fn assert_clean(&self) {
        assert!(self.engine.is_empty(), "{:?}", self.engine.calls());
        assert!(self.cgroups.is_empty());
        let kubelet = self.root.path().join("kubelet");
        assert!(!kubelet.join("pod-records").exists());
        let left = std::fs::read_dir(kubelet.join("pods"))
            .map(Iterator::count)
            .unwrap_or(0);
        assert_eq!(left, 0);
        let logs = std::fs::read_dir(self.root.path().join("logs"))
            .map(Iterator::count)
            .unwrap_or(0);
        assert_eq!(logs, 0);
    }

    async fn until(&self, what: &str, condition: impl Fn(&FakeEngine) -> bool) {
        let wait = async {
            while !condition(&self.engine) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(3600), wait).await.is_err() {
            panic!("never {what}: {:?}", self.engine.calls());
        }
    }
}

struct Running {
    handle: PodHandle,
    events: mpsc::UnboundedReceiver<PodEvent>,
}

impl Running {
    async fn event(&mut self, reason: EventReason, container: &str) -> PodEvent {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the worker is gone");
                if event.reason == reason && event.container.as_deref().unwrap_or_default() == container {
                    return event;
                }
            }
        };
        match timeout(Duration::from_secs(3600), wait).await {
            Ok(event) => event,
            Err(_) => panic!("never {reason:?} {container}"),
        }
    }

    /// What was told until now, as `Reason container`.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            told.push(format!(
                "{:?} {}",
                event.reason,
                event.container.unwrap_or_default()
            ));
        }
        told
    }

    /// How often this was told until now.
    fn count(&mut self, what: &str) -> usize {
        self.told().iter().filter(|told| *told == what).count()
    }

    async fn gone(mut self) -> PodState {
        timeout(Duration::from_secs(3600), self.handle.gone())
            .await
            .expect("the pod never went")
    }
}

fn exits(after_seconds: u64, code: i32) -> Behaviour {
    Behaviour {
        exits: Some((Duration::from_secs(after_seconds), code)),
        ..Behaviour::default()
    }
}

const WITH_SIDECARS: &str = r#"{"initContainers":[
    {"name":"first","image":"i"},
    {"name":"side1","image":"i","restartPolicy":"Always","startupProbe":{"exec":{"command":["up"]},"periodSeconds":1,"failureThreshold":1000}},
    {"name":"second","image":"i"},
    {"name":"side2","image":"i","restartPolicy":"Always"}],
  "containers":[{"name":"main","image":"i"},{"name":"other","image":"i"}]}"#;
