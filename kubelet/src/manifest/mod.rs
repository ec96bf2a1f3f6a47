//! Manifests: text in, typed, defaulted and validated objects out.
//!
//! Reading is strict: a field that Kubernetes does not know, or that `berth run` does not do, is an error with its
//! file, line and path. All mistakes of all files are reported together.

mod claims;
mod decode;
mod described;
mod diagnostic;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod input;
mod json;
mod loader;
mod mending;
mod nearest;
mod objects;
mod ordinary_user;
mod priority;
mod references;
mod scalar;
mod shape;
mod support;
mod support_claims;
mod support_priority;
mod together;
mod tree;
mod workloads;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};

use self::loader::Loader;
use crate::claims::ClaimRecord;
use crate::identity::PodUid;
use crate::plan::Objects;
use crate::refers;

pub use diagnostic::{Diagnostic, ManifestErrors};
pub use explain::{explain, fields_below};
pub use input::{InputError, read};
pub(crate) use nearest::nearest;
pub use ordinary_user::{OrdinaryUser, UserGroups};
pub use support::without_effect;

/// A manifest file.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// How manifests are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Unknown and unsupported fields are left out with a warning, not refused.
    pub lenient: bool,
    /// What tells this node from others on the machine (its root directory), for the UIDs of pods.
    pub node: &'a str,
    /// The claims that the node has already.
    pub claims: &'a [ClaimRecord],
    /// The node is an ordinary user's.
    pub user: Option<OrdinaryUser>,
}

/// What the manifests ask for.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// Pods in the order of the files, defaulted and validated, each with its UID in `metadata.uid` too.
    pub pods: Vec<(PodUid, Pod)>,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// PersistentVolumeClaims, those that name their volume first.
    pub claims: Vec<PersistentVolumeClaim>,
    /// PersistentVolumes.
    pub volumes: Vec<PersistentVolume>,
    /// The names of PriorityClasses.
    pub priority_classes: Vec<String>,
    /// What was left out.
    pub warnings: Vec<Diagnostic>,
}

impl Manifest {
    /// ConfigMaps and Secrets that no pod of the manifests names.
    pub fn objects_alone(&self) -> Objects {
        refers::named_by_none(self.pods.iter().map(|(_, pod)| pod), &self.objects)
    }
}

/// Reads manifests.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(sources: &[Source<'_>], options: Options<'_>) -> Result<Manifest, ManifestErrors> {
    let mut loader = Loader::new(options);
    for source in sources {
        loader.source(*source);
    }
    if loader.empty.len() == sources.len() {
        loader.errors.append(&mut loader.empty);
    }
    loader.check_claims();
    loader.check_references();
    loader.check_host_ports();
    loader.resolve_priorities();
    let place = |found: &Diagnostic| {
        (
            sources.iter().position(|source| source.name == found.file),
            found.line,
        )
    };
    loader.errors.sort_by_key(place);
    loader.manifest.warnings.sort_by_key(place);
    let classes = loader.priority_classes.iter();
    loader.manifest.priority_classes = classes.filter_map(|class| class.metadata.name.clone()).collect();
    if loader.errors.is_empty() {
        Ok(loader.manifest)
    } else {
        Err(ManifestErrors(loader.errors))
    }
}

#[cfg(test)]
mod completeness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hostile_texts;
#[cfg(test)]
mod tests;
