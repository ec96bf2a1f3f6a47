//! `downwardAPI`: what the pod says of itself, as files.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, DownwardAPIVolumeSource};

use super::atomic_writer::{self, Payload};
use super::payload::{DEFAULT_MODE, Style};
use super::{Context, VolumeError};
use crate::env::{EnvSources, field_ref};
use crate::env_file::EnvFiles;
use crate::quantity::{Value, value_of};
use crate::{resources, spec};

const PLUGIN: &str = "kubernetes.io/downward-api";

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, name: &str) -> PathBuf {
    context.dir.volume(PLUGIN, name)
}

/// Makes the volume, or brings it up to date.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &DownwardAPIVolumeSource,
) -> Result<(), VolumeError> {
    let style = context.style(source.default_mode.unwrap_or(DEFAULT_MODE));
    let payload = payload(context, source.items.as_deref().unwrap_or_default(), style)?;
    let path = path(context, name);
    super::make_memory_dir(&path, style.group)?;
    atomic_writer::write(&path, &payload).map_err(VolumeError::io("write the files of", &path))?;
    Ok(())
}

/// The files of a downward API source.
pub(super) fn payload(
    context: &Context<'_>,
    items: &[DownwardAPIVolumeFile],
    style: Style,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let text = text(context, item)?;
        payload.insert(PathBuf::from(&item.path), style.file(text.as_bytes(), item.mode));
    }
    Ok(payload)
}

fn text(context: &Context<'_>, item: &DownwardAPIVolumeFile) -> Result<String, VolumeError> {
    if let Some(field) = &item.field_ref {
        let sources = EnvSources {
            pod: context.pod,
            objects: context.objects,
            files: &EnvFiles::new(),
            node: context.node,
            pod_ips: &[],
        };
        return field_ref(&field.field_path, sources)
            .map_err(|error| VolumeError::Unsupported(error.to_string()));
    }
    let field = item.resource_field_ref.as_ref();
    let value = field.and_then(|field| {
        let (container, _) = spec::container(context.pod, field.container_name.as_deref()?)?;
        let divisor = field.divisor.as_ref().map_or_else(Value::default, value_of);
        resources::resource_field(container, &field.resource, divisor, context.node)
    });
    value.ok_or_else(|| {
        VolumeError::Unsupported(format!(
            "the file \"{}\" refers to nothing of the pod or its containers",
            item.path
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{NodeFacts, Objects};
    use crate::testing::pod;

    #[test]
    fn fields_and_resources_are_files() {
        let mut pod = pod(
            r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"memory":"64Mi"}}}],
                "volumes":[{"name":"v","downwardAPI":{"items":[
                    {"path":"name","fieldRef":{"fieldPath":"metadata.name"}},
                    {"path":"labels","mode":256,"fieldRef":{"fieldPath":"metadata.labels"}},
                    {"path":"mem","resourceFieldRef":{"containerName":"c","resource":"limits.memory","divisor":"1Mi"}}]}}]}"#,
        );
        pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        let dir = super::super::PodDir::new(
            std::path::Path::new("/nonexistent"),
            &crate::identity::PodUid("u".into()),
        );
        let context = Context {
            pod: &pod,
            objects: &Objects::default(),
            dir: &dir,
            node: &NodeFacts::default(),
            setting_up: None,
        };
        let items = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0]
            .downward_api
            .clone()
            .unwrap()
            .items
            .unwrap();
        let style = Style {
            default_mode: DEFAULT_MODE,
            group: None,
        };
        let payload = payload(&context, &items, style).unwrap();
        let file = |path: &str| {
            let content = &payload[&PathBuf::from(path)];
            (String::from_utf8(content.data.clone()).unwrap(), content.mode)
        };
        assert_eq!(file("name"), ("p".to_owned(), 0o644));
        assert_eq!(file("labels"), ("a=\"b\"".to_owned(), 0o400));
        assert_eq!(file("mem"), ("64".to_owned(), 0o644));
    }
}
