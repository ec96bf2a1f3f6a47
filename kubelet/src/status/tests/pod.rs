//! The pod as a whole.

use super::*;

#[test]
fn reads_as_kubectl_shows_it() {
    let status = scene(ONE).ended("c", 0, 1).running("c", 1).status();
    let time = "1970-01-01T00:00:09Z";
    let met = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time, "observedGeneration": 1});
    let ended = json!({"exitCode": 1, "reason": "Error", "startedAt": "1970-01-01T00:00:02Z",
        "finishedAt": "1970-01-01T00:00:03Z", "containerID": "berth://c0"});
    let expected = json!({
        "phase": "Running",
        "observedGeneration": 1,
        "qosClass": "BestEffort",
        "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}],
        "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}],
        "startTime": "1970-01-01T00:00:01Z",
        "conditions": [met("PodReadyToStartContainers"), met("Initialized"), met("Ready"), met("ContainersReady"), met("PodScheduled")],
        "containerStatuses": [{
            "name": "c", "image": "i:1", "imageID": "sha256:1", "containerID": "berth://c1",
            "ready": true, "started": true, "restartCount": 1, "resources": {},
            "state": {"running": {"startedAt": "1970-01-01T00:00:02Z"}},
            "lastState": {"terminated": ended},
        }],
    });
    let found: Value = serde_json::to_value(&status).unwrap();
    assert_eq!(
        found,
        expected,
        "{}",
        serde_json::to_string_pretty(&found).unwrap()
    );
}

#[test]
fn a_pod_with_the_hosts_network_has_the_hosts_address() {
    let status = scene(r#"{"hostNetwork":true,"containers":[{"name":"c","image":"i:1"}]}"#).status();
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
}

#[test]
fn the_pod_s_resources_are_those_of_its_containers() {
    let found = scene(
        r#"{"initContainers":[
              {"name":"s","image":"i:1","restartPolicy":"Always","resources":{"requests":{"cpu":"50m","memory":"10Mi"},"limits":{"memory":"20Mi"}}},
              {"name":"i","image":"i:1","resources":{"requests":{"cpu":"300m"}}}],
            "containers":[{"name":"c","image":"i:1","resources":{"requests":{"cpu":"100m","memory":"20Mi"},"limits":{"cpu":"1","memory":"40Mi"}}}]}"#,
    );
    let status = found.status();
    assert_eq!(
        serde_json::to_value((&status.allocated_resources, &status.resources)).unwrap(),
        json!([
            { "cpu": "350m", "memory": "30Mi" },
            { "requests": { "cpu": "350m", "memory": "30Mi" }, "limits": { "cpu": "1", "memory": "60Mi" } }
        ])
    );
    let own = r#"{"resources":{"requests":{"cpu":"2"},"limits":{"cpu":"2"}},"containers":[{"name":"c","image":"i:1","resources":{"requests":{"cpu":"1"}}}]}"#;
    let status = scene(own).status();
    assert_eq!(
        serde_json::to_value(&status.allocated_resources).unwrap(),
        json!({ "cpu": "2" })
    );
    let status = scene(ONE).status();
    assert_eq!((status.allocated_resources, status.resources), (None, None));
}
