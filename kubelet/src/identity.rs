//! Names of pods that stay the same.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::spec;

/// A pod's UID: a UUID in its usual form, or whatever the API server gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The UID of a pod that comes from a file and has none: the same for the same pod on the same node, so that a daemon
/// that was killed finds its pod again, and another for a changed pod, which then takes the place of the first.
/// `node` is what tells nodes on one machine apart. The pod is taken before defaulting, so that new defaults make no
/// new pod.
pub fn pod_uid(pod: &Pod, node: &str) -> PodUid {
    if let Some(uid) = pod.metadata.uid.as_deref().filter(|uid| !uid.is_empty()) {
        return PodUid(uid.to_owned());
    }
    let mut hash = Sha256::new();
    for part in [
        node.as_bytes(),
        spec::namespace(pod).as_bytes(),
        spec::name(pod).as_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut content = pod.clone();
    content.status = None;
    // A Pod always has a JSON form, with its maps in order.
    hash.update(serde_json::to_vec(&content).unwrap_or_default());
    PodUid(uuid(&hash.finalize()))
}

/// RFC 9562 version 8 (of the caller's making), from the first 16 bytes.
fn uuid(bytes: &[u8]) -> String {
    let mut id = [0_u8; 16];
    id.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    id[6] = (id[6] & 0x0f) | 0x80;
    id[8] = (id[8] & 0x3f) | 0x80;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn uid(spec: &str, node: &str) -> String {
        let mut pod = pod(spec);
        pod.metadata.uid = None;
        pod_uid(&pod, node).0
    }

    #[test]
    fn the_same_pod_has_the_same_uid() {
        let one = uid(r#"{"containers":[]}"#, "/a");
        assert_eq!(one, uid(r#"{"containers":[]}"#, "/a"));
        assert_ne!(one, uid(r#"{"containers":[]}"#, "/b"));
        assert_ne!(one, uid(r#"{"containers":[],"hostname":"x"}"#, "/a"));
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "8");
        assert!(matches!(&one[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn a_given_uid_is_kept() {
        assert_eq!(pod_uid(&pod(r#"{"containers":[]}"#), "/a").0, "uid");
    }
}
