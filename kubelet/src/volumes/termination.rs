//! What an ended container has to say: its termination message.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_cri::ContainerStatus;

use super::PodDir;
use crate::defaults::{
    MAX_CONTAINER_TERMINATION_MESSAGE_LENGTH, MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH,
    MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES,
};
use crate::logs::LineJoiner;

/// The termination message of an ended container: what it wrote to its file, or, if it failed and wrote nothing and
/// `fallback_to_logs` (`FallbackToLogsOnError`), the end of its log.
pub fn termination_message(dir: &PodDir, status: &ContainerStatus, fallback_to_logs: bool) -> String {
    let file = dir.termination_log(&status.config.name, status.config.attempt);
    let message = read_start(&file, MAX_CONTAINER_TERMINATION_MESSAGE_LENGTH).unwrap_or_default();
    if !message.is_empty() || !fallback_to_logs || status.exit_code == 0 {
        return String::from_utf8_lossy(&message).into_owned();
    }
    log_end(&status.log_path).unwrap_or_default()
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    // A container may have made the log directory's files into anything that it can reach.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

fn read_start(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The last lines of a log, without their times.
fn log_end(path: &Path) -> io::Result<String> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    // Each line has some fifty bytes that are not text; a whole line is skipped at the cut.
    let window = (2 * MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH
        + 64 * MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES) as u64;
    let start = length.saturating_sub(window);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let mut joiner = LineJoiner::default();
    let mut lines: Vec<Vec<u8>> = bytes
        .split(|&b| b == b'\n')
        .skip(usize::from(start > 0))
        .filter(|record| !record.is_empty())
        .filter_map(|record| joiner.push(record))
        .map(|line| line.text)
        .collect();
    lines.extend(joiner.finish().into_iter().map(|line| line.text));
    let last = lines.split_off(
        lines
            .len()
            .saturating_sub(MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LINES),
    );
    let mut text = String::new();
    for line in last {
        text.push_str(&String::from_utf8_lossy(&line));
        text.push('\n');
    }
    let mut cut = text
        .len()
        .saturating_sub(MAX_CONTAINER_TERMINATION_MESSAGE_LOG_LENGTH);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    Ok(text.split_off(cut))
}

#[cfg(test)]
mod tests {
    use berth_cri::{ContainerConfig, ContainerId, ContainerState, ImageId, SandboxId};

    use super::*;
    use crate::identity::PodUid;

    #[test]
    fn a_log_speaks_for_a_container_that_failed_in_silence() {
        let root = tempfile::tempdir().unwrap();
        let dir = PodDir::new(root.path(), &PodUid("uid".into()));
        let log = root.path().join("log");
        let lines: String = (0..100)
            .map(|n| format!("2026-01-02T03:04:05.000000006Z stdout F line {n}\n"))
            .collect();
        std::fs::write(&log, lines).unwrap();
        let ended = |exit_code| ContainerStatus {
            id: ContainerId("c".into()),
            sandbox: SandboxId("s".into()),
            pod_uid: "uid".into(),
            config: ContainerConfig {
                name: "c".into(),
                ..ContainerConfig::default()
            },
            image_id: ImageId("sha256:1".into()),
            state: ContainerState::Exited,
            created_at: 0,
            started_at: 0,
            finished_at: 0,
            exit_code,
            reason: String::new(),
            message: String::new(),
            log_path: log.clone(),
            pid: 0,
            user: None,
            stop_signal: 15,
        };
        let said = |code, fallback| termination_message(&dir, &ended(code), fallback);
        assert_eq!((said(0, true), said(1, false)), (String::new(), String::new()));
        let end: String = (20..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(said(1, true), end);
        let file = dir.termination_log("c", 0);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "own words").unwrap();
        for (code, fallback) in [(0, true), (1, true), (1, false)] {
            assert_eq!(said(code, fallback), "own words");
        }
    }
}
