//! Which files a ConfigMap, Secret or downward API source makes. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Secret};

use super::VolumeError;
use super::atomic_writer::{FileContent, Payload};

/// Mode of a file when neither the item nor the volume gives one.
pub(super) const DEFAULT_MODE: i32 = 0o644;
/// Added to each file's mode when the pod has an `fsGroup`.
const GROUP_READ: u32 = 0o440;

/// The keys of an object, and what to call it in an error.
pub(super) struct Keys<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) data: BTreeMap<&'a str, &'a [u8]>,
}

/// How files are to be made.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) default_mode: i32,
    pub(super) group: Option<u32>,
}

impl<'a> Keys<'a> {
    pub(super) fn of_config_map(name: &'a str, object: Option<&'a ConfigMap>) -> Self {
        let text = object.and_then(|o| o.data.as_ref()).into_iter().flatten();
        let binary = object.and_then(|o| o.binary_data.as_ref()).into_iter().flatten();
        let data = text
            .map(|(key, value)| (key.as_str(), value.as_bytes()))
            .chain(binary.map(|(key, value)| (key.as_str(), value.0.as_slice())))
            .collect();
        Keys {
            kind: "configmap",
            name,
            data,
        }
    }

    /// `stringData` goes over `data`, as an API server merges them.
    pub(super) fn of_secret(name: &'a str, object: Option<&'a Secret>) -> Self {
        let binary = object.and_then(|o| o.data.as_ref()).into_iter().flatten();
        let text = object.and_then(|o| o.string_data.as_ref()).into_iter().flatten();
        let data = binary
            .map(|(key, value)| (key.as_str(), value.0.as_slice()))
            .chain(text.map(|(key, value)| (key.as_str(), value.as_bytes())))
            .collect();
        Keys {
            kind: "secret",
            name,
            data,
        }
    }

    /// The files for `items`, or for every key without items. A missing key is an error unless `optional`.
    pub(super) fn payload(
        &self,
        items: Option<&[KeyToPath]>,
        optional: bool,
        style: Style,
    ) -> Result<Payload, VolumeError> {
        let mut payload = Payload::new();
        let items = items.unwrap_or_default();
        if items.is_empty() {
            for (key, data) in &self.data {
                payload.insert(PathBuf::from(key), style.file(data, None));
            }
            return Ok(payload);
        }
        for item in items {
            match self.data.get(item.key.as_str()) {
                Some(data) => {
                    payload.insert(PathBuf::from(&item.path), style.file(data, item.mode));
                }
                None if optional => {}
                None => {
                    return Err(VolumeError::KeyNotFound {
                        kind: self.kind,
                        name: self.name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(payload)
    }
}

impl Style {
    pub(super) fn file(self, data: &[u8], mode: Option<i32>) -> FileContent {
        let mode = mode.unwrap_or(self.default_mode).cast_unsigned() & 0o777;
        let mode = if self.group.is_some() {
            mode | GROUP_READ
        } else {
            mode
        };
        FileContent {
            data: data.to_vec(),
            mode,
            group: self.group,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    const STYLE: Style = Style {
        default_mode: DEFAULT_MODE,
        group: None,
    };

    fn config_map() -> ConfigMap {
        ConfigMap {
            data: Some(BTreeMap::from([
                ("a".into(), "1".into()),
                ("b".into(), "2".into()),
            ])),
            binary_data: Some(BTreeMap::from([("c".into(), ByteString(vec![0, 255]))])),
            ..ConfigMap::default()
        }
    }

    fn item(key: &str, path: &str, mode: Option<i32>) -> KeyToPath {
        KeyToPath {
            key: key.into(),
            path: path.into(),
            mode,
        }
    }

    #[test]
    fn every_key_or_the_items() {
        let object = config_map();
        let keys = Keys::of_config_map("cm", Some(&object));
        let all = keys.payload(None, false, STYLE).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[&PathBuf::from("c")].data, [0, 255]);
        assert_eq!(all[&PathBuf::from("a")].mode, 0o644);
        let some = keys
            .payload(Some(&[item("b", "x/y", Some(0o400))]), false, STYLE)
            .unwrap();
        assert_eq!(some.len(), 1);
        assert_eq!(
            some[&PathBuf::from("x/y")],
            FileContent {
                data: b"2".to_vec(),
                mode: 0o400,
                group: None
            }
        );
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        let object = config_map();
        let keys = Keys::of_config_map("cm", Some(&object));
        let items = [item("a", "a", None), item("z", "z", None)];
        let error = keys.payload(Some(&items), false, STYLE).unwrap_err();
        assert_eq!(error.to_string(), "configmap \"cm\" has no key \"z\"");
        assert_eq!(keys.payload(Some(&items), true, STYLE).unwrap().len(), 1);
    }

    #[test]
    fn the_group_may_read() {
        let object = config_map();
        let style = Style {
            default_mode: 0o400,
            group: Some(7),
        };
        let payload = Keys::of_config_map("cm", Some(&object))
            .payload(None, false, style)
            .unwrap();
        assert_eq!(
            (
                payload[&PathBuf::from("a")].mode,
                payload[&PathBuf::from("a")].group
            ),
            (0o440, Some(7))
        );
    }

    #[test]
    fn string_data_goes_over_data() {
        let secret = Secret {
            data: Some(BTreeMap::from([("k".into(), ByteString(b"old".to_vec()))])),
            string_data: Some(BTreeMap::from([("k".into(), "new".into())])),
            ..Secret::default()
        };
        let payload = Keys::of_secret("s", Some(&secret))
            .payload(None, false, STYLE)
            .unwrap();
        assert_eq!(payload[&PathBuf::from("k")].data, b"new");
    }
}
