//! `berth stats`: what pods use, between two looks.

use std::collections::BTreeMap;

use super::control::{CallError, Caller, ContainerUsage, PodUsage};

/// What a container uses, for people.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Thousandths of a processor; `None` before the second look, and where the kernel does not count.
    pub milli_cpu: Option<u64>,
    /// Bytes that can't be taken from it without harm.
    pub memory: Option<u64>,
    /// Its limit of memory in bytes.
    pub memory_limit: Option<i64>,
    /// Bytes of its writable layer.
    pub layer: Option<u64>,
    /// Bytes that came to its pod.
    pub received: Option<u64>,
    /// Bytes that its pod sent.
    pub sent: Option<u64>,
    /// Its processes; `None` where its runtime does not tell.
    pub processes: Option<u64>,
}

/// Looks again and again; a rate of processor time is between two looks.
#[derive(Debug, Default)]
pub struct Meter {
    last: BTreeMap<String, (i64, u64)>,
}

impl Meter {
    /// What these pods use, a line for each container that runs. Pods that have gone meanwhile are left out.
    ///
    /// # Errors
    /// Who runs a pod can't be asked.
    pub async fn look(&mut self, caller: &Caller, pods: &[String]) -> Result<Vec<Usage>, CallError> {
        let mut lines = Vec::new();
        for pod in pods {
            match caller.usage(pod).await {
                Ok(usage) => lines.extend(self.enter(usage)),
                Err(CallError::Inspect(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lines)
    }

    fn enter(&mut self, pod: PodUsage) -> Vec<Usage> {
        let PodUsage {
            namespace,
            name,
            received,
            sent,
            containers,
            ..
        } = pod;
        let line = |container: ContainerUsage| Usage {
            namespace: namespace.clone(),
            pod: name.clone(),
            milli_cpu: self.rate(&container),
            container: container.name,
            memory: container.working_set,
            memory_limit: container.memory_limit,
            layer: container.layer,
            received,
            sent,
            processes: container.processes,
        };
        containers.into_iter().map(line).collect()
    }

    fn rate(&mut self, container: &ContainerUsage) -> Option<u64> {
        let used = container.cpu?;
        let (at, before) = self.last.insert(container.id.clone(), (container.at, used))?;
        let passed = u64::try_from(container.at - at)
            .ok()
            .filter(|passed| *passed > 0)?;
        Some(used.saturating_sub(before).saturating_mul(1000) / passed)
    }
}

/// Bytes as `kubectl top` and `podman stats` show them: `12.5MiB`.
pub fn binary_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut tenths, mut unit) = (u128::from(bytes) * 10, 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 || tenths >= 1000 {
        return format!("{}{}", tenths / 10, units[unit]);
    }
    format!("{}.{}{}", tenths / 10, tenths % 10, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_between_two_looks() {
        let mut meter = Meter::default();
        let pod = |at: i64, cpu: u64| PodUsage {
            containers: vec![ContainerUsage {
                id: "c".into(),
                at,
                cpu: Some(cpu),
                ..ContainerUsage::default()
            }],
            ..PodUsage::default()
        };
        assert_eq!(meter.enter(pod(1_000_000_000, 5))[0].milli_cpu, None);
        assert_eq!(
            meter.enter(pod(3_000_000_000, 500_000_005))[0].milli_cpu,
            Some(250)
        );
        assert_eq!(meter.enter(pod(3_000_000_000, 500_000_005))[0].milli_cpu, None);
    }

    #[test]
    fn bytes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (150 << 20, "150MiB"),
            (1_610_612_736, "1.5GiB"),
        ] {
            assert_eq!(binary_bytes(bytes), text);
        }
    }
}
