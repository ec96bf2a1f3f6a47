//! How long ends may take, and what a pod is that was done before its time was over.

use super::simulator::{Run, Simulator};

fn stubborn() -> Run {
    Run {
        stops_in: 60,
        ..Run::default()
    }
}

#[test]
fn a_startup_probe_may_have_a_grace_period_of_its_own() {
    let spec = r#"{"containers":[{"name":"c","image":"i",
        "startupProbe":{"exec":{"command":["x"]},"terminationGracePeriodSeconds":3}}]}"#;
    let never_starts = Run {
        starts: false,
        ..stubborn()
    };
    let mut node = Simulator::new(spec).runs("c", &[never_starts, Run::default()]);
    node.run(100);
    // It fails at 1.
    assert_eq!(node.seconds_of("end c"), [4]);
}

/// The deadline passes while a sidecar is still being ended.
#[test]
fn a_pod_that_was_done_in_time_is_not_out_of_time() {
    let spec = r#"{"restartPolicy":"Never","activeDeadlineSeconds":10,
        "initContainers":[{"name":"s","image":"i","restartPolicy":"Always"}],
        "containers":[{"name":"c","image":"i"}]}"#;
    let mut node = Simulator::new(spec)
        .runs("s", &[stubborn()])
        .runs("c", &[Run::ends(5, 0)]);
    node.run(100);
    assert_eq!(node.seconds_of("end s"), [35]);
    assert_eq!(node.phase(), "Succeeded");
}
