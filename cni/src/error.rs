//! What can go wrong between a pod and its network.

use std::io;
use std::path::{Path, PathBuf};

/// Why a network operation failed. The text is a sentence for people; the variant is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// No network is configured: the directory is empty and there is no default network.
    #[error("there is no network for pods: {dir} holds no CNI configuration, and no default network is set")]
    NoNetwork {
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// A configuration file can't be used.
    #[error("the CNI configuration {file} can't be used: {field}: {problem}")]
    Config {
        /// The file, or a name for a configuration that comes from no file.
        file: PathBuf,
        /// The field's path in the file.
        field: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The attachment that was asked for makes no sense.
    #[error("the network attachment can't be made: {field} {problem}")]
    InvalidAttachment {
        /// Which part of the attachment.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A plugin is neither in the plugin directories nor built in.
    #[error(
        "the CNI plugin {plugin:?} of network {network:?} is missing: it is not built in, and none of {dirs} has \
         an executable of that name; install it there, or change the network's configuration"
    )]
    MissingPlugin {
        /// The plugin's type.
        plugin: String,
        /// The network that wants it.
        network: String,
        /// The directories that were searched.
        dirs: String,
    },
    /// A plugin reported an error (CNI spec, section 5).
    #[error(
        "the CNI plugin {plugin:?} of network {network:?} failed to {verb} (code {code}): {msg}{details}"
    )]
    Plugin {
        /// The plugin's type.
        plugin: String,
        /// The network's name.
        network: String,
        /// `ADD`, `DEL`, `CHECK`, `STATUS`, `GC` or `VERSION`.
        verb: &'static str,
        /// The error code: below 100 from the specification, from 100 the plugin's own.
        code: u32,
        /// What the plugin said.
        msg: String,
        /// What it said beside that: empty, or starting with `: `.
        details: String,
    },
    /// A plugin did not finish in time; its process group was killed.
    #[error(
        "the CNI plugin {plugin:?} of network {network:?} did not finish {verb} within {seconds} s and was killed"
    )]
    Timeout {
        /// The plugin's type.
        plugin: String,
        /// The network's name.
        network: String,
        /// The verb.
        verb: &'static str,
        /// The limit that it ran into.
        seconds: u64,
    },
    /// A plugin was at work that pods had to wait for; its process group was killed, and it is to be asked another time.
    #[error(
        "the CNI plugin {plugin:?} of network {network:?} took long over {verb} and was killed, because a pod \
         waited for that"
    )]
    CalledOff {
        /// The plugin's type.
        plugin: String,
        /// The network's name.
        network: String,
        /// The verb.
        verb: &'static str,
    },
    /// A plugin answered with something that is no CNI result.
    #[error("the CNI plugin {plugin:?} of network {network:?} gave no valid answer to {verb}: {problem}")]
    BadOutput {
        /// The plugin's type.
        plugin: String,
        /// The network's name.
        network: String,
        /// The verb.
        verb: &'static str,
        /// What is wrong with the answer.
        problem: String,
    },
    /// A host port is taken, by another pod or by a program on the host.
    #[error(
        "host port {port}/{protocol} can't be given to the pod: {taken_by}; choose another hostPort or free it"
    )]
    PortConflict {
        /// The host port.
        port: u16,
        /// `tcp`, `udp` or `sctp`.
        protocol: String,
        /// Who has it.
        taken_by: String,
    },
    /// The machine lacks something: root, a kernel feature, a program, a free subnet.
    #[error("{0}")]
    Unavailable(String),
    /// The network namespace can't be used.
    #[error("the network namespace {path} can't be used: {problem}")]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The state directory can't be read or written.
    #[error("can't {action} {path}: {source}")]
    State {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The thread that did the work died; what it did is undone by the next `del` or `reconcile`.
    #[error(
        "the network worker stopped before it finished; the attachment is cleaned up by the next removal"
    )]
    Interrupted,
}

impl CniError {
    pub(crate) fn state(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
        let path = path.to_owned();
        move |source| CniError::State { action, path, source }
    }
}
