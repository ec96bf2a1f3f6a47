use super::*;
use crate::testing;

struct Bench {
    dir: tempfile::TempDir,
    places: Places,
    records: Records,
}

impl Bench {
    fn new(spec: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet_root: dir.path().join("kubelet"),
            log_root: dir.path().join("logs"),
            run_root: dir.path().join("run"),
        };
        let records = Records::new(&places.kubelet_root);
        records
            .save(&PodRecord::new(testing::pod(spec), 1, PathBuf::new()))
            .unwrap();
        Self { dir, places, records }
    }

    fn write(&self, attempt: u32, lines: &[(u32, &str)]) {
        use std::io::Write;
        let logs = self.dir.path().join("logs/default_p_uid/c");
        std::fs::create_dir_all(&logs).unwrap();
        let path = logs.join(format!("{attempt}.log"));
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for (second, text) in lines {
            writeln!(file, "2026-01-01T00:00:{second:02}Z stdout F {text}").unwrap();
        }
    }

    async fn read(&self, options: LogOptions) -> Result<Vec<String>, InspectError> {
        let mut lines = Vec::new();
        let sink = |line: PodLogLine| {
            lines.push(String::from_utf8(line.text).unwrap().trim_end().to_owned());
            Ok(())
        };
        self.places
            .logs(&["p".to_owned()], &options, |_| {}, sink)
            .await?;
        Ok(lines)
    }

    fn status(&self, state: serde_json::Value) {
        let status = serde_json::json!({ "phase": "Running", "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }] });
        let uid = crate::identity::PodUid("uid".into());
        self.records
            .save_status(&uid, &serde_json::from_value(status).unwrap())
            .unwrap();
    }
}

#[tokio::test]
async fn tail_since_and_previous_choose_lines() {
    let bench = Bench::new(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    let options = LogOptions::default();
    let error = bench.read(options.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "Container c of pod p has no log yet.");
    bench.status(
        serde_json::json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such tag." } }),
    );
    let error = bench.read(options.clone()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Container c of pod p has no log yet: ImagePullBackOff: no such tag."
    );
    bench.status(serde_json::json!({ "running": {} }));
    bench.write(0, &[(0, "old")]);
    bench.write(1, &[(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(bench.read(options.clone()).await.unwrap(), ["a", "b", "c"]);
    let tail = |lines| LogOptions {
        tail: Some(lines),
        ..LogOptions::default()
    };
    assert_eq!(bench.read(tail(2)).await.unwrap(), ["b", "c"]);
    assert_eq!(bench.read(tail(0)).await.unwrap(), [""; 0]);
    assert_eq!(bench.read(tail(9)).await.unwrap(), ["a", "b", "c"]);
    let since = LogOptions {
        since: Some("2026-01-01T00:00:03Z".parse().unwrap()),
        ..LogOptions::default()
    };
    assert_eq!(bench.read(since).await.unwrap(), ["c"]);
    let previous = LogOptions {
        previous: true,
        ..LogOptions::default()
    };
    assert_eq!(bench.read(previous).await.unwrap(), ["old"]);
    let other = LogOptions {
        container: Some("x".into()),
        ..LogOptions::default()
    };
    assert_eq!(
        bench.read(other).await.unwrap_err().to_string(),
        "Pod p has no container x; it has c."
    );
}

#[tokio::test]
async fn a_log_is_followed_over_restarts_until_the_container_is_over() {
    let bench = Bench::new(r#"{"restartPolicy":"OnFailure","containers":[{"name":"c","image":"i"}]}"#);
    bench.status(serde_json::json!({ "running": {} }));
    bench.write(0, &[(0, "0"), (1, "1")]);
    let options = LogOptions {
        follow: true,
        tail: Some(1),
        ..LogOptions::default()
    };
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let places = bench.places.clone();
    let follower = tokio::spawn(async move {
        let sink = |line: PodLogLine| {
            let text = String::from_utf8(line.text).unwrap();
            sender.send(text.trim_end().to_owned()).unwrap();
            Ok(())
        };
        places.logs(&["p".to_owned()], &options, |_| {}, sink).await
    });
    assert_eq!(receiver.recv().await.unwrap(), "1");
    bench.write(0, &[(2, "2")]);
    assert_eq!(receiver.recv().await.unwrap(), "2");
    bench.status(serde_json::json!({ "terminated": { "exitCode": 1 } }));
    bench.write(1, &[(3, "again")]);
    assert_eq!(receiver.recv().await.unwrap(), "again");
    bench.write(1, &[(4, "last")]);
    bench.status(serde_json::json!({ "terminated": { "exitCode": 0 } }));
    assert_eq!(receiver.recv().await.unwrap(), "last");
    follower.await.unwrap().unwrap();
    assert_eq!(receiver.recv().await, None);
}

/// As a kubelet counts them: with times and ends of lines, for each container, and to the byte.
#[tokio::test]
async fn a_limit_of_bytes_cuts_each_log_off() {
    let bench = Bench::new(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench.write(0, &[(0, "one"), (1, "two"), (2, "three")]);
    let time = "2026-01-01T00:00:00Z ";
    for (limit, tail, timestamps, printed) in [
        (1, None, false, "o"),
        (3, None, false, "one"),
        (4, None, false, "one\n"),
        (6, None, false, "one\ntw"),
        (100, None, false, "one\ntwo\nthree\n"),
        (3, Some(1), false, "thr"),
        (24, None, true, &format!("{time}one")),
    ] {
        for follow in [false, true] {
            let options = LogOptions {
                limit_bytes: Some(limit),
                tail,
                timestamps,
                // Without an end of the container only the limit ends it.
                follow: follow && limit < 100,
                ..LogOptions::default()
            };
            let mut text = Vec::new();
            let sink = |line: PodLogLine| {
                text.extend(line.text);
                Ok(())
            };
            let pods = ["p".to_owned()];
            bench.places.logs(&pods, &options, |_| {}, sink).await.unwrap();
            assert_eq!(
                String::from_utf8(text).unwrap(),
                printed,
                "{limit} {tail:?} {follow}"
            );
        }
    }
}
