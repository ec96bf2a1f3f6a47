//! What the fuzz target `manifest` runs: any bytes, and a panic where a property does not hold. In tests and with the
//! feature `fuzzing` only.

use super::{ManifestErrors, Options, Source, load};
use crate::defaulting::default_pod;

/// A manifest. What is wrong with it is said in lines that a terminal shows as they are; what is right has nothing left to
/// be filled in, and is right again when it is written down and read once more.
pub fn manifest(data: &[u8]) {
    let Ok(text) = super::read(data) else {
        return;
    };
    match read(&text) {
        Err(errors) => check(&errors),
        Ok(manifest) => {
            for (_, pod) in manifest.pods {
                let mut again = pod.clone();
                default_pod(&mut again);
                assert_eq!(again, pod, "a default that is filled in twice");
                let written = serde_json::to_string(&pod).unwrap_or_default();
                assert!(!written.is_empty(), "a pod that can't be written");
                match read(&written) {
                    Ok(manifest) => assert_eq!(manifest.pods.first().map(|(_, pod)| pod), Some(&pod)),
                    // Its ConfigMaps, Secrets and claims were in other documents.
                    Err(errors) => assert!(
                        errors
                            .0
                            .iter()
                            .all(|error| error.message.contains("is in none of")),
                        "{errors}\n{written}"
                    ),
                }
            }
        }
    }
}

fn read(text: &str) -> Result<super::Manifest, ManifestErrors> {
    let options = Options {
        node: "/n",
        ..Options::default()
    };
    load(&[Source { name: "f", text }], options)
}

fn check(errors: &ManifestErrors) {
    let text = errors.to_string();
    assert!(!errors.0.is_empty());
    for line in text.lines() {
        assert!(line.starts_with("f:") || line.starts_with("and "), "{line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.chars().count() < 3000, "{line:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/manifest");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            super::manifest(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 5, "{count}");
    }
}
