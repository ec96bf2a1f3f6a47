//! How a daemon takes up the pods that an earlier one had.

use std::io;
use std::sync::Arc;

use super::daemon::Supervisor;
use super::detached::Found;
use super::lock::{LockError, PodLock};
use super::run::ending;
use crate::identity::PodUid;
use crate::spec;
use crate::worker::Records;

impl Supervisor {
    /// Takes up what an earlier daemon had.
    pub(super) fn take_up(self: &Arc<Self>) -> io::Result<()> {
        let (found, damaged) = self.detached.list()?;
        damaged.iter().for_each(|sentence| self.say(sentence));
        for one in found {
            let Some((namespace, name)) = one.full_name() else {
                continue;
            };
            match PodLock::take(&self.node.kubelet_root, &namespace, &name) {
                Ok(lock) => self.take_one(&one.uid, lock),
                Err(LockError::Taken { .. }) => {
                    self.count.send_modify(|count| *count += 1);
                    tokio::spawn(Arc::clone(self).take_later(one.uid, namespace, name));
                }
                Err(error) => self.say(&format!("{namespace}/{name}: {error}")),
            }
        }
        Ok(())
    }

    /// Takes up one pod that an earlier daemon had, now that its lock is ours. What is known of it is read only here: who had
    /// the lock before may have ended the pod, and it must not come back.
    fn take_one(self: &Arc<Self>, uid: &PodUid, lock: PodLock) {
        if let Err(error) = self.try_take_one(uid, lock) {
            self.say(&format!("pod {uid} can't be taken up: {error}"));
        }
    }

    fn try_take_one(self: &Arc<Self>, uid: &PodUid, lock: PodLock) -> Result<(), String> {
        let unread = |error: io::Error| error.to_string();
        let Some(Found {
            workload,
            ending: ends,
            ..
        }) = self.detached.find(uid).map_err(unread)?
        else {
            return Ok(());
        };
        let record = Records::new(&self.node.kubelet_root).load(uid).map_err(unread)?;
        let (pods, objects) = workload.into_parts();
        let desired = match record {
            Some(record) if ends => ending(&self.node, record, None),
            Some(record) => self.desired(record.pod, Arc::new(objects)),
            None if ends => {
                // Nothing was left of it when the last daemon ended.
                self.detached.remove(uid);
                return Ok(());
            }
            None => match pods.into_iter().next() {
                Some(pod) => self.desired(pod, Arc::new(objects)),
                None => return Ok(()),
            },
        };
        self.supervise(desired, lock).map_err(|error| error.to_string())
    }

    /// Takes up a pod as soon as the process that has it is done with it: a command that looks into it, a daemon that is
    /// being killed. Nobody else would.
    async fn take_later(self: Arc<Self>, uid: PodUid, namespace: String, name: String) {
        self.say(&format!(
            "another process has pod {namespace}/{name}; it is taken over when that ends"
        ));
        match PodLock::wait(&self.node.kubelet_root, &namespace, &name).await {
            Ok(lock) => {
                let _taking = self.taking.lock().await;
                self.take_one(&uid, lock);
            }
            Err(error) => self.say(&format!("{namespace}/{name}: {error}")),
        }
        self.count.send_modify(|count| *count -= 1);
    }
}

impl Found {
    /// The namespace and the name of the pod.
    fn full_name(&self) -> Option<(String, String)> {
        let pod = self.workload.pods.first()?;
        Some((spec::namespace(pod).to_owned(), spec::name(pod).to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use k8s_openapi::api::core::v1::Pod;
    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;
    use crate::plan::Objects;
    use crate::standalone::control::SentWorkload;
    use crate::standalone::detached::{Detached, has};
    use crate::standalone::run::{Host, node, stop};
    use crate::testing;
    use crate::worker::fake::FakeEngine;
    use crate::worker::{Clock, EventRouter, PodRecord};

    fn host(engine: &FakeEngine, root: &Path) -> Host {
        Host {
            engine: Arc::new(engine.clone()),
            runtime_endpoint: None,
            kubelet_root: root.join("kubelet"),
            log_root: root.join("logs"),
            run_root: root.join("run"),
            cgroup_root: "tests".into(),
            restart_backoff: Default::default(),
            allowed_sysctls: Default::default(),
            extended_resources: Default::default(),
            node_labels: Default::default(),
            max_pods: None,
            without_cgroups: true,
            lacking: Default::default(),
        }
    }

    /// A pod that was handed to a daemon which is dead.
    fn left(root: &Path) -> Pod {
        let pod = testing::pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        let record = PodRecord::new(pod.clone(), Clock::system().now(), "tests".into());
        let workload = SentWorkload::new(vec![pod.clone()], &Objects::default());
        Detached::new(root).save(&record.uid(), &workload).unwrap();
        Records::new(root).save(&record).unwrap();
        pod
    }

    /// Who ends a pod that the daemon had, as nobody runs it, ends it for good.
    #[tokio::test]
    async fn a_pod_that_somebody_ends_does_not_come_back_with_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(&FakeEngine::new(Clock::system()), dir.path());
        let root = host.kubelet_root.clone();
        let pod = left(&root);
        let uid = PodUid(pod.metadata.uid.clone().unwrap());
        assert!(has(&root, &uid));
        let ended = stop(host, spec::name(&pod), Some(Duration::ZERO));
        timeout(Duration::from_secs(60), ended).await.unwrap().unwrap();
        assert!(!has(&root, &uid));
    }

    /// A daemon that begins while another process ends one of its pods waits for that, and leaves the pod at its end.
    #[tokio::test]
    async fn a_pod_that_another_process_ends_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new(Clock::system());
        let host = host(&engine, dir.path());
        let root = host.kubelet_root.clone();
        let pod = left(&root);
        let uid = PodUid(pod.metadata.uid.clone().unwrap());
        let held = PodLock::take(&root, spec::namespace(&pod), spec::name(&pod)).unwrap();
        let (count, mut counted) = watch::channel(0);
        let router = EventRouter::start(&engine);
        let supervisor = Arc::new(Supervisor::new(Arc::new(node(host).await), router, count, |_| {}));
        supervisor.take_up().unwrap();
        assert_eq!(*counted.borrow(), 1);
        Records::new(&root).remove(&uid).unwrap();
        supervisor.detached.remove(&uid);
        drop(held);
        let none = counted.wait_for(|count| *count == 0);
        timeout(Duration::from_secs(60), none).await.unwrap().unwrap();
        assert!(engine.calls().is_empty(), "{:?}", engine.calls());
        assert!(!root.join("pod-records").exists());
        assert!(!root.join("pod-locks").exists());
    }
}
