//! Where the programs under test are.

use std::path::PathBuf;

/// The path of a built program: in `BERTH_BIN_DIR`, or in the profile's directory that holds the test's own program.
///
/// # Panics
/// If it was not built.
pub fn program(name: &str) -> PathBuf {
    let directory = match std::env::var_os("BERTH_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let test = std::env::current_exe().expect("a test has a program");
            let profile = test
                .ancestors()
                .find(|path| path.ends_with("deps"))
                .and_then(|deps| deps.parent());
            profile
                .expect("a test's program is in a profile's deps directory")
                .to_owned()
        }
    };
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not built. `make test` builds the programs before the tests; by hand: cargo build --workspace --bins \
         (with the tests' profile), or set BERTH_BIN_DIR.",
        path.display()
    );
    path
}
