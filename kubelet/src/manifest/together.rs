//! What can only be judged of the objects of all files together.

use k8s_openapi::api::core::v1::Pod;

use super::loader::{Loader, Place};
use super::{Diagnostic, references};
use crate::spec;
use crate::validation::{self, HostPort};

impl Loader<'_> {
    /// Two pods can't have one port of the host.
    pub(super) fn check_host_ports(&mut self) {
        let mut seen: Vec<(&Pod, HostPort<'_>)> = Vec::new();
        let mut found = Vec::new();
        for (place, (_, pod)) in self.pods.iter().zip(&self.manifest.pods) {
            let place = Place {
                file: &place.file,
                node: &place.node,
                prefix: &place.prefix,
            };
            let own = pod
                .spec
                .as_ref()
                .map(validation::ports_of_host)
                .unwrap_or_default();
            for (path, port) in &own {
                if let Some((other, _)) = seen.iter().find(|(_, known)| known.collides(port)) {
                    let other = format!("pod {}/{}", spec::namespace(other), spec::name(other));
                    let message = format!(
                        "Duplicate value: {:?}: {other} asks for it, too",
                        port.to_string()
                    );
                    found.push(place.diagnostic(place.node.line_of(path), path, message));
                }
            }
            seen.extend(own.into_iter().map(|(_, port)| (pod, port)));
        }
        self.errors.extend(found);
    }

    /// What pods refer to must be in the files, whichever they are.
    pub(super) fn check_references(&mut self) {
        let found: Vec<Diagnostic> = self
            .pods
            .iter()
            .zip(&self.manifest.pods)
            .flat_map(|(found, (_, pod))| {
                let place = Place {
                    file: &found.file,
                    node: &found.node,
                    prefix: &found.prefix,
                };
                let dangling = references::dangling(pod, &self.manifest.objects, &self.bound);
                let diagnostic = move |one: references::Dangling| {
                    place.diagnostic(place.node.line_of(&one.path), &one.path, one.message)
                };
                dangling.into_iter().map(diagnostic).collect::<Vec<_>>()
            })
            .collect();
        found
            .into_iter()
            .for_each(|diagnostic| self.report_unless_lenient(diagnostic));
    }
}
