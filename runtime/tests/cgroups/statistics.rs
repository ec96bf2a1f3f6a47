//! What `events --stats` shows, against what the group did.

use serde_json::Value;

use super::*;

#[test]
fn every_part_counts_what_was_used() {
    let group = Group::new("statistics");
    group
        .apply(r#"{"memory": {"limit": 67108864}, "pids": {"limit": 20}}"#)
        .unwrap();
    let script = "head -c 8000000 /dev/zero | tail -c 8000000 | (sleep 1000; cat) & while :; do :; done";
    let mut child = group.shell(script);
    let now = || group.0.statistics().unwrap();
    wait_until("memory is used", || now().memory.usage.usage > 4 << 20);
    group
        .apply(r#"{"cpu": {"quota": 5000, "period": 100000}}"#)
        .unwrap();
    // The time is counted once a period of waiting is over.
    wait_until("time is held back", || now().cpu.throttling.throttled_time > 0);
    let found = group.0.statistics().unwrap();
    assert!(found.cpu.usage.total > 1_000_000, "{found:?}");
    assert!(
        found.cpu.throttling.throttled_periods > 0 && found.cpu.throttling.throttled_time > 0,
        "{found:?}"
    );
    assert_eq!((found.memory.usage.limit, found.pids.limit), (67_108_864, 20));
    assert!((1..=8).contains(&found.pids.current), "{found:?}");
    assert!(found.memory.raw.contains_key("pgfault"), "{found:?}");
    assert!(
        found.memory.swap.usage >= found.memory.usage.usage / 2,
        "{found:?}"
    );

    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(json["network_interfaces"], Value::Null);
    if !unified() {
        assert!(
            !json["cpu"]["usage"]["percpu"].as_array().unwrap().is_empty(),
            "{json}"
        );
        assert_eq!(json["cpuset"]["cpus"][0], 0, "{json}");
    }
    group.0.kill_all().unwrap();
    child.wait().unwrap();
}

/// The counters of a group whose container ended are still there; those of a group that is gone are an error.
#[test]
fn a_group_that_is_gone_says_so() {
    let group = Group::new("statistics-gone");
    group.0.statistics().unwrap();
    group.0.delete().unwrap();
    let error = group.0.statistics().unwrap_err().to_string();
    assert!(error.contains("statistics-gone"), "{error}");
}
