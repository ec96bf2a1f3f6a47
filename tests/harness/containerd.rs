//! containerd with runc, as another runtime behind a CRI socket.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::image::Layout;
use crate::node::Node;
use crate::wait::eventually;

/// The image of its sandboxes.
const PAUSE: &str = "test.local/pause:1";

/// containerd on a node, with a network of its own. It ends when it is dropped; its pods have to be gone then.
pub struct Containerd {
    process: Child,
    socket: PathBuf,
    programs: String,
    config: PathBuf,
    log: PathBuf,
}

fn spawn(programs: &str, config: &Path, log: &Path) -> Child {
    let output = || {
        Stdio::from(
            File::options()
                .create(true)
                .append(true)
                .open(log)
                .expect("its log"),
        )
    };
    Command::new("containerd")
        .env("PATH", programs)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .expect("containerd")
}

impl Containerd {
    /// Starts it; `None` where it is not installed. `BERTH_CONTAINERD_DIR` names a directory of other programs of it.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start(node: &Node) -> Option<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = match std::env::var("BERTH_CONTAINERD_DIR") {
            Ok(directory) => format!("{directory}:{path}"),
            Err(_) => path,
        };
        let there = |name: &str| {
            programs
                .split(':')
                .any(|directory| Path::new(directory).join(name).exists())
        };
        let needed = ["containerd", "containerd-shim-runc-v2", "ctr", "runc"];
        if !needed.iter().all(|name| there(name)) || !Path::new("/usr/lib/cni/ptp").exists() {
            eprintln!("containerd, runc or containernetworking-plugins is not installed: left out");
            return None;
        }
        let directory = node.scratch().join("containerd");
        let networks = directory.join("net.d");
        fs::create_dir_all(&networks).expect("a directory for containerd");
        // Point to point: no bridge is left when the last pod goes.
        let network = json!({ "cniVersion": "0.4.0", "name": "test", "plugins": [{
            "type": "ptp", "ipam": { "type": "host-local", "dataDir": directory.join("ipam"),
                "ranges": [[{ "subnet": "10.97.0.0/16" }]] },
        }] });
        fs::write(networks.join("10-test.conflist"), network.to_string()).expect("its network");
        let socket = directory.join("containerd.sock");
        let place = directory.display();
        let config = format!(
            "version = 2\nroot = \"{place}/root\"\nstate = \"{place}/state\"\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{place}/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{place}/net.d\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
        );
        let config = node.file("containerd.toml", &config);
        let log = directory.join("log");
        let process = spawn(&programs, &config, &log);
        let containerd = Self {
            process,
            socket,
            programs,
            config,
            log,
        };
        containerd.answers();
        let pause = Layout::make(
            &directory.join("pause"),
            PAUSE,
            json!({ "Entrypoint": ["/bin/berth-helper", "sleep", "1000000000"] }),
            &[],
        );
        containerd.import(&pause);
        Some(containerd)
    }

    fn answers(&self) {
        eventually("containerd answers", || self.ctr(&["version"]).then_some(()));
    }

    /// Kills it; its pods go on.
    ///
    /// # Panics
    /// If that is refused.
    pub fn kill(&mut self) {
        self.process.kill().expect("containerd is killed");
        self.process.wait().expect("containerd is reaped");
    }

    /// Starts it again after [`Containerd::kill`].
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.programs, &self.config, &self.log);
        self.answers();
    }

    /// Where its CRI socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Puts an image into it.
    ///
    /// # Panics
    /// If it refuses.
    pub fn import(&self, image: &Layout) {
        let archive = image.archive();
        let archive = archive.to_str().expect("a path of the test");
        assert!(
            self.ctr(&["images", "import", archive]),
            "containerd takes no image"
        );
    }

    fn ctr(&self, arguments: &[&str]) -> bool {
        let status = Command::new("ctr")
            .env("PATH", &self.programs)
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- containerd wrote:\n{}", self.log());
        }
        let pid = i32::try_from(self.process.id()).expect("a process id");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}
