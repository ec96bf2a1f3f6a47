//! The engine's own side, without any protocol.

use std::time::Duration;

use berth_cri::{ContainerConfig, Engine, EngineError, StreamOptions, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, container, idle, noise, read_to_end, words, write};
use crate::node::started;

const ALL: StreamOptions = StreamOptions {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
    size: None,
};

const TERMINAL: StreamOptions = StreamOptions {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: true,
    size: None,
};

#[test]
fn a_command_takes_input_until_it_is_closed_and_tells_its_exit_code() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = idle(engine, sandbox).await;
        let command = words(&["sh", "-c", "cat; echo done >&2; exit 7"]);
        let session = engine.exec(&id, command, ALL).await.unwrap();
        let sent = noise(3_000_000);
        let stdin = session.stdin.unwrap();
        let writer = async {
            write(&stdin, &sent).await;
            drop(stdin);
        };
        let outputs = (
            read_to_end(session.stdout.unwrap()),
            read_to_end(session.stderr.unwrap()),
        );
        let ((), stdout, stderr) = tokio::join!(writer, outputs.0, outputs.1);
        assert!(stdout == sent, "{} bytes of {}", stdout.len(), sent.len());
        assert_eq!(stderr, b"done\n");
        assert_eq!(session.end.await.unwrap().unwrap(), 7);
    });
}

#[test]
fn a_terminal_has_a_name_and_a_size_and_hangs_up() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = idle(engine, sandbox).await;
        let script = "read go; stty size; echo $TERM; tty=1; exit 4";
        let session = engine
            .exec(&id, words(&["sh", "-c", script]), TERMINAL)
            .await
            .unwrap();
        let size = TerminalSize {
            width: 132,
            height: 43,
        };
        session.resize.send_replace(Some(size));
        // The size is set on the same connection as this, in order.
        engine
            .exec_sync(&id, words(&["true"]), Duration::ZERO, 0)
            .await
            .unwrap();
        write(session.stdin.as_ref().unwrap(), b"go\n").await;
        let output = String::from_utf8(read_to_end(session.stdout.unwrap()).await).unwrap();
        assert!(output.ends_with("43 132\r\nxterm\r\n"), "{output:?}");
        assert_eq!(session.end.await.unwrap().unwrap(), 4);

        let left = engine
            .exec(&id, words(&["sleep", "1000"]), TERMINAL)
            .await
            .unwrap();
        drop((left.stdin, left.stdout));
        assert_eq!(left.end.await.unwrap().unwrap(), 129, "SIGHUP");
    });
}

#[test]
fn what_can_not_be_run_or_streamed_is_refused() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = engine
            .create_container(sandbox, container(&["sleep", "1000"]))
            .await
            .unwrap();
        let exec =
            async |command: &[&str], options| engine.exec(&id, words(command), options).await.unwrap_err();
        assert!(matches!(
            exec(&["true"], ALL).await,
            EngineError::FailedPrecondition(_)
        ));
        engine.start_container(&id).await.unwrap();
        assert!(matches!(
            exec(&["/no/such"], ALL).await,
            EngineError::CannotRun { exit_code: 127, .. }
        ));
        assert!(matches!(
            exec(&["/no/such"], TERMINAL).await,
            EngineError::CannotRun { exit_code: 127, .. }
        ));
        assert!(matches!(
            exec(&["/bin"], ALL).await,
            EngineError::CannotRun { exit_code: 126, .. }
        ));
        assert!(matches!(exec(&[], ALL).await, EngineError::InvalidArgument(_)));
        let both = StreamOptions { tty: true, ..ALL };
        assert!(matches!(
            exec(&["true"], both).await,
            EngineError::InvalidArgument(_)
        ));
        let none = StreamOptions::default();
        assert!(matches!(
            exec(&["true"], none).await,
            EngineError::InvalidArgument(_)
        ));
        engine.stop_container(&id, Duration::ZERO).await.unwrap();
        let error = engine.attach(&id, ALL).await.unwrap_err();
        assert!(matches!(error, EngineError::FailedPrecondition(_)), "{error}");
    });
}

#[test]
fn an_attached_client_gives_input_once() {
    Bench::new().with_pod(async |engine, sandbox| {
        let config = ContainerConfig {
            stdin: true,
            stdin_once: true,
            ..container(&["sh", "-c", "cat; echo end >&2"])
        };
        let id = started(engine, sandbox, config).await;
        let session = engine.attach(&id, ALL).await.unwrap();
        let sent = noise(1_000_000);
        let stdin = session.stdin.unwrap();
        let writer = async {
            write(&stdin, &sent).await;
            drop(stdin);
        };
        let outputs = (
            read_to_end(session.stdout.unwrap()),
            read_to_end(session.stderr.unwrap()),
        );
        let ((), stdout, stderr) = tokio::join!(writer, outputs.0, outputs.1);
        assert!(stdout == sent, "{} bytes of {}", stdout.len(), sent.len());
        assert_eq!(stderr, b"end\n");
        assert_eq!(session.end.await.unwrap().unwrap(), 0);
    });
}

#[test]
fn attaching_without_an_input_of_the_container_shows_its_output() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = started(
            engine,
            sandbox,
            container(&["sh", "-c", "while ! cat /tmp/go; do sleep 0.1; done"]),
        )
        .await;
        let session = engine.attach(&id, ALL).await.unwrap();
        assert!(session.stdin.is_none());
        let command = words(&[
            "sh",
            "-c",
            "echo went > /tmp/go.new && busybox mv /tmp/go.new /tmp/go",
        ]);
        let output = engine
            .exec_sync(&id, command, Duration::ZERO, 1000)
            .await
            .unwrap();
        assert_eq!(output.exit_code, 0, "{output:?}");
        assert_eq!(read_to_end(session.stdout.unwrap()).await, b"went\n");
    });
}

#[test]
fn a_port_of_the_pod_is_reached_from_outside_its_network() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = started(
            engine,
            sandbox,
            container(&["/bin/helper", "listen", "tcp", "7000"]),
        )
        .await;
        let command = words(&["/bin/helper", "connect", "tcp", "127.0.0.1:7000"]);
        while engine
            .exec_sync(&id, command.clone(), Duration::ZERO, 1000)
            .await
            .unwrap()
            .exit_code
            != 0
        {}
        let mut stream = engine.port_forward(sandbox, 7000).await.unwrap();
        stream.write_all(b"there and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"there and back");
        let refused = engine.port_forward(sandbox, 7001).await.unwrap_err().to_string();
        assert!(
            refused.contains("IPv4: dial tcp4 127.0.0.1:7001: connect: connection refused"),
            "{refused}"
        );
    });
}

#[test]
fn a_process_left_behind_does_not_keep_a_command_and_loses_nothing_of_it() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = idle(engine, sandbox).await;
        let script = "setsid sleep 1000 & yes 0123456 | head -c 60000";
        for _ in 0..20 {
            let output = engine
                .exec_sync(&id, words(&["sh", "-c", script]), Duration::ZERO, 1 << 20)
                .await
                .unwrap();
            assert_eq!((output.exit_code, output.stdout.len()), (0, 60_000));
        }
    });
}

#[test]
fn the_time_of_a_command_is_up_for_all_that_it_started() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = idle(engine, sandbox).await;
        let script = "setsid sleep 999 & (sleep 999 &); trap '' TERM; sleep 999";
        let error = engine
            .exec_sync(&id, words(&["sh", "-c", script]), Duration::from_millis(300), 100)
            .await
            .unwrap_err();
        assert!(matches!(error, EngineError::DeadlineExceeded(_)), "{error}");
        let list = words(&["sh", "-c", "busybox ps -o args | busybox grep -c '[s]leep 999'"]);
        let left = engine.exec_sync(&id, list, Duration::ZERO, 100).await.unwrap();
        assert_eq!(left.stdout, b"0\n");
    });
}

#[test]
fn a_flood_of_output_is_cut_and_does_not_hold_the_command_up() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = idle(engine, sandbox).await;
        let command = words(&["sh", "-c", "yes | head -c 40000000; yes | head -c 40000000 >&2"]);
        let limit = 16 << 20;
        let output = engine
            .exec_sync(&id, command, Duration::ZERO, limit)
            .await
            .unwrap();
        assert_eq!(
            (output.stdout.len(), output.stderr.len(), output.exit_code),
            (limit, limit, 0)
        );
    });
}
