//! The answering end: what a process does for others with the pods that it runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::Arc;

use berth_cri::{ContainerStatus, Session, StreamOptions, TerminalSize};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

use super::owned::Owned;
use super::protocol::{
    Answer, ContainerSummary, Ended, Refusal, RefusalKind, Reply, Request, Resize, SentWorkload,
};
use super::usage;
use super::wire::Wire;
use crate::identity::PodUid;
use crate::plan::Objects;
use crate::spec;

/// Answers the question of one connection.
pub(super) async fn serve(owned: Arc<Owned>, wire: Wire) {
    if !wire.is_trusted() {
        return;
    }
    let request = match wire.receive::<Request>().await {
        Ok(Some((request, _))) => request,
        Ok(None) => return,
        Err(error) => {
            let reply: Reply = Err(Refusal {
                kind: RefusalKind::NotUnderstood,
                ..Refusal::other(format!("The question can't be read: {error}."))
            });
            // Who asks in another language may not understand that either.
            let _ = wire.send(&reply, &[]).await;
            return;
        }
    };
    // An error of the connection is that the asker has gone.
    let _ = answer(&owned, &wire, request).await;
}

async fn answer(owned: &Owned, wire: &Wire, request: Request) -> io::Result<()> {
    let reply = match request {
        Request::Exec { .. } | Request::Attach { .. } => return session(owned, wire, request).await,
        Request::Pulls { uid } => return pulls(owned, wire, &uid).await,
        Request::PortForward { uid, port } => match connect(owned, &uid, port).await {
            Ok(stream) => return wire.send(&Reply::Ok(Answer::Descriptor), &[stream.as_fd()]).await,
            Err(refusal) => Err(refusal),
        },
        Request::Root { uid, container } => match root(owned, &uid, &container).await {
            Ok((root, uid, gid)) => {
                return wire
                    .send(&Reply::Ok(Answer::Root { uid, gid }), &[root.as_fd()])
                    .await;
            }
            Err(refusal) => Err(refusal),
        },
        Request::Containers { uid } => containers(owned, &uid).await.map(Answer::Containers),
        Request::Usage { uids } => usage::of(owned, &uids).await.map(Answer::Usage),
        Request::Objects { uid } => owned
            .objects_of(&uid)
            .map(|objects| Answer::Objects(Box::new(SentWorkload::new(Vec::new(), &objects)))),
        Request::Delete { uid, grace } => delete(owned, &uid, grace).map(|()| Answer::Done),
        Request::Restart { uid, containers } => owned.control(&uid).map(|control| {
            control.restart(containers);
            Answer::Done
        }),
        Request::Debug { uid, container } => debug(owned, &uid, *container).map(|()| Answer::Done),
        Request::Change { pod, objects } => {
            change(owned, *pod, objects.into_parts().1).map(|()| Answer::Done)
        }
        Request::Run { workload } => match &owned.taker {
            Some(taker) => Arc::clone(taker)
                .take(*workload)
                .await
                .map(Answer::Taken)
                .map_err(Refusal::other),
            None => Err(Refusal::other("This process runs its own pods only.")),
        },
    };
    wire.send(&reply, &[]).await
}

/// Tells how images come until who asked has gone.
async fn pulls(owned: &Owned, wire: &Wire, uid: &PodUid) -> io::Result<()> {
    if let Err(refusal) = owned.pod(uid) {
        return wire.send(&Reply::Err(refusal), &[]).await;
    }
    wire.send(&Reply::Ok(Answer::Done), &[]).await?;
    let mut frames = owned.node.pulls.frames();
    let tell = async {
        while let Some(now) = frames.next().await {
            wire.send(&now, &[]).await?;
        }
        Ok(())
    };
    tokio::select! {
        told = tell => told,
        // Nothing is asked any more.
        _ = wire.receive::<()>() => Ok(()),
    }
}

/// A command, or a container's own streams: the descriptors are handed over, and what comes over the connection is the
/// terminal's size and the end.
async fn session(owned: &Owned, wire: &Wire, request: Request) -> io::Result<()> {
    let (tty, session) = match open(owned, request).await {
        Ok(session) => session,
        Err(refusal) => return wire.send(&Reply::Err(refusal), &[]).await,
    };
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        end,
        drain,
    } = session;
    let answer = Answer::Session {
        stdin: stdin.is_some(),
        stdout: stdout.is_some(),
        stderr: stderr.is_some(),
        tty,
        drain,
    };
    hand_over(wire, answer, [stdin, stdout, stderr]).await?;
    let sizes = async {
        while let Ok(Some((Resize { width, height }, _))) = wire.receive::<Resize>().await {
            resize.send_replace(Some(TerminalSize { width, height }));
        }
    };
    tokio::select! {
        end = end => {
            let lost = || Err(Refusal::other("The engine ended while the command ran."));
            let result = end.map_or_else(|_| lost(), |end| end.map_err(Refusal::from));
            wire.send(&Ended { result }, &[]).await
        }
        // Who asked has gone.
        () = sizes => Ok(()),
    }
}

/// Sends the streams along; this process keeps none of them.
async fn hand_over(wire: &Wire, answer: Answer, streams: [Option<OwnedFd>; 3]) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = streams.iter().flatten().map(AsFd::as_fd).collect();
    wire.send(&Reply::Ok(answer), &fds).await
}

async fn open(owned: &Owned, request: Request) -> Result<(bool, Session), Refusal> {
    let engine = &owned.node.engine;
    match request {
        Request::Exec {
            uid,
            container,
            command,
            stdin,
            tty,
            size,
        } => {
            let container = owned.running(&uid, &container).await?;
            let options = StreamOptions {
                stdin,
                stdout: true,
                stderr: !tty,
                tty,
                size: size.map(|Resize { width, height }| TerminalSize { width, height }),
            };
            Ok((tty, engine.exec(&container.id, command, options).await?))
        }
        Request::Attach {
            uid,
            container,
            stdin,
        } => {
            let container = owned.running(&uid, &container).await?;
            let options = StreamOptions {
                stdin,
                stdout: true,
                stderr: !container.config.tty,
                tty: container.config.tty,
                size: None,
            };
            Ok((container.config.tty, engine.attach(&container.id, options).await?))
        }
        _ => Err(Refusal::other("This is no question about streams.")),
    }
}

async fn connect(owned: &Owned, uid: &PodUid, port: u16) -> Result<std::net::TcpStream, Refusal> {
    let pod = owned.pod(uid)?;
    let sandboxes = owned.node.engine.list_pod_sandboxes(Some(&uid.0)).await?;
    let ready = sandboxes.into_iter().filter(|sandbox| sandbox.ready);
    let newest = ready.max_by_key(|sandbox| sandbox.config.attempt);
    let newest = newest.ok_or_else(|| {
        Refusal::other(format!(
            "Pod {}/{} has no sandbox yet.",
            spec::namespace(&pod),
            spec::name(&pod)
        ))
    })?;
    let stream = owned.node.engine.port_forward(&newest.id, port).await?;
    stream
        .into_std()
        .map_err(|error| Refusal::other(format!("The connection can't be handed over: {error}.")))
}

/// The root of a container, and its user, as the host numbers it.
async fn root(owned: &Owned, uid: &PodUid, name: &str) -> Result<(std::fs::File, u32, u32), Refusal> {
    let container = owned.running(uid, name).await?;
    let failed =
        |error: io::Error| Refusal::other(format!("The root of container {name} can't be opened: {error}."));
    let process = std::path::PathBuf::from(format!("/proc/{}", container.pid));
    let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
    let root = std::fs::File::options()
        .read(true)
        .custom_flags(flags)
        .open(process.join("root"))
        .map_err(failed)?;
    let cgroup = std::fs::read_to_string(process.join("cgroup")).map_err(failed)?;
    let status = std::fs::read_to_string(process.join("status")).map_err(failed)?;
    // Looked up again, so that the number can't have become another process's before all of this was read.
    let is_its = cgroup.contains(&container.id.0) || owned.node.facts.without_cgroups;
    let same = owned.running(uid, name).await?.id == container.id && is_its;
    if !same {
        return Err(Refusal::other(format!(
            "Container {name} was replaced meanwhile; try again."
        )));
    }
    let effective = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    match (effective("Uid:"), effective("Gid:")) {
        (Some(uid), Some(gid)) => Ok((root, uid, gid)),
        _ => Err(Refusal::other(format!(
            "The kernel does not say who runs container {name}."
        ))),
    }
}

async fn containers(owned: &Owned, uid: &PodUid) -> Result<Vec<ContainerSummary>, Refusal> {
    owned.pod(uid)?;
    let containers = owned.node.engine.list_containers(Some(&uid.0)).await?;
    let summary = |container: ContainerStatus| ContainerSummary {
        name: container.config.name,
        id: container.id.0,
        pid: container.pid,
        state: format!("{:?}", container.state).to_lowercase(),
        attempt: container.config.attempt,
    };
    Ok(containers.into_iter().map(summary).collect())
}

fn delete(owned: &Owned, uid: &PodUid, grace: Option<std::time::Duration>) -> Result<(), Refusal> {
    let control = owned.control(uid)?;
    if let Some(taker) = &owned.taker {
        taker.leave(uid).map_err(unkept)?;
    }
    control.delete(grace);
    Ok(())
}

/// The pod of which this process knows has the container at once: the next one must have another name.
fn debug(owned: &Owned, uid: &PodUid, container: EphemeralContainer) -> Result<(), Refusal> {
    let control = owned.control(uid)?;
    let pod = super::super::debug::with(&*owned.pod(uid)?, container.clone()).map_err(Refusal::other)?;
    owned.add(uid.clone(), Arc::new(pod), Some(control.clone()));
    control.debug(container);
    Ok(())
}

/// What the pod is from now on is kept first; the rest is the worker's.
fn change(owned: &Owned, pod: Pod, objects: Objects) -> Result<(), Refusal> {
    let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
    let control = owned.control(&uid)?;
    if let Some(taker) = &owned.taker {
        taker.change(&pod, &objects).map_err(unkept)?;
    }
    let (pod, objects) = (Arc::new(pod), Arc::new(objects));
    owned.keep(uid.clone(), Arc::clone(&objects));
    owned.add(uid, Arc::clone(&pod), Some(control.clone()));
    control.change(pod, objects);
    Ok(())
}

fn unkept(error: io::Error) -> Refusal {
    Refusal::other(format!("The daemon can't keep what it is told: {error}."))
}

/// The directory of the sockets of those who run pods, for this user only.
pub(super) fn make_directory(directory: &std::path::Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
