//! The smallest program that is a shim: what `berth-oci shim` does. The tests drive it.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("Usage: shim SANDBOX-DIRECTORY");
        return ExitCode::from(2);
    };
    match berth_shim::start(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
