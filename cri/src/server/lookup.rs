//! From the beginning of an id, as people type it, to the object.

use tonic::Status;

use super::failure::status;
use crate::engine::{Engine, EngineError};
use crate::types::{ContainerId, SandboxId};

/// The digits of a whole id.
const WHOLE: usize = 64;

/// The sandbox whose id begins so. A whole id is itself, whether it is there or not.
pub(super) async fn sandbox(engine: &dyn Engine, id: &str) -> Result<SandboxId, Status> {
    if id.len() == WHOLE {
        return Ok(SandboxId(id.to_owned()));
    }
    let all = engine.list_pod_sandboxes(None).await.map_err(status)?;
    one("sandbox", id, all.into_iter().map(|sandbox| sandbox.id.0)).map(SandboxId)
}

/// The container whose id begins so. A whole id is itself, whether it is there or not.
pub(super) async fn container(engine: &dyn Engine, id: &str) -> Result<ContainerId, Status> {
    if id.len() == WHOLE {
        return Ok(ContainerId(id.to_owned()));
    }
    let all = engine.list_containers(None).await.map_err(status)?;
    one("container", id, all.into_iter().map(|container| container.id.0)).map(ContainerId)
}

fn one(kind: &str, prefix: &str, ids: impl Iterator<Item = String>) -> Result<String, Status> {
    if prefix.is_empty() {
        return Err(status(EngineError::InvalidArgument(format!(
            "The request names no {kind}."
        ))));
    }
    let mut found = ids.filter(|id| id.starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(status(EngineError::NotFound(format!(
            "There is no {kind} {prefix}."
        )))),
        (Some(_), Some(_)) => Err(status(EngineError::InvalidArgument(format!(
            "The ids of several objects begin with {prefix}; give more of the {kind}'s."
        )))),
    }
}

/// A missing object is no error to who wants it gone.
pub(super) fn unless_missing<T>(found: Result<T, Status>) -> Result<Option<T>, Status> {
    match found {
        Ok(id) => Ok(Some(id)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_names_one_object() {
        let ids = || ["abc1", "abc2", "d"].map(str::to_owned).into_iter();
        assert_eq!(one("container", "abc2", ids()).unwrap(), "abc2");
        assert_eq!(one("container", "d", ids()).unwrap(), "d");
        let code = |prefix| one("container", prefix, ids()).unwrap_err().code();
        assert_eq!(code("ab"), tonic::Code::InvalidArgument);
        assert_eq!(code("x"), tonic::Code::NotFound);
        assert_eq!(code(""), tonic::Code::InvalidArgument);
    }
}
