//! What upstream's rules let pass and no kernel takes. Such a pod would be refused only when its containers are started, and
//! then again and again.

use berth_cri::is_capability;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::Value;

use super::{Errors, names};
use crate::defaults::FQDN_MAX_LEN;
use crate::expansion::LONGEST;

/// Texts that the kernel could not be given, wherever they are in a pod's specification, and what it never does.
pub(super) fn kernel(pod: &Pod, spec: &PodSpec, errors: &mut Errors) {
    if let Ok(value) = serde_json::to_value(spec) {
        no_nul(&value, &mut "spec".to_owned(), errors);
    }
    whole_hostname(pod, spec, errors);
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = volume
            .host_path
            .as_ref()
            .map_or("", |source| source.path.as_str());
        if !path.is_empty() && !path.starts_with('/') {
            let field = format!("spec.volumes[{index}].hostPath.path");
            errors.invalid(&field, path, "must be an absolute path");
        }
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| (format!("spec.initContainers[{index}]"), container));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, container)| (format!("spec.containers[{index}]"), container));
    for (path, container) in init.chain(main) {
        working_directory(container, &path, errors);
        command(container, &path, errors);
        root_stays(container, &path, errors);
        capabilities(container, &path, errors);
    }
}

/// The kernel reads a text up to its first NUL. No field of a specification means bytes.
fn no_nul(value: &Value, path: &mut String, errors: &mut Errors) {
    let own = path.len();
    match value {
        Value::String(text) if text.contains('\0') => {
            errors.invalid(
                path,
                text,
                "must not contain a NUL, where a text ends for the kernel",
            );
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                no_nul(item, path, errors);
                path.truncate(own);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                path.push('.');
                path.push_str(name);
                no_nul(field, path, errors);
                path.truncate(own);
            }
        }
        _ => {}
    }
}

fn working_directory(container: &Container, path: &str, errors: &mut Errors) {
    let directory = container.working_dir.as_deref().unwrap_or_default();
    let relative = !directory.is_empty() && !directory.starts_with('/');
    let relative = relative.then_some("must be an absolute path");
    let broken = relative.or_else(|| names::path_length(directory));
    errors.check(&format!("{path}.workingDir"), directory, broken);
}

/// A host name with its domain has to be as short as any. What the node adds to it only makes it longer.
fn whole_hostname(pod: &Pod, spec: &PodSpec, errors: &mut Errors) {
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let Some(subdomain) = subdomain.filter(|_| spec.set_hostname_as_fqdn == Some(true)) else {
        return;
    };
    let namespace = crate::spec::namespace(pod);
    let whole = format!("{}.{subdomain}.{namespace}.svc", crate::config::hostname(pod));
    if whole.len() > FQDN_MAX_LEN && !crate::spec::host_network(spec) {
        let why = format!("the host name would be {whole}, and may have {FQDN_MAX_LEN} characters");
        errors.forbidden("spec.setHostnameAsFQDN", why);
    }
}

/// Nothing can be put in place of a container's root.
fn root_stays(container: &Container, path: &str, errors: &mut Errors) {
    let is_root = |file: &str| file.starts_with('/') && file.split('/').all(|name| matches!(name, "" | "."));
    let why = "must not be the root directory, which is the image's";
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if is_root(&mount.mount_path) {
            errors.invalid(
                &format!("{path}.volumeMounts[{index}].mountPath"),
                &mount.mount_path,
                why,
            );
        }
    }
    let message = container.termination_message_path.as_deref().unwrap_or_default();
    if is_root(message) {
        errors.invalid(&format!("{path}.terminationMessagePath"), message, why);
    }
}

fn capabilities(container: &Container, path: &str, errors: &mut Errors) {
    let security = container.security_context.as_ref();
    let Some(both) = security.and_then(|security| security.capabilities.as_ref()) else {
        return;
    };
    for (field, names) in [("add", &both.add), ("drop", &both.drop)] {
        for (index, name) in names.iter().flatten().enumerate() {
            let path = format!("{path}.securityContext.capabilities.{field}[{index}]");
            let unknown = (!is_capability(name)).then_some("must be one of capabilities(7), or ALL");
            errors.check(&path, name, unknown);
        }
    }
}

/// There is a program, and no argument is longer than an execve(2) takes. What refers to variables may become shorter.
fn command(container: &Container, path: &str, errors: &mut Errors) {
    let first = container.command.iter().flatten().next();
    if first.is_some_and(String::is_empty) {
        let why = "must name a program; without `command` it is the image's";
        errors.required(&format!("{path}.command[0]"), why);
    }
    let lists = [("command", &container.command), ("args", &container.args)];
    let texts = lists.into_iter().flat_map(|(field, list)| {
        let list = list.iter().flatten().enumerate();
        list.map(move |(index, text)| (format!("{field}[{index}]"), text, text.len()))
    });
    let variables = container.env.iter().flatten().enumerate();
    let variables = variables.filter_map(|(index, variable)| {
        let value = variable.value.as_ref()?;
        let whole = variable.name.len() + "=".len() + value.len();
        Some((format!("env[{index}].value"), value, whole))
    });
    for (field, text, length) in texts.chain(variables) {
        // It is given with a NUL at its end.
        if length >= LONGEST && !text.contains('$') {
            let shown: String = text.chars().take(20).collect();
            let why = format!("takes {length} bytes, and the kernel takes fewer than {LONGEST}");
            errors.invalid(&format!("{path}.{field}"), &format!("{shown}…"), why);
        }
    }
}
