//! The face of the crate: a node's pod network.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::attachment::{Attachment, Dns};
use crate::conf_dir;
use crate::config::CniConfig;
use crate::error::CniError;
use crate::node::Node;

/// What an attachment got.
#[derive(Clone, Debug, PartialEq)]
pub struct AddResult {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, as the plugins ordered them.
    pub ips: Vec<IpAddr>,
    /// What the network says of name resolution; empty if nothing.
    pub dns: Dns,
    /// The last plugin's result as it came.
    pub raw: Value,
}

/// A node's pod network.
///
/// Each operation runs on a thread of its own to its end, even if the caller stops waiting for it: an attachment is
/// never abandoned half-way by a dropped future.
#[derive(Clone, Debug)]
pub struct Network {
    node: Arc<Node>,
}

impl Network {
    /// Checks berth's own part of the configuration. What the directory says is read again by each operation, so that
    /// a network that is installed or changed later is used from then on; [`Network::status`] says what is wrong
    /// with it. Attachments that exist keep the configuration that made them.
    pub fn load(config: &CniConfig) -> Result<Network, CniError> {
        Ok(Network {
            node: Arc::new(Node::new(config)?),
        })
    }

    /// Attaches a sandbox to the network: `lo` up, then ADD of each plugin. On failure everything is taken back. An
    /// attachment of the same name that exists already, of an earlier attempt that was interrupted, is removed first.
    pub async fn add(&self, attachment: &Attachment) -> Result<AddResult, CniError> {
        let attachment = attachment.clone();
        self.on_thread(move |node| node.add(attachment)).await
    }

    /// Asks the plugins whether the sandbox's attachments are still as they were made (CHECK).
    pub async fn check(&self, container_id: &str) -> Result<(), CniError> {
        let container_id = container_id.to_owned();
        self.on_thread(move |node| node.check(&container_id)).await
    }

    /// Removes all attachments of a sandbox with the configuration that made them. Idempotent. The namespace may be
    /// gone (`None`, or a path that leads elsewhere by now): everything else is still released.
    pub async fn del(&self, container_id: &str, netns: Option<&Path>) -> Result<(), CniError> {
        // Most are asked for twice, when the sandbox stops and when it goes: the second time takes no thread.
        if !self.node.has_attachments(container_id)? {
            return Ok(());
        }
        let (container_id, netns) = (container_id.to_owned(), netns.map(Path::to_owned));
        self.on_thread(move |node| node.del(&container_id, netns.as_deref()))
            .await
    }

    /// Removes the attachments whose sandbox is not in `live`, and what the plugins find without an owner: addresses,
    /// interfaces, firewall elements. Returns the ids of the sandboxes that were removed.
    ///
    /// With several processes on one state directory use [`Network::reconcile_with`]: a set is out of date as soon as
    /// it is made.
    pub async fn reconcile(&self, live: &HashSet<String>) -> Result<Vec<String>, CniError> {
        let live = live.clone();
        self.reconcile_with(move |id| live.contains(id)).await
    }

    /// As [`Network::reconcile`], but each sandbox is asked about when its attachments are locked.
    pub async fn reconcile_with(
        &self,
        is_live: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, CniError> {
        self.on_thread(move |node| node.reconcile(&is_live)).await
    }

    /// Tells the subnets that the cluster gives to this node's pods (`podCIDR`, several with commas between them). They are
    /// for berth's own network; one that is installed has its own way to know them.
    ///
    /// # Errors
    /// They are no subnets for pods, or can't be written down.
    pub async fn assign_subnets(&self, pod_cidrs: &str) -> Result<(), CniError> {
        let pod_cidrs = pod_cidrs.to_owned();
        self.on_thread(move |node| match &node.config.default_network {
            Some(default) => default.assign(&node.config.state_dir, &pod_cidrs),
            None => Ok(()),
        })
        .await
    }

    /// Whether pods can be attached now (CRI's `NetworkReady`): there is a network, its plugins are there, they speak
    /// its version, and say that they are ready.
    pub async fn status(&self) -> Result<(), CniError> {
        self.on_thread(|node| node.status()).await
    }

    /// Sentences for the person who runs the node: what of the host will keep pods from working on berth's own
    /// network, and what to do about it. Worth asking for once, before the first pod.
    pub async fn advice(&self) -> Vec<String> {
        self.on_thread(|node| Ok(node.advice())).await.unwrap_or_default()
    }

    /// Files of the configuration directory that come before the one that is used, and why they are not.
    pub async fn skipped(&self) -> Result<Vec<CniError>, CniError> {
        self.on_thread(|node| Ok(conf_dir::find(&node.config.conf_dir)?.skipped))
            .await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Node) -> Result<T, CniError> + Send + 'static,
    ) -> Result<T, CniError> {
        let node = Arc::clone(&self.node);
        let (answer, done) = oneshot::channel();
        // A thread of its own, started from here: it is in the caller's network namespace.
        let worker = thread::Builder::new()
            .name("cni".into())
            .spawn(move || drop(answer.send(work(&node))));
        worker
            .map_err(|e| CniError::Unavailable(format!("no thread can be started for the network: {e}")))?;
        done.await.unwrap_or(Err(CniError::Interrupted))
    }
}
