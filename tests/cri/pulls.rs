//! Images from registries that misbehave, and images that vanish.

use std::time::Instant;

use berth_cri::v1;
use tonic::{Code, Status};

use crate::daemon::{Client, Daemon, IMAGE, PATIENCE, container};
use crate::registry::{Manner, Registry};
use berth_tests::Node;

const IMPATIENT: &str = "[images]\npull_progress_timeout = 1\n";

impl Client {
    async fn pull(&mut self, image: &str) -> Result<String, Status> {
        let request = v1::PullImageRequest {
            image: Some(spec(image)),
            ..Default::default()
        };
        let pull = tokio::time::timeout(PATIENCE, self.images.pull_image(request)).await;
        Ok(pull.expect("the pull ends")?.into_inner().image_ref)
    }

    async fn has(&mut self, image: &str) -> bool {
        let request = v1::ImageStatusRequest {
            image: Some(spec(image)),
            verbose: false,
        };
        let status = self.images.image_status(request).await.unwrap();
        status.into_inner().image.is_some()
    }

    async fn remove_image(&mut self, image: &str) -> Result<(), Status> {
        let image = Some(spec(image));
        self.images.remove_image(v1::RemoveImageRequest { image }).await?;
        Ok(())
    }
}

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}

#[test]
fn a_registry_that_hangs_is_given_up_and_holds_nobody_up() {
    let daemon = Daemon::start_on(Node::new(), IMPATIENT);
    let registry = Registry::start();
    let put = |name: &str, manner| registry.put(daemon.node.scratch(), name, manner, 100_000);
    let mut hanging = vec![put("silent", Manner::Silent), put("trickle", Manner::Trickles)];
    // More than there are layers at a time.
    hanging.extend((0..6).map(|number| put(&format!("stops{number}"), Manner::Stops)));
    let good = put("good", Manner::Honest);
    daemon.with(async |client| {
        let pulls = hanging.iter().map(|image| {
            let (image, mut client) = (image.clone(), client.clone());
            tokio::spawn(async move { (client.pull(&image).await, image) })
        });
        let pulls: Vec<_> = pulls.collect();
        for number in 0..6 {
            registry.await_open(&format!("stops{number}"), 1).await;
        }
        let mut client = client;
        client.pull(&good).await.unwrap();
        for pull in pulls {
            let (outcome, image) = pull.await.unwrap();
            let failure = outcome.unwrap_err();
            assert!(failure.message().contains(&image), "{failure}");
            assert!(failure.message().contains("1 seconds"), "{failure}");
            assert!(!client.has(&image).await, "{image}");
        }
        // When the registry is well again, so are its images.
        registry.set("stops0", Manner::Honest);
        client.pull(&hanging[2]).await.unwrap();
    });
    daemon.finish();
}

#[test]
fn a_pull_ends_with_its_call_and_no_other_does() {
    let daemon = Daemon::start();
    let registry = Registry::start();
    let image = registry.put(daemon.node.scratch(), "shared", Manner::Stops, 100_000);
    daemon.with(async |client| {
        let start = || {
            let (image, mut client) = (image.clone(), client.clone());
            tokio::spawn(async move { client.pull(&image).await })
        };
        let first = start();
        registry.await_open("shared", 1).await;
        let second = start();
        let third = start();
        // They join the first one's download. Who calls off is not waited for.
        assert_eq!(registry.asked("shared"), 1);
        first.abort();
        registry.await_asked("shared", 2).await;
        third.abort();
        registry.set("shared", Manner::Honest);
        second.await.unwrap().unwrap();
        // Nobody wants this one any more, so its download ends.
        let mut client = client.clone();
        client.remove_image(&image).await.unwrap();
        registry.set("shared", Manner::Stops);
        let last = {
            let (image, mut client) = (image.clone(), client.clone());
            tokio::spawn(async move { client.pull(&image).await })
        };
        registry.await_open("shared", 1).await;
        last.abort();
        registry.await_open("shared", 0).await;
    });
    daemon.finish();
}

#[test]
fn an_image_that_vanishes_while_it_is_pulled_is_an_error_and_no_more() {
    let daemon = Daemon::start();
    let registry = Registry::start();
    let image = registry.put(daemon.node.scratch(), "gone", Manner::Forgetful, 100_000);
    daemon.with(async |mut client| {
        let failure = client.pull(&image).await.unwrap_err();
        assert!(failure.message().contains(&image), "{failure}");
        assert!(!client.has(&image).await);
        registry.set("gone", Manner::Honest);
        client.pull(&image).await.unwrap();
        assert!(client.has(&image).await);
        assert_eq!(registry.asked("gone"), 1);
    });
    daemon.finish();
}

#[test]
fn an_image_that_is_removed_while_it_is_pulled_is_there_afterwards() {
    let daemon = Daemon::start();
    let registry = Registry::start();
    let image = registry.put(daemon.node.scratch(), "busy", Manner::Honest, 100_000);
    daemon.with(async |mut client| {
        client.pull(&image).await.unwrap();
        client.remove_image(&image).await.unwrap();
        registry.set("busy", Manner::Stops);
        let pull = {
            let (image, mut client) = (image.clone(), client.clone());
            tokio::spawn(async move { client.pull(&image).await })
        };
        registry.await_open("busy", 1).await;
        client.remove_image(&image).await.unwrap();
        client.remove_image(IMAGE).await.unwrap();
        registry.set("busy", Manner::Honest);
        let id = pull.await.unwrap().unwrap();
        assert!(client.has(&image).await && client.has(&id).await);
    });
    daemon.finish();
}

#[test]
fn an_image_that_is_removed_while_a_container_is_made_of_it() {
    let daemon = Daemon::start();
    let registry = Registry::start();
    let name = registry.put(daemon.node.scratch(), "racing", Manner::Honest, 1000);
    let pod = daemon.sandbox("racing");
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let (mut made, mut refused) = (0, 0);
        let began = Instant::now();
        let mut attempt = 0;
        // Until both outcomes were seen, or it is clear that one is rare.
        while (made == 0 || refused == 0 || attempt < 20) && began.elapsed() < PATIENCE {
            client.pull(&name).await.unwrap();
            let mut config = container("c", &[]);
            config.metadata.as_mut().unwrap().attempt = attempt;
            config.image = Some(spec(&name));
            let (mut creator, mut remover) = (client.clone(), client.clone());
            let (created, removed) = tokio::join!(
                creator.create(&sandbox, &pod, config),
                remover.remove_image(&name)
            );
            removed.unwrap();
            match created {
                Ok(id) => {
                    made += 1;
                    // What it needs is kept for it.
                    let state = client.status(&id).await.unwrap().state();
                    assert_eq!(state, v1::ContainerState::ContainerCreated);
                    client.remove(&id).await.unwrap();
                }
                Err(status) => {
                    refused += 1;
                    assert!(
                        matches!(status.code(), Code::NotFound | Code::Unknown)
                            && status.message().contains("image"),
                        "{status}"
                    );
                }
            }
            attempt += 1;
        }
        println!("{made} were made, {refused} came too late");
        assert!(made + refused > 10);
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}
