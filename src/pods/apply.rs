//! `berth apply` and `berth validate`: manifests and the pods that are to be as they say.

use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::spec;
use berth_kubelet::standalone::{Applied, AppliedObject, Workload};
use clap::Args;

use super::{caller, on_this_thread, show_first_pulls, show_pulls_again};
use crate::files::{Files, make_claims};
use crate::preflight;
use crate::root::Root;

/// Make pods what manifests say: change what can be changed while a pod runs, and make it anew for the rest
#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: Files,

    /// Only warn of fields that are unknown or not supported, and of other kinds of documents, and leave them out
    #[arg(long)]
    lenient: bool,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Say what is wrong with manifests, and run nothing
#[derive(Args, Debug)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    files: Files,

    /// Only warn of fields that are unknown or not supported, and of other kinds of documents
    #[arg(long)]
    lenient: bool,
}

/// Applies.
pub(crate) fn apply(args: &ApplyArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let manifest = args.files.load_any(args.lenient, root)?;
    for warning in &manifest.warnings {
        eprintln!("warning: {warning}");
    }
    if !args.dry_run {
        preflight::check()?;
    }
    for line in make_claims(&manifest, root, args.dry_run)? {
        println!("{line}");
    }
    let caller = caller(root, cgroup_root);
    on_this_thread(async {
        let mut failed = false;
        let mut failures = Vec::new();
        let mut begun = Workload::default();
        let mut renewed = Vec::new();
        for (_, pod) in &manifest.pods {
            let name = format!("pod/{}", pod.metadata.name.as_deref().unwrap_or_default());
            let full_name = format!("{}/{}", spec::namespace(pod), spec::name(pod));
            let renewed_by = caller.places().with_another_image(pod);
            let counts = caller
                .places()
                .restart_counts(&full_name, |name| renewed_by.iter().any(|one| one == name));
            let applied = if args.dry_run {
                let applied = caller.compare(pod, &manifest.objects).await;
                applied.map(|applied| (applied, None))
            } else {
                let say = |fields: &[String]| {
                    eprintln!(
                        "{name}: {} can't be changed while it runs: making it anew",
                        fields.join(", ")
                    );
                };
                caller.apply(pod, &manifest.objects, say).await
            };
            // The others are what the files say all the same.
            let (applied, unsettled) = match applied {
                Ok(applied) => applied,
                Err(error) => {
                    failures.push(error.to_string());
                    continue;
                }
            };
            println!("{name} {}", said(&applied, args.dry_run));
            if !args.dry_run && matches!(applied, Applied::Created | Applied::Replaced(_)) {
                begun.pods.push(pod.clone());
            }
            if !args.dry_run && matches!(applied, Applied::Configured(_)) {
                let pods = vec![pod.clone()];
                let workload = Workload {
                    pods,
                    ..Workload::default()
                };
                renewed.push((workload, counts));
            }
            if let Some(unsettled) = unsettled {
                eprintln!("{name}: {}", unsettled.message);
                failed |= unsettled.failed;
            }
        }
        let alone = manifest.objects_alone();
        let applied = caller.apply_objects(&alone, args.dry_run).await;
        for (name, applied) in applied.map_err(|error| error.to_string())? {
            failed |= !tell(&name, &applied, args.dry_run);
        }
        show_first_pulls(root, &caller, &begun).await;
        for (workload, counts) in renewed {
            show_pulls_again(root, &caller, workload, &counts).await;
        }
        if !failures.is_empty() {
            return Err(failures.join("\nberth: "));
        }
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    })?
}

fn said(applied: &Applied, dry_run: bool) -> String {
    let (word, fields) = match applied {
        Applied::Created => ("created", None),
        Applied::Unchanged => ("unchanged", None),
        Applied::Configured(fields) => ("configured", Some(fields)),
        Applied::Replaced(fields) => ("replaced", Some(fields)),
    };
    let fields = fields.map_or_else(String::new, |fields| format!(": {}", fields.join(", ")));
    if dry_run {
        format!("{word} (dry run){fields}")
    } else {
        word.to_owned()
    }
}

/// What became of a ConfigMap or Secret that no pod of the files names. `false` if no pod has it now: nothing else keeps it.
fn tell(name: &str, applied: &AppliedObject, dry_run: bool) -> bool {
    let dry = if dry_run { " (dry run)" } else { "" };
    for pod in &applied.not_run {
        eprintln!("{name}: nobody runs pod {pod}, which names it: `berth run` that with it");
    }
    match (applied.changed.as_slice(), applied.unchanged.as_slice()) {
        ([], []) if applied.not_run.is_empty() => {
            eprintln!(
                "{name}: no pod that runs names it, and only pods keep it: give it together with the pod"
            );
            false
        }
        ([], []) => false,
        ([], _) => {
            println!("{name} unchanged{dry}");
            true
        }
        (pods, _) => {
            println!("{name} configured{dry}: pod {}", pods.join(", "));
            true
        }
    }
}

/// Validates. Exit code 1 if `berth run` would refuse them.
pub(crate) fn validate(args: &ValidateArgs, root: &Root) -> Result<ExitCode, String> {
    let manifest = args.files.load_all(args.lenient, root)?;
    for warning in &manifest.warnings {
        eprintln!("warning: {warning}");
    }
    for class in &manifest.priority_classes {
        println!("priorityclass/{class} is valid");
    }
    for volume in &manifest.volumes {
        println!(
            "persistentvolume/{} is valid",
            volume.metadata.name.as_deref().unwrap_or_default()
        );
    }
    for claim in &manifest.claims {
        println!(
            "persistentvolumeclaim/{} is valid",
            claim.metadata.name.as_deref().unwrap_or_default()
        );
    }
    for name in manifest.objects.config_maps.keys().map(|(_, name)| name) {
        println!("configmap/{name} is valid");
    }
    for name in manifest.objects.secrets.keys().map(|(_, name)| name) {
        println!("secret/{name} is valid");
    }
    for (_, pod) in &manifest.pods {
        println!(
            "pod/{} is valid",
            pod.metadata.name.as_deref().unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}
