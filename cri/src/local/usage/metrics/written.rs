//! Metrics of one object, as they are put together.

use super::family::Family;
use crate::v1;

/// The metrics of one container or sandbox, which have its labels and one time.
#[derive(Debug)]
pub(super) struct Written {
    labels: Vec<String>,
    at: i64,
    metrics: Vec<v1::Metric>,
}

impl Written {
    /// None yet. `labels` are the values of [`super::family::BASE`], and `at` is in nanoseconds.
    pub(super) fn new(labels: Vec<String>, at: i64) -> Self {
        Self {
            labels,
            at,
            metrics: Vec::with_capacity(64),
        }
    }

    /// A metric without labels of its own.
    pub(super) fn plain(&mut self, family: &Family, value: u64) {
        self.labelled(family, &[], value);
    }

    /// A metric without labels of its own, if its value is known.
    pub(super) fn known(&mut self, family: &Family, value: Option<u64>) {
        if let Some(value) = value {
            self.plain(family, value);
        }
    }

    /// A metric with the values of its family's labels.
    pub(super) fn labelled(&mut self, family: &Family, values: &[&str], value: u64) {
        debug_assert_eq!(family.labels.len(), values.len(), "{}", family.name);
        let own = values.iter().map(|value| (*value).to_owned());
        self.metrics.push(v1::Metric {
            name: family.name.to_owned(),
            timestamp: self.at,
            metric_type: family.kind.into(),
            label_values: self.labels.iter().cloned().chain(own).collect(),
            value: Some(super::super::message::number(value)),
        });
    }

    pub(super) fn done(self) -> Vec<v1::Metric> {
        self.metrics
    }
}
