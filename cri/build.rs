//! The messages and services of CRI v1 and the messages of NRI, from their definitions in `proto/`. Both compilers are
//! Rust: no `protoc` needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(["services.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .compile_fds(definitions)?;
    let plugins = protox::compile(["nri/calls.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(plugins)?;
    Ok(())
}
