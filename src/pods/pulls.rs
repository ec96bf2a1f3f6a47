//! Showing how images come to pods that the daemon was just given.

use berth_images::Store;
use berth_kubelet::standalone::{Bars, Caller, Workload};

use crate::root::Root;

/// Draws how the images come that these pods need and the node does not have, on a terminal: until the pods have begun, or
/// nothing comes. The pods are the daemon's; who is tired of looking leaves.
pub(crate) async fn show_first_pulls(root: &Root, caller: &Caller, workload: &Workload) {
    let (Some(bars), Ok(store)) = (Bars::on_terminal(), Store::open(&root.images())) else {
        return;
    };
    let to_pull = workload.to_pull(|image| matches!(store.find(image), Ok(Some(_))));
    if !to_pull.is_empty() {
        // It is only for the eye.
        let _ = caller.show_first_pulls(workload, to_pull, &bars).await;
    }
}
