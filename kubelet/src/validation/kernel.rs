//! What upstream's rules let pass and no kernel takes. Such a pod would be refused only when its containers are started, and
//! then again and again.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;

use super::{Errors, names};
use crate::expansion::LONGEST;

/// Texts that the kernel could not be given, wherever they are in a pod's specification.
pub(super) fn kernel(spec: &PodSpec, errors: &mut Errors) {
    if let Ok(value) = serde_json::to_value(spec) {
        no_nul(&value, &mut "spec".to_owned(), errors);
    }
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| (format!("spec.initContainers[{index}]"), container));
    let main = spec.containers.iter().enumerate();
    let main = main.map(|(index, container)| (format!("spec.containers[{index}]"), container));
    for (path, container) in init.chain(main) {
        working_directory(container, &path, errors);
        command(container, &path, errors);
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
    let broken = relative.or(names::path_length(directory));
    errors.check(&format!("{path}.workingDir"), directory, broken);
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
