//! Images that are being pulled right now, for those who watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{LayerState, PullProgress};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The pulls of a node. Who pulls writes them down, who shows them looks.
#[derive(Clone, Debug, Default)]
pub struct Pulls(Arc<watch::Sender<Coming>>);

impl Pulls {
    /// Begins to pull an image, until what is given back is dropped. Several may pull the same one.
    pub fn begin(&self, image: &str) -> Pull {
        self.0.send_modify(|coming| {
            coming.0.entry(image.to_owned()).or_default().pulls += 1;
        });
        Pull {
            pulls: self.clone(),
            image: image.to_owned(),
        }
    }

    /// What comes, from now on.
    pub fn frames(&self) -> Frames {
        Frames {
            coming: self.0.subscribe(),
            last: None,
        }
    }
}

/// How often people are shown what comes.
const FRAME: Duration = Duration::from_millis(100);

/// What comes, for people to look at.
#[derive(Debug)]
pub struct Frames {
    coming: watch::Receiver<Coming>,
    last: Option<Instant>,
}

impl Frames {
    /// What comes now: at once, then whenever it is something else, and no more often than anybody sees. `None` if nothing
    /// will ever come again.
    pub async fn next(&mut self) -> Option<Coming> {
        if let Some(last) = self.last {
            sleep_until(last + FRAME).await;
            self.coming.changed().await.ok()?;
        }
        self.last = Some(Instant::now());
        Some(self.coming.borrow_and_update().clone())
    }
}

/// One pull of an image.
#[derive(Debug)]
pub struct Pull {
    pulls: Pulls,
    image: String,
}

impl Pull {
    /// A layer has come this far.
    pub fn update(&self, at: PullProgress) {
        self.pulls.0.send_if_modified(|coming| {
            let Some(image) = coming.0.get_mut(&self.image) else {
                return false;
            };
            let new = ComingLayer {
                layer: at.layer,
                done: at.done,
                total: at.total,
                state: at.state,
            };
            match image.layers.iter_mut().find(|known| known.layer == new.layer) {
                Some(known) if *known == new => return false,
                Some(known) => *known = new,
                None => image.layers.push(new),
            }
            true
        });
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.pulls.0.send_modify(|coming| {
            let last = coming.0.get_mut(&self.image).is_none_or(|image| {
                image.pulls = image.pulls.saturating_sub(1);
                image.pulls == 0
            });
            if last {
                coming.0.remove(&self.image);
            }
        });
    }
}

/// Images that come, by the names that pods have for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming(BTreeMap<String, ComingImage>);

impl Coming {
    /// Each image with its layers.
    pub fn images(&self) -> impl Iterator<Item = (&str, &[ComingLayer])> {
        self.0
            .iter()
            .map(|(image, coming)| (image.as_str(), coming.layers.as_slice()))
    }

    /// Only those images that are wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|image, _| wanted(image));
    }

    /// Nothing comes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An image that comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ComingImage {
    /// How many pull it.
    pulls: usize,
    /// Its layers, in the order in which they were heard of.
    layers: Vec<ComingLayer>,
}

/// A layer that comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComingLayer {
    /// Its digest.
    pub layer: String,
    /// Bytes that came so far.
    pub done: u64,
    /// Bytes of it as it is transferred.
    pub total: u64,
    /// What is happening to it.
    pub state: LayerState,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(layer: &str, done: u64) -> PullProgress {
        PullProgress {
            layer: layer.to_owned(),
            done,
            total: 10,
            state: LayerState::Fetching,
        }
    }

    fn shown(pulls: &Pulls) -> Vec<(String, Vec<(String, u64)>)> {
        let now = pulls.0.subscribe().borrow().clone();
        let layers = |layers: &[ComingLayer]| layers.iter().map(|l| (l.layer.clone(), l.done)).collect();
        now.images()
            .map(|(image, of)| (image.to_owned(), layers(of)))
            .collect()
    }

    #[test]
    fn an_image_is_there_as_long_as_anybody_pulls_it() {
        let pulls = Pulls::default();
        let mut watch = pulls.0.subscribe();
        let one = pulls.begin("a");
        let other = pulls.begin("a");
        let b = pulls.begin("b");
        one.update(at("x", 1));
        other.update(at("x", 2));
        one.update(at("y", 3));
        assert_eq!(
            shown(&pulls),
            [
                ("a".to_owned(), vec![("x".to_owned(), 2), ("y".to_owned(), 3)]),
                ("b".to_owned(), vec![])
            ]
        );
        watch.mark_unchanged();
        other.update(at("x", 2));
        assert!(!watch.has_changed().unwrap(), "nothing is news");
        drop(one);
        drop(b);
        assert_eq!(shown(&pulls).len(), 1);
        drop(other);
        assert_eq!(shown(&pulls), []);
        assert!(watch.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_shown_at_once_and_then_in_frames() {
        let pulls = Pulls::default();
        let mut frames = pulls.frames();
        let begun = Instant::now();
        assert!(frames.next().await.unwrap().is_empty());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let one = pulls.begin("a");
        for done in 0..10 {
            one.update(at("l", done));
        }
        let seen = frames.next().await.unwrap();
        assert_eq!(seen.images().next().unwrap().1[0].done, 9);
        assert_eq!(begun.elapsed(), FRAME);
        // Nothing new is nothing to see.
        let next = tokio::time::timeout(Duration::from_secs(60), frames.next());
        assert!(next.await.is_err());
        drop(one);
        assert!(frames.next().await.unwrap().is_empty());
    }
}
