//! `berth wait`: until a pod is as somebody wants it.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::inspect::{InspectError, Places};
use super::jsonpath::{JsonPath, plain};
use crate::watch::Watch;

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum Until {
    /// Nothing is left of the pod.
    Delete,
    /// There is such a pod.
    Create,
    /// A condition of its status has this value.
    Condition(String, String),
    /// What a path finds has this value, or is there at all.
    Found(JsonPath, Option<String>),
}

impl std::str::FromStr for Until {
    type Err = String;

    /// kubectl's `--for`: `delete`, `create`, `condition=NAME[=VALUE]` or `jsonpath=PATH[=VALUE]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "True"));
            return Ok(Self::Condition(name.to_owned(), value.to_owned()));
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            // A shell that took no quotes away left those around the path.
            let path = path.replace("}'=", "}=").replace("}\"=", "}=");
            let path = path.trim_matches(['\'', '"']);
            // An equals sign in a filter is not the one before the value.
            let (path, value) = match path.rsplit_once("}=") {
                Some((path, value)) => (format!("{path}}}"), Some(value.to_owned())),
                None if path.contains('{') => (path.to_owned(), None),
                None => match path.rsplit_once('=') {
                    Some((path, value)) => (path.to_owned(), Some(value.to_owned())),
                    None => (path.to_owned(), None),
                },
            };
            return Ok(Self::Found(JsonPath::parse(&path)?, value));
        }
        match text.to_ascii_lowercase().as_str() {
            "delete" => Ok(Self::Delete),
            "create" => Ok(Self::Create),
            _ => Err("expected delete, create, condition=NAME[=VALUE] or jsonpath=PATH[=VALUE]".to_owned()),
        }
    }
}

impl Until {
    fn bears_absence(&self) -> bool {
        matches!(self, Self::Delete | Self::Create)
    }

    fn holds(&self, pod: Option<&Pod>) -> bool {
        let Some(pod) = pod else {
            return *self == Self::Delete;
        };
        match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Condition(name, value) => {
                let conditions = pod
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten());
                let mut named = conditions.filter(|condition| condition.type_.eq_ignore_ascii_case(name));
                named.any(|condition| condition.status.eq_ignore_ascii_case(value))
            }
            Self::Found(path, value) => {
                let pod = serde_json::to_value(pod).unwrap_or(Value::Null);
                let found = path.find(&pod);
                match value {
                    Some(value) => found.first().is_some_and(|found| plain(found) == *value),
                    None => !found.is_empty(),
                }
            }
        }
    }
}

impl Places {
    /// Returns when a pod is as it is wanted.
    ///
    /// # Errors
    /// There is no such pod, unless that is what is waited for; or the records can't be read or watched.
    pub async fn wait(&self, pod: &str, until: &Until) -> Result<(), InspectError> {
        let holds = |found: Option<&Pod>| until.holds(found).then_some(());
        self.until(pod, until.bears_absence(), holds).await
    }

    /// Returns what is looked for in a pod that there is, once it is found.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(super) async fn when<T>(
        &self,
        pod: &str,
        mut find: impl FnMut(&Pod) -> Option<T>,
    ) -> Result<T, InspectError> {
        self.until(pod, false, |found| found.and_then(&mut find)).await
    }

    async fn until<T>(
        &self,
        pod: &str,
        may_be_absent: bool,
        mut find: impl FnMut(Option<&Pod>) -> Option<T>,
    ) -> Result<T, InspectError> {
        let directory = self.kubelet_root.join("pod-records");
        let failed = |source| InspectError::Watch {
            path: directory.clone(),
            source,
        };
        let watch = Watch::new(vec![directory.clone()]).map_err(failed)?;
        loop {
            watch.arm().map_err(failed)?;
            let found = match self.pod(pod) {
                Ok(found) => Some(found),
                Err(InspectError::NoPod(..)) if may_be_absent => None,
                Err(error) => return Err(error),
            };
            if let Some(found) = find(found.as_ref()) {
                return Ok(found);
            }
            watch.changed().await.map_err(failed)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_paths_hold_or_not() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p" },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }] },
        }))
        .unwrap();
        for (text, holds) in [
            ("condition=Ready", false),
            ("condition=ready=false", true),
            ("condition=Other", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Failed", false),
            ("jsonpath={.status.podIP}", false),
            ("jsonpath=.status.phase=Running", true),
            (
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=False",
                true,
            ),
            ("create", true),
            ("delete", false),
        ] {
            let until: Until = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(until.holds(Some(&pod)), holds, "{text}");
        }
        assert!("delete".parse::<Until>().unwrap().holds(None));
        assert!("ready".parse::<Until>().is_err());
    }
}
