//! Following a container's log while it is written.

use std::io;

use berth_cri::{ContainerId, Engine, EngineError};

use super::line::LogLine;
use super::reader::LogReader;

/// Passes each line of a container's log to `sink` until the log is complete or the engine has forgotten the container.
///
/// The engine's counter is marked as seen before the file is read, so what is written between the read and the wait
/// ends the wait.
pub async fn follow(
    engine: &dyn Engine,
    container: &ContainerId,
    mut reader: LogReader,
    mut sink: impl FnMut(LogLine),
) -> io::Result<()> {
    let mut counter = match engine.watch_log(container).await {
        Ok(counter) => Some(counter),
        Err(EngineError::NotFound(_)) => None,
        Err(error) => return Err(io::Error::other(error.to_string())),
    };
    while let Some(watch) = &mut counter {
        watch.borrow_and_update();
        drain(&mut reader, &mut sink)?;
        if watch.changed().await.is_err() {
            counter = None;
        }
    }
    drain(&mut reader, &mut sink)?;
    reader.finish().into_iter().for_each(sink);
    Ok(())
}

fn drain(reader: &mut LogReader, sink: &mut impl FnMut(LogLine)) -> io::Result<()> {
    while let Some(line) = reader.next_line()? {
        sink(line);
    }
    Ok(())
}
