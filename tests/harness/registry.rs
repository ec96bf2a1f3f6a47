//! Debian's registry, in the network of a node.

use std::process::Command;

use crate::image::Layout;
use crate::node::Node;
use crate::running::Running;
use crate::wait::eventually;

/// `htpasswd -nbB someone 'secret word'`
const HTPASSWD: &str = "someone:$2b$04$abcdefghijklmnopqrstuuP6/q0obcGuk6SuzN66aTZwHeRCLMzKO\n";

/// A registry that runs; its address is `127.0.0.1:5000`, plain HTTP.
pub struct Registry(Running);

impl Registry {
    /// Its host and port, as in an image's name.
    pub const HOST: &str = "127.0.0.1:5000";

    /// Who may use it once it is protected: name and password.
    pub const USER: &str = "someone:secret word";

    /// Starts it with an empty store.
    ///
    /// # Panics
    /// If `docker-registry` is not installed.
    pub fn start(node: &Node) -> Self {
        Self::serve(node, "", &[])
    }

    /// Starts it again with the same store, for nobody but [`Registry::USER`].
    ///
    /// # Panics
    /// As [`Registry::start`].
    pub fn protect(self, node: &Node) -> Self {
        self.stop();
        let passwords = node.file("htpasswd", HTPASSWD);
        let auth = format!(
            "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
            passwords.display()
        );
        Self::serve(node, &auth, &["--user", Self::USER])
    }

    fn serve(node: &Node, more: &str, show: &[&str]) -> Self {
        let store = node.scratch().join("registry");
        let config = node.file("registry.yml", &format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}, level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http: {{addr: '{}'}}\n{more}",
            store.display(), Self::HOST
        ));
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        let registry = Self(Running::start(command, ""));
        let ask = [show, &["http://127.0.0.1:5000/v2/"]].concat();
        eventually("the registry answers", || curl(&ask).is_some().then_some(()));
        registry
    }

    /// Uploads an image.
    ///
    /// # Panics
    /// If the registry refuses.
    pub fn push(&self, image: &Layout, repository: &str, tag: &str) {
        let base = format!("http://{}/v2/{repository}", Self::HOST);
        for digest in [&image.config, &image.layer] {
            let head = curl(&["-i", "-X", "POST", &format!("{base}/blobs/uploads/")]).expect("an upload");
            let location = head
                .lines()
                .find_map(|line| line.strip_prefix("Location: "))
                .expect("a place to upload to");
            let target = format!("{}&digest={digest}", location.trim());
            let data = format!("@{}", image.blob(digest).display());
            let kind = "Content-Type: application/octet-stream";
            curl(&["-X", "PUT", "-H", kind, "--data-binary", &data, &target]).expect("an uploaded blob");
        }
        let data = format!("@{}", image.blob(&image.manifest).display());
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        let target = format!("{base}/manifests/{tag}");
        curl(&["-X", "PUT", "-H", kind, "--data-binary", &data, &target]).expect("an uploaded manifest");
    }

    /// How often this was downloaded from it so far (`GET`).
    pub fn downloads(&self, digest: &str) -> usize {
        let output = self.0.output();
        output
            .lines()
            .filter(|line| line.contains("\"GET ") && line.contains(digest))
            .count()
    }

    /// Ends it.
    pub fn stop(self) {
        self.0.kill();
    }
}

/// The answer, if it is a success.
fn curl(arguments: &[&str]) -> Option<String> {
    let output = Command::new("curl")
        .args(["-sS", "--fail"])
        .args(arguments)
        .output()
        .expect("curl is installed");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
