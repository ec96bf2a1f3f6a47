use super::*;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;

fn mapping(host_ip: Option<&str>, protocol: Protocol) -> PortMapping {
    PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol,
        host_ip: host_ip.map(|address| address.parse().unwrap()),
    }
}

fn port(at: &str) -> HostPort {
    HostPort {
        protocol: Protocol::Tcp,
        at: at.parse().unwrap(),
        to: "10.0.0.2:80".parse().unwrap(),
    }
}

#[test]
fn ports_lead_to_the_pod_whichever_address_of_the_machine_they_are_at() {
    let pod: Vec<IpAddr> = ["fd00::2", "10.0.0.2"]
        .map(|address| address.parse().unwrap())
        .into();
    for (host_ip, at) in [
        (None, ["0.0.0.0:8080", "[::]:8080"].as_slice()),
        (Some("127.0.0.1"), &["127.0.0.1:8080"]),
        (Some("::1"), &["[::1]:8080"]),
    ] {
        let found = ports(&[mapping(host_ip, Protocol::Tcp)], &pod).unwrap();
        let expected: Vec<HostPort> = at.iter().map(|at| port(at)).collect();
        assert_eq!(found, expected, "{host_ip:?}");
    }
    let unmapped = PortMapping {
        host_port: 0,
        ..mapping(None, Protocol::Sctp)
    };
    assert_eq!(ports(&[unmapped], &pod).unwrap(), []);
    let refused = ports(&[mapping(None, Protocol::Sctp)], &pod).unwrap_err();
    assert!(refused.to_string().contains("SCTP is not"), "{refused}");
    let refused = ports(&[mapping(None, Protocol::Udp)], &[]).unwrap_err();
    assert!(refused.to_string().contains("no address"), "{refused}");
}

#[test]
fn a_request_is_all_of_its_fields_and_no_other() {
    let forward =
        r#"{"forward":{"sandbox":"a","ports":[{"protocol":"UDP","at":"[::1]:53","to":"10.0.0.2:53"}]}}"#;
    let understood: Request = serde_json::from_str(forward).unwrap();
    assert_eq!(serde_json::to_string(&understood).unwrap(), forward);
    let deep = "[".repeat(10_000);
    for text in [
        "",
        "null",
        "{}",
        "\"release\"",
        r#"{"release":{}}"#,
        r#"{"release":{"sandbox":1}}"#,
        r#"{"release":{"sandbox":"a","all":true}}"#,
        r#"{"release":{"sandbox":"a"},"forward":{"sandbox":"a","ports":[]}}"#,
        r#"{"forward":{"sandbox":"a","ports":{}}}"#,
        r#"{"forward":{"sandbox":"a","ports":[{"protocol":"UDP","at":"[::1]:53"}]}}"#,
        r#"{"forward":{"sandbox":"a","ports":[{"protocol":"UDP","at":"localhost:53","to":"10.0.0.2:53"}]}}"#,
        r#"{"forward":{"sandbox":"a","ports":[{"protocol":"UDP","at":"[::1]:65536","to":"10.0.0.2:53"}]}}"#,
        r#"{"forward":{"sandbox":"a","ports":[{"protocol":"ICMP","at":"[::1]:53","to":"10.0.0.2:53"}]}}"#,
        &deep,
    ] {
        let misunderstood = serde_json::from_str::<Request>(text);
        assert!(misunderstood.is_err(), "{text}: {misunderstood:?}");
    }
}

#[test]
fn a_record_that_can_t_be_read_is_in_nobody_s_way() {
    let dir = tempfile::tempdir().unwrap();
    let broken = serde_json::to_vec(&[port("127.0.0.1:8080")]).unwrap();
    let (first, _) = broken.split_at(20);
    for (name, text) in [("whole", broken.as_slice()), ("half", first), ("empty", b"")] {
        let sandbox = dir.path().join("sandboxes").join(name);
        std::fs::create_dir_all(&sandbox).unwrap();
        std::fs::write(sandbox.join(RECORD), text).unwrap();
    }
    let expected = [("whole".to_owned(), vec![port("127.0.0.1:8080")])];
    assert_eq!(recorded(dir.path()), expected);
    assert_eq!(recorded(&dir.path().join("nowhere")), []);
}

/// Answers one request after the other; an empty answer is what one leaves who is killed.
fn forwarder(path: &Path, answers: Vec<Option<Answer>>) -> Arc<Mutex<Vec<Request>>> {
    let listener = UnixListener::bind(path).unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await.unwrap();
            all.lock().unwrap().push(serde_json::from_slice(&text).unwrap());
            if let Some(answer) = answer {
                stream
                    .write_all(&serde_json::to_vec(&answer).unwrap())
                    .await
                    .unwrap();
            }
        }
    });
    heard
}

#[tokio::test]
async fn what_is_forwarded_is_recorded_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, run) = (dir.path().join("s"), dir.path().join("sandboxes/one"));
    std::fs::create_dir_all(&run).unwrap();
    std::fs::create_dir(dir.path().join("sandboxes/without")).unwrap();
    let taken = Answer::Taken {
        at: "[::1]:8080".parse().unwrap(),
        why: "busy".to_owned(),
    };
    // The first one is killed before it answers.
    let heard = forwarder(
        &socket,
        vec![None, Some(Answer::Done), Some(taken), Some(Answer::Done)],
    );
    let ports = vec![port("127.0.0.1:8080"), port("[::1]:8080")];
    add(&socket, ("one", &run), ports.clone()).await.unwrap();
    assert_eq!(recorded(dir.path()), [("one".to_owned(), ports.clone())]);
    let error = add(&socket, ("one", &run), ports.clone()).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("Port 8080 of the machine can't be had at ::1: busy"),
        "{said}"
    );
    assert_eq!(recorded(dir.path()), []);
    remove(&socket, ("one", &run)).await.unwrap();
    let forward = Request::Forward {
        sandbox: "one".to_owned(),
        ports,
    };
    let release = Request::Release {
        sandbox: "one".to_owned(),
    };
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard, [forward.clone(), forward.clone(), forward, release]);
    // Nobody listens any more, and nothing is left to do.
    remove(&socket, ("one", &run)).await.unwrap();
}
