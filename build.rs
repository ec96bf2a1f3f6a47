//! Builds `berth-helper`, the program of the built-in image, which `berth` carries inside itself.
//!
//! Cargo can't yet make one package's program an input of another's build on stable, so this is a cargo of its own with
//! a target directory of its own (the outer cargo holds the lock of the usual one). `BERTH_HELPER` is the path of the
//! program for `include_bytes!`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The profile, in the workspace's Cargo.toml.
const PROFILE: &str = "small";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/helper");
    println!("cargo::rerun-if-changed=runtime/src/sys/entry");
    let target = libc_of_helper(&env::var("TARGET")?)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let directory = target_directory(&out);
    let status = nested_cargo()?
        .args([
            "build",
            "--locked",
            "--package",
            "berth-helper",
            "--bin",
            "berth-helper",
            "--profile",
            PROFILE,
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .status()?;
    if !status.success() {
        return Err("berth-helper, the program of the built-in image, could not be built (see above)".into());
    }
    let helper = out.join("berth-helper");
    fs::copy(
        directory.join(&target).join(PROFILE).join("berth-helper"),
        &helper,
    )?;
    println!("cargo::rustc-env=BERTH_HELPER={}", helper.display());
    Ok(())
}

/// Linked with musl where Rust has that. As the program of a probe the helper starts every second in every pod, and of
/// a program that does nothing two thirds of the time are glibc's: at its start it asks the processor some fifty times what
/// it is (CPUID), and each time leaves a virtual machine for its host.
fn libc_of_helper(target: &str) -> Result<String, Box<dyn Error>> {
    let musl = target.replace("-linux-gnu", "-linux-musl");
    let asked = Command::new(env::var("RUSTC")?)
        .args(["--print", "target-libdir", "--target", &musl])
        .output()?;
    let directory = String::from_utf8(asked.stdout)?;
    let is_there = asked.status.success() && Path::new(directory.trim()).is_dir();
    Ok(if is_there { musl } else { target.to_owned() })
}

/// One target directory for all profiles of the outer build, so that the helper is compiled once: beside
/// `<target>/<triple>/<profile>/build/<package>/out` if that is what it looks like, else below `out`.
fn target_directory(out: &Path) -> PathBuf {
    let build = out
        .ancestors()
        .find(|directory| directory.file_name().is_some_and(|name| name == "build"));
    match build.and_then(|build| build.parent()?.parent()) {
        Some(directory) => directory.join("built-in"),
        None => out.join("target"),
    }
}

/// Cargo without what the outer one set for this build script and its compiler: clippy's wrapper, flags, the
/// description of this package. What the user set (`CARGO_HOME`, `CARGO_NET_OFFLINE`, …) stays.
fn nested_cargo() -> Result<Command, Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CFG_",
            "CARGO_FEATURE_",
            "CARGO_PROFILE_",
            "DEP_",
        ];
        if ours.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTC",
        "RUSTDOC",
        "CLIPPY_ARGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "DEBUG",
        "OPT_LEVEL",
    ] {
        cargo.env_remove(name);
    }
    cargo.current_dir(env::var("CARGO_MANIFEST_DIR")?);
    Ok(cargo)
}
