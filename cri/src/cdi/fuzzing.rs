//! What the fuzz target `cdi` runs: any bytes, and a panic where a property does not hold. In tests and with the feature
//! `fuzzing` only.

use serde_json::{Value, json};

use super::{edits, registry, yaml};

/// A file of devices, as YAML and as JSON. What is read is not larger than its text; each refusal is a sentence's part, on
/// one line; and what is accepted changes a configuration into one whose parts have their types.
pub fn cdi(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for value in [
        yaml::parse(text),
        serde_json::from_str(text).map_err(|error| error.to_string()),
    ] {
        match value {
            Ok(value) => {
                assert!(size(&value) <= text.len() + 1, "{value}");
                check(value);
            }
            Err(reason) => assert!(is_reason(&reason), "{reason:?}"),
        }
    }
}

fn is_reason(reason: &str) -> bool {
    !reason.is_empty() && !reason.contains('\n')
}

/// Values of a document, and bytes of its names: each takes a byte of the text.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn check(value: Value) {
    let specification = match registry::specification(value) {
        Ok(specification) => specification,
        Err(reason) => return assert!(!reason.is_empty()),
    };
    let all = specification.devices.iter().map(|device| &device.container_edits);
    for edits in all.chain([&specification.container_edits]) {
        let mut spec = json!({
            "process": { "env": ["A=1"], "user": { "uid": 0, "gid": 0 } },
            "mounts": [{ "destination": "/a" }],
            "linux": {},
        });
        if let Err(reason) = edits::apply(edits, &mut spec) {
            assert!(reason.ends_with('.'), "{reason:?}");
            continue;
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let env = list(&spec["process"]["env"]);
        assert!(!env.is_empty() && env.iter().all(Value::is_string));
        let mounts = list(&spec["mounts"]);
        assert!(!mounts.is_empty());
        assert!(mounts.iter().all(|mount| mount["destination"].is_string()));
        for (index, mount) in mounts.iter().enumerate() {
            let same = |other: &&Value| other["destination"] == mount["destination"];
            assert_eq!(mounts.iter().position(|other| same(&other)), Some(index));
        }
        let nodes = spec["linux"]["devices"].as_array().into_iter().flatten();
        for node in nodes {
            assert!(node["path"].is_string() && node["major"].is_u64() && node["minor"].is_u64());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/cdi");
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().flatten().collect();
        assert!(!files.is_empty());
        for file in files {
            super::cdi(&std::fs::read(file.path()).unwrap());
        }
    }
}
