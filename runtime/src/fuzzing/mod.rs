//! What the fuzz targets in `fuzz/` run. Each function takes any bytes, and panics where a property does not hold.
//!
//! It is here, where everything that is not public can be reached, in tests and with the feature `fuzzing` only. The
//! tests run what fuzzing has found interesting so far: `fuzz/corpus`.

mod configuration;
mod profile;

pub use configuration::config_json;
pub use profile::seccomp_compiler;

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn each_of(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }

    #[test]
    fn the_corpus_of_config_json() {
        each_of("config_json", super::config_json);
    }

    #[test]
    fn the_corpus_of_seccomp_compiler() {
        each_of("seccomp_compiler", super::seccomp_compiler);
    }
}
