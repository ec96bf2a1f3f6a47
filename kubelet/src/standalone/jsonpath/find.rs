//! What a path finds in a value.

use serde_json::Value;

use super::{Comparison, Operand, Step};

/// The values at the end of a path, from one of `value` or, after `$`, of `root`.
pub(super) fn walk<'v>(path: &[Step], value: &'v Value, root: &'v Value) -> Vec<&'v Value> {
    let mut values = vec![value];
    for step in path {
        // All values of the first of several come before those of the next, as kubectl has it.
        let steps = match step {
            Step::Union(steps) => steps.as_slice(),
            step => std::slice::from_ref(step),
        };
        values = steps
            .iter()
            .flat_map(|step| values.iter().flat_map(|value| one(step, value, root)))
            .collect();
    }
    values
}

fn one<'v>(step: &Step, value: &'v Value, root: &'v Value) -> Vec<&'v Value> {
    match step {
        Step::Root => vec![root],
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Quoted(name, path) => {
            let by_path = || path.iter().try_fold(value, |value, name| value.get(name));
            value.get(name).or_else(by_path).into_iter().collect()
        }
        Step::All => children(value),
        Step::Deep(name) => {
            let mut found: Vec<&Value> = value.get(name).into_iter().collect();
            found.extend(
                children(value)
                    .into_iter()
                    .flat_map(|child| one(step, child, root)),
            );
            found
        }
        Step::Index(index) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            position(*index, items.len())
                .and_then(|at| items.get(at))
                .into_iter()
                .collect()
        }
        Step::Slice(from, to, by) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let bound = |index: Option<i64>, default| {
                index.map_or(default, |index| {
                    position(index, items.len()).unwrap_or(0).min(items.len())
                })
            };
            let (from, to) = (bound(*from, 0), bound(*to, items.len()));
            let by = usize::try_from(*by).unwrap_or(1).max(1);
            items
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .step_by(by)
                .collect()
        }
        Step::Union(steps) => steps.iter().flat_map(|step| one(step, value, root)).collect(),
        Step::Filter(path, condition) => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            items
                .iter()
                .filter(|item| holds(path, condition.as_ref(), item, root))
                .collect()
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

fn holds(path: &[Step], condition: Option<&(Comparison, Operand)>, item: &Value, root: &Value) -> bool {
    let found = walk(path, item, root);
    let Some((comparison, operand)) = condition else {
        return !found.is_empty();
    };
    let other = match operand {
        Operand::Value(value) => Some(value),
        Operand::Path(path) => walk(path, item, root).into_iter().next(),
    };
    let (Some(one), Some(other)) = (found.into_iter().next(), other) else {
        return false;
    };
    let order = match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.partial_cmp(&other),
        _ if one == other => Some(std::cmp::Ordering::Equal),
        _ => one
            .as_str()
            .zip(other.as_str())
            .map(|(one, other)| one.cmp(other)),
    };
    match comparison {
        Comparison::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}
