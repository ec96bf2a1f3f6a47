//! Showing how images come to pods that the daemon was just given, and to containers that are started anew.

use std::collections::BTreeMap;

use berth_images::StoreOptions;
use berth_kubelet::spec;
use berth_kubelet::standalone::{Bars, Caller, Workload};

use crate::root::Root;

/// Draws how the images come that these pods need and the node does not have, on a terminal: until the pods have begun, or
/// nothing comes. The pods are the daemon's; who is tired of looking leaves.
pub(crate) async fn show_first_pulls(root: &Root, caller: &Caller, workload: &Workload) {
    let (Some(bars), Ok(store)) = (Bars::on_terminal(), root.image_store(StoreOptions::default())) else {
        return;
    };
    let to_pull = workload.to_pull(|image| matches!(store.find(image), Ok(Some(_))));
    if !to_pull.is_empty() {
        // It is only for the eye.
        let _ = caller.show_first_pulls(workload, to_pull, &bars).await;
    }
}

/// The same of containers that are just being started anew, as this one pod has them, until each of them was started once more
/// than `before`. Whoever runs it may still know an older one.
pub(crate) async fn show_pulls_again(
    root: &Root,
    caller: &Caller,
    mut workload: Workload,
    before: &BTreeMap<String, i32>,
) {
    let (Some(bars), Ok(store)) = (Bars::on_terminal(), root.image_store(StoreOptions::default())) else {
        return;
    };
    let Some(pod) = workload.pods.first_mut() else {
        return;
    };
    let full_name = format!("{}/{}", spec::namespace(pod), spec::name(pod));
    if let Some(spec) = &mut pod.spec {
        spec.containers
            .retain(|container| before.contains_key(&container.name));
        let init = spec.init_containers.iter_mut();
        init.for_each(|all| all.retain(|container| before.contains_key(&container.name)));
    }
    let to_pull = workload.to_pull(|image| matches!(store.find(image), Ok(Some(_))));
    if !to_pull.is_empty() {
        // It is only for the eye.
        let _ = caller.show_pulls_again(&full_name, to_pull, before, &bars).await;
    }
}
