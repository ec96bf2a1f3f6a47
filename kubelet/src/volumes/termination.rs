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
