//! Leaves out of a build for size what a program that aborts on panic has no use for, and puts what is seldom run last.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=discard.ld");
    println!("cargo::rerun-if-changed=order.ld");
    println!("cargo::rerun-if-env-changed=OPT_LEVEL");
    let for_size = env::var("OPT_LEVEL").is_ok_and(|level| level == "z");
    if let (true, Ok(here)) = (for_size, env::var("CARGO_MANIFEST_DIR")) {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{here}/discard.ld,-T,{here}/order.ld");
        // Constants beside the code: each part of a program begins a page of its own, and is a mapping at each start.
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-z,noseparate-code");
        // Functions with the same code become one. Only lld can, by which Rust links this one target.
        if env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu") {
            println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
}
