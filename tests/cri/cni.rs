//! Network plugins that never come back.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use berth_cri::v1;
use berth_tests::{Node, eventually};
use nix::sys::signal::{SigSet, Signal};

use crate::daemon::{Client, Daemon, PATIENCE};

/// A node whose network plugin hangs for the pods whose names begin with "stuck", for the verbs whose files are there. It writes down its
/// processes.
struct Network(PathBuf);

impl Network {
    fn start() -> (Self, Daemon) {
        let node = Node::new();
        let scratch = node.scratch().to_owned();
        let conf = node.root().join("etc/cni/net.d");
        std::fs::create_dir_all(&conf).unwrap();
        let list = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "hangs"}]}"#;
        std::fs::write(conf.join("1.conflist"), list).unwrap();
        let script = format!(
            "#!/bin/sh\ncd {}\n[ -e signals ] || grep ^Sig[BI] /proc/self/status > signals\ncase $CNI_ARGS in *K8S_POD_NAME=stuck*)\n\
             [ -e hang-$CNI_COMMAND ] && {{ sleep 100000 & echo $$ $! >> pids; wait; }};; esac\n\
             [ $CNI_COMMAND = ADD ] && echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"10.9.0.2/24\"}}]}}'\n\
             [ $CNI_COMMAND = VERSION ] && echo '{{\"cniVersion\": \"1.0.0\", \"supportedVersions\": [\"1.0.0\"]}}'\nexit 0\n",
            scratch.display()
        );
        let program = scratch.join("hangs");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "[network]\nbin_dirs = [\"{}\"]\nplugin_timeout = 1\n",
            scratch.display()
        );
        let daemon = Daemon::start_on(node, &config);
        (Self(scratch), daemon)
    }

    fn hang(&self, verb: &str) {
        std::fs::write(self.0.join(format!("hang-{verb}")), "").unwrap();
    }

    fn mend(&self) {
        for verb in ["ADD", "DEL"] {
            let _ = std::fs::remove_file(self.0.join(format!("hang-{verb}")));
        }
    }

    /// Every process of a plugin that hung is gone.
    fn assert_killed(&self) {
        let pids = std::fs::read_to_string(self.0.join("pids")).unwrap();
        for pid in pids.split_whitespace() {
            eventually(&format!("plugin process {pid} ends"), || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                (status.is_empty() || status.contains(") Z ")).then_some(())
            });
        }
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it ends in time")
}

async fn listed(client: &mut Client) -> Vec<v1::PodSandbox> {
    let request = v1::ListPodSandboxRequest { filter: None };
    client
        .runtime
        .list_pod_sandbox(request)
        .await
        .unwrap()
        .into_inner()
        .items
}

#[test]
fn a_plugin_begins_with_no_signal_blocked_or_ignored() {
    let mut some = SigSet::empty();
    some.add(Signal::SIGTERM);
    some.add(Signal::SIGUSR1);
    // What the daemon's starter has blocked, this thread, is none of a plugin's.
    some.thread_block().unwrap();
    let (network, daemon) = Network::start();
    some.thread_unblock().unwrap();
    let pod = daemon.sandbox("fine");
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let seen = std::fs::read_to_string(network.0.join("signals")).unwrap();
        assert_eq!(seen, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_plugin_that_hangs_is_killed_and_its_pod_undone() {
    let (network, daemon) = Network::start();
    network.hang("ADD");
    let (stuck, fine) = (daemon.sandbox("stuck"), daemon.sandbox("fine"));
    daemon.with(async |mut client| {
        let mut other = client.clone();
        let hanging = {
            let stuck = stuck.clone();
            tokio::spawn(async move { other.try_run(&stuck).await })
        };
        // Nobody else waits for it.
        let other = in_time(client.run(&fine)).await;
        client.remove_sandbox(&other).await;
        let failure = in_time(hanging).await.unwrap().unwrap_err();
        assert!(
            failure.message().contains("hangs") && failure.message().ends_with('.'),
            "{failure}"
        );
        network.assert_killed();
        assert_eq!(listed(&mut client).await, []);
        network.mend();
        let sandbox = in_time(client.run(&stuck)).await;
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_plugin_that_hangs_while_it_takes_away_is_asked_again() {
    let (network, daemon) = Network::start();
    let (stuck, fine) = (daemon.sandbox("stuck"), daemon.sandbox("fine"));
    daemon.with(async |mut client| {
        let (first, second) = (client.run(&stuck).await, client.run(&fine).await);
        network.hang("DEL");
        let mut other = client.clone();
        let hanging = {
            let first = first.clone();
            tokio::spawn(async move { other.stop_pod(&first).await })
        };
        in_time(client.stop_pod(&second)).await.unwrap();
        in_time(client.remove_pod(&second)).await.unwrap();
        let failure = in_time(hanging).await.unwrap().unwrap_err();
        assert!(
            failure.message().contains("hangs") && failure.message().ends_with('.'),
            "{failure}"
        );
        in_time(client.remove_pod(&first)).await.unwrap_err();
        assert_eq!(listed(&mut client).await.len(), 1);
        network.assert_killed();
        network.mend();
        in_time(client.stop_pod(&first)).await.unwrap();
        in_time(client.remove_pod(&first)).await.unwrap();
    });
    daemon.finish();
}

#[test]
fn no_name_is_stuck_when_a_pod_can_be_neither_made_nor_undone() {
    let (network, mut daemon) = Network::start();
    network.hang("ADD");
    network.hang("DEL");
    let stuck = daemon.sandbox("stuck");
    daemon.with(async |mut client| {
        for _ in 0..2 {
            in_time(client.try_run(&stuck)).await.unwrap_err();
        }
        // What is left is shown, so that a kubelet goes on to its next attempt and removes this one.
        let left = listed(&mut client).await;
        assert_eq!(
            (left.len(), left[0].state()),
            (1, v1::PodSandboxState::SandboxNotready)
        );
    });
    daemon.restart();
    let fine = daemon.sandbox("fine");
    daemon.with(async |mut client| {
        // The next daemon does not wait for it either.
        let other = in_time(client.run(&fine)).await;
        client.remove_sandbox(&other).await;
        network.mend();
        let sandbox = in_time(client.run(&stuck)).await;
        client.remove_sandbox(&sandbox).await;
        assert_eq!(listed(&mut client).await, []);
    });
    network.assert_killed();
    daemon.finish();
}
