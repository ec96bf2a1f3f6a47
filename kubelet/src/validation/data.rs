//! The rules for what is in ConfigMaps and Secrets.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::{Errors, FieldError};

/// The annotation that a service account's Secret has to have.
const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";

/// The rules for a ConfigMap beside those for each key.
pub fn validate_config_map(map: &ConfigMap) -> Vec<FieldError> {
    let mut errors = Errors::default();
    for key in map.data.iter().flatten().map(|(key, _)| key) {
        if map
            .binary_data
            .as_ref()
            .is_some_and(|other| other.contains_key(key))
        {
            errors.invalid(
                &format!("data[{key}]"),
                key,
                "duplicate of key present in binaryData",
            );
        }
    }
    errors.0
}

/// What a Secret of its type must have, its `stringData` being in its data.
pub fn validate_secret(secret: &Secret) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let value = |key: &str| Some(secret.data.as_ref()?.get(key)?.0.as_slice());
    let required = |key: &str, errors: &mut Errors| {
        if value(key).is_none() {
            errors.required(&format!("data[{key}]"), "");
        }
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            let account = annotations.and_then(|all| all.get(SERVICE_ACCOUNT));
            if account.is_none_or(String::is_empty) {
                errors.required(&format!("metadata.annotations[{SERVICE_ACCOUNT}]"), "");
            }
        }
        "kubernetes.io/dockercfg" => json_object(".dockercfg", value(".dockercfg"), &mut errors),
        "kubernetes.io/dockerconfigjson" => {
            json_object(".dockerconfigjson", value(".dockerconfigjson"), &mut errors);
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            required("username", &mut errors);
            required("password", &mut errors);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            errors.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => {
            required("tls.crt", &mut errors);
            required("tls.key", &mut errors);
        }
        _ => {}
    }
    errors.0
}

/// What a registry is asked with is an object; what it says is not repeated.
fn json_object(key: &str, value: Option<&[u8]>, errors: &mut Errors) {
    let path = format!("data[{key}]");
    let Some(value) = value else {
        return errors.required(&path, "");
    };
    match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(serde_json::Value::Object(_) | serde_json::Value::Null) => {}
        Ok(_) => errors.invalid(&path, "<secret contents redacted>", "must be a JSON object"),
        Err(error) => errors.invalid(&path, "<secret contents redacted>", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn paths(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.path.as_str()).collect()
    }

    #[test]
    fn a_secret_has_what_its_type_says() {
        let none: [&str; 0] = [];
        let both = ["data[username]", "data[password]"];
        let tls = ["data[tls.crt]", "data[tls.key]"];
        for (kind, data, expected) in [
            ("Opaque", json!({}), none.as_slice()),
            ("example.com/own", json!({}), &none),
            ("kubernetes.io/basic-auth", json!({}), &both),
            ("kubernetes.io/basic-auth", json!({"password": ""}), &none),
            (
                "kubernetes.io/ssh-auth",
                json!({"ssh-privatekey": ""}),
                &["data[ssh-privatekey]"],
            ),
            ("kubernetes.io/ssh-auth", json!({"ssh-privatekey": "aw=="}), &none),
            ("kubernetes.io/tls", json!({}), &tls),
            ("kubernetes.io/tls", json!({"tls.crt": "", "tls.key": ""}), &none),
            ("kubernetes.io/dockercfg", json!({}), &["data[.dockercfg]"]),
            (
                "kubernetes.io/dockercfg",
                json!({".dockercfg": "bm8="}),
                &["data[.dockercfg]"],
            ),
            (
                "kubernetes.io/dockerconfigjson",
                json!({".dockerconfigjson": "e30="}),
                &none,
            ),
            (
                "kubernetes.io/dockerconfigjson",
                json!({".dockerconfigjson": "W10="}),
                &["data[.dockerconfigjson]"],
            ),
            (
                "kubernetes.io/service-account-token",
                json!({}),
                &["metadata.annotations[kubernetes.io/service-account.name]"],
            ),
        ] {
            let secret: Value = json!({"metadata": {"name": "s"}, "type": kind, "data": data});
            let errors = validate_secret(&serde_json::from_value(secret).unwrap());
            assert_eq!(paths(&errors), expected, "{kind} {data}");
        }
    }

    #[test]
    fn a_key_is_text_or_bytes() {
        let map = json!({"metadata": {"name": "m"}, "data": {"a": "", "b": ""}, "binaryData": {"b": ""}});
        let errors = validate_config_map(&serde_json::from_value(map).unwrap());
        assert_eq!(paths(&errors), ["data[b]"]);
    }
}
