//! How `berth-helper` is linked: with its constants beside its code. Each part of a program is a mapping that the kernel makes and
//! takes down again, which a program that does nothing notices.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,noseparate-code");
}
