//! `berth volume`: the claims that the node keeps.

use std::process::ExitCode;

use berth_kubelet::claims::{Backing, ClaimError, ClaimRecord, ClaimStore};
use berth_kubelet::standalone::{View, table};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::print::sentence;
use crate::root::Root;

/// List and remove the PersistentVolumeClaims that pods left their files in
#[derive(Args, Debug)]
pub(crate) struct VolumeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List claims and where their files are
    #[command(alias = "list")]
    Ls(ListArgs),
    /// Remove claims that no pod uses, with their files; what a PersistentVolume leads to stays
    #[command(alias = "remove")]
    Rm(RemoveArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// How to print: table, name, json, yaml, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,
}

#[derive(Args, Debug)]
struct RemoveArgs {
    /// The claims: NAME or NAMESPACE/NAME
    #[arg(required = true, value_name = "CLAIM")]
    claims: Vec<String>,

    /// The claims' namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
}

/// Runs a subcommand. The error is a message for the person who typed the command.
pub(crate) fn run(args: &VolumeArgs, root: &Root) -> Result<ExitCode, String> {
    let store = ClaimStore::new(&root.kubelet);
    match &args.command {
        Command::Ls(args) => list(args, &store),
        Command::Rm(args) => remove(args, &store),
    }
}

fn list(args: &ListArgs, store: &ClaimStore) -> Result<ExitCode, String> {
    let claims = store.list().map_err(|error| sentence(&error.to_string()))?;
    let all: Vec<Value> = claims.iter().map(|record| shown(record, store)).collect();
    let text = args.output.print("persistentvolumeclaim", &all, false);
    print!("{}", text.unwrap_or_else(|| rows(&claims, store)));
    Ok(ExitCode::SUCCESS)
}

/// As an API server would show it.
fn shown(record: &ClaimRecord, store: &ClaimStore) -> Value {
    let mut claim = json!(record.claim);
    claim["apiVersion"] = json!("v1");
    claim["kind"] = json!("PersistentVolumeClaim");
    claim["status"] = json!({"phase": "Bound", "path": place(record, store)});
    claim
}

fn rows(claims: &[ClaimRecord], store: &ClaimStore) -> String {
    let header = ["NAMESPACE", "NAME", "REQUEST", "ACCESS MODES", "VOLUME", "PATH"];
    let row = |record: &ClaimRecord| {
        let spec = record.claim.spec.clone().unwrap_or_default();
        let request = spec
            .resources
            .and_then(|all| all.requests?.get("storage").cloned());
        let volume = match record.backing() {
            Backing::Directory => "<none>".to_owned(),
            Backing::Volume(volume) => volume.metadata.name.clone().unwrap_or_default(),
        };
        vec![
            record.namespace().to_owned(),
            record.name().to_owned(),
            request.map_or_else(String::new, |request| request.0),
            spec.access_modes.unwrap_or_default().join(","),
            volume,
            place(record, store),
        ]
    };
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(claims.iter().map(row));
    table(&rows)
}

/// The directory, device or export that has the files.
fn place(record: &ClaimRecord, store: &ClaimStore) -> String {
    let Backing::Volume(volume) = record.backing() else {
        return store.directory(record).display().to_string();
    };
    let spec = volume.spec.clone().unwrap_or_default();
    let host_path = spec.host_path.map(|source| source.path);
    let local = spec.local.map(|source| source.path);
    let nfs = spec
        .nfs
        .map(|source| format!("{}:{}", source.server, source.path));
    host_path.or(local).or(nfs).unwrap_or_default()
}

fn remove(args: &RemoveArgs, store: &ClaimStore) -> Result<ExitCode, String> {
    let mut code = ExitCode::SUCCESS;
    for claim in &args.claims {
        let (namespace, name) = claim.split_once('/').unwrap_or((&args.namespace, claim));
        match store.remove_unused(namespace, name) {
            Ok(()) => println!("persistentvolumeclaim/{name} removed"),
            Err(error) => {
                eprintln!("berth: {}", refused(namespace, name, &error));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn refused(namespace: &str, name: &str, error: &ClaimError) -> String {
    match error {
        ClaimError::NotFound(_) => {
            format!("There is no claim {namespace}/{name}; `berth volume ls` lists those there are.")
        }
        error => sentence(&error.to_string()),
    }
}
